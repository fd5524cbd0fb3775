"""A response that runs in the background: its turn, and what became of it, neutral.

The gateway renders it in its dialect whenever it is asked for. A turn that was interrupted (its
process died) is run again from the start: nobody has seen anything of it.
"""

import asyncio
import logging
import time
from typing import Final

from shared import metrics
from shared.chat.collect import Collector
from shared.chat.events import Event
from shared.chat.request import ChatRequest
from shared.errors import GatewayError, NoAccount, RateLimited, StoreUnavailable, UpstreamSilent
from shared.store.responses import Failure, Result, StoredResponse
from shared.turns.allowed import within_limits
from shared.turns.entry import entry_of
from shared.turns.run import ChatTurn, Emit
from workers.runtime import Resources, Transient, lasting_job

log = logging.getLogger(__name__)

LONGEST_SECONDS: Final = 1_800.0
"""For one turn; and so long after it was asked for a free account is still waited for."""

INTERRUPTED: Final = 499
"""What the ledger is told of a run that was cancelled, or whose process stops."""


async def _given_up(resources: Resources, response_id: str) -> None:
    """Nobody will try again: the record says so."""
    told = Failure(500, "internal_error", "The response was interrupted too often; ask again.")
    await resources.store.responses.end(response_id, "failed", Result(failure=told))


@lasting_job(given_up=_given_up)
async def run(resources: Resources, response_id: str) -> None:
    """The response has ended; one that had before, or is gone, is left alone."""
    responses = resources.store.responses
    moved = await responses.begin(response_id)
    if moved is None or not moved.by_us:
        return
    stored = await responses.get(response_id, reader=None)
    request = await responses.work_of(response_id)
    if request is None:
        return
    collector = Collector()
    try:
        await _run_turn(resources, stored, request, collector)
        failure = collector.error
    except StoreUnavailable:
        raise  # the step is due again
    except (NoAccount, RateLimited) as error:
        pause = error.retry_after_seconds or 5
        if _may_wait(stored, pause):
            raise Transient(error.message, retry_after_seconds=pause) from error
        failure = error
    except GatewayError as error:
        failure = error
    if failure is None:
        await responses.end(response_id, "completed", Result(collector.reply))
    else:
        log.info("response failed", extra={"error": failure.code})
        await responses.end(response_id, "failed", Result.failed(collector.reply, failure))


def _may_wait(stored: StoredResponse, pause_seconds: float = 0) -> bool:
    return time.time() + pause_seconds - stored.created < LONGEST_SECONDS


async def _run_turn(
    resources: Resources, stored: StoredResponse, request: ChatRequest, collector: Collector
) -> None:
    """Run it, and tell the ledger what it used however it ends: before the record says so."""

    async def collect(events: list[Event]) -> None:
        for event in events:
            collector.feed(event)

    catalogue = await resources.catalogues.current()
    variant = resources.catalogues.resolve(catalogue, request.model)
    turn = resources.turns.open(request, variant)
    key = await resources.store.api_keys.known(stored.owner)
    async with within_limits(key, request, allowances=resources.store.allowances):
        await _run_and_tell(resources, stored, turn, collect)
    _count(turn)


async def _run_and_tell(
    resources: Resources, stored: StoredResponse, turn: ChatTurn, emit: Emit
) -> None:
    began = time.monotonic()
    status = INTERRUPTED
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            await turn.run(emit)
        status = 200
    except TimeoutError as error:
        turn.error = UpstreamSilent(f"The answer took longer than {LONGEST_SECONDS:.0f} s")
        raise turn.error from error
    finally:
        if turn.tried or not _may_wait(stored):
            telling = _tell_ledger(resources, stored, turn, status=status, began=began)
            await asyncio.shield(resources.turns.own(telling))


async def _tell_ledger(
    resources: Resources, stored: StoredResponse, turn: ChatTurn, *, status: int, began: float
) -> None:
    """Its request was counted when it was put down; each run adds what it used."""
    ended = time.monotonic()
    if turn.usage is None and turn.error is None:
        await turn.settled()
    first = turn.first_event_at
    await resources.store.ledger.write(
        entry_of(
            turn,
            request_id=stored.id,
            route="/v1/responses",
            key_id=stored.owner,
            status=turn.error.status if turn.error is not None else status,
            total_seconds=ended - began,
            first_token_seconds=None if first is None else first - began,
            error=turn.error,
            requests=0,
        )
    )


def _count(turn: ChatTurn) -> None:
    if turn.usage is not None:
        model = turn.variant.model_id
        metrics.TOKENS.of(model, "input").inc(turn.usage.input_tokens)
        metrics.TOKENS.of(model, "output").inc(turn.usage.output_tokens)
