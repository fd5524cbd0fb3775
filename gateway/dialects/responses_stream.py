"""OpenAI Responses, the stream: events of a turn → `event: response.output_text.delta` and its kin.

Source: OpenAI API reference, streaming events, read 2026-11.
"""

from typing import Any, ClassVar, Literal, assert_never

import msgspec
from msgspec import UNSET, UnsetType

from gateway.dialects.responses_object import (
    CustomItem,
    FunctionItem,
    Ids,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    Response,
    SummaryText,
    UrlCitation,
    appendix_of,
    citations_of,
    encode,
    error_of,
    named_in,
    response_of,
    search_item,
    status_of,
)
from gateway.dialects.responses_request import given_of
from gateway.dialects.turn import Turn
from shared.chat.collect import Reply
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
from shared.errors import GatewayError


class EventWriter:
    """Events → `event: response.output_text.delta`, `data: {"type", "sequence_number", …}`.

        created, in_progress
        (item added, (part added, delta…, done, part done), item done)…
        completed | incomplete | failed

    One message or reasoning item is open at a time, in the order in which text and reasoning come;
    a call is open from its start to its end. Pictures and sources wait for the end and follow the
    text. What is still open when a turn fails is closed as incomplete.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._stream = _Stream(turn)
        self._phase: Literal["new", "open", "ended"] = "new"
        self._block: _TextBlock | _ReasoningBlock | None = None
        self._calls: dict[int, _CallBlock] = {}
        self._extras = Reply()  # its media and searches, until the end
        self._said = False

    def feed(self, event: Event) -> bytes:
        """Contract: any order of events; after the first `TurnEnd` or `TurnFailed`, nothing."""
        if type(event) is TextDelta and type(self._block) is _TextBlock and event.text:
            return self._block.delta(event.text)  # nearly all of them; none is open after the end
        if self._phase == "ended":
            return b""
        match event:
            case TextDelta(text):
                return self._begin() + (self._text(text) if text else b"")
            case ReasoningDelta(text):
                shown = text and self._turn.rendering.output_think
                return self._begin() + (self._reasoning(text) if shown else b"")
            case SourcesFound():
                self._extras.searches.append(event)
                return self._begin() + self._leave() + self._stream.search(event)
            case MediaReady(kind, url):
                self._extras.media.append((kind, url))
                return self._begin()
            case ToolCallStart():
                return self._begin() + self._leave() + self._start_call(event)
            case ToolCallDelta(index, arguments):
                call = self._calls.get(index)
                return self._begin() + (call.delta(arguments) if call else b"")
            case ToolCallEnd(index):
                call = self._calls.pop(index, None)
                return self._begin() + (call.close("completed") if call else b"")
            case TurnStart():
                return self._begin()
            case TurnEnd(reason, usage):
                return self._end(reason, usage or Usage())
            case TurnFailed(error, usage):
                return self._fail(error, usage)
            case _:
                assert_never(event)

    def _begin(self) -> bytes:
        if self._phase != "new":
            return b""
        self._phase = "open"
        response = response_of(self._turn, "in_progress")
        return self._stream.event("created", response=response) + self._stream.event(
            "in_progress", response=response
        )

    def _text(self, text: str) -> bytes:
        self._said = True
        if isinstance(self._block, _TextBlock):
            return self._block.delta(text)
        left = self._leave()
        self._block = block = _TextBlock(self._stream)
        return left + block.open() + block.delta(text)

    def _reasoning(self, text: str) -> bytes:
        if isinstance(self._block, _ReasoningBlock):
            return self._block.delta(text)
        left = self._leave()
        self._block = block = _ReasoningBlock(self._stream)
        return left + block.open() + block.delta(text)

    def _leave(self, status: ItemStatus = "completed") -> bytes:
        block, self._block = self._block, None
        return block.close(status) if block else b""

    def _start_call(self, event: ToolCallStart) -> bytes:
        kind = _CustomBlock if event.custom else _FunctionBlock
        namespace, name = named_in(given_of(self._turn.given).echo.namespaces, event.name)
        call = kind(self._stream, event.call_id, name, namespace)
        self._calls[event.index] = call
        return call.open()

    def _end(self, reason: StopReason, usage: Usage) -> bytes:
        written = [self._begin()]
        appendix = appendix_of(
            self._turn, self._extras, called=self._stream.called, after_text=self._said
        )
        if appendix.text:
            offset = self._block.length if isinstance(self._block, _TextBlock) else 0
            written.append(self._text(appendix.text))
            assert isinstance(self._block, _TextBlock)  # noqa: S101 text has just been written
            written.append(self._block.annotate(citations_of(appendix, offset)))
        status = status_of(reason)
        written += (self._leave(status), *self._break_calls())
        response = response_of(self._turn, status, self._stream.output, reason=reason, usage=usage)
        written.append(self._stream.event(status, response=response))
        self._phase = "ended"
        return b"".join(written)

    def _fail(self, error: GatewayError, usage: Usage | None) -> bytes:
        written = [self._begin(), self._leave("incomplete"), *self._break_calls()]
        told = error_of(error.status, error.message)
        response = response_of(self._turn, "failed", self._stream.output, error=told, usage=usage)
        written.append(self._stream.event("failed", response=response))
        self._phase = "ended"
        return b"".join(written)

    def _break_calls(self) -> list[bytes]:
        broken = [call.close("incomplete") for call in self._calls.values()]
        self._calls.clear()
        return broken


class _Stream:
    """The events of one stream, numbered, and the items that it has shown so far."""

    def __init__(self, turn: Turn) -> None:
        self.ids = Ids(turn.id)
        self.output: list[OutputItem] = []
        self._number = 0
        self._after = given_of(turn.given).starting_after

    @property
    def called(self) -> bool:
        """Whether a tool of the caller's was called."""
        return any(isinstance(item, FunctionItem | CustomItem) for item in self.output)

    def event(self, name: str, **fields: Any) -> bytes:  # Any: the fields of `_Event`
        event = _Event(type=f"response.{name}", sequence_number=self._number, **fields)
        self._number += 1
        if event.sequence_number <= self._after:
            return b""
        return b"event: %b\ndata: %b\n\n" % (event.type.encode(), encode(event))

    def delta(self, before: bytes, text: str, after: bytes) -> bytes:
        """An event from a template; all but a few of a stream are deltas.

        Measured 2026-11: 0.6 µs against 1.7 µs through `_Event`.
        """
        number = self._number
        self._number += 1
        if number <= self._after:
            return b""
        return b'%b%d,"delta":%b%b' % (before, number, encode(text), after)

    def template(self, name: str, **fields: Any) -> bytes:  # Any: the fields of `_Event`
        """What stands before the number of each event of this name."""
        event = encode(_Event(type=f"response.{name}", sequence_number=0, **fields))
        rest = event.partition(b'"sequence_number":0')[2].removeprefix(b",")[:-1]
        head = b"event: response.%b\ndata: " % name.encode()
        return head + b'{"type":"response.%b",%b,"sequence_number":' % (name.encode(), rest)

    def add(self, item: OutputItem) -> tuple[int, bytes]:
        """The item's index, and the event that shows it."""
        index = len(self.output)
        self.output.append(item)
        return index, self.event("output_item.added", output_index=index, item=item)

    def done(self, index: int, item: OutputItem) -> bytes:
        self.output[index] = item
        return self.event("output_item.done", output_index=index, item=item)

    def search(self, found: SourcesFound) -> bytes:
        """A web search that was begun and done before we heard of it."""
        item_id = self.ids.next("ws")
        index, added = self.add(
            search_item(item_id, SourcesFound((), found.queries), "in_progress")
        )
        steps = [
            self.event(f"web_search_call.{step}", output_index=index, item_id=item_id)
            for step in ("in_progress", "searching", "completed")
        ]
        done = self.done(index, search_item(item_id, found, "completed"))
        return b"".join((added, *steps, done))


class _TextBlock:
    """A message item with its one part of text, while it is written."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._id = stream.ids.next("msg")
        self._place: dict[str, Any] = {}  # Any: ids and indexes that its events repeat
        self._template = b""
        self._pieces: list[str] = []
        self._annotations: list[UrlCitation] = []
        self.length = 0

    def open(self) -> bytes:
        index, added = self._stream.add(MessageItem(self._id, "in_progress", []))
        self._place = {"item_id": self._id, "output_index": index, "content_index": 0}
        self._template = self._stream.template("output_text.delta", **self._place)
        part = self._stream.event("content_part.added", **self._place, part=OutputText())
        return added + part

    def delta(self, text: str) -> bytes:
        self._pieces.append(text)
        self.length += len(text)
        return self._stream.delta(self._template, text, b',"logprobs":[]}\n\n')

    def annotate(self, citations: list[UrlCitation]) -> bytes:
        self._annotations += citations
        return b"".join(
            self._stream.event(
                "output_text.annotation.added", **self._place, annotation_index=n, annotation=cited
            )
            for n, cited in enumerate(citations)
        )

    def close(self, status: ItemStatus) -> bytes:
        event, place = self._stream.event, self._place
        part = OutputText("".join(self._pieces), self._annotations)
        item = MessageItem(self._id, status, [part])
        return b"".join(
            (
                event("output_text.done", **place, text=part.text, logprobs=[]),
                event("content_part.done", **place, part=part),
                self._stream.done(place["output_index"], item),
            )
        )


class _ReasoningBlock:
    """A reasoning item with its one part of summary, while it is written.

    The text stands in the summary whether or not one was asked for: there clients look for it.
    """

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._id = stream.ids.next("rs")
        self._place: dict[str, Any] = {}  # Any: ids and indexes that its events repeat
        self._template = b""
        self._pieces: list[str] = []

    def open(self) -> bytes:
        index, added = self._stream.add(ReasoningItem(self._id, "in_progress", []))
        self._place = {"item_id": self._id, "output_index": index, "summary_index": 0}
        self._template = self._stream.template("reasoning_summary_text.delta", **self._place)
        part = self._stream.event("reasoning_summary_part.added", **self._place, part=SummaryText())
        return added + part

    def delta(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._stream.delta(self._template, text, b"}\n\n")

    def close(self, status: ItemStatus) -> bytes:
        event, place = self._stream.event, self._place
        part = SummaryText("".join(self._pieces))
        item = ReasoningItem(self._id, status, [part])
        return b"".join(
            (
                event("reasoning_summary_text.done", **place, text=part.text),
                event("reasoning_summary_part.done", **place, part=part),
                self._stream.done(place["output_index"], item),
            )
        )


class _CallBlock:
    """A call while its arguments are written."""

    kind: ClassVar[Literal["fc", "ctc"]]
    field: ClassVar[Literal["arguments", "input"]]
    events: ClassVar[str]

    def __init__(
        self, stream: _Stream, call_id: str, name: str, namespace: str | UnsetType
    ) -> None:
        self._stream = stream
        self._id = stream.ids.next(self.kind)
        self._call_id = call_id
        self._name = name
        self._namespace = namespace
        self._place: dict[str, Any] = {}  # Any: ids and indexes that its events repeat
        self._template = b""
        self._pieces: list[str] = []

    def open(self) -> bytes:
        index, added = self._stream.add(self._item("in_progress", ""))
        self._place = {"item_id": self._id, "output_index": index}
        self._template = self._stream.template(f"{self.events}.delta", **self._place)
        return added

    def delta(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._stream.delta(self._template, text, b"}\n\n")

    def close(self, status: ItemStatus) -> bytes:
        whole = self._whole(status)
        done = self._stream.event(f"{self.events}.done", **self._place, **{self.field: whole})
        item = self._item(status, whole)
        return done + self._stream.done(self._place["output_index"], item)

    def _whole(self, status: ItemStatus) -> str:
        return "".join(self._pieces)

    def _item(self, status: ItemStatus, text: str) -> FunctionItem | CustomItem:
        raise NotImplementedError


class _FunctionBlock(_CallBlock):
    kind, field, events = "fc", "arguments", "function_call_arguments"

    def _item(self, status: ItemStatus, text: str) -> FunctionItem:
        return FunctionItem(self._id, status, self._call_id, self._name, text, self._namespace)


class _CustomBlock(_CallBlock):
    kind, field, events = "ctc", "input", "custom_tool_call_input"

    def _item(self, status: ItemStatus, text: str) -> CustomItem:
        return CustomItem(self._id, status, self._call_id, self._name, text, self._namespace)

    def _whole(self, status: ItemStatus) -> str:
        """Half a free text can't be told from a whole one, and a client may run what it gets as
        soon as the item is done: what broke is taken back."""
        return super()._whole(status) if status == "completed" else ""


class _Event(msgspec.Struct, kw_only=True):
    """Any event of a stream; each has its own few of these fields."""

    type: str
    sequence_number: int
    response: Response | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    summary_index: int | UnsetType = UNSET
    annotation_index: int | UnsetType = UNSET
    item: OutputItem | UnsetType = UNSET
    part: OutputText | SummaryText | UnsetType = UNSET
    annotation: UrlCitation | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    input: str | UnsetType = UNSET
    logprobs: list[str] | UnsetType = UNSET
