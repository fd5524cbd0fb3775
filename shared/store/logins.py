"""Logins: one at a time per account over all processes, spaced per egress address, fenced.

Knows: who may log in, when, and whose result counts. Does not know: how to log in.

    claim → FreshToken   use it
          → Wait         another one logs in (or the next free slot is far): come back
          → Claim        log in after `start_in_ms`, then `store`, `fail` or `give_up`

An account that isn't there yet is logged in under a claim of the same kind (`claim_new`), and added
with its token: a login that failed leaves no account behind.

A fence is a number that only grows. `store` with a fence lower than the account's highest is
refused: a claimer that was frozen past its time can't overwrite what its successor got.

A caller may be cancelled at any await. Then no claim stays behind that nobody serves: what Redis is
asked runs to its end all the same, and a claim whose asker is gone is given up. Otherwise everybody
who needs that account would wait until the claim lapses.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import msgspec

from shared.errors import (
    AccountDead,
    Conflict,
    GatewayError,
    LoginFailed,
    LoginsCrowded,
    NoAccount,
    NotFound,
    UpstreamBlocked,
)
from shared.sealing import SealBroken, Sealer
from shared.store import keys
from shared.store.connection import Connection
from shared.store.outcome import EgressRest, rest_fact
from shared.store.settings import SettingsInForce
from shared.store.subscriber import Subscriber
from shared.store.waiters import Woken

log = logging.getLogger(__name__)

T = TypeVar("T")

# A sign-in takes at most 10 s; a claimer silent for longer than this is dead.
CLAIM_TTL_SECONDS: Final = 30.0
# A token this close to its end is not worth beginning a turn with.
FRESH_MARGIN_SECONDS: Final = 60
_LOOK_AGAIN_SECONDS = 1.0


class FreshToken(msgspec.Struct, frozen=True):
    """An access token in clear, when it lapses (epoch seconds), and its version."""

    access_token: str
    expires_at: float
    version: str

    def __repr__(self) -> str:
        return f"FreshToken(version={self.version})"


class Wait(msgspec.Struct, frozen=True):
    """Another one logs in, or (`spaced`) no login may start within the caller's patience."""

    milliseconds: int
    spaced: bool = False


class Claim(msgspec.Struct, frozen=True):
    """The right to log this account in, beginning after `start_in_ms`; secrets are in clear."""

    account: str
    fence: int
    start_in_ms: int
    password: str
    proxy: str
    cookies: str
    egress: str

    def __repr__(self) -> str:
        return f"Claim(fence={self.fence}, start_in_ms={self.start_in_ms})"


class Logins:
    """The single flight of logins."""

    def __init__(
        self, connection: Connection, sealer: Sealer, *, settings: SettingsInForce
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._settings = settings
        self._waiting: dict[str, set[Woken]] = {}
        self._subscriber = Subscriber(connection, keys.LOGIN_CHANNEL, self._wake)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def claim(
        self,
        account: str,
        *,
        rejected_version: str = "",
        patience_seconds: float = 60,
        margin_seconds: float = FRESH_MARGIN_SECONDS,
        by_hand: bool = False,
    ) -> FreshToken | Wait | Claim:
        """Answers what the caller is to do for a fresh token, without waiting.

        Args:
            rejected_version: version of the token that is not wanted any more.
            patience_seconds: no claim is given that could only start later than this.
            margin_seconds: a token that lapses sooner is not fresh (refresh ahead with hours).
            by_hand: an operator wants it to be tried, also on a dead or disabled account.

        Raises:
            AccountDead: it can't log in until an operator mends it.
            LoginFailed: its last login failed a moment ago (`retry_after_seconds` is the pause),
                or its secrets can't be read with this `SECRET_KEY`.
            UpstreamBlocked: its egress address rests, the firewall refuses it.
            NoAccount: it is disabled.
            NotFound: it was deleted.
            StoreUnavailable: Redis did not answer.

        Script: login_claim.lua
        """
        reply = await self._connection.run(
            "login_claim",
            keys.POOL,
            account,
            rejected_version,
            int(margin_seconds),
            int(CLAIM_TTL_SECONDS * 1000),
            self._settings.current.login_min_interval_ms,
            int(patience_seconds * 1000),
            "1" if by_hand else "",
        )
        match reply:
            case ["fresh", token, expires_at, version]:
                return FreshToken(self._unseal(account, "token", token), float(expires_at), version)
            case ["claim", fence, start_in_ms, password, proxy, cookies, egress]:
                return Claim(
                    account=account,
                    fence=fence,
                    start_in_ms=start_in_ms,
                    password=self._unseal(account, "password", password),
                    proxy=self._unseal(account, "proxy", proxy),
                    cookies=self._unseal(account, "cookies", cookies),
                    egress=egress,
                )
            case ["wait", milliseconds]:
                return Wait(milliseconds)
            case ["later", milliseconds]:
                return Wait(milliseconds, spaced=True)
            case ["refused", reason, milliseconds]:
                raise LoginFailed(reason, retry_after_seconds=max(1, milliseconds / 1000))
            case ["blocked", milliseconds]:
                raise UpstreamBlocked(retry_after_seconds=max(1, milliseconds / 1000))
            case ["dead", reason]:
                raise AccountDead(reason or None)
            case ["disabled"]:
                raise NoAccount("This account is disabled.")
            case _:
                raise NotFound("There is no such account.")

    async def claim_new(
        self,
        account: str,
        *,
        password: str,
        proxy: str,
        egress: str,
        patience_seconds: float = 60,
    ) -> Wait | Claim:
        """Like `claim` for an account that isn't there yet: who logs in to add it.

        Raises:
            Conflict: it is there.
            UpstreamBlocked: the egress address rests.
            StoreUnavailable: Redis did not answer.

        Script: login_claim_new.lua
        """
        claiming = self._claim_new(account, password, proxy, egress, patience_seconds)
        return await self._claim_or_give_up(claiming)

    async def token_version(self, account: str) -> str:
        """The version of the account's token, `""` when it has none.

        Raises:
            NotFound: there is no such account.
        """
        reply = await self._connection.ask(
            "token_version", "HGET", keys.account(account), "token_version"
        )
        if reply is None:
            raise NotFound("There is no such account.")
        return str(reply)

    async def claim_or_wait(
        self,
        account: str,
        *,
        rejected_version: str = "",
        wait_seconds: float = 60,
        margin_seconds: float = FRESH_MARGIN_SECONDS,
        by_hand: bool = False,
    ) -> FreshToken | Claim:
        """Like `claim`, but waits while another one logs in.

        Raises:
            LoginsCrowded: nobody finished, or its turn does not come, within `wait_seconds`.
            others: as `claim`.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_seconds
        woken = Woken()
        listening = False
        try:
            while True:
                left = deadline - clock()
                answer = await self._claim_or_give_up(
                    self.claim(
                        account,
                        rejected_version=rejected_version,
                        patience_seconds=max(0, left),
                        margin_seconds=margin_seconds,
                        by_hand=by_hand,
                    )
                )
                if not isinstance(answer, Wait):
                    return answer
                if answer.spaced or left <= 0:
                    pause = max(1, answer.milliseconds / 1000)
                    raise LoginsCrowded(retry_after_seconds=pause)
                if not listening:  # and look once more: it may have ended before we listened
                    self._waiting.setdefault(account, set()).add(woken)
                    await self._subscriber.start()
                    listening = True
                    continue
                await woken.wait(min(left, _LOOK_AGAIN_SECONDS))
        finally:
            self._stop_listening(account, woken)  # no await: there may be a claim in our hands

    async def store(self, claim: Claim, access_token: str, *, expires_at: float) -> str | None:
        """The new token is the account's; returns its version, None when a later login was begun.

        Args:
            expires_at: epoch seconds.

        Script: login_store.lua
        """
        place = f"{keys.account(claim.account)}#token"
        stored = await self._surely(
            self._connection.run(
                "login_store",
                keys.POOL,
                claim.account,
                claim.fence,
                self._sealer.seal(access_token, place=place),
                repr(float(expires_at)),
                self._settings.current.account_concurrency,
            )
        )
        return str(claim.fence) if stored else None

    async def fail(
        self,
        claim: Claim,
        *,
        code: str,
        reason: str,
        dead: bool = False,
        pause_seconds: float = 0,
        egress_rest: EgressRest | None = None,
    ) -> bool:
        """The login failed: all who wait for it hear `reason`; returns False for a stale claim.

        Without `dead` and pause the next of those who wait logs in at once.

        Args:
            dead: the account can't log in until an operator mends it.
            pause_seconds: otherwise, how long it rests and nobody tries again.
            egress_rest: the firewall refused the egress address: it rests, not the account.
        """
        noted = await self._surely(
            self._connection.run(
                "login_fail",
                keys.POOL,
                claim.account,
                claim.fence,
                code,
                reason,
                "1" if dead else "",
                int(pause_seconds * 1000),
                self._settings.current.account_concurrency,
                rest_fact(egress_rest),
                claim.egress,
            )
        )
        return bool(noted)

    async def give_up(self, claim: Claim) -> bool:
        """Nobody logs in under this claim any more, and nothing was learned: its caller has left.

        Whoever waits claims at once. Returns False for a stale claim.

        Script: login_give_up.lua
        """
        given_up = await self._surely(
            self._connection.run("login_give_up", keys.POOL, claim.account, claim.fence)
        )
        return bool(given_up)

    async def close(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._subscriber.stop()

    async def _claim_new(
        self, account: str, password: str, proxy: str, egress: str, patience_seconds: float
    ) -> Wait | Claim:
        reply = await self._connection.run(
            "login_claim_new",
            keys.POOL,
            account,
            egress,
            int(CLAIM_TTL_SECONDS * 1000),
            self._settings.current.login_min_interval_ms,
            int(patience_seconds * 1000),
        )
        match reply:
            case ["claim", fence, start_in_ms]:
                return Claim(
                    account=account,
                    fence=fence,
                    start_in_ms=start_in_ms,
                    password=password,
                    proxy=proxy,
                    cookies="",
                    egress=egress,
                )
            case ["wait", milliseconds]:
                return Wait(milliseconds)
            case ["later", milliseconds]:
                return Wait(milliseconds, spaced=True)
            case ["blocked", milliseconds]:
                raise UpstreamBlocked(retry_after_seconds=max(1, milliseconds / 1000))
            case _:
                raise Conflict("There is an account with this e-mail address.")

    async def _claim_or_give_up(self, claiming: Coroutine[Any, Any, T]) -> T:
        """What `claiming` answers; a claim that comes after its asker was cancelled is given up."""
        asking = self._spawn(claiming)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._spawn(self._give_up_unwanted(asking))
            raise

    async def _give_up_unwanted(self, asking: "asyncio.Task[T]") -> None:
        try:
            answer = await asking
            if isinstance(answer, Claim):
                await self.give_up(answer)
        except GatewayError as error:
            log.info("a claim may stay until it lapses", extra={"error": type(error).__name__})

    async def _surely(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs to its end, also when whoever asked for it is cancelled meanwhile."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has heard it, unless he was cancelled

    def _unseal(self, account: str, field: str, sealed: str) -> str:
        try:
            return self._sealer.unseal(sealed, place=f"{keys.account(account)}#{field}")
        except SealBroken as error:
            raise LoginFailed(f"Its {field} can't be read: {error}.") from error

    def _wake(self, account: str | None) -> None:
        sleepers = (
            self._waiting.values() if account is None else [self._waiting.get(account, set())]
        )
        for woken in [woken for some in sleepers for woken in some]:
            woken.set()

    def _stop_listening(self, account: str, woken: Woken) -> None:
        waiting = self._waiting.get(account)
        if waiting is None:
            return
        waiting.discard(woken)
        if not waiting:
            del self._waiting[account]
        if not self._waiting:
            self._spawn(self._unsubscribe())

    async def _unsubscribe(self) -> None:
        if not self._waiting:  # nobody has come since
            await self._subscriber.stop()
