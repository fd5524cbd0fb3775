"""What every dialect promises, once for all of them: a new dialect is tested by its table line."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import DIALECTS, Rendering, Turn
from shared import errors
from shared.chat.collect import Collector, Reply
from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
    Source,
    SourcesFound,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    Usage,
)
from shared.errors import BadRequest, GatewayError, UpstreamProtocolError
from shared.upstream.stream import UpstreamDecoder
from tests import golden_files
from tests.fakes.frames import REPLY_READERS, STREAM_READERS, Read, cut, payloads
from tests.golden_files import SITUATIONS, events_of

dialects = pytest.mark.parametrize("name", DIALECTS)
situations = pytest.mark.parametrize(
    "situation", sorted(SITUATIONS.glob("*.sse")), ids=lambda path: path.stem
)


def turn_of(name: str, **rendering: Any) -> Turn:
    return Turn(
        id=DIALECTS[name].new_id("ab" * 12),
        created=1795400000,
        model="Qwen3-Max",
        include_usage=True,
        rendering=Rendering(**rendering),
    )


def stream(name: str, events: list[Event], **rendering: Any) -> bytes:
    writer = DIALECTS[name].open_writer(turn_of(name, **rendering))
    return b"".join(map(writer.feed, events))


def reply_of(events: list[Event]) -> Reply:
    collector = Collector()
    for event in events:
        collector.feed(event)
    return collector.reply


def every_error(base: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [base, *(error for child in base.__subclasses__() for error in every_error(child))]


# -- golden files


@dialects
def test_every_situation_is_written_as_its_golden_file_says(name: str) -> None:
    """`make golden` writes them anew; read the difference before you commit it."""
    assert golden_files.stale(name) == []


@dialects
@situations
def test_any_cut_of_the_upstreams_bytes_is_written_alike(name: str, situation: Any) -> None:
    body = situation.read_bytes()
    decoder = UpstreamDecoder()
    single_bytes = [body[at : at + 1] for at in range(len(body))]
    events = [event for piece in single_bytes for event in decoder.feed(piece)]
    events += decoder.close()
    assert stream(name, events) == stream(name, events_of(body))


@dialects
@given(data=st.data())
def test_any_random_cut_is_written_alike(name: str, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(sorted(SITUATIONS.glob("*.sse")))).read_bytes()
    places = data.draw(st.lists(st.integers(0, 10_000), max_size=20))
    decoder = UpstreamDecoder()
    events = [event for piece in cut(body, places) for event in decoder.feed(piece)]
    assert stream(name, [*events, *decoder.close()]) == stream(name, events_of(body))


@dialects
@situations
def test_the_official_sdk_reads_stream_and_reply_and_they_say_the_same(
    name: str, situation: Any
) -> None:
    events = events_of(situation.read_bytes())
    read = STREAM_READERS[name](stream(name, events))
    if isinstance(events[-1], TurnFailed):
        assert read.failure is not None
        assert read.finish is None
        return
    assert read.failure is None
    whole = REPLY_READERS[name](DIALECTS[name].write_reply(turn_of(name), reply_of(events)))
    assert read == whole


# -- any order of events

sources = st.builds(
    Source, title=st.text(max_size=8), url=st.sampled_from(["https://a.b/c", "x", ""])
)
body_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(TextDelta, st.text(max_size=8)),
    st.builds(SourcesFound, st.lists(sources, max_size=2).map(tuple)),
    st.builds(MediaReady, st.sampled_from(["image", "video"]), st.just("https://c.d/e.png")),
)
thinking = st.lists(st.builds(ReasoningDelta, st.text(max_size=8)), max_size=3)
ends = st.builds(
    TurnEnd,
    st.sampled_from(["stop", "length", "content_filter"]),
    st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
)
failures = st.builds(TurnFailed, st.just(UpstreamProtocolError("cut")))
renderings = st.fixed_dictionaries(
    {
        "output_think": st.booleans(),
        "legacy_reasoning_in_content": st.booleans(),
        "search_info_mode": st.sampled_from(["table", "text"]),
    }
)


def calls_with(arguments: list[str]) -> list[Event]:
    """One call for each of these JSON texts, which come in two pieces."""
    return [
        event
        for index, text in enumerate(arguments)
        for event in (
            ToolCallStart(index, f"call_{index}", "f"),
            ToolCallDelta(index, text[:3]),
            ToolCallDelta(index, text[3:]),
            ToolCallEnd(index),
        )
    ]


calls = st.lists(st.sampled_from(["{}", '{"a":1}', '{"b":"é\\n<x>"}']), max_size=2).map(calls_with)


@dialects
@given(
    thought=thinking,
    said=st.lists(body_events, max_size=8),
    called=calls,
    end=ends,
    rendering=renderings,
)
def test_the_stream_joined_is_the_reply(
    name: str,
    thought: list[Event],
    said: list[Event],
    called: list[Event],
    end: TurnEnd,
    rendering: dict[str, Any],
) -> None:
    events = [*thought, *said, *called, end]
    turn = turn_of(name, **rendering)
    read = STREAM_READERS[name](stream(name, events, **rendering))
    assert read == REPLY_READERS[name](DIALECTS[name].write_reply(turn, reply_of(events)))
    assert_citations_stand_in_the_text(read)


def assert_citations_stand_in_the_text(read: Read) -> None:
    for cited in read.citations:
        link = read.text[cited["start_index"] : cited["end_index"]]
        assert link.startswith("[")
        assert link.endswith(f"]({cited['url']})")


@dialects
@given(
    said=st.lists(
        st.one_of(body_events, st.builds(ReasoningDelta, st.text(max_size=8))), max_size=8
    ),
    end=st.one_of(ends, failures),
    after=st.lists(st.one_of(body_events, ends, failures), max_size=3),
    rendering=renderings,
)
def test_whatever_comes_the_end_comes_once_and_last(
    name: str, said: list[Event], end: Event, after: list[Event], rendering: dict[str, Any]
) -> None:
    assert stream(name, [*said, end, *after], **rendering) == stream(
        name, [*said, end], **rendering
    )
    read = STREAM_READERS[name](stream(name, [*said, end], **rendering))
    assert (read.failure is None) == isinstance(end, TurnEnd)


@dialects
@pytest.mark.parametrize("rendering", [{}, {"legacy_reasoning_in_content": True}])
@pytest.mark.parametrize("length", range(4))
def test_a_truncated_stream_fails_once_and_last(
    name: str, rendering: dict[str, Any], length: int
) -> None:
    events: list[Event] = [
        ReasoningDelta("hm"),
        ReasoningDelta("so"),
        TextDelta("Hel"),
        TextDelta("lo"),
    ]
    error = UpstreamProtocolError("The upstream's answer was cut off")
    written = stream(name, [*events[: length + 1], TurnFailed(error)], **rendering)
    assert written.count(b"was cut off") == 1
    assert b"was cut off" in payloads(written)[-1].encode()
    assert b"[DONE]" not in written
    assert b'"stop"' not in written


@dialects
def test_tool_calls_are_read_whole_from_stream_and_reply(name: str) -> None:
    events: list[Event] = [
        TextDelta("I look."),
        ToolCallStart(0, "call_1", "get_weather"),
        ToolCallDelta(0, '{"city":'),
        ToolCallDelta(0, '"Oslo"}'),
        ToolCallEnd(0),
        ToolCallStart(1, "call_2", "now"),
        ToolCallDelta(1, "{}"),
        ToolCallEnd(1),
        TurnEnd("tool_calls", Usage(3, 4)),
    ]
    read = STREAM_READERS[name](stream(name, events))
    assert read.tool_calls == [
        ("call_1", "get_weather", '{"city":"Oslo"}'),
        ("call_2", "now", "{}"),
    ]
    assert read == REPLY_READERS[name](DIALECTS[name].write_reply(turn_of(name), reply_of(events)))


@dialects
@pytest.mark.parametrize("situation", golden_files.CALLS, ids=lambda path: path.stem)
def test_a_call_in_the_upstreams_text_is_one_however_its_bytes_are_cut(
    name: str, situation: Any
) -> None:
    body = situation.read_bytes()
    whole = golden_files.calls_of([body])
    for size in (1, 7, 64):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert stream(name, golden_files.calls_of(pieces)) == stream(name, whole)
    read = STREAM_READERS[name](stream(name, whole))
    assert [called for _, called, _ in read.tool_calls] == ["get_weather"]
    assert "<" not in read.text
    assert read == REPLY_READERS[name](DIALECTS[name].write_reply(turn_of(name), reply_of(whole)))


# -- errors


@dialects
@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_every_error_has_a_body_with_its_message(name: str, error: type[GatewayError]) -> None:
    body = msgspec.json.decode(DIALECTS[name].write_error(error("What happened."), "request-1"))
    assert body["error"]["message"].endswith("What happened.")
    assert error("x").message == "x"


@dialects
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"model": "\xff"}', b"{}", b"<html>", b"{}{}"],
)
def test_nonsense_is_a_bad_request(name: str, body: bytes) -> None:
    with pytest.raises(BadRequest):
        DIALECTS[name].read_request(body)


@dialects
def test_a_body_nested_too_deeply_is_a_bad_request(name: str) -> None:
    with pytest.raises(BadRequest, match="deep"):
        DIALECTS[name].read_request(b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@dialects
@given(body=st.binary(max_size=60))
def test_no_body_does_anything_but_be_read_or_refused(name: str, body: bytes) -> None:
    with pytest.raises(BadRequest):
        DIALECTS[name].read_request(body)


@dialects
def test_a_keepalive_is_a_comment_no_client_sees(name: str) -> None:
    events: list[Event] = [TextDelta("Hel"), TextDelta("lo"), TurnEnd("stop", Usage(1, 1))]
    writer = DIALECTS[name].open_writer(turn_of(name))
    frames = [writer.feed(event) for event in events]
    with_beats = DIALECTS[name].KEEPALIVE + DIALECTS[name].KEEPALIVE.join(frames)
    assert STREAM_READERS[name](with_beats) == STREAM_READERS[name](b"".join(frames))


def test_the_error_tree_is_found_whole() -> None:
    assert errors.StoreUnavailable in every_error()
    assert errors.AccountDead in every_error()
