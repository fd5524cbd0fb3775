"""The neutral request of a chat turn: what every dialect's `read_request` makes.

Roles stay apart, parts stay typed; nothing of a dialect's spelling gets in here. Media and tools
have their place already: a dialect refuses what the turn can't carry yet, it never drops it.
"""

from typing import Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    text: str


class ReasoningPart(msgspec.Struct, frozen=True, tag="reasoning"):
    """What the assistant thought in an earlier turn, when the caller hands it back."""

    text: str


class MediaPart(msgspec.Struct, frozen=True, tag="media"):
    """An image, a video, a sound or a file: an http(s) URL or a data: URI."""

    kind: Literal["image", "video", "audio", "file"]
    url: str
    name: str = ""


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call"):
    """`arguments` is the JSON text as the model wrote it; of a custom tool, its free text."""

    call_id: str
    name: str
    arguments: str
    custom: bool = False


class ToolResultPart(msgspec.Struct, frozen=True, tag="tool_result"):
    call_id: str
    content: tuple[TextPart | MediaPart, ...]
    name: str = ""
    is_error: bool = False


Part = TextPart | ReasoningPart | MediaPart | ToolCallPart | ToolResultPart


class Message(msgspec.Struct, frozen=True):
    role: Role
    parts: tuple[Part, ...]


class Tool(msgspec.Struct, frozen=True):
    """A tool the caller executes.

    A `function` takes one JSON object, `schema` = its JSON Schema as JSON bytes. A `custom` tool
    takes free text; `grammar` = what the text must look like, shown to the model as it is.
    """

    name: str
    description: str = ""
    schema: msgspec.Raw = msgspec.Raw(b"{}")
    kind: Literal["function", "custom"] = "function"
    grammar: str = ""


class ToolChoice(msgspec.Struct, frozen=True):
    """`named`: just the tool `name`, and at least once."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""


class OutputFormat(msgspec.Struct, frozen=True):
    """The answer's text is one JSON document; with a `schema` (JSON) one that validates against it.

    `strict`: an answer that doesn't, after one repeat, is an error and never shown.
    """

    schema: bytes | None = None
    name: str = ""
    strict: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One chat turn as a caller asked for it.

    `model` is the name the caller wrote; the catalogue turns it into a model and a variant.
    `thinking`: None = the model's own choice (or the variant's), True/False = asked for.
    `search`: True = the caller asked for web search (the variant may ask for it too).
    `ignored` = names of fields that were accepted and can't be honoured.
    `given` = the request as its dialect read it, for that dialect's own writer; nobody else looks.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    thinking: bool | None = None
    thinking_budget: int | None = None
    search: bool = False
    max_output_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    output_format: OutputFormat | None = None
    ignored: tuple[str, ...] = ()
    given: object = None
