"""Leases: the time-limited right to one of an account's slots, proved by a token.

Knows: acquiring, waiting in line, giving back with what was learned, keeping leases alive. Does not
know: logging in, the upstream, why an attempt failed.

A chat turn costs two round trips: `lend` and `release`. The rules of the pool are in
`lua/pool.lua`; the line of those who wait is kept by `waiters.py`.
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Coroutine
from typing import Any, Final, Literal

import msgspec

from shared.errors import AccountsExhausted, NoAccount, StoreUnavailable, UpstreamBlocked
from shared.sealing import SealBroken, Sealer
from shared.settings import Settings
from shared.store import keys
from shared.store.connection import Connection, Reply
from shared.store.outcome import (
    COMMON_FAILURE_CAP_SECONDS,
    NOTHING_LEARNED,
    QUOTA,
    SERVED,
    Cooldown,
    EgressRest,
    Outcome,
    facts_of,
)
from shared.store.settings import SettingsInForce
from shared.store.waiters import Waiters

__all__ = [
    "CAPABILITIES",
    "COMMON_FAILURE_CAP_SECONDS",
    "NOTHING_LEARNED",
    "QUOTA",
    "SERVED",
    "Capability",
    "Cooldown",
    "EgressRest",
    "Lease",
    "Leases",
    "Outcome",
]

log = logging.getLogger(__name__)

Capability = Literal["chat", "image", "video"]
CAPABILITIES: Final[tuple[Capability, ...]] = ("chat", "image", "video")

# A waiter looks again by itself after so long, to learn that waiting has become pointless.
_LOOK_AGAIN_SECONDS = 5.0
_RECLAIM_AT_ONCE = 500
_SET_ASIDE_SECONDS = 60.0
_SET_ASIDE_AT_MOST = 10
_NOTHING_TOLD = ("", "")


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of one account, with what a request through it needs. Secrets are in clear here."""

    token: str
    account: str
    capability: Capability
    generation: str
    access_token: str
    token_expires_at: float
    token_version: str
    proxy: str
    cookies: str
    egress: str
    probing: bool

    @property
    def signed_in(self) -> bool:
        """Whether the account has an access token, fresh or not."""
        return bool(self.access_token)

    def __repr__(self) -> str:
        return f"Lease({self.token}, {self.capability}, egress={self.egress})"


class Leases:
    """The pool's door for one process."""

    def __init__(
        self,
        connection: Connection,
        sealer: Sealer,
        *,
        settings: SettingsInForce,
        ttl_seconds: float,
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._settings = settings
        self._ttl_ms = int(ttl_seconds * 1000)
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._held: dict[str, str] = {}  # lease token → its record in `lent`
        # Lease tokens of which nobody knows whether they are lent → what to release them with.
        self._abandoned: dict[str, tuple[str, str]] = {}
        self._asking: set[str] = set()  # tokens that somebody here still wants a lease for
        self._waiters = Waiters(
            connection, process=self._process, settings=settings, unknown=self._drop_ghost
        )
        self._tasks: set[asyncio.Task[None]] = set()
        settings.on_change(self._note_new_limit)

    async def acquire(
        self, capability: Capability, *, tried: frozenset[str] = frozenset()
    ) -> Lease:
        """Lend the account that has been ready longest, or say at once why there is none.

        Args:
            tried: accounts that are lent only when nothing else is ready.

        Raises:
            NoAccount: all busy or resting for a moment, or none usable at all.
            AccountsExhausted: the first account to be ready again has used up its quota.
            UpstreamBlocked: the first egress to be ready again is refused by the firewall.
            StoreUnavailable: Redis did not answer; nothing was lent for longer than the lease.

        Script: lease_acquire.lua
        """
        token = self._new_token()
        reply = await self._try(capability, token, wait_ms=0, tried=tried)
        if isinstance(reply, Lease):
            return reply
        raise _refusal(reply, waited_seconds=0)

    async def lend(
        self,
        capability: Capability,
        *,
        wait_seconds: float = 0,
        tried: frozenset[str] = frozenset(),
    ) -> Lease:
        """Like `acquire`, but waits in line, first come first served over all processes.

        Fails at once when no account can be ready within `wait_seconds`, otherwise after them.
        Cancelling it gives up the place, and the lease if one was lent meanwhile.
        """
        token = self._new_token()
        self._asking.add(token)
        try:
            reply = await self._try_or_wait(capability, token, wait_seconds, tried)
        except BaseException:
            # Also when it was cancelled on its first try: the script may have queued it already.
            await self._leave(capability, token)
            raise
        finally:
            self._asking.discard(token)
        if isinstance(reply, Lease):
            return reply
        if reply[0] == "wait":
            await self._leave(capability, token)
            raise _refusal(reply, waited_seconds=wait_seconds)
        raise _refusal(reply, waited_seconds=0)

    async def release(self, lease: Lease, outcome: Outcome = NOTHING_LEARNED) -> bool:
        """The slot is free again and what was learned is written down, in one step.

        Returns whether the lease was still this one's: a lapsed lease changes nothing.

        Raises:
            StoreUnavailable: Redis did not answer; the next `extend_all` that reaches it releases
                the lease with this outcome, unless it has lapsed by then.

        Script: lease_release.lua
        """
        self._held.pop(lease.token, None)
        told = "1" if outcome.ok else "", facts_of(outcome, token_version=lease.token_version)
        try:
            return bool(await self._release(lease.token, told))
        except (StoreUnavailable, asyncio.CancelledError):
            self._abandoned[lease.token] = told
            raise

    async def prove(self, lease: Lease) -> None:
        """Ends the cooldown a probing lease was to probe: its account has begun to answer.

        Call it at the first event of a turn, only if `lease.probing`; without it the account stays
        limited to this one request of its capability until the release.
        """
        if lease.probing:
            await self._connection.run("lease_prove", keys.POOL, lease.token, self._concurrency)

    async def extend_all(self) -> None:
        """Every lease of this process lives on for its full time to live, in one call for all.

        The open store calls it at every third of that time.

        One that had lapsed takes its slot again (lua/lease_extend.lua). Leases of which this
        process does not know whether they were lent are given back.
        """
        await self._give_back_abandoned()
        asked = list(self._held.items())
        if not asked:
            return
        pairs = [word for pair in asked for word in pair]
        answers: list[int] = await self._connection.run(
            "lease_extend", keys.POOL, self._ttl_ms, self._concurrency, *pairs
        )
        for (token, _), answer in zip(asked, answers, strict=True):
            if answer == 2:
                log.info("lapsed lease taken again", extra={"lease": token})
            if answer == 2 and token not in self._held:
                # Released while the extension was under way and overtaken by it on the wire.
                self._abandoned[token] = _NOTHING_TOLD
        await self._give_back_abandoned()

    async def reclaim(self) -> int:
        """Takes back what dead processes held; returns how many leases had lapsed."""
        total = 0
        while True:
            count: int = await self._connection.run(
                "lease_reclaim", keys.POOL, self._concurrency, _RECLAIM_AT_ONCE
            )
            total += count
            if count < _RECLAIM_AT_ONCE:
                return total

    async def relist(self) -> None:
        """Accounts in use are listed by the limit of all accounts as it is in force now.

        Without it a raised limit would wait for the next release, a lowered one be exceeded.

        Script: pool_limit.lua
        """
        await self._connection.run("pool_limit", keys.POOL, self._concurrency)

    async def close(self) -> None:
        """Gives back what cancelled requests may still hold; leases in use are left to lapse."""
        for task in list(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        await self._waiters.close()

    @property
    def _concurrency(self) -> int:
        return self._settings.current.account_concurrency

    @property
    def _min_interval_ms(self) -> int:
        return self._settings.current.account_min_interval_ms

    def _note_new_limit(self, before: Settings, now: Settings) -> None:
        if before.account_concurrency != now.account_concurrency:
            self._spawn(self._relist_quietly())

    async def _relist_quietly(self) -> None:
        try:
            await self.relist()
        except StoreUnavailable:
            log.info("the new limit of accounts acts with their next release")

    async def _try_or_wait(
        self, capability: Capability, token: str, wait_seconds: float, tried: frozenset[str]
    ) -> Lease | Reply:
        """A lease, or the script's last answer."""
        reply = await self._try(capability, token, wait_ms=int(wait_seconds * 1000), tried=tried)
        if isinstance(reply, Lease) or reply[0] != "wait" or wait_seconds <= 0:
            return reply
        return await self._wait_in_line(capability, token, wait_seconds, tried)

    async def _wait_in_line(
        self, capability: Capability, token: str, wait_seconds: float, tried: frozenset[str]
    ) -> Lease | Reply:
        """A lease, or the script's last answer."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_seconds
        reply: Lease | Reply = ["wait", -1]
        async with self._waiters.listening(token) as woken:
            while (left := deadline - clock()) > 0:
                wait_ms = max(1, int(left * 1000))
                reply = await self._try(capability, token, wait_ms=wait_ms, tried=tried)
                if isinstance(reply, Lease) or reply[0] != "wait":
                    return reply
                pause = min(left, _LOOK_AGAIN_SECONDS, _seconds(reply[1]))
                await self._waiters.sleep(woken, pause)
            return reply

    def _new_token(self) -> str:
        return f"{self._process}.{next(self._numbers)}"

    async def _try(
        self, capability: Capability, token: str, *, wait_ms: int, tried: frozenset[str]
    ) -> Lease | Reply:
        """A lease, or the script's answer `[cause, ms]`."""
        for _ in range(_SET_ASIDE_AT_MOST):
            reply = await self._ask_for(capability, token, wait_ms=wait_ms, tried=tried)
            if reply[0] != "lent":
                return reply
            try:
                return self._lease(capability, token, reply)
            except SealBroken as error:
                await self._set_aside(token, error)
        return ["cooling", 0]

    async def _ask_for(
        self, capability: Capability, token: str, *, wait_ms: int, tried: frozenset[str]
    ) -> Reply:
        """The answer of lease_acquire.lua."""
        try:
            return await self._connection.run(
                "lease_acquire",
                keys.POOL,
                capability,
                token,
                self._ttl_ms,
                self._concurrency,
                self._min_interval_ms,
                wait_ms,
                "" if tried else "1",
                *tried,
            )
        except BaseException:
            # Cancelled or timed out: the script may have run or may yet run. The token is ours, so
            # whatever it lent can be given back.
            self._abandoned[token] = _NOTHING_TOLD
            self._spawn(self._give_back_abandoned())
            raise

    def _lease(self, capability: Capability, token: str, reply: Reply) -> Lease:
        """
        Raises:
            SealBroken: a secret of the account can't be read.
        """
        _, account, generation, sealed, expires, version, proxy, cookies, egress, probing = reply
        record = keys.account(account)
        unseal = self._sealer.unseal
        lease = Lease(
            token=token,
            account=account,
            capability=capability,
            generation=generation,
            access_token=unseal(sealed, place=f"{record}#token"),
            token_expires_at=float(expires or 0),
            token_version=version,
            proxy=unseal(proxy, place=f"{record}#proxy"),
            cookies=unseal(cookies, place=f"{record}#cookies"),
            egress=egress,
            probing=bool(probing),
        )
        self._held[token] = f"{capability}:{generation}:{account}"
        return lease

    async def _set_aside(self, token: str, error: SealBroken) -> None:
        """An account whose secrets can't be read rests: without its proxy it would go out bare.

        It isn't dead: it may be this process that was started with a wrong `SECRET_KEY`.
        """
        log.warning("secret of an account can't be read", extra={"reason": str(error)})
        resting = Cooldown(reason="seal_broken", seconds=_SET_ASIDE_SECONDS, every_capability=True)
        outcome = Outcome(cooldown=resting, error_code="seal_broken", error_message=str(error))
        await self._release(token, ("", facts_of(outcome, token_version="")))

    async def _leave(self, capability: Capability, token: str) -> None:
        """The place in the line is given up even if the caller is being cancelled."""
        leaving = self._spawn(self._leave_quietly(capability, token))
        try:
            await asyncio.shield(leaving)
        except asyncio.CancelledError:
            # A second cancellation: the task goes on by itself, `close` waits for it.
            return

    async def _leave_quietly(self, capability: Capability, token: str) -> None:
        try:
            await self._connection.run("queue_leave", keys.POOL, capability, token)
        except StoreUnavailable:
            log.info("waiter left while the store was away")

    def _drop_ghost(self, token: str) -> None:
        """It is this one's turn, but nobody here waits under that name: its asker left, and the
        script that queued it was overtaken on the wire by the one that took it out again."""
        if token not in self._asking:
            for capability in CAPABILITIES:
                self._spawn(self._leave_quietly(capability, token))

    async def _release(self, token: str, told: tuple[str, str]) -> int:
        released: int = await self._connection.run(
            "lease_release", keys.POOL, token, self._concurrency, self._min_interval_ms, *told
        )
        return released

    async def _give_back_abandoned(self) -> None:
        for token, told in list(self._abandoned.items()):
            try:
                await self._release(token, told)
            except StoreUnavailable:
                return  # the next `extend_all` tries again; the lease lapses anyway
            self._abandoned.pop(token, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _seconds(wait_ms: int) -> float:
    """How long to sleep on an answer of -1 (only a release helps) or of some milliseconds."""
    return _LOOK_AGAIN_SECONDS if wait_ms < 0 else max(0.001, wait_ms / 1000)


def _refusal(
    reply: Reply, *, waited_seconds: float
) -> NoAccount | AccountsExhausted | UpstreamBlocked:
    cause, ms = reply
    retry_after = max(1.0, ms / 1000) if ms > 0 else None
    if cause == "blocked":
        return UpstreamBlocked(retry_after_seconds=retry_after)
    if cause == "exhausted":
        return AccountsExhausted(retry_after_seconds=retry_after)
    if cause == "none":
        return NoAccount("No account is usable.", retry_after_seconds=retry_after)
    if cause == "wait" and waited_seconds:
        return NoAccount(
            f"All accounts were busy for {waited_seconds:g} s.", retry_after_seconds=retry_after
        )
    return NoAccount(retry_after_seconds=retry_after)
