"""A turn that runs within the limits of its API key: turns at once, tokens of the day.

Knows: when to ask, how long to wait, what a caller is told. Does not know: how it is counted
(`shared/store/allowances.py`), how a turn runs.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from shared import metrics
from shared.chat.events import Event, TurnEnd, TurnFailed
from shared.chat.request import ChatRequest
from shared.errors import GatewayError, RateLimited
from shared.store.allowances import Allowance, Allowances, Refusal
from shared.store.api_keys import ApiKey
from shared.turns.prompt import write_prompt
from shared.turns.run import ChatTurn, Emit
from shared.turns.stopwatch import Stopwatch

# What an answer is taken to need that says itself no `max_tokens`.
EXPECTED_OUTPUT_TOKENS: Final = 4_096

# How long a turn waits for what others have set aside and may not use.
WAIT_SECONDS: Final = 10.0
_LOOK_SECONDS = 0.2


def is_limited(key: ApiKey) -> bool:
    return bool(key.max_streams or key.daily_token_budget)


def expected_tokens(request: ChatRequest) -> int:
    """How many tokens a turn may well use, before anybody has counted them."""
    input_bytes = len(write_prompt(request).encode())
    return input_bytes // 3 + (request.max_output_tokens or EXPECTED_OUTPUT_TOKENS)


class AllowedTurn:
    """Runs `turn` when its key allows it; what it held is given back when it has settled.

    Args:
        own: runs to its end what a turn leaves to do (`Turns.own`).
    """

    def __init__(
        self,
        turn: ChatTurn,
        key: ApiKey,
        *,
        allowances: Allowances,
        own: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._turn = turn
        self._key = key
        self._allowances = allowances
        self._own = own

    @property
    def stopwatch(self) -> Stopwatch:
        return self._turn.stopwatch

    async def run(self, emit: Emit) -> None:
        """As `ChatTurn.run`.

        Raises:
            RateLimited: the key's turns at once or its tokens of the day are spent.
        """
        with self.stopwatch.waiting():
            allowance = await _take(self._key, self._allowances, self._turn.request)

        async def emit_within(events: list[Event]) -> None:
            match events[-1]:
                case TurnEnd(usage=usage) | TurnFailed(usage=usage):
                    used = usage.input_tokens + usage.output_tokens if usage else allowance.tokens
                    await self._allowances.finish(allowance, used_tokens=used)
            await emit(events)

        try:
            await self._turn.run(emit_within)
        except GatewayError:
            await self._allowances.give_back(allowance)  # before the caller hears of it
            raise
        finally:
            self._own(self._settle(allowance))

    async def _settle(self, allowance: Allowance) -> None:
        """Who left is in the ledger when his turn has settled."""
        await self._turn.settled()
        await self._allowances.give_back(allowance)


@asynccontextmanager
async def within_limits(
    key: ApiKey | None, request: ChatRequest, *, allowances: Allowances
) -> AsyncIterator[None]:
    """Inside, a turn that nobody waits for runs within the limits of its key, if it has any.

    Raises:
        RateLimited: it may not run now.
    """
    if key is None or not is_limited(key):
        yield
        return
    allowance = await _take(key, allowances, request)
    try:
        yield
    finally:
        await asyncio.shield(allowances.give_back(allowance))


async def require_budget(key: ApiKey, request: ChatRequest, *, allowances: Allowances) -> None:
    """Something may be put down that runs later, however many turns run now.

    Raises:
        RateLimited: the key's tokens of the day are spent.
    """
    at_any_time = msgspec.structs.replace(key, max_streams=None)
    async with within_limits(at_any_time, request, allowances=allowances):
        pass


async def _take(key: ApiKey, allowances: Allowances, request: ChatRequest) -> Allowance:
    """One more turn of this key may run; waits a little for what others have set aside.

    Raises:
        RateLimited: none may; the message says why, `retry_after_seconds` until when.
    """
    tokens = expected_tokens(request) if key.daily_token_budget else 0
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + WAIT_SECONDS
    while True:
        answer = await allowances.take(key, tokens=tokens)
        if isinstance(answer, Allowance):
            return answer
        if answer.reason != "reserved" or clock() > give_up_at:
            raise _refused(key, answer)
        await asyncio.sleep(_LOOK_SECONDS * random.uniform(0.5, 1))


def _refused(key: ApiKey, refusal: Refusal) -> RateLimited:
    if refusal.reason == "streams":
        metrics.RATE_LIMITED.of("streams").inc()
        return RateLimited(
            f"This API key may run {key.max_streams} requests at once", retry_after_seconds=1
        )
    metrics.RATE_LIMITED.of("tokens").inc()
    budget = f"{key.daily_token_budget} tokens of this UTC day"
    if refusal.reason == "spent":
        return RateLimited(
            f"This API key has used its {budget}", retry_after_seconds=refusal.seconds
        )
    return RateLimited(
        f"What is left of this API key's {budget} is set aside by requests under way",
        retry_after_seconds=1,
    )
