"""OpenAI Chat Completions: `POST /v1/chat/completions`.

Source: OpenAI API reference, chat completions and their streaming events, read 2026-11; fields that
Qwen's own API adds (`enable_thinking`, `thinking_budget`, `reasoning_content`) as in its reference.
The error body here also serves every route that belongs to no dialect.

Long because it is one protocol, in its order: request, stream, whole answer, error.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, assert_never

import msgspec

from gateway.dialects.appendix import Appendix, write_appendix
from gateway.dialects.body import read_body
from gateway.dialects.fields import (
    EFFORT_BUDGETS,
    asks,
    at_least_one,
    says_something,
    stop_sequences,
    thinking_budget,
)
from gateway.dialects.openai_fields import (
    ROLES,
    ContentPart,
    Schema,
    Unheeded,
    choose_mode,
    choose_named,
    read_content,
    read_custom,
    read_effort,
    read_format,
    read_function,
)
from gateway.dialects.turn import Turn
from shared.chat.collect import Reply, ReplyToolCall
from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
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
from shared.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from shared.errors import BadRequest, GatewayError

KEEPALIVE = b": keepalive\n\n"


def new_id(random_hex: str) -> str:
    return "chatcmpl-" + random_hex


# -- request


class _Unheeded(Unheeded):
    """What of this protocol can't be honoured either."""

    metadata: Any = None
    store: Any = None
    prediction: Any = None
    verbosity: Any = None


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _Custom(msgspec.Struct):
    name: str
    input: str = ""


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    custom: _Custom | None = None
    id: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    tool_call_id: str | None = None
    audio: Any = None  # Any: refused whatever it holds


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class _Format(msgspec.Struct):
    type: str
    json_schema: Schema | None = None


class _Declared(msgspec.Struct):
    """A function (also the legacy `functions`' entry) or a custom tool."""

    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    format: Any = None  # Any: shown to the model as it is


class _Tool(msgspec.Struct):
    type: str = "function"
    function: _Declared | None = None
    custom: _Declared | None = None


class _Named(msgspec.Struct):
    name: str = ""


class _AllowedTools(msgspec.Struct):
    mode: str = "auto"
    tools: list[_Tool] = []


class _Choice(msgspec.Struct):
    """`{"type": "function", "function": {"name"}}`, the same with custom, allowed_tools, legacy."""

    type: str = "function"
    function: _Named | None = None
    custom: _Named | None = None
    allowed_tools: _AllowedTools | None = None
    name: str = ""


class _Request(_Unheeded):
    model: str | None = None
    messages: list[_Message] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    enable_thinking: bool | None = None
    thinking: _Thinking | None = None
    thinking_budget: int | None = None
    reasoning_effort: str | None = None
    web_search_options: dict[str, Any] | None = None  # Any: that it is there is what counts
    response_format: _Format | None = None
    modalities: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[_Declared] | None = None
    function_call: str | _Choice | None = None


_DECODER = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> ChatRequest:
    """Read `{"model", "messages": [{"role", "content"}], "stream", …}`.

    `thinking_budget` above the upstream's bound is lowered to it: it stays an upper bound.

    Raises:
        BadRequest: malformed, a field missing or wrong, or something that isn't supported yet.
    """
    given = read_body(body, _DECODER)
    if not given.model or not given.model.strip():
        raise BadRequest("model is missing", param="model")
    _refuse_unsupported(given)
    tools, choice = _read_tools(given)
    return ChatRequest(
        model=given.model,
        messages=_read_messages(given.messages),
        stream=given.stream or False,
        include_usage=bool(given.stream_options and given.stream_options.include_usage),
        thinking=_read_thinking(given),
        thinking_budget=_read_thinking_budget(given),
        search=given.web_search_options is not None,
        max_output_tokens=_read_max_tokens(given),
        stop_sequences=stop_sequences(given.stop, "stop"),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=given.parallel_tool_calls is not False and not given.functions,
        output_format=_read_format(given.response_format),
        ignored=_read_ignored(given),
        given=_Given(legacy_functions=True) if given.functions else None,
    )


class _Given(msgspec.Struct, frozen=True):
    """What the writer has to know: a caller that sent `functions` reads `function_call`."""

    legacy_functions: bool = False


def _refuse_unsupported(given: _Request) -> None:
    if given.n not in (None, 1):
        raise BadRequest("n: only one choice is supported, leave it out or send 1", param="n")
    for index, modality in enumerate(given.modalities or ()):
        if modality != "text":
            raise BadRequest(
                f"modalities[{index}]: only text is supported yet", param=f"modalities[{index}]"
            )


def _read_tools(given: _Request) -> tuple[tuple[Tool, ...], ToolChoice]:
    """`tools` and `tool_choice`, or their forerunners `functions` and `function_call`."""
    tools = [_read_tool(tool, f"tools[{i}]") for i, tool in enumerate(given.tools or ())]
    tools += [_read_function(f, f"functions[{i}]") for i, f in enumerate(given.functions or ())]
    for field, choice in (
        ("tool_choice", given.tool_choice),
        ("function_call", given.function_call),
    ):
        if choice is not None:
            return _choose(tools, choice, field)
    return tuple(tools), ToolChoice()


def _read_tool(given: _Tool, path: str) -> Tool:
    if given.type == "custom" or (given.custom and not given.function):
        custom = given.custom or _Declared()
        return read_custom(custom.name, custom.description, custom.format, f"{path}.custom")
    if given.function is None:
        raise BadRequest(
            f"{path}.type: only function and custom tools run here, not {given.type}",
            param=f"{path}.type",
        )
    return _read_function(given.function, f"{path}.function")


def _read_function(given: _Declared, path: str) -> Tool:
    return read_function(given.name, given.description, given.parameters, path)


def _choose(
    tools: list[Tool], given: str | _Choice, field: str
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that may be called, and whether one must be."""
    if isinstance(given, _Choice) and given.allowed_tools is not None:
        allowed = {_named(t.function or t.custom) for t in given.allowed_tools.tools}
        tools = [tool for tool in tools if tool.name in allowed]
        given = given.allowed_tools.mode
    if isinstance(given, _Choice):
        name = _named(given.function or given.custom) or given.name
        return tuple(tools), choose_named(tools, name, field)
    return tuple(tools), choose_mode(tools, given, field)


def _named(given: "_Declared | _Named | None") -> str:
    return given.name if given else ""


def _read_format(given: _Format | None) -> OutputFormat | None:
    if given is None:
        return None
    path = "response_format"
    return read_format(given.type, given.json_schema, path=path, schema=f"{path}.json_schema")


def _read_messages(given: list[_Message] | None) -> tuple[Message, ...]:
    if not given:
        raise BadRequest("messages is missing or empty", param="messages")
    messages = tuple(_read_message(m, f"messages[{i}]") for i, m in enumerate(given))
    if not any(says_something(message) for message in messages):
        raise BadRequest("messages: there is no text in them", param="messages")
    return messages


def _read_message(given: _Message, path: str) -> Message:
    role = ROLES.get(given.role)
    if role is None:
        known = ", ".join(ROLES)
        raise BadRequest(f"{path}.role: expected one of {known}", param=f"{path}.role")
    if given.audio:
        raise BadRequest(f"{path}.audio: audio isn't supported yet", param=f"{path}.audio")
    if role == "tool":
        return Message(role, (_read_tool_result(given, path),))
    if role == "assistant":
        return Message(role, tuple(_read_assistant_parts(given, path)))
    return Message(role, read_content(given.content, f"{path}.content"))


def _read_assistant_parts(given: _Message, path: str) -> Iterator[Part]:
    if given.reasoning_content:
        yield ReasoningPart(given.reasoning_content)
    if given.content is not None:
        yield from read_content(given.content, f"{path}.content")
    if given.refusal:
        yield TextPart(given.refusal)
    for index, call in enumerate(given.tool_calls or ()):
        yield _read_call(call, f"{path}.tool_calls[{index}]")
    if given.function_call:
        yield ToolCallPart("", given.function_call.name, given.function_call.arguments)


def _read_call(given: _ToolCall, path: str) -> ToolCallPart:
    if given.custom is not None:
        return ToolCallPart(given.id, given.custom.name, given.custom.input, custom=True)
    if given.function is None:
        raise BadRequest(f"{path}.function is missing", param=f"{path}.function")
    return ToolCallPart(given.id, given.function.name, given.function.arguments)


def _read_tool_result(given: _Message, path: str) -> ToolResultPart:
    content = read_content(given.content, f"{path}.content")
    return ToolResultPart(given.tool_call_id or "", content, name=given.name or "")


def _read_thinking(given: _Request) -> bool | None:
    """The most explicit field wins: `enable_thinking`, `thinking`, then `reasoning_effort`."""
    if given.thinking and given.thinking.type not in ("enabled", "disabled", "adaptive", "auto"):
        raise BadRequest(
            "thinking.type: expected enabled, disabled or adaptive", param="thinking.type"
        )
    effort = _read_effort(given)
    if given.enable_thinking is not None:
        return given.enable_thinking
    if given.thinking:
        return {"enabled": True, "disabled": False}.get(given.thinking.type)
    return None if effort is None else effort != "none"


def _read_thinking_budget(given: _Request) -> int | None:
    """Tokens of reasoning at most: the most explicit of the fields that can say it."""
    if given.thinking_budget is not None:
        return thinking_budget(given.thinking_budget, "thinking_budget")
    if given.thinking and given.thinking.budget_tokens is not None:
        return thinking_budget(given.thinking.budget_tokens, "thinking.budget_tokens")
    return EFFORT_BUDGETS.get(_read_effort(given) or "")


def _read_effort(given: _Request) -> str | None:
    return read_effort(given.reasoning_effort, "reasoning_effort")


def _read_max_tokens(given: _Request) -> int | None:
    """`max_completion_tokens` replaced `max_tokens` and wins over it."""
    for name in ("max_tokens", "max_completion_tokens"):
        tokens: int | None = getattr(given, name)
        if tokens is not None:
            at_least_one(tokens, name)
    return given.max_tokens if given.max_completion_tokens is None else given.max_completion_tokens


def _read_ignored(given: _Request) -> tuple[str, ...]:
    """Names of the given fields nobody heeds; null, false and empty ask for nothing."""
    names = [name for name in _Unheeded.__struct_fields__ if asks(getattr(given, name))]
    if any(message.name and ROLES[message.role] != "tool" for message in given.messages or ()):
        names.append("messages[].name")
    return tuple(names)


# -- answer: shapes


class _CitedUrl(msgspec.Struct):
    start_index: int
    end_index: int
    title: str
    url: str


class _Annotation(msgspec.Struct, kw_only=True):
    type: str = "url_citation"
    url_citation: _CitedUrl


class _CalledFunction(msgspec.Struct, omit_defaults=True):
    arguments: str
    name: str | None = None


class _CalledCustom(msgspec.Struct, omit_defaults=True):
    input: str
    name: str | None = None


class _CalledTool(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A whole call in a reply; in a chunk `index` is there and all but it may be missing."""

    function: _CalledFunction | None = None
    custom: _CalledCustom | None = None
    index: int | None = None
    id: str | None = None
    type: str | None = None


class _Delta(msgspec.Struct, omit_defaults=True):
    role: str | None = None
    content: str | None = None
    annotations: list[_Annotation] | None = None
    tool_calls: list[_CalledTool] | None = None
    function_call: _CalledFunction | None = None


class _ReplyMessage(msgspec.Struct, kw_only=True):
    role: str = "assistant"
    content: str | None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    annotations: list[_Annotation] | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[_CalledTool] | msgspec.UnsetType = msgspec.UNSET
    function_call: _CalledFunction | msgspec.UnsetType = msgspec.UNSET
    refusal: None = None


class _ReplyChoice(msgspec.Struct, kw_only=True):
    index: int = 0
    message: _ReplyMessage
    logprobs: None = None
    finish_reason: str


class _PromptDetails(msgspec.Struct):
    cached_tokens: int


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails
    completion_tokens_details: _CompletionDetails


class _Completion(msgspec.Struct, kw_only=True):
    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[_ReplyChoice]
    usage: _Usage


class _Head(msgspec.Struct, kw_only=True):
    """What every chunk of a stream begins with."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode

_FINISH_REASONS: dict[StopReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}

_THINK_OPENS = "<think>\n"
_THINK_CLOSES = "\n</think>\n\n"


# -- answer: stream


def open_writer(turn: Turn) -> "ChunkWriter":
    return ChunkWriter(turn)


class ChunkWriter:
    """Events → `data: {"object": "chat.completion.chunk", "choices": [{"delta": {…}}]}`.

    Pictures and sources wait for the end and follow the text, as in the whole reply.

    Phases: new → open ⇄ thinking (inside `<think>`, legacy rendering only) → ended.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._frame = _Frame(turn)
        self._phase: Literal["new", "open", "thinking", "ended"] = "new"
        self._length = 0  # characters of `content` so far: citations say where they stand in it
        self._extras = Reply()  # its media and sources, until the end
        self._calls = _Calls(turn)

    def feed(self, event: Event) -> bytes:
        """Contract: any order of events; after the first `TurnEnd` or `TurnFailed`, nothing."""
        if type(event) is TextDelta and self._phase == "open" and event.text:
            return self._content(event.text)  # nearly all of them: half the time of what follows
        if self._phase == "ended":
            return b""
        match event:
            case TextDelta(text):
                return self._enter("open") + self._content(text) if text else self._begin()
            case ReasoningDelta(text):
                return self._reasoning(text)
            case SourcesFound():
                self._extras.searches.append(event)
                return self._begin()
            case MediaReady(kind, url):
                self._extras.media.append((kind, url))
                return self._begin()
            case ToolCallStart():
                return self._enter("open") + self._frame.delta(self._calls.start(event))
            case ToolCallDelta():
                return self._enter("open") + self._frame.delta(self._calls.go_on(event))
            case TurnStart() | ToolCallEnd():
                return b""
            case TurnEnd(reason, usage):
                return self._end(self._calls.finish_reason(reason), usage or Usage())
            case TurnFailed(error):
                return self._fail(error)
            case _:
                assert_never(event)

    def _begin(self) -> bytes:
        if self._phase != "new":
            return b""
        self._phase = "open"
        return self._frame.role

    def _enter(self, phase: Literal["open", "thinking"]) -> bytes:
        """What must be said before something of that phase can be."""
        if phase == self._phase:
            return b""
        written = self._begin()
        if phase != self._phase:
            self._phase = phase
            written += self._content(_THINK_OPENS if phase == "thinking" else _THINK_CLOSES)
        return written

    def _content(self, text: str) -> bytes:
        self._length += len(text)
        return self._frame.content(text)

    def _reasoning(self, text: str) -> bytes:
        rendering = self._turn.rendering
        if not text or not rendering.output_think:
            return self._begin()
        if rendering.legacy_reasoning_in_content:
            return self._enter("thinking") + self._content(text)
        return self._begin() + self._frame.reasoning(text)

    def _end(self, finish_reason: str, usage: Usage) -> bytes:
        written = [self._enter("open")]
        appendix = _appendix(self._turn, self._extras, after_text=self._length > 0)
        if appendix.text:
            annotations = _annotations(appendix, self._length) or None
            written.append(
                self._frame.delta(_Delta(content=appendix.text, annotations=annotations))
            )
        written.append(self._frame.finish(finish_reason))
        if self._turn.include_usage:
            written.append(self._frame.usage(_usage(usage)))
        written.append(b"data: [DONE]\n\n")
        self._phase = "ended"
        return b"".join(written)

    def _fail(self, error: GatewayError) -> bytes:
        closing = self._enter("open") if self._phase == "thinking" else b""
        self._phase = "ended"
        return closing + b"data: " + write_error(error, "") + b"\n\n"


class _Calls:
    """Spells tool calls as their caller reads them: `tool_calls`, or the older `function_call`."""

    def __init__(self, turn: Turn) -> None:
        self._legacy = isinstance(turn.given, _Given) and turn.given.legacy_functions
        self._custom: set[int] = set()

    def start(self, event: ToolCallStart) -> _Delta:
        if self._legacy:
            return _Delta(function_call=_CalledFunction("", event.name))
        if event.custom:
            self._custom.add(event.index)
        return _Delta(
            tool_calls=[_called(event.call_id, event.name, "", event.custom, index=event.index)]
        )

    def go_on(self, event: ToolCallDelta) -> _Delta:
        if self._legacy:
            return _Delta(function_call=_CalledFunction(event.arguments))
        if event.index in self._custom:
            call = _CalledTool(index=event.index, custom=_CalledCustom(event.arguments))
        else:
            call = _CalledTool(index=event.index, function=_CalledFunction(event.arguments))
        return _Delta(tool_calls=[call])

    def whole(self, calls: list[ReplyToolCall]) -> list[_CalledTool]:
        return [_called(c.call_id, c.name, c.arguments, c.custom, index=None) for c in calls]

    def legacy(self, calls: list[ReplyToolCall]) -> _CalledFunction | None:
        """The one call of a legacy reply."""
        return (
            _CalledFunction(calls[0].arguments, calls[0].name) if self._legacy and calls else None
        )

    def finish_reason(self, reason: StopReason) -> str:
        called = reason == "tool_calls" and self._legacy
        return "function_call" if called else _FINISH_REASONS[reason]


def _called(
    call_id: str, name: str, arguments: str, custom: bool, *, index: int | None
) -> _CalledTool:
    if custom:
        called = _CalledCustom(arguments, name)
        return _CalledTool(custom=called, index=index, id=call_id, type="custom")
    function = _CalledFunction(arguments, name)
    return _CalledTool(function=function, index=index, id=call_id, type="function")


class _Frame:
    """The frames of one turn's stream, as byte templates.

    Measured 2026-11: 0.3 µs for a content frame against 1.5 µs through a tree of Structs.
    """

    def __init__(self, turn: Turn) -> None:
        head = _Head(id=turn.id, created=turn.created, model=turn.model)
        # Every other chunk of a stream that ends with a usage chunk says `"usage":null`.
        self._usage = b',"usage":null' if turn.include_usage else b""
        self._start = b"data: " + _encode(head)[:-1]
        self._delta = self._start + b',"choices":[{"index":0,"delta":'
        self._close = b',"logprobs":null,"finish_reason":null}]' + self._usage + b"}\n\n"
        self._content = self._delta + b'{"content":'
        self._reasoning = self._delta + b'{"reasoning_content":'
        self._close_text = b"}" + self._close
        self.role = self.delta(_Delta(role="assistant", content=""))

    def content(self, text: str) -> bytes:
        return self._content + _encode(text) + self._close_text

    def reasoning(self, text: str) -> bytes:
        return self._reasoning + _encode(text) + self._close_text

    def delta(self, delta: _Delta) -> bytes:
        return self._delta + _encode(delta) + self._close

    def finish(self, reason: str) -> bytes:
        ending = b'{},"logprobs":null,"finish_reason":' + _encode(reason) + b"}]"
        return self._delta + ending + self._usage + b"}\n\n"

    def usage(self, usage: _Usage) -> bytes:
        return self._start + b',"choices":[],"usage":' + _encode(usage) + b"}\n\n"


# -- answer: whole


def write_reply(turn: Turn, reply: Reply) -> bytes:
    """`{"object": "chat.completion", "choices": [{"message": {…}}], "usage": {…}}`."""
    text, reasoning = _shown(turn, reply)
    appendix = _appendix(turn, reply, after_text=bool(text))
    content: str | None = text + appendix.text
    if not content and reply.tool_calls:
        content = None
    calls = _Calls(turn)
    legacy = calls.legacy(reply.tool_calls)
    message = _ReplyMessage(
        content=content,
        reasoning_content=reasoning or msgspec.UNSET,
        annotations=_annotations(appendix, len(text)) or msgspec.UNSET,
        tool_calls=(not legacy and calls.whole(reply.tool_calls)) or msgspec.UNSET,
        function_call=legacy or msgspec.UNSET,
    )
    completion = _Completion(
        id=turn.id,
        created=turn.created,
        model=turn.model,
        choices=[_ReplyChoice(message=message, finish_reason=calls.finish_reason(reply.reason))],
        usage=_usage(reply.usage or Usage()),
    )
    return _encode(completion)


def _shown(turn: Turn, reply: Reply) -> tuple[str, str]:
    """`content` without its appendix, and `reasoning_content`."""
    if not reply.reasoning or not turn.rendering.output_think:
        return reply.text, ""
    if turn.rendering.legacy_reasoning_in_content:
        return _THINK_OPENS + reply.reasoning + _THINK_CLOSES + reply.text, ""
    return reply.text, reply.reasoning


def _appendix(turn: Turn, reply: Reply, *, after_text: bool) -> Appendix:
    mode = turn.rendering.search_info_mode
    return write_appendix(reply.media, reply.sources, search_info_mode=mode, after_text=after_text)


def _annotations(appendix: Appendix, offset: int) -> list[_Annotation]:
    return [
        _Annotation(
            url_citation=_CitedUrl(offset + cited.start, offset + cited.end, cited.title, cited.url)
        )
        for cited in appendix.citations
    ]


def _usage(usage: Usage) -> _Usage:
    return _Usage(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=_PromptDetails(usage.cached_tokens),
        completion_tokens_details=_CompletionDetails(usage.reasoning_tokens),
    )


# -- errors


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class _ErrorBody(msgspec.Struct):
    error: _Error


# Codes whose type isn't the one of their status class. Contract, section 4.
_ERROR_TYPES = {
    "forbidden": "permission_error",
    "rate_limit_exceeded": "rate_limit_error",
    "accounts_exhausted": "rate_limit_error",
}


def write_error(error: GatewayError, request_id: str) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`; the request id goes in its header."""
    by_status = "invalid_request_error" if error.status < 500 else "server_error"
    type_ = _ERROR_TYPES.get(error.code, by_status)
    param = getattr(error, "param", None)
    return _encode(_ErrorBody(_Error(error.message, type_, param, error.code)))
