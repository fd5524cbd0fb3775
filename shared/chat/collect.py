"""Folds the events of a turn into one reply: the non-streaming reading of the pipeline.

Also what is stored when an answer is rendered later or by another process.
"""

from typing import assert_never

import msgspec

from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
    Source,
    SourcesFound,
    StopReason,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    TurnStart,
    Usage,
)
from shared.errors import GatewayError


class ReplyToolCall(msgspec.Struct):
    call_id: str
    name: str
    arguments: str = ""
    custom: bool = False


class Reply(msgspec.Struct):
    """A whole answer. `searches` and `media` = (kind, url) pairs in the order they were made."""

    text: str = ""
    reasoning: str = ""
    searches: list[SourcesFound] = []
    media: list[tuple[str, str]] = []
    tool_calls: list[ReplyToolCall] = []
    reason: StopReason = "stop"
    stop_sequence: str | None = None
    usage: Usage | None = None

    @property
    def sources(self) -> list[Source]:
        """What all searches found: the n-th is what the answer cites as `[[n]]`."""
        return [source for search in self.searches for source in search.sources]


class Collector:
    """`feed` every event of a turn; `TurnEnd` makes `reply` whole, `TurnFailed` sets `error`."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, tuple[ReplyToolCall, list[str]]] = {}
        self._reply = Reply()
        self.error: GatewayError | None = None

    def feed(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._text.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case SourcesFound():
                self._reply.searches.append(event)
            case MediaReady(kind, url):
                self._reply.media.append((kind, url))
            case ToolCallStart(index, call_id, name, custom):
                self._calls[index] = (ReplyToolCall(call_id, name, custom=custom), [])
            case ToolCallDelta(index, arguments):
                self._calls[index][1].append(arguments)
            case TurnStart() | ToolCallEnd():
                pass
            case TurnEnd(reason, usage, stop_sequence):
                self._reply.reason = reason
                self._reply.usage = usage
                self._reply.stop_sequence = stop_sequence
            case TurnFailed(error):
                self.error = error
            case _:
                assert_never(event)

    @property
    def reply(self) -> Reply:
        self._reply.text = "".join(self._text)
        self._reply.reasoning = "".join(self._reasoning)
        self._reply.tool_calls = [
            msgspec.structs.replace(call, arguments="".join(pieces))
            for _, (call, pieces) in sorted(self._calls.items())
        ]
        return self._reply
