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
from shared.errors import GatewayError, NoAccount, StoreUnavailable, UpstreamSilent
from shared.store.responses import Failure, Result
from shared.turns.run import ChatTurn
from workers.runtime import Resources, Transient, lasting_job

log = logging.getLogger(__name__)

LONGEST_SECONDS: Final = 1_800.0
"""For one turn; and so long after it was asked for a free account is still waited for."""


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
        async with asyncio.timeout(LONGEST_SECONDS):
            await _run_turn(resources, request, collector)
        failure = collector.error
    except StoreUnavailable:
        raise  # the step is due again
    except TimeoutError:
        failure = UpstreamSilent(f"The answer took longer than {LONGEST_SECONDS:.0f} s")
    except NoAccount as error:
        if time.time() - stored.created < LONGEST_SECONDS:
            pause = error.retry_after_seconds or 5
            raise Transient(error.message, retry_after_seconds=pause) from error
        failure = error
    except GatewayError as error:
        failure = error
    if failure is None:
        await responses.end(response_id, "completed", Result(collector.reply))
    else:
        log.info("response failed", extra={"error": failure.code})
        await responses.end(response_id, "failed", Result.failed(collector.reply, failure))


async def _run_turn(resources: Resources, request: ChatRequest, collector: Collector) -> None:
    async def collect(events: list[Event]) -> None:
        for event in events:
            collector.feed(event)

    catalogue = await resources.catalogues.current()
    variant = resources.catalogues.resolve(catalogue, request.model)
    turn = resources.turns.open(request, variant)
    await turn.run(collect)
    _count(turn)


def _count(turn: ChatTurn) -> None:
    if turn.usage is not None:
        model = turn.variant.model_id
        metrics.TOKENS.of(model, "input").inc(turn.usage.input_tokens)
        metrics.TOKENS.of(model, "output").inc(turn.usage.output_tokens)
