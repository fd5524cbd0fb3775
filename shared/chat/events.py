"""The neutral events of a chat turn.

Upstream → events → dialect. A turn is a sequence of events: `TurnStart` first, exactly one
`TurnEnd` or `TurnFailed`, always last. Annotate with the union `Event`, close every `match` with
`assert_never`: the type checker then finds the writer that forgot one.

Add an event only when two dialects can express it; otherwise it is text.
"""

from typing import Literal

import msgspec

from shared.errors import GatewayError

StopReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Source(msgspec.Struct, frozen=True):
    """One result of the upstream's web search. Any field may be empty."""

    title: str = ""
    url: str = ""
    snippet: str = ""
    hostname: str = ""
    date: str = ""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one turn. `counted` = by us with Qwen's vocabulary, not told by the upstream."""

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = False

    def __add__(self, other: "Usage") -> "Usage":
        """Of a turn that asked the upstream twice."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            counted=self.counted or other.counted,
        )


class TurnStart(msgspec.Struct, frozen=True):
    """The upstream has begun to answer: the first event of every turn.

    `usage` = what it told with its first frame; its input tokens are final, its output is not.
    """

    usage: Usage | None = None


class ReasoningDelta(msgspec.Struct, frozen=True):
    text: str


class TextDelta(msgspec.Struct, frozen=True):
    text: str


class SourcesFound(msgspec.Struct, frozen=True):
    """Web search came back; may happen more than once, each time with the new sources only.

    `queries` = what the upstream searched for, when it said so.
    """

    sources: tuple[Source, ...]
    queries: tuple[str, ...] = ()


class MediaReady(msgspec.Struct, frozen=True):
    """The upstream made a picture or a video inside the turn."""

    kind: Literal["image", "video"]
    url: str


class ToolCallStart(msgspec.Struct, frozen=True):
    """`custom`: the deltas that follow are free text, not JSON."""

    index: int
    call_id: str
    name: str
    custom: bool = False


class ToolCallDelta(msgspec.Struct, frozen=True):
    """A piece of the arguments; joined, they are one JSON text (or a custom tool's free text)."""

    index: int
    arguments: str


class ToolCallEnd(msgspec.Struct, frozen=True):
    index: int


class TurnEnd(msgspec.Struct, frozen=True):
    """The turn is complete. `stop_sequence` = the one that ended it, when one did."""

    reason: StopReason
    usage: Usage | None = None
    stop_sequence: str | None = None


class TurnFailed(msgspec.Struct, frozen=True):
    """The turn broke after it began."""

    error: GatewayError
    usage: Usage | None = None


Event = (
    TurnStart
    | ReasoningDelta
    | TextDelta
    | SourcesFound
    | MediaReady
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | TurnEnd
    | TurnFailed
)
