"""Answers that are kept while they are given, and turns whose events are read from what was kept.

Knows: stored responses. Does not know: dialects, HTTP.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from shared.chat.collect import Collector, Reply
from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    TurnStart,
)
from shared.errors import GatewayError, NotFound, StoreUnavailable
from shared.store.responses import Failure, Responses, Result, Status, StoredResponse
from shared.turns.run import Emit
from shared.turns.stopwatch import Stopwatch

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often a stream looks whether a response in the background has ended."""


class Keeping:
    """Stores a response when its turn ends, before its client hears so.

    A client that names it in its next request, on whatever process, finds it there.
    """

    def __init__(self, responses: Responses, response: StoredResponse) -> None:
        self._responses = responses
        self._response = response
        self._collector = Collector()

    async def take(self, events: list[Event]) -> None:
        for event in events:
            self._collector.feed(event)
        match events[-1]:
            case TurnEnd():
                await self._put("completed", Result(self._collector.reply))
            case TurnFailed(error):
                await self._put("failed", Result.failed(self._collector.reply, error))
            case _:
                pass

    async def _put(self, status: Status, result: Result) -> None:
        stored = msgspec.structs.replace(self._response, status=status, result=result)
        try:
            await self._responses.put(stored)
        except StoreUnavailable:
            # The answer itself is whole: it isn't spoilt because nobody can ask for it again.
            log.warning("response not kept, store away")


class KeptFailure(GatewayError):
    """A turn that ran elsewhere failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.status = failure.status  # type: ignore[misc]  # an instance of whatever it was there
        self.code = failure.code  # type: ignore[misc]


class KeptTurn:
    """The events of a response that runs, or ran, elsewhere: its end is waited for.

    Args:
        look: reads it anew.
        begin: done before anything is said.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[StoredResponse]],
        *,
        begin: Callable[[], Awaitable[object]] | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.stopwatch = Stopwatch()
        self._look = look
        self._begin = begin
        self._look_seconds = look_seconds

    async def run(self, emit: Emit) -> None:
        if self._begin is not None:
            await self._begin()
        await emit([TurnStart()])
        await emit(await self._ended())

    async def _ended(self) -> list[Event]:
        while True:
            try:
                stored = await self._look()
            except NotFound:
                return [TurnFailed(KeptFailure(_DELETED))]
            except StoreUnavailable:
                pass  # an open stream goes on; Redis may be back the next time
            else:
                if stored.ended:
                    return list(events_of(stored))
            await asyncio.sleep(self._look_seconds)


# A stream has no ending of its own for these; they are no fault of the request.
_CANCELLED: Final = Failure(500, "cancelled", "The response was cancelled.")
_DELETED: Final = Failure(500, "deleted", "The response was deleted.")


def events_of(stored: StoredResponse) -> list[Event]:
    """A response that has ended, as the events that would have made it."""
    result = stored.result
    said = [] if result.reply is None else _said(result.reply)
    if stored.status == "completed" and result.reply is not None:
        return [*said, TurnEnd(result.reply.reason, result.reply.usage, result.reply.stop_sequence)]
    failure = result.failure or _CANCELLED
    return [*said, TurnFailed(KeptFailure(failure), result.reply.usage if result.reply else None)]


def _said(reply: Reply) -> list[Event]:
    events: list[Event] = []
    if reply.reasoning:
        events.append(ReasoningDelta(reply.reasoning))
    events += reply.searches
    events += (MediaReady(kind, url) for kind, url in reply.media)  # type: ignore[arg-type]  # as it came
    if reply.text:
        events.append(TextDelta(reply.text))
    for index, call in enumerate(reply.tool_calls):
        events += (
            ToolCallStart(index, call.call_id, call.name, call.custom),
            ToolCallDelta(index, call.arguments),
            ToolCallEnd(index),
        )
    return events
