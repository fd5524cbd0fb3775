"""Anthropic Messages: `POST /v1/messages`.

    message_start
      content_block_start  content_block_delta*  content_block_stop      thinking, text, tool_use …
    message_delta          stop reason and usage
    message_stop

A failure after `message_start` closes the open block, says `event: error`, and is the last event.

Source: Anthropic API reference, messages and their streaming events, read 2026-11. The requests are
read in `anthropic_request`, tools in `anthropic_tools`, web search is `anthropic_search`'s.

- Reasoning is `thinking` blocks, for who asked for it (`Turn.thinking`); the `signature` is a
  digest. One that is handed back isn't looked at: the upstream never sees old reasoning.
- `input_tokens` is what was neither cached nor read from a cache; OpenAI's counts both.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any, Literal, assert_never

import msgspec

from gateway.dialects.anthropic_request import NO_THREADS, Given, read_countable, read_request
from gateway.dialects.anthropic_search import (
    Citation,
    SearchResult,
    SearchUse,
    cite,
    use_id_of,
    write_search,
)
from gateway.dialects.appendix import write_appendix
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
from shared.errors import ContextTooLong, GatewayError

__all__ = [
    "KEEPALIVE",
    "new_id",
    "open_writer",
    "read_countable",
    "read_request",
    "write_count",
    "write_error",
    "write_reply",
]

KEEPALIVE = b'event: ping\ndata: {"type":"ping"}\n\n'


def new_id(random_hex: str) -> str:
    return "msg_" + random_hex


# -- shapes


class _Text(msgspec.Struct, kw_only=True):
    type: Literal["text"] = "text"
    text: str
    citations: list[Citation] | msgspec.UnsetType = msgspec.UNSET


class _Thinking(msgspec.Struct, kw_only=True):
    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str


class _ToolUse(msgspec.Struct, kw_only=True):
    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: msgspec.Raw


_Block = _Text | _Thinking | _ToolUse | SearchUse | SearchResult


class _ServerToolUse(msgspec.Struct):
    web_search_requests: int
    web_fetch_requests: int = 0


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int


class _Usage(msgspec.Struct, kw_only=True):
    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: _OutputDetails
    server_tool_use: _ServerToolUse | msgspec.UnsetType = msgspec.UNSET


class _Message(msgspec.Struct, kw_only=True):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[_Block]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: _Usage


class _Stopped(msgspec.Struct):
    stop_reason: str
    stop_sequence: str | None


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode

_STOP_REASONS: dict[StopReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_NO_INPUT = msgspec.Raw(b"{}")


def _usage(usage: Usage | None, searches: int = 0) -> _Usage:
    usage = usage or Usage()
    return _Usage(
        input_tokens=max(0, usage.input_tokens - usage.cached_tokens),
        cache_read_input_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        output_tokens_details=_OutputDetails(usage.reasoning_tokens),
        server_tool_use=_ServerToolUse(searches) if searches else msgspec.UNSET,
    )


def _stopped(reason: StopReason, stop_sequence: str | None) -> _Stopped:
    if stop_sequence is not None:
        return _Stopped("stop_sequence", stop_sequence)
    return _Stopped(_STOP_REASONS[reason], None)


def _signature(thought: "hashlib._Hash") -> str:
    return base64.b64encode(thought.digest()).decode()


# -- answer: stream


def open_writer(turn: Turn) -> "EventWriter":
    return EventWriter(turn)


class EventWriter:
    """Events → `event: content_block_delta`, `data: {"type": "content_block_delta", …}`.

    At most one block is open (`_open`), and whatever belongs to another one closes it. Pictures,
    and sources that aren't told as blocks, wait for the end and follow the text.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._shown = _Shown(turn)
        self._phase: Literal["new", "running", "ended"] = "new"
        self._open: Literal["thinking", "text", "tool_use"] | None = None
        self._index = -1  # of the newest block
        self._delta = b""  # what a delta of the open block begins with
        self._thought = hashlib.sha256()
        self._text: list[str] = []  # of the open block
        self._extras = Reply()  # searches and pictures
        self._has_text = self._cited = self._called = False
        self._prefill = _Prefill(self._shown.given.prefill)

    def feed(self, event: Event) -> bytes:
        """Contract: any order of events; after the first `TurnEnd` or `TurnFailed`, nothing."""
        if self._phase == "ended":
            return b""
        match event:
            case TextDelta(text):
                return self._begin() + self._say(self._prefill.feed(text))
            case ReasoningDelta(text):
                return self._begin() + self._think(text)
            case ToolCallStart(_, call_id, name):
                return self._begin() + self._call(call_id, name)
            case ToolCallDelta(_, arguments):
                return self._more(arguments) if self._open == "tool_use" else b""
            case ToolCallEnd():
                return self._close() if self._open == "tool_use" else b""
            case SourcesFound():
                return self._begin() + self._search(event)
            case MediaReady(kind, url):
                self._extras.media.append((kind, url))
                return self._begin()
            case TurnStart(usage):
                return self._begin(usage)
            case TurnEnd():
                return self._begin() + self._end(event)
            case TurnFailed(error):
                return self._begin() + self._fail(error)
            case _:
                assert_never(event)

    def _begin(self, usage: Usage | None = None) -> bytes:
        if self._phase != "new":
            return b""
        self._phase = "running"
        turn = self._turn
        message = _Message(id=turn.id, model=turn.model, content=[], usage=_usage(usage))
        return _frame("message_start", {"message": message})

    def _say(self, text: str) -> bytes:
        if not text:
            return b""
        opened = b"" if self._open == "text" else self._start("text", _Text(text=""))
        self._text.append(text)
        self._has_text = True
        return opened + self._delta + _encode(text) + b"}}\n\n"

    def _think(self, text: str) -> bytes:
        if not text or not self._shown.thinking:
            return b""
        opened = b""
        if self._open != "thinking":
            opened = self._start("thinking", _Thinking(thinking="", signature=""))
        self._thought.update(text.encode())
        return opened + self._delta + _encode(text) + b"}}\n\n"

    def _call(self, call_id: str, name: str) -> bytes:
        held = self._say(self._prefill.end())
        self._called = True
        return held + self._start("tool_use", _ToolUse(id=call_id, name=name, input=_NO_INPUT))

    def _more(self, arguments: str) -> bytes:
        return self._delta + _encode(arguments) + b"}}\n\n" if arguments else b""

    def _search(self, found: SourcesFound) -> bytes:
        number = len(self._extras.searches)
        self._extras.searches.append(found)
        if not self._shown.given.web_search:
            return b""
        use, result = write_search(found, use_id_of(self._turn.id, number))
        return b"".join(
            (
                self._start("tool_use", msgspec.structs.replace(use, input=_NO_INPUT)),
                self._more(bytes(use.input).decode()),
                self._close(),
                self._start("tool_use", result),
                self._close(),
            )
        )

    def _start(self, kind: Literal["thinking", "text", "tool_use"], block: _Block) -> bytes:
        closed = self._close()
        self._open = kind
        self._index += 1
        self._text.clear()
        self._thought = hashlib.sha256()
        self._delta = _DELTAS[kind] % self._index
        told = {"index": self._index, "content_block": block}
        return closed + _frame("content_block_start", told)

    def _close(self) -> bytes:
        """Nothing when no block is open."""
        last = b""
        if self._open is None:
            return b""
        if self._open == "thinking":
            last = self._tell({"type": "signature_delta", "signature": _signature(self._thought)})
        elif self._open == "text":
            cited = self._shown.citations("".join(self._text), self._extras)
            last = self._cite(cited)
        self._open = None
        return last + _frame("content_block_stop", {"index": self._index})

    def _cite(self, cited: list[Citation]) -> bytes:
        self._cited = self._cited or bool(cited)
        return b"".join(self._tell({"type": "citations_delta", "citation": one}) for one in cited)

    def _tell(self, delta: dict[str, Any]) -> bytes:
        return _frame("content_block_delta", {"index": self._index, "delta": delta})

    def _end(self, end: TurnEnd) -> bytes:
        written = [self._say(self._prefill.end())]
        written.append(self._say(self._shown.appendix(self._extras, after_text=self._has_text)))
        if self._open == "text" and not self._cited and not self._called:
            text = "".join(self._text)
            written.append(self._cite(self._shown.citations(text, self._extras, at_the_end=True)))
            self._text.clear()  # what it names is cited
        written.append(self._close())
        searches = self._shown.searches(self._extras)
        told = {
            "delta": _stopped(end.reason, end.stop_sequence),
            "usage": _usage(end.usage, searches),
        }
        written += (_frame("message_delta", told), _frame("message_stop", {}))
        self._phase = "ended"
        return b"".join(written)

    def _fail(self, error: GatewayError) -> bytes:
        written = self._say(self._prefill.end()) + self._close()
        self._phase = "ended"
        body = write_error(error, self._turn.request_id)
        return written + b"event: error\ndata: " + body + b"\n\n"


def _delta_template(type_: str, field: str) -> bytes:
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%%d,'
        b'"delta":{"type":"%b","%b":' % (type_.encode(), field.encode())
    )


# Nearly every frame is one of these: a template and an encoded string.
_DELTAS = {
    "text": _delta_template("text_delta", "text"),
    "thinking": _delta_template("thinking_delta", "thinking"),
    "tool_use": _delta_template("input_json_delta", "partial_json"),
}


def _frame(type_: str, told: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type_.encode(), _encode({"type": type_, **told}))


class _Shown:
    """What of a turn its caller sees, and where: the same for the stream and the whole message."""

    def __init__(self, turn: Turn) -> None:
        self._rendering = turn.rendering
        self.thinking = turn.rendering.output_think and turn.thinking is not False
        self.given = turn.given if isinstance(turn.given, Given) else Given()

    def appendix(self, reply: Reply, *, after_text: bool) -> str:
        """What follows the text: pictures, and sources that aren't told as blocks."""
        sources = [] if self.given.web_search else reply.sources
        mode = self._rendering.search_info_mode
        return write_appendix(
            reply.media, sources, search_info_mode=mode, after_text=after_text
        ).text

    def citations(self, text: str, reply: Reply, *, at_the_end: bool = False) -> list[Citation]:
        """at_the_end: nothing was cited before, and what isn't cited now never is."""
        if not self.given.web_search:
            return []
        return cite(text, reply.sources, all_of_them=at_the_end)

    def searches(self, reply: Reply) -> int:
        return len(reply.searches) if self.given.web_search else 0


class _Prefill:
    """Takes the caller's beginning of the answer off an answer that repeats it.

    Held back as long as all of it could still be that beginning. Blanks before it don't matter.
    """

    def __init__(self, prefill: str) -> None:
        self._prefill = prefill.lstrip()
        self._held = ""

    def feed(self, text: str) -> str:
        if not self._prefill:
            return text
        self._held += text
        said = self._held.lstrip()
        if self._prefill.startswith(said) and len(said) < len(self._prefill):
            return ""
        if said.startswith(self._prefill):
            self._held = said.removeprefix(self._prefill)
        return self.end()

    def end(self) -> str:
        """What is still held; afterwards nothing is any more."""
        held, self._held, self._prefill = self._held, "", ""
        return held


# -- answer: whole


def write_reply(turn: Turn, reply: Reply) -> bytes:
    """`{"type": "message", "content": [{"type": "text", …}], "stop_reason", "usage"}`.

    Searches first: the upstream makes them before it thinks and answers.
    """
    shown = _Shown(turn)
    content: list[_Block] = []
    if shown.given.web_search:
        for number, found in enumerate(reply.searches):
            content += write_search(found, use_id_of(turn.id, number))
    if reply.reasoning and shown.thinking:
        signature = _signature(hashlib.sha256(reply.reasoning.encode()))
        content.append(_Thinking(thinking=reply.reasoning, signature=signature))
    prefill = _Prefill(shown.given.prefill)
    text = prefill.feed(reply.text) + prefill.end()
    text += shown.appendix(reply, after_text=bool(text))
    if text:
        cited = shown.citations(text, reply, at_the_end=not reply.tool_calls)
        content.append(_Text(text=text, citations=cited or msgspec.UNSET))
    content += map(_tool_use, reply.tool_calls)
    stopped = _stopped(reply.reason, reply.stop_sequence)
    message = _Message(
        id=turn.id,
        model=turn.model,
        content=content,
        stop_reason=stopped.stop_reason,
        stop_sequence=stopped.stop_sequence,
        usage=_usage(reply.usage, shown.searches(reply)),
    )
    return _encode(message)


def _tool_use(call: ReplyToolCall) -> _ToolUse:
    """A call that `max_tokens` cut has no input that could be shown: the stop reason tells why."""
    try:
        given = msgspec.json.decode(call.arguments.encode(), type=msgspec.Raw)
    except msgspec.DecodeError:
        given = _NO_INPUT
    return _ToolUse(id=call.call_id, name=call.name, input=given)


def write_count(input_tokens: int) -> bytes:
    """The body of `/v1/messages/count_tokens`."""
    return _encode({"input_tokens": input_tokens})


# -- errors

# Contract, section 4. What isn't here is `invalid_request_error` below 500, `api_error` from there.
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}

# Agents make their prompt shorter when an error begins with it.
_TOO_LONG = "prompt is too long"


def write_error(error: GatewayError, request_id: str) -> bytes:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`.

    A refused thread has `"details": {"error_code"}` too: by it the SDK knows to go on without.
    """
    by_status = "invalid_request_error" if error.status < 500 else "api_error"
    message = error.message
    if isinstance(error, ContextTooLong) and not message.startswith(_TOO_LONG):
        message = f"{_TOO_LONG}: {message}"
    told: dict[str, object] = {
        "type": _ERROR_TYPES.get(error.status, by_status),
        "message": message,
    }
    if error.code == NO_THREADS:
        told["details"] = {"error_code": NO_THREADS}
    return _encode({"type": "error", "error": told, "request_id": request_id})
