"""`UpstreamDecoder`: the bytes of a text answer to neutral events. Sans-IO.

Source: protocol sheet 6, 7 and 15.3. What a frame does:

    phase                                  content            other
    think · thinking · thought             ReasoningDelta     summaries as below
    thinking_summary                       ReasoningDelta     new entries of the growing arrays
    answer · none                          TextDelta          status finished → the answer is over
    any other                              nothing
    of whatever phase                                         extra.web_search_info → SourcesFound
                                                              extra.image_list      → MediaReady
    no delta                               nothing            usage, announcements, failures

How a turn ends (the first that comes true; nothing is read after it):

    a failing frame                        TurnFailed(classified)
    a frame that is no JSON, or too large  TurnFailed(UpstreamProtocolError)
    the finished answer frame              `done`; TurnEnd with the usage that may follow it, or
                                           at [DONE], or when the source is closed
    [DONE]                                 TurnEnd
    closed: a body that was no SSE         TurnFailed(classified)
    closed: anything else                  TurnFailed(UpstreamProtocolError), it was cut

A TurnEnd without a single piece of text, reasoning or media is TurnFailed(UpstreamEmpty) instead.
Only the candidate with index 0 is followed; without announcement the first one seen.

One frame makes at most one delta, so timing on the wire is the upstream's own.
"""

import json
from typing import Any

import msgspec

from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
    Source,
    SourcesFound,
    TextDelta,
    TurnEnd,
    TurnFailed,
    Usage,
)
from shared.errors import UpstreamEmpty, UpstreamProtocolError
from shared.sse import SSEDecoder
from shared.upstream import failures, wire

REASONING_PHASES = frozenset({"think", "thinking", "thought", "thinking_summary"})
ANSWER_PHASES = frozenset({"answer", None, ""})

MAX_FRAME_BYTES = 16 * 1024 * 1024


def begins_like_sse(head: bytes) -> bool | None:
    """Whether a body that begins with `head` is read as events; None: not to be said yet.

    JSON documents and pages come with status 200 and any content type (7), so the first byte that
    is no blank decides.
    """
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return None if not first else first not in b"{[<"


class UpstreamDecoder:
    """`feed` chunks until the connection ends or `done` says enough, then `close`.

    Both return events. Exactly one terminal event comes out of a decoder, and it is the last.

    Attributes:
        done: nothing but usage can follow: close after a short grace. True after a terminal event.
        chat_id, response_id: as announced; what a stop call needs.
    """

    def __init__(self) -> None:
        self.done = False
        self.chat_id: str | None = None
        self.response_id: str | None = None
        self._ended = False
        self._sse = SSEDecoder(max_frame_bytes=MAX_FRAME_BYTES)
        self._opening: bytes | None = b""  # the body's beginning until a first event was read
        self._spoke = False
        self._others: set[str] = set()  # response ids of candidates we don't follow
        self._usage: msgspec.Raw | None = None
        self._reasoning = _Halves()
        self._text = _Halves()
        self._summary = _Summary()
        self._findings = _Findings()

    @property
    def usage(self) -> Usage | None:
        """The newest cumulative usage; None when the upstream told none."""
        return _usage_of(self._usage)

    def feed(self, chunk: bytes) -> list[Event]:
        return [] if self._ended else self._take(chunk)

    def close(self) -> list[Event]:
        """The connection has ended, or the reader has had enough."""
        events: list[Event] = []
        last = self._sse.unfinished()
        if last is not None and (last == b"[DONE]" or _is_json(last)):
            # Whole although its blank line is missing: a cut frame is no JSON.
            events += self.feed(b"\n\n")
        if not self._ended:
            self._end_cut(events)
        return events

    # -- one frame

    def _take(self, chunk: bytes) -> list[Event]:
        if self._opening is not None:
            self._opening = (self._opening + chunk)[: failures.MAX_BODY_BYTES]
            if begins_like_sse(self._opening) is False:
                return []
        events: list[Event] = []
        for data in self._sse.feed(chunk):
            self._read(data, events)
            if self._ended:
                break
        if self._sse.overflowed and not self._ended:
            self._fail(UpstreamProtocolError("A frame of the upstream is too large"), events)
        return events

    def _read(self, data: bytes, events: list[Event]) -> None:
        try:
            frame = wire.decode_frame(data)
            content = None
        except wire.UNREADABLE:
            repaired = self._repair(data, events)
            if repaired is None:
                return
            frame, content = repaired
        choices = frame.choices
        delta = choices[0].delta if choices else None
        if delta is None or frame.success is False or _is_told(frame.error):
            self._read_without_delta(frame, data, events)
            return
        self._opening = None
        response_id = frame.response_id
        if response_id is not None and response_id != self.response_id:
            if self.response_id is not None or response_id in self._others:
                return
            self.response_id = response_id
        if frame.usage:
            self._take_usage(frame.usage, events)
        if not self.done:
            self._read_delta(delta, delta.content if content is None else content, events)

    def _read_delta(self, delta: wire.Delta, content: str | None, events: list[Event]) -> None:
        phase = delta.phase
        if delta.extra or delta.function_call:
            self._read_findings(delta, events)
        if phase == "answer" or phase in ANSWER_PHASES:
            if content and delta.name is None:
                if self._reasoning.held:
                    self._say(ReasoningDelta, self._reasoning.flush(), events)
                self._say(TextDelta, self._text.join(content), events)
            if delta.status == "finished":
                self.done = True
        elif phase in REASONING_PHASES and content:
            if self._text.held:
                self._say(TextDelta, self._text.flush(), events)
            self._say(ReasoningDelta, self._reasoning.join(content), events)

    def _read_findings(self, delta: wire.Delta, events: list[Event]) -> None:
        """What the server's own tools were asked and what they found (6.3), and summaries (6.2)."""
        if delta.function_call:
            self._findings.take_call(delta.function_call)
        extra = _extra_of(delta.extra)
        if extra is None:
            return
        if extra.web_search_info:
            found = self._findings.new_sources(extra.web_search_info)
            if found is not None:
                events.append(found)
        for url in self._findings.new_pictures(extra.image_list or []):
            self._spoke = True
            events.append(MediaReady("image", url))
        if delta.phase in REASONING_PHASES and not delta.content:
            self._say(ReasoningDelta, self._summary.grow(extra), events)

    def _read_without_delta(self, frame: wire.Frame, data: bytes, events: list[Event]) -> None:
        if frame.response_id in self._others:
            return
        if frame.success is False or _is_told(frame.error) or _is_told(frame.ret):
            error = failures.classify(status=200, headers={}, body=data, operation="completion")
            self._fail(error, events)
        elif frame.created:
            self._follow(frame.created)
        elif frame.usage and frame.response_id in (None, self.response_id):
            self._take_usage(frame.usage, events)

    def _follow(self, raw: msgspec.Raw) -> None:
        try:
            created = wire.decode_created(raw)
        except wire.UNREADABLE:
            return
        self._opening = None
        index = created.response_index
        if self.response_id is None and index in (None, "0", 0):
            self.response_id = created.response_id
            self.chat_id = created.chat_id
        elif created.response_id and created.response_id != self.response_id:
            self._others.add(created.response_id)

    def _take_usage(self, raw: msgspec.Raw, events: list[Event]) -> None:
        if b"_tokens" not in bytes(raw):  # pictures have a usage of their own (8.1)
            return
        self._usage = raw
        if self.done:
            self._end(events)

    def _say(self, kind: type[TextDelta | ReasoningDelta], text: str, events: list[Event]) -> None:
        if text:
            self._spoke = True
            events.append(kind(text))

    # -- frames that are no proper JSON

    def _repair(self, data: bytes, events: list[Event]) -> tuple[wire.Frame, str | None] | None:
        """What a frame that failed to decode is after all; None: it was dealt with here.

        `[DONE]`, an event without data, a frame of a new shape (skipped, unless it is a failure),
        lone surrogate escapes (15.3; the content is returned beside the frame).
        """
        marker = data.strip()
        if not marker:
            return None
        if marker == b"[DONE]":
            self._end(events)
            return None
        try:
            loose = json.loads(data)
        except (ValueError, RecursionError):
            if b"\n" in data:
                # A blank in the empty line between two events glued them together (6).
                for line in data.split(b"\n"):
                    if not self._ended:
                        self._read(line, events)
                return None
            self._fail(UpstreamProtocolError("A frame of the upstream is no JSON"), events)
            return None
        if not isinstance(loose, dict):
            return None
        mended = _mended(loose)
        try:
            return wire.decode_frame(msgspec.json.encode(mended)), _content_of(loose)
        except msgspec.ValidationError:
            # Of a shape we don't know: what may be read of it is a failure.
            mended.pop("choices", None)
            try:
                return wire.decode_frame(msgspec.json.encode(mended)), None
            except msgspec.ValidationError:
                return None

    # -- the end

    def _end_cut(self, events: list[Event]) -> None:
        if self._opening is None:
            self._fail(UpstreamProtocolError("The upstream's answer was cut off"), events)
            return
        error = failures.classify(
            status=200, headers={}, body=self._opening, operation="completion"
        )
        self._fail(error, events)

    def _end(self, events: list[Event]) -> None:
        self._let_go(events)
        if self._spoke:
            self._finish(TurnEnd("stop", self.usage), events)
        else:
            self._finish(TurnFailed(UpstreamEmpty(), self.usage), events)

    def _fail(self, error: failures.AnyFailure, events: list[Event]) -> None:
        """Unless the answer was over before: then nothing can spoil it."""
        if self.done:
            self._end(events)
            return
        self._let_go(events)
        self._finish(TurnFailed(error, self.usage), events)

    def _finish(self, event: TurnEnd | TurnFailed, events: list[Event]) -> None:
        self.done = self._ended = True
        events.append(event)

    def _let_go(self, events: list[Event]) -> None:
        self._say(ReasoningDelta, self._reasoning.flush(), events)
        self._say(TextDelta, self._text.flush(), events)


class _Halves:
    """Joins the two halves of a character that came as lone surrogates in two frames (15.3)."""

    def __init__(self) -> None:
        self.held = ""

    def join(self, text: str) -> str:
        """`text` with its halves made whole; a first half at its end is held back."""
        if not self.held and text.isascii():
            return text
        text, self.held = self.held + text, ""
        if "\ud800" <= text[-1] <= "\udbff":
            text, self.held = text[:-1], text[-1]
        return _whole(text)

    def flush(self) -> str:
        held, self.held = self.held, ""
        return "\ufffd" if held else ""


class _Summary:
    """Reasoning told as two arrays that grow (6.2): paragraphs in the order title, thought."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], str] = {}
        self._last: tuple[int, int] | None = None

    def grow(self, extra: wire.Extra) -> str:
        """What is new since the last frame; paragraphs are parted by an empty line."""
        titles = extra.summary_title.content if extra.summary_title else None
        thoughts = extra.summary_thought.content if extra.summary_thought else None
        columns = (titles or [], thoughts or [])
        pieces = []
        for row in range(max(map(len, columns))):
            for column, entries in enumerate(columns):
                if row < len(entries):
                    pieces.append(self._piece((row, column), entries[row]))
        return "".join(pieces)

    def _piece(self, place: tuple[int, int], text: str) -> str:
        seen = self._seen.get(place, "")
        if text == seen or not text.startswith(seen):
            return ""
        grown = text[len(seen) :]
        self._seen[place] = text
        begun, self._last = self._last, place
        return grown if begun is None or begun == place else "\n\n" + grown


class _Findings:
    """What the server's own tools found, each thing once."""

    def __init__(self) -> None:
        self._sources: set[Source | str] = set()
        self._pictures: set[str] = set()
        self._queries: tuple[str, ...] = ()

    def take_call(self, raw: msgspec.Raw) -> None:
        try:
            arguments = wire.decode_function_call(raw).arguments or "{}"
            queries = wire.decode_search_arguments(arguments).queries or []
        except wire.UNREADABLE:
            return
        self._queries = tuple(queries) or self._queries

    def new_sources(self, results: list[wire.SearchResult]) -> SourcesFound | None:
        new = []
        for result in results:
            source = Source(
                title=result.title or "",
                url=result.url or "",
                snippet=result.snippet or "",
                hostname=result.hostname or "",
                date=result.date or "",
            )
            known = source.url or source
            if known not in self._sources:
                self._sources.add(known)
                new.append(source)
        if not new:
            return None
        queries, self._queries = self._queries, ()
        return SourcesFound(tuple(new), queries)

    def new_pictures(self, pictures: list[wire.Picture]) -> list[str]:
        urls = [picture.image for picture in pictures if picture.image]
        new = [url for url in dict.fromkeys(urls) if url not in self._pictures]
        self._pictures.update(new)
        return new


def _usage_of(raw: msgspec.Raw | None) -> Usage | None:
    if raw is None:
        return None
    try:
        told = wire.decode_frame_usage(raw)
    except wire.UNREADABLE:
        return None
    output, prompt = told.output_tokens_details, told.prompt_tokens_details
    return Usage(
        input_tokens=told.input_tokens or told.prompt_tokens or 0,
        output_tokens=told.output_tokens or told.completion_tokens or 0,
        reasoning_tokens=(output.reasoning_tokens or 0) if output else 0,
        cached_tokens=(prompt.cached_tokens or 0) if prompt else 0,
    )


def _extra_of(raw: msgspec.Raw) -> wire.Extra | None:
    if not raw:
        return None
    try:
        return wire.decode_extra(raw)
    except wire.UNREADABLE:
        return None


def _is_told(raw: msgspec.Raw) -> bool:
    """Whether a member is there and says something."""
    return bool(raw) and bytes(raw) not in (b"null", b"false", b'""', b"[]", b"{}")


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _content_of(loose: dict[str, Any]) -> str | None:
    """`choices[0].delta.content` with its lone surrogates, where there is one."""
    try:
        content = loose["choices"][0]["delta"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _mended(value: Any) -> Any:
    """A decoded JSON value without lone surrogates, so that it can be encoded again."""
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list):
        return [_mended(entry) for entry in value]
    if isinstance(value, dict):
        return {_whole(key): _mended(entry) for key, entry in value.items()}
    return value


def _whole(text: str) -> str:
    """Pairs of surrogates become their character, halves without the other U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
