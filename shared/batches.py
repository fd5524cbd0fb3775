"""Doing the lines of batches: log in, store, and what each failure means for the line.

A `Pump` claims lines as fast as the semaphore over the whole fleet gives them out and does them
side by side; several pumps in several processes share the work. A line whose failure is its own (a
wrong password) has failed; one whose failure is the upstream's or the network's waits again:

    the upstream wants logins farther apart   the egress pauses and slows down; not counted
    its firewall refuses the egress           the egress rests; not counted
    anything else that may pass               after a pause, `MOST_TRIES` in all

Knows: claims, logins, what follows from how they end. Does not know: RQ, formats.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from shared import metrics
from shared.accounts import EGRESS_REST, TOKEN_MARGIN_SECONDS, Accounts
from shared.errors import (
    AccountDead,
    GatewayError,
    LoginsCrowded,
    LoginsTooFast,
    NoAccount,
    NotFound,
    StoreUnavailable,
    UpstreamBlocked,
    UpstreamBusy,
    UpstreamError,
)
from shared.intake.lines import BatchLine
from shared.store.batches import Batches, Claim
from shared.store.outcome import EgressRest
from shared.upstream.client import Upstream
from shared.upstream.login import AccessToken

log = logging.getLogger(__name__)

MOST_TRIES: Final = 3
# Before the second try of a line; twice as long before the third.
TRY_AGAIN_SECONDS: Final = 2.0
# How long a line of a refresh stands in line for its egress: well within the life of its claim.
REFRESH_WAIT_SECONDS: Final = 5.0
# How long an egress pauses that the upstream finds too fast, when it doesn't say.
PAUSE_SECONDS: Final = 3.0

_ROUND_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.1
_STORE_BACK_SECONDS: Final = 0.5

T = TypeVar("T")
Step = Callable[[], Awaitable[object]]


class LineWork:
    """Does one line after it was claimed, and says how it ended. One per process."""

    def __init__(
        self,
        *,
        batches: Batches,
        accounts: Accounts,
        upstream: Upstream,
        egress_rest: EgressRest = EGRESS_REST,
    ) -> None:
        self._batches = batches
        self._accounts = accounts
        self._upstream = upstream
        self._egress_rest = egress_rest

    async def do(self, claim: Claim) -> None:
        """The line has ended, or waits again; whatever happens, its claim is held no longer.

        Raises:
            StoreUnavailable: Redis was away until the claim lapsed.
        """
        try:
            if not await self._may_begin(claim):
                await self._batches.again(claim)
                return
            token = await self._token(claim)
        except GatewayError as error:
            settle = self._settlement(claim, error)
            await self._surely(claim, settle)
        except asyncio.CancelledError:
            # This process stops: the next one takes the line at once.
            await _to_its_end(self._batches.again(claim))
            raise
        except Exception:
            log.exception("a batch's line broke", extra={"batch": claim.batch})
            await self._another_try(claim, "The gateway failed; its log says why.")()
        else:
            await _to_its_end(self._succeed(claim, token))

    async def _may_begin(self, claim: Claim) -> bool:
        """Waits for the line's turn at its egress; False when it was cancelled meanwhile."""
        if claim.start_in_ms <= 0:
            return True
        await asyncio.sleep(claim.start_in_ms / 1000)
        return await self._batches.holds(claim)

    async def _token(self, claim: Claim) -> AccessToken | None:
        """A new token for an account that is to be stored; None when it has one already."""
        if claim.kind == "refresh":
            await self._accounts.refresh(claim.email, wait_seconds=REFRESH_WAIT_SECONDS)
            return None
        line = claim.input
        if line is None:
            raise _Unreadable(claim.unreadable)
        if _is_alive(line):
            return AccessToken(line.token, line.expires_at)
        token = await self._upstream.sign_in(claim.email, line.password, proxy=line.proxy)
        metrics.LOGINS.of("succeeded").inc()
        return token

    async def _succeed(self, claim: Claim, token: AccessToken | None) -> None:
        async def store() -> str:
            if token is None:
                return await self._batches.succeed(claim)
            return await self._batches.succeed(
                claim, token=token.token, expires_at=token.expires_at
            )

        if await self._surely(claim, store) == "stale":
            log.warning("a batch's line was taken over", extra=_names(claim))

    def _settlement(self, claim: Claim, error: GatewayError) -> Step:
        """What this failure means for the line."""
        batches = self._batches
        if claim.kind == "import" and isinstance(error, UpstreamError):
            metrics.LOGINS.of("dead" if isinstance(error, AccountDead) else "failed").inc()
        match error:
            case AccountDead() | NotFound() | NoAccount() | _Unreadable():
                return self._failure(claim, error.message)
            case UpstreamBlocked():
                log.warning("a batch's egress rests", extra=_names(claim))
                return lambda: batches.again(claim, egress_rest=self._egress_rest)
            case LoginsCrowded():
                return lambda: batches.again(claim, delay_seconds=REFRESH_WAIT_SECONDS)
            case LoginsTooFast():
                return self._slowing(claim, error.told_seconds)
            case UpstreamBusy():
                return self._slowing(claim, error.pause_seconds)
            case StoreUnavailable():
                return lambda: batches.again(claim)
            case _:
                return self._another_try(claim, error.message)

    def _slowing(self, claim: Claim, told_seconds: float | None) -> Step:
        pause = PAUSE_SECONDS if told_seconds is None else max(told_seconds, 0.1)
        log.info("a batch slows down", extra=_names(claim) | {"pause_seconds": pause})
        return lambda: self._batches.again(claim, pause_seconds=pause)

    def _another_try(self, claim: Claim, reason: str) -> Step:
        if claim.tries + 1 >= MOST_TRIES:
            return self._failure(claim, reason)
        pause = TRY_AGAIN_SECONDS * 2**claim.tries
        return lambda: self._batches.again(claim, delay_seconds=pause, counted=True)

    def _failure(self, claim: Claim, reason: str) -> Step:
        log.info("a batch's line failed", extra=_names(claim) | {"reason": reason})
        return lambda: self._batches.fail(claim, reason)

    async def _surely(self, claim: Claim, step: Callable[[], Awaitable[T]]) -> T:
        """What `step` gives, tried again while Redis is away and the claim may still hold.

        What ran although its answer was lost finds its claim gone: it runs once.
        """
        deadline = time.monotonic() + self._batches.claim_seconds
        while True:
            try:
                return await step()
            except StoreUnavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_STORE_BACK_SECONDS)


class Pump:
    """Claims lines and does them, until none waits or it is told to stop.

    Args:
        share: how many at once are this pump's; asked anew in every round.
        is_to_stop: it begins nothing new; asked anew in every round.
    """

    def __init__(
        self,
        work: LineWork,
        batches: Batches,
        *,
        share: Callable[[], int],
        is_to_stop: Callable[[], bool],
    ) -> None:
        self._work = work
        self._batches = batches
        self._share = share
        self._is_to_stop = is_to_stop
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """No line waits any more, or it was to stop; what was begun has ended."""
        try:
            while (pause := await self._round()) is not None:
                await self._wait(pause)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _round(self) -> float | None:
        """Begins what may be begun; how long to wait at most, None when all is done."""
        self._tasks = {task for task in self._tasks if not task.done()}
        if self._is_to_stop():
            return _ROUND_SECONDS if self._tasks else None
        want = self._share() - len(self._tasks)
        if want <= 0:
            return _ROUND_SECONDS  # and then perhaps another share
        try:
            found = await self._batches.claim(want=want)
        except StoreUnavailable:
            return _ROUND_SECONDS
        for claim in found.claims:
            self._tasks.add(asyncio.create_task(self._do(claim)))
        if found.more_in_ms is None:
            return _ROUND_SECONDS if self._tasks else None
        return min(_ROUND_SECONDS, max(_LOOK_SECONDS, found.more_in_ms / 1000))

    async def _wait(self, seconds: float) -> None:
        """Until a line has ended, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds)

    async def _do(self, claim: Claim) -> None:
        try:
            await self._work.do(claim)
        except StoreUnavailable:
            log.warning("a batch's line is left, store away", extra=_names(claim))


async def _to_its_end(work: Coroutine[Any, Any, object]) -> None:
    """Runs to its end, also when its caller is cancelled meanwhile; then the caller is."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class _Unreadable(GatewayError):
    """What was given for this line can't be read any more."""


def _is_alive(line: BatchLine) -> bool:
    return bool(line.token) and line.expires_at - time.time() > TOKEN_MARGIN_SECONDS


def _names(claim: Claim) -> dict[str, object]:
    return {"batch": claim.batch, "line": claim.number}
