"""OpenAI Responses, what an answer is made of: output items, their ids, the response around them.

    {"object": "response", "status": "completed", "output": [items], "usage": {…}, …}

Items have ids made of the response's own, so that one that is named later is found again:

    resp_4f…c1 → rs_4f…c1_0, ws_4f…c1_0, msg_4f…c1_0, fc_4f…c1_0, ctc_4f…c1_1

Source: OpenAI API reference and its Python SDK's types, read 2026-11.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects.appendix import Appendix, Citation, write_appendix
from gateway.dialects.responses_request import given_of
from gateway.dialects.turn import Turn
from shared.chat.collect import Reply, ReplyToolCall
from shared.chat.events import SourcesFound, StopReason, Usage

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class UrlCitation(msgspec.Struct, kw_only=True):
    type: str = "url_citation"
    start_index: int
    end_index: int
    url: str
    title: str


class OutputText(msgspec.Struct):
    text: str = ""
    annotations: list[UrlCitation] = []
    logprobs: list[str] = []
    type: str = "output_text"


class SummaryText(msgspec.Struct):
    text: str = ""
    type: str = "summary_text"


class MessageItem(msgspec.Struct):
    id: str
    status: ItemStatus
    content: list[OutputText]
    type: str = "message"
    role: str = "assistant"


class ReasoningItem(msgspec.Struct):
    id: str
    status: ItemStatus
    summary: list[SummaryText]
    type: str = "reasoning"
    encrypted_content: None = None


class FunctionItem(msgspec.Struct):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str = ""
    namespace: str | UnsetType = UNSET
    type: str = "function_call"


class CustomItem(msgspec.Struct):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    input: str = ""
    namespace: str | UnsetType = UNSET
    type: str = "custom_tool_call"


class _SearchedUrl(msgspec.Struct):
    url: str
    type: str = "url"


class _SearchAction(msgspec.Struct):
    query: str
    queries: tuple[str, ...]
    sources: list[_SearchedUrl]
    type: str = "search"


class SearchItem(msgspec.Struct):
    id: str
    status: ItemStatus
    action: _SearchAction
    type: str = "web_search_call"


OutputItem = MessageItem | ReasoningItem | FunctionItem | CustomItem | SearchItem


class _InputDetails(msgspec.Struct):
    cached_tokens: int
    cache_write_tokens: int = 0


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int


class _Usage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: _InputDetails
    output_tokens: int
    output_tokens_details: _OutputDetails
    total_tokens: int


class Error(msgspec.Struct):
    code: str
    message: str


class _Incomplete(msgspec.Struct):
    reason: str


class Response(msgspec.Struct, kw_only=True):
    id: str
    object: str = "response"
    created_at: int
    status: Status
    background: bool
    error: Error | None
    incomplete_details: _Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: Sequence[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: msgspec.Raw
    store: bool
    temperature: None = None
    text: msgspec.Raw
    tool_choice: msgspec.Raw
    tools: msgspec.Raw
    top_p: None = None
    truncation: str
    usage: _Usage | None
    metadata: dict[str, str]


encode: Callable[[object], bytes] = msgspec.json.Encoder().encode

_INCOMPLETE: dict[StopReason, str] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


def response_of(
    turn: Turn,
    status: Status,
    output: Sequence[OutputItem] = (),
    *,
    reason: StopReason = "stop",
    usage: Usage | None = None,
    error: Error | None = None,
) -> Response:
    echo = given_of(turn.given).echo
    return Response(
        id=turn.id,
        created_at=turn.created,
        status=status,
        background=echo.background,
        error=error,
        incomplete_details=_Incomplete(_INCOMPLETE[reason]) if status == "incomplete" else None,
        instructions=echo.instructions,
        max_output_tokens=echo.max_output_tokens,
        model=turn.model,
        output=output,
        parallel_tool_calls=echo.parallel_tool_calls,
        previous_response_id=echo.previous_response_id,
        reasoning=echo.reasoning,
        store=echo.store,
        text=echo.text,
        tool_choice=echo.tool_choice,
        tools=echo.tools,
        truncation=echo.truncation,
        usage=None if usage is None else _usage(usage),
        metadata=echo.metadata,
    )


def status_of(reason: StopReason) -> Literal["completed", "incomplete"]:
    return "incomplete" if reason in _INCOMPLETE else "completed"


def error_of(status: int, message: str) -> Error:
    """With one of the few codes that the SDK's types allow in a response."""
    if status == 429:
        return Error("rate_limit_exceeded", message)
    return Error("invalid_prompt" if status < 500 else "server_error", message)


def _usage(usage: Usage) -> _Usage:
    return _Usage(
        input_tokens=usage.input_tokens,
        input_tokens_details=_InputDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=_OutputDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )


class Ids:
    """Ids of a response's items, numbered per kind: the n-th message, the n-th search."""

    def __init__(self, response_id: str) -> None:
        self._rest = response_id.removeprefix("resp_")
        self._numbers: dict[str, int] = {}

    def next(self, kind: Literal["rs", "ws", "msg", "fc", "ctc"]) -> str:
        number = self._numbers.get(kind, 0)
        self._numbers[kind] = number + 1
        return f"{kind}_{self._rest}_{number}"


def search_item(item_id: str, search: SourcesFound, status: ItemStatus) -> SearchItem:
    sources = [_SearchedUrl(source.url) for source in search.sources if source.url]
    queries = search.queries
    return SearchItem(
        item_id, status, _SearchAction(queries[0] if queries else "", queries, sources)
    )


def citations_of(appendix: Appendix, offset: int) -> list[UrlCitation]:
    return [_citation(cited, offset) for cited in appendix.citations]


def _citation(cited: Citation, offset: int) -> UrlCitation:
    return UrlCitation(
        start_index=offset + cited.start,
        end_index=offset + cited.end,
        url=cited.url,
        title=cited.title,
    )


def appendix_of(turn: Turn, reply: Reply, *, called: bool, after_text: bool) -> Appendix:
    """What follows the text: pictures, and the sources once the answer is a final one.

    A text that must be one JSON document stays it, and a turn that ends with calls goes on: in both
    the sources stand in their `web_search_call` items only.
    """
    if not given_of(turn.given).echo.plain:
        return Appendix()
    return write_appendix(
        reply.media,
        () if called else reply.sources,
        search_info_mode=turn.rendering.search_info_mode,
        after_text=after_text,
    )


def write_reply(turn: Turn, reply: Reply) -> bytes:
    """`{"object": "response", "status": "completed", "output": [items], "usage": {…}, …}`."""
    status = status_of(reply.reason)
    output = output_of(turn, reply, status)
    response = response_of(turn, status, output, reason=reply.reason, usage=reply.usage or Usage())
    return encode(response)


def output_of(turn: Turn, reply: Reply, status: ItemStatus) -> list[OutputItem]:
    """Reasoning, searches, the message, calls; the last one tells whether it was cut short."""
    ids = Ids(turn.id)
    output: list[OutputItem] = []
    if reply.reasoning and turn.rendering.output_think:
        summary = [SummaryText(reply.reasoning)]
        output.append(ReasoningItem(ids.next("rs"), "completed", summary))
    output += (search_item(ids.next("ws"), search, "completed") for search in reply.searches)
    appendix = appendix_of(turn, reply, called=bool(reply.tool_calls), after_text=bool(reply.text))
    if text := reply.text + appendix.text:
        part = OutputText(text, citations_of(appendix, len(reply.text)))
        output.append(MessageItem(ids.next("msg"), "completed", [part]))
    if output and not reply.tool_calls and isinstance(output[-1], MessageItem | ReasoningItem):
        output[-1].status = status
    namespaces = given_of(turn.given).echo.namespaces
    output += (call_item(ids, call, namespaces) for call in reply.tool_calls)
    return output


def call_item(
    ids: Ids, call: ReplyToolCall, namespaces: Mapping[str, str]
) -> FunctionItem | CustomItem:
    """`namespaces`: whole name of a tool → the namespace it begins with."""
    namespace, name = named_in(namespaces, call.name)
    if call.custom:
        item_id = ids.next("ctc")
        return CustomItem(item_id, "completed", call.call_id, name, call.arguments, namespace)
    return FunctionItem(ids.next("fc"), "completed", call.call_id, name, call.arguments, namespace)


def named_in(namespaces: Mapping[str, str], name: str) -> tuple[str | UnsetType, str]:
    """The namespace and the name in it, as the caller declared the tool."""
    namespace = namespaces.get(name)
    return (namespace, name[len(namespace) + 1 :]) if namespace else (UNSET, name)


def response_of_item(item_id: str) -> str | None:
    """The id of the response that this output item belongs to; None: it is no item of ours."""
    found = re.fullmatch(r"(?:rs|ws|msg|fc|ctc)_([0-9a-f]+)_[0-9]+", item_id)
    return f"resp_{found[1]}" if found else None
