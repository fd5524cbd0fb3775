"""Reads Anthropic Messages requests: `{"model", "max_tokens", "messages", "system", "tools", …}`.

Source: Anthropic API reference, messages and count_tokens, its Python SDK's types, and what Claude
Code sends, read and seen 2026-11.

Where the model's last word is the caller's (a prefilled assistant message), it is asked to go on
from there; what it repeats of it all the same is taken off its answer (`Given.prefill`).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.dialects.anthropic_search import GivenHit, read_search
from gateway.dialects.anthropic_tools import GivenChoice, GivenTool, OfferedTools, read_tools
from gateway.dialects.body import read_body
from gateway.dialects.fields import (
    EFFORT_BUDGETS,
    asks,
    at_least_one,
    says_something,
    stop_sequences,
    thinking_budget,
)
from shared.chat.json_schema import compile_schema
from shared.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from shared.errors import BadRequest

CONTINUE = (
    "The assistant's message above isn't finished. Go on from exactly where it ends: write only "
    "what follows, and nothing of it again."
)


class Given(msgspec.Struct, frozen=True):
    """What the writer has to know of the request.

    `web_search`: the caller offered the server tool, so it reads its blocks.
    `prefill`: the beginning of the answer, which the caller has already.
    """

    web_search: bool = False
    prefill: str = ""


class _Unheeded(msgspec.Struct):
    """Fields the upstream can't honour: accepted and named in `ChatRequest.ignored`.

    Any: they are read by nobody.
    """

    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    metadata: Any = None
    service_tier: Any = None
    speed: Any = None
    inference_geo: Any = None
    container: Any = None
    context_management: Any = None
    compaction: Any = None
    mcp_servers: Any = None


class _Block(GivenHit):
    """A content block of any kind, as far as we look at it."""

    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    tool_use_id: str | None = None
    tool_name: str | None = None
    content: "str | list[_Block] | _Block | None" = None
    is_error: bool | None = None
    source: "str | _Source | None" = None


class _Source(msgspec.Struct):
    """Of a document: `{"type": "text", "data"}`, `{"type": "content", "content"}`, …"""

    type: str | None = None
    data: str | None = None
    content: str | list[_Block] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block] | None = None


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class _Format(msgspec.Struct):
    type: str
    schema: msgspec.Raw = msgspec.Raw()


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Request(_Unheeded):
    model: str | None = None
    messages: list[_Message] | None = None
    max_tokens: int | None = None
    system: str | list[_Block] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    thinking: _Thinking | None = None
    tools: list[GivenTool] | None = None
    tool_choice: GivenChoice | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    thread: Any = None  # Any: that there is one says enough


# The SDK takes it as: send the whole conversation instead. Seen in anthropic 2.12, 2026-11: its
# tool runner begins with a thread.
NO_THREADS = "thread_unsupported_request"

_DECODER = msgspec.json.Decoder(_Request)


def read_request(body: bytes) -> ChatRequest:
    """A turn to run.

    Raises:
        BadRequest: malformed, a field missing or wrong, or something that isn't supported yet.
    """
    given = read_body(body, _DECODER)
    request = _read(given)
    if given.max_tokens is None:
        raise BadRequest("max_tokens is missing", param="max_tokens")
    return request


def read_countable(body: bytes) -> ChatRequest:
    """A turn whose tokens are only counted: `max_tokens` may be missing.

    Raises:
        BadRequest: as `read_request`.
    """
    return _read(read_body(body, _DECODER))


def _read(given: _Request) -> ChatRequest:
    if not given.model or not given.model.strip():
        raise BadRequest("model is missing", param="model")
    if asks(given.thread):
        # Without what the thread holds, the answer would be to something nobody asked.
        told = "thread: there are none here; send the whole conversation without it"
        raise BadRequest(told, param="thread", code=NO_THREADS)
    messages = _read_messages(given)
    prefill = _prefill_of(messages[-1])
    if prefill:
        messages = (*messages, Message("system", (TextPart(CONTINUE),)))
    offered = read_tools(given.tools, given.tool_choice)
    thinking = _read_thinking(given.thinking)
    return ChatRequest(
        model=given.model,
        messages=messages,
        stream=given.stream or False,
        thinking=thinking,
        thinking_budget=None if thinking is False else _read_thinking_budget(given),
        search=offered.web_search,
        max_output_tokens=_read_max_tokens(given.max_tokens),
        stop_sequences=stop_sequences(given.stop_sequences, "stop_sequences"),
        tools=offered.tools,
        tool_choice=offered.choice,
        parallel_tool_calls=offered.parallel,
        output_format=_read_format(given),
        ignored=_read_ignored(given, offered),
        given=Given(web_search=offered.web_search, prefill=prefill),
    )


def _read_max_tokens(given: int | None) -> int | None:
    return None if given is None else at_least_one(given, "max_tokens")


def _read_ignored(given: _Request, offered: OfferedTools) -> tuple[str, ...]:
    unheeded = (name for name in _Unheeded.__struct_fields__ if asks(getattr(given, name)))
    hosted = dict.fromkeys(
        f"messages[].content[].{block.type}"
        for message in given.messages or ()
        for block in (message.content if isinstance(message.content, list) else ())
        if _is_hosted(block)
    )
    return (*unheeded, *hosted, *offered.ignored)


# -- how to answer


_THINKS: dict[str, bool | None] = {
    "enabled": True,
    "between_tools": True,
    "adaptive": None,
    "auto": None,
    "disabled": False,
}


def _read_thinking(given: _Thinking | None) -> bool | None:
    """Who doesn't ask for thinking gets none: this API's default."""
    if given is None:
        return False
    if given.type not in _THINKS:
        raise BadRequest(
            "thinking.type: expected enabled, adaptive or disabled", param="thinking.type"
        )
    return _THINKS[given.type]


def _read_thinking_budget(given: _Request) -> int | None:
    """Tokens of thinking at most: said itself, or as an effort."""
    if given.thinking and given.thinking.budget_tokens is not None:
        return thinking_budget(given.thinking.budget_tokens, "thinking.budget_tokens")
    effort = given.output_config.effort if given.output_config else None
    if not effort:
        return None
    effort = "xhigh" if effort == "max" else effort
    if effort not in EFFORT_BUDGETS:
        known = ", ".join((*EFFORT_BUDGETS, "max"))
        raise BadRequest(
            f"output_config.effort: expected one of {known}", param="output_config.effort"
        )
    return EFFORT_BUDGETS[effort]


def _read_format(given: _Request) -> OutputFormat | None:
    """`output_config.format`, or `output_format`, as it was called before."""
    format_, path = given.output_format, "output_format"
    if given.output_config and given.output_config.format:
        format_, path = given.output_config.format, "output_config.format"
    if format_ is None:
        return None
    if format_.type != "json_schema":
        raise BadRequest(f"{path}.type: expected json_schema", param=f"{path}.type")
    if not format_.schema:
        raise BadRequest(f"{path}.schema is missing", param=f"{path}.schema")
    compile_schema(bytes(format_.schema), param=f"{path}.schema")
    return OutputFormat(schema=format_.schema, strict=True)


# -- messages


def _read_messages(given: _Request) -> tuple[Message, ...]:
    if not given.messages:
        raise BadRequest("messages is missing or empty", param="messages")
    messages = tuple(_read_message(m, f"messages[{i}]") for i, m in enumerate(given.messages))
    if not any(says_something(message) for message in messages):
        raise BadRequest("messages: there is no text in them", param="messages")
    if system := tuple(_read_system(given.system)):
        return (Message("system", system), *messages)
    return messages


def _read_system(given: str | list[_Block] | None) -> Iterator[TextPart]:
    if isinstance(given, str):
        given = [_Block(type="text", text=given)]
    for index, block in enumerate(given or ()):
        path = f"system[{index}]"
        if block.type != "text":
            raise BadRequest(f"{path}.type: only text is read there", param=f"{path}.type")
        yield TextPart(_required(block.text, f"{path}.text"))


def _read_message(given: _Message, path: str) -> Message:
    if given.content is None:
        raise BadRequest(f"{path}.content is missing", param=f"{path}.content")
    match given.role:
        case "user" | "system" | "assistant" as role:
            if isinstance(given.content, str):
                return Message(role, (TextPart(given.content),))
            return Message(role, tuple(_Blocks(role, f"{path}.content").read(given.content)))
        case _:
            raise BadRequest(
                f"{path}.role: expected user, assistant or system", param=f"{path}.role"
            )


def _prefill_of(last: Message) -> str:
    """What the caller has written of the answer; nothing where it waits for results."""
    if last.role != "assistant" or any(type(part) is ToolCallPart for part in last.parts):
        return ""
    texts = [part.text for part in last.parts if type(part) is TextPart]
    return texts[-1].rstrip() if texts else ""


# Which blocks only one role may say: a caller's own text can't pass for a call or for a result.
_SAID_BY = {
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_use": "assistant",
    "server_tool_use": "assistant",
    "web_search_tool_result": "assistant",
    "tool_result": "user",
}


# What else runs on Anthropic's servers leaves in a history that began there. An agent sends it with
# every request, so it is left out and named instead of refused.
_HOSTED = {
    "mcp_tool_use",
    "mcp_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
}


def _is_hosted(block: _Block) -> bool:
    return block.type in _HOSTED


class _Blocks:
    """Reads the blocks of one message; `path` is their list's."""

    def __init__(self, role: str, path: str) -> None:
        self._role = role
        self._path = path
        self._hits = 0  # of the message's searches so far: its text cites them by number

    def read(self, given: Iterable[_Block]) -> Iterator[Part]:
        for index, block in enumerate(given):
            yield from self._read(block, f"{self._path}[{index}]")

    def _read(self, block: _Block, path: str) -> Iterator[Part]:
        role = _SAID_BY.get(block.type, self._role)
        if role != self._role:
            raise BadRequest(
                f"{path}.type: {block.type} stands in messages of role {role}",
                param=f"{path}.type",
            )
        match block.type:
            case "thinking":
                yield ReasoningPart(block.thinking or "")
            case "redacted_thinking" | "server_tool_use":
                pass  # the one says nothing to anybody else; the other's result says all
            case _ if _is_hosted(block):
                pass
            case "tool_use":
                yield _read_call(block, path)
            case "tool_result":
                yield _read_result(block, path)
            case "web_search_tool_result":
                yield self._read_search(block)
            case _:
                yield _read_text(block, path)

    def _read_search(self, block: _Block) -> Part:
        hits = _listed(block.content)
        first, self._hits = self._hits + 1, self._hits + len(hits)
        return read_search(hits, block.tool_use_id or "", numbered_from=first)


def _read_call(block: _Block, path: str) -> ToolCallPart:
    name = _required(block.name, f"{path}.name")
    arguments = bytes(block.input).decode()
    if arguments in ("", "null"):
        arguments = "{}"
    if not arguments.startswith("{"):
        raise BadRequest(f"{path}.input: expected an object", param=f"{path}.input")
    return ToolCallPart(block.id or "", name, arguments)


def _read_result(block: _Block, path: str) -> ToolResultPart:
    use_id = _required(block.tool_use_id, f"{path}.tool_use_id")
    content = tuple(_read_texts(block.content, f"{path}.content"))
    return ToolResultPart(use_id, content, is_error=block.is_error or False)


def _listed(content: str | list[_Block] | _Block | None) -> list[_Block]:
    match content:
        case None:
            return []
        case str():
            return [_Block(type="text", text=content)]
        case _Block():
            return [content]
        case _:
            return content


def _read_texts(content: str | list[_Block] | _Block | None, path: str) -> Iterator[TextPart]:
    for index, block in enumerate(_listed(content)):
        yield _read_text(block, f"{path}[{index}]")


def _read_text(block: _Block, path: str) -> TextPart:
    """A block that is made of text. Media come with a later capability."""
    match block.type:
        case "text":
            return TextPart(_required(block.text, f"{path}.text"))
        case "search_result":
            return TextPart(_told_from(block, block.source, block.content, f"{path}.content"))
        case "document" if (source := _text_source(block)) is not None:
            return TextPart(_told_from(block, None, source, f"{path}.source.content"))
        case "tool_reference":
            return TextPart(f"The tool {block.tool_name or ''} can be called now.")
        case "image" | "document" | "container_upload":
            raise BadRequest(f"{path}.type: {block.type} isn't supported yet", param=f"{path}.type")
        case _:
            raise BadRequest(f"{path}.type: unknown kind of content", param=f"{path}.type")


def _text_source(document: _Block) -> str | list[_Block] | None:
    """The text of a document that is none but text; a PDF and a file have none."""
    if not isinstance(document.source, _Source):
        return None
    match document.source.type:
        case "text":
            return document.source.data
        case "content":
            return document.source.content
        case _:
            return None


def _told_from(
    block: _Block,
    address: object,
    content: str | list[_Block] | _Block | None,
    path: str,
) -> str:
    """A title, an address, and what stands there."""
    texts = [part.text for part in _read_texts(content, path)]
    head = (block.title, address if isinstance(address, str) else None)
    return "\n".join((*filter(None, head), *texts))


def _required(text: str | None, path: str) -> str:
    if text is None:
        raise BadRequest(f"{path} is missing", param=path)
    return text
