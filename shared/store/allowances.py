"""Allowances: how many turns of an API key run at once, and the tokens it may use in a UTC day.

Knows: what a key has under way over all processes. Does not know: what a turn is, who waits.

A turn takes its allowance before it asks the upstream for anything, and sets tokens aside for what
it may use; what it did use is in the ledger before that is given back. So turns that run at once
can't all pass the same last bit of a budget: beyond it goes what one turn uses more than it had set
aside, and the turn that came last.

    take ── the turn runs ── finish (its last byte may go out) ── the ledger knows ── give_back

What dead processes hold lapses. Redis away: nothing begins, as nothing could be lent either.
"""

import itertools
import logging
import secrets
from collections.abc import Awaitable
from typing import Final, Literal

import msgspec

from shared.errors import StoreUnavailable
from shared.store import keys
from shared.store.api_keys import ApiKey
from shared.store.connection import Connection

log = logging.getLogger(__name__)

ALLOWANCE_TTL_SECONDS: Final = 30.0

Refused = Literal["streams", "spent", "reserved"]


class Allowance(msgspec.Struct, frozen=True):
    """The right of one turn to run on account of a key."""

    key_id: str
    token: str
    tokens: int
    budgeted: bool


class Refusal(msgspec.Struct, frozen=True):
    """Why a turn may not begin.

    Attributes:
        reason: `streams`: as many run as may · `spent`: the day's tokens are used up · `reserved`:
            what is left of them is set aside by turns that run.
        seconds: until the day ends, where it is spent.
    """

    reason: Refused
    seconds: float = 0


class Allowances:
    """The allowances of one process."""

    def __init__(
        self, connection: Connection, *, ttl_seconds: float = ALLOWANCE_TTL_SECONDS
    ) -> None:
        """`ttl_seconds`: after so long without extension a turn doesn't count any more."""
        self._connection = connection
        self._ttl_ms = int(ttl_seconds * 1000)
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._held: dict[str, tuple[str, str]] = {}  # token → key id, `<tokens> <counts>`
        self._orphans: dict[str, str] = {}  # token → key id: whoever asked for it has left

    async def take(self, key: ApiKey, *, tokens: int) -> Allowance | Refusal:
        """One more turn of this key may run, or why not.

        Args:
            tokens: how many it sets aside at least; what the key's turns of today used on average
                when that is more.

        Raises:
            StoreUnavailable: Redis did not answer; nothing is held for longer than its life.

        Script: allowance_take.lua
        """
        token = f"{self._process}.{next(self._numbers)}"
        try:
            answer, number = await self._connection.run(
                "allowance_take",
                keys.LEDGER,
                key.id,
                token,
                self._ttl_ms,
                key.max_streams or 0,
                key.daily_token_budget or 0,
                tokens if key.daily_token_budget else 0,
            )
        except BaseException:
            # Cancelled or timed out: the script may have run or may yet run.
            self._orphans[token] = key.id
            raise
        if answer != "taken":
            return Refusal(answer, number / 1000 if answer == "spent" else 0)
        self._held[token] = key.id, f"{number} 1"
        return Allowance(
            key_id=key.id, token=token, tokens=number, budgeted=bool(key.daily_token_budget)
        )

    async def finish(self, allowance: Allowance, *, used_tokens: int) -> None:
        """The turn counts as under way no longer; what it used is set aside until `give_back`.

        Call it before its last byte goes out: who has seen an answer's end may ask for the next.
        """
        if not allowance.budgeted:
            await self.give_back(allowance)
        elif allowance.token in self._held:
            self._held[allowance.token] = allowance.key_id, f"{used_tokens} 0"
            await _quietly(self._extend(allowance.key_id, [allowance.token]))

    async def give_back(self, allowance: Allowance) -> None:
        """Nothing is held for the turn any more. Redis away: it lapses."""
        if self._held.pop(allowance.token, None) is not None:
            await _quietly(self._remove(allowance.key_id, allowance.token))

    async def extend_all(self) -> None:
        """What this process holds lives on. The open store calls it at a third of its life.

        Script: allowance_extend.lua
        """
        for token, key_id in list(self._orphans.items()):
            await self._remove(key_id, token)
            del self._orphans[token]
        of_keys: dict[str, list[str]] = {}
        for token, (key_id, _) in self._held.items():
            of_keys.setdefault(key_id, []).append(token)
        for key_id, tokens in of_keys.items():
            await self._extend(key_id, tokens)

    async def _extend(self, key_id: str, tokens: list[str]) -> None:
        held = {token: self._held[token][1] for token in tokens if token in self._held}
        if not held:
            return
        words = [word for pair in held.items() for word in pair]
        await self._connection.run("allowance_extend", keys.LEDGER, key_id, self._ttl_ms, *words)
        for token, told in held.items():
            now = self._held.get(token)
            if now is None:  # given back meanwhile, and overtaken on the wire
                await self._remove(key_id, token)
            elif now[1] != told:  # finished meanwhile
                await self._extend(key_id, [token])

    async def _remove(self, key_id: str, token: str) -> None:
        await self._connection.ask(
            "allowance_give_back", "HDEL", keys.ledger_running(key_id), token
        )


async def _quietly(asked: Awaitable[None]) -> None:
    try:
        await asked
    except StoreUnavailable:
        log.info("an allowance is left to lapse, store away")
