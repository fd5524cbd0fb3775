"""What the decoder makes of every golden stream, however its bytes are cut."""

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.chat.events import (
    Event,
    MediaReady,
    ReasoningDelta,
    SourcesFound,
    TextDelta,
    TurnEnd,
    TurnFailed,
    Usage,
)
from shared.errors import (
    ContentRefused,
    GatewayError,
    TokenRejected,
    UpstreamBlocked,
    UpstreamBusy,
    UpstreamEmpty,
    UpstreamProtocolError,
    UpstreamQuota,
    UpstreamUnavailable,
)
from shared.upstream.stream import UpstreamDecoder, begins_like_sse
from tests.simulator.frames import (
    HELLO,
    HIGH,
    I0,
    LOW,
    PICTURE,
    answer,
    created,
    delta,
    finished,
    lone_surrogates,
    spell,
    spell_all,
    thinking,
    web_search,
)

GOLDEN = Path(__file__).parents[3] / "golden" / "upstream"
PICTURE_2 = PICTURE.replace("1.png", "2.png")


def decode(chunks: list[bytes]) -> list[Event]:
    decoder = UpstreamDecoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def decode_frames(*frames: object) -> list[Event]:
    return decode([b"".join(spell_all(frames))])  # type: ignore[arg-type]  # payloads of any shape


def seen(events: list[Event]) -> list[Event | tuple[type, str]]:
    """Errors compare by identity: here they are told as (class, message)."""
    return [
        (type(event.error), event.error.message) if isinstance(event, TurnFailed) else event
        for event in events
    ]


class Told(msgspec.Struct, frozen=True):
    """What a stream says in all."""

    text: str = ""
    reasoning: str = ""
    sources: int = 0
    media: tuple[str, ...] = ()
    usage: Usage | None = None
    error: type[GatewayError] | None = None


def told(events: list[Event]) -> Told:
    *deltas, end = events
    assert isinstance(end, TurnEnd | TurnFailed)
    assert not any(isinstance(event, TurnEnd | TurnFailed) for event in deltas)
    return Told(
        text="".join(event.text for event in deltas if isinstance(event, TextDelta)),
        reasoning="".join(event.text for event in deltas if isinstance(event, ReasoningDelta)),
        sources=sum(len(event.sources) for event in deltas if isinstance(event, SourcesFound)),
        media=tuple(event.url for event in deltas if isinstance(event, MediaReady)),
        usage=end.usage,
        error=type(end.error) if isinstance(end, TurnFailed) else None,
    )


def used(received: int, *, reasoning: int = 0, cached: int = 0) -> Usage:
    return Usage(812, received, reasoning_tokens=reasoning, cached_tokens=cached)


HELLO_TEXT = "".join(HELLO)
HELLO_TOLD = Told(text=HELLO_TEXT, usage=used(5))

EXPECTED: dict[str, Told] = {
    "apology.sse": Told(
        "Sorry, we are experiencing high demand. Please try again later.", usage=used(3)
    ),
    "blank_before_line_end.sse": HELLO_TOLD,
    "bom.sse": HELLO_TOLD,
    "comments_and_ids.sse": HELLO_TOLD,
    "crlf.sse": HELLO_TOLD,
    "done_marker.sse": HELLO_TOLD,
    "done_without_finish.sse": HELLO_TOLD,
    "empty_answer.sse": Told(error=UpstreamEmpty),
    "empty_body.sse": Told(error=UpstreamEmpty),
    "empty_contents.sse": Told("Hello", usage=used(5)),
    "error_bad_request_internal.json": Told(error=UpstreamUnavailable),
    "error_chat_in_progress.json": Told(error=UpstreamBusy),
    "error_envelope_as_frame.sse": Told("Hello", usage=used(2), error=UpstreamQuota),
    "error_envelope_first.json": Told(error=UpstreamQuota),
    "error_envelope_first_frame.sse": Told(error=UpstreamQuota),
    "error_moderation_frame.sse": Told("Hello", usage=used(2), error=ContentRefused),
    "error_object_first_frame.sse": Told(error=UpstreamUnavailable),
    "error_object_frame.sse": Told("Hello", usage=used(2), error=UpstreamUnavailable),
    "error_string_frame.sse": Told("Hello", usage=used(2), error=UpstreamUnavailable),
    "error_unauthorized.json": Told(error=TokenRejected),
    "everything.sse": Told(
        "Fjords [[1]] are inlets.",
        "Sources found. Now a picture.",
        sources=3,
        media=(PICTURE,),
        usage=used(5, reasoning=2, cached=406),
    ),
    "finished_then_more.sse": HELLO_TOLD,
    "finished_then_open.sse": HELLO_TOLD,
    "firewall_page.html": Told(error=UpstreamBlocked),
    "firewall_punish.json": Told(error=UpstreamBlocked),
    "firewall_punish_frame.sse": Told(error=UpstreamBlocked),
    "frame_without_phase.sse": HELLO_TOLD,
    "frames_to_skip.sse": HELLO_TOLD,
    "image_during_reasoning.sse": Told(
        "Two foxes.", "I draw a fox.", media=(PICTURE, PICTURE_2), usage=used(1)
    ),
    "image_in_chat.sse": Told("Here is your fox.", media=(PICTURE,), usage=used(2)),
    "keep_alive_frames.sse": HELLO_TOLD,
    "last_event_without_blank_line.sse": HELLO_TOLD,
    "line_separator_in_json.sse": Told(
        "one\u2028two\u0085three\u2029four\x0b\x0cfive", usage=used(4)
    ),
    "lone_cr.sse": HELLO_TOLD,
    "lone_surrogate_unpaired.sse": Told("broken \ufffd never paired", usage=used(2)),
    "lone_surrogates.sse": Told("smile 🙂 done and 🙂 whole", usage=used(3)),
    "multi_data_lines.sse": HELLO_TOLD,
    "no_blank_after_colon.sse": HELLO_TOLD,
    "no_response_ids.sse": HELLO_TOLD,
    "nonsense.json": Told(error=UpstreamProtocolError),
    "only_created.sse": Told(error=UpstreamProtocolError),
    "other_phases.sse": HELLO_TOLD,
    "plain.sse": HELLO_TOLD,
    "plain_unicode.sse": Told("Grüße, 世界 🙂 — done.", usage=used(4)),
    "repeated_text.sse": Told("hahahahaha", usage=used(5)),
    "text_in_finished_frame.sse": Told("Hello", usage=used(1)),
    "think_tag_in_answer.sse": Told("<think>I might call a tool</think>Hello!", usage=used(6)),
    "think_then_answer.sse": Told(HELLO_TEXT, "The user says hello; I answer.", usage=used(8)),
    "think_without_finish.sse": Told(HELLO_TEXT, "No frame closes this.", usage=used(7)),
    "thinking_phase.sse": Told(HELLO_TEXT, "Some thought.", usage=used(7)),
    "thinking_summary.sse": Told(
        HELLO_TEXT,
        "Reading the question\n\nThe user greets.\n\nChoosing a tone\n\n"
        "A short greeting fits.\n\nWriting\n\nNow the answer.",
        usage=used(5),
    ),
    "thought_phase.sse": Told(HELLO_TEXT, "Some thought.", usage=used(7)),
    "tool_call_text.sse": Told(
        'Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n'
        "</tool_call>",
        usage=used(5),
    ),
    "tool_call_unclosed.sse": Told('<tool_call>\n{"name": "get_weather", "argum', usage=used(2)),
    "tool_call_xml.sse": Told(
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "</function>\n</tool_call>",
        usage=used(3),
    ),
    "tool_does_not_exist.sse": Told("Tool get_weather does not exists.", usage=used(2)),
    "truncated.sse": Told(HELLO_TEXT, usage=used(5), error=UpstreamProtocolError),
    "truncated_mid_frame.sse": Told("Grüße", usage=used(2), error=UpstreamProtocolError),
    "truncated_while_thinking.sse": Told(
        "", "Half a thought", usage=used(2), error=UpstreamProtocolError
    ),
    "two_candidates.sse": HELLO_TOLD,
    "two_candidates_second_finishes_first.sse": HELLO_TOLD,
    "unknown_fields.sse": HELLO_TOLD,
    "usage_after_finish.sse": Told(HELLO_TEXT, usage=used(9)),
    "usage_details.sse": Told(HELLO_TEXT, usage=used(5, cached=406)),
    "usage_missing.sse": Told(HELLO_TEXT),
    "usage_prompt_family.sse": HELLO_TOLD,
    "web_search.sse": Told("Fjords are inlets [[1]][[2]].", sources=3, usage=used(3)),
    "web_search_twice.sse": Told(
        "See [[1]] and [[2]].", "Two searches were needed.", sources=3, usage=used(1)
    ),
    "without_created.sse": HELLO_TOLD,
}

every_situation = pytest.mark.parametrize("situation", sorted(EXPECTED))


def test_every_golden_stream_is_expected_here() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.suffix} == set(EXPECTED)


@every_situation
def test_a_golden_stream_says_what_is_expected(situation: str) -> None:
    assert told(decode([(GOLDEN / situation).read_bytes()])) == EXPECTED[situation]


@every_situation
def test_single_bytes_give_the_same_events(situation: str) -> None:
    body = (GOLDEN / situation).read_bytes()
    assert seen(decode([body[i : i + 1] for i in range(len(body))])) == seen(decode([body]))


@every_situation
def test_one_cut_anywhere_gives_the_same_events(situation: str) -> None:
    body = (GOLDEN / situation).read_bytes()
    whole = seen(decode([body]))
    for at in range(len(body)):
        assert seen(decode([body[:at], body[at:]])) == whole, at


@given(st.sampled_from(sorted(EXPECTED)), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_cuts_give_the_same_events(situation: str, at: list[int]) -> None:
    body = (GOLDEN / situation).read_bytes()
    marks = [0, *sorted(mark % (len(body) + 1) for mark in at), len(body)]
    chunks = [body[begin:end] for begin, end in itertools.pairwise(marks)]
    assert seen(decode(chunks)) == seen(decode([body]))


@every_situation
def test_a_stream_that_breaks_anywhere_ends_once_and_last(situation: str) -> None:
    """Promise 8: whatever is left of an answer, it is no success unless it was finished."""
    body = (GOLDEN / situation).read_bytes()
    succeeds = EXPECTED[situation].error is None
    for at in range(len(body)):
        result = told(decode([body[:at]]))
        if not succeeds:
            assert result.error is not None, at
        elif result.error is None:
            assert result.text == EXPECTED[situation].text, at


def test_one_frame_makes_one_delta() -> None:
    events = decode([(GOLDEN / "plain.sse").read_bytes()])
    assert [event.text for event in events if isinstance(event, TextDelta)] == HELLO


def test_nothing_comes_after_the_terminal_event() -> None:
    decoder = UpstreamDecoder()
    events = decoder.feed(spell({"error": "broken"}) + spell(delta(I0, "late")))
    assert [type(event) for event in events] == [TurnFailed]
    assert decoder.feed(spell(delta(I0, "later"))) == []
    assert decoder.close() == []
    assert decoder.close() == []


# -- the end of an answer


def test_the_finished_answer_frame_says_done_before_the_connection_ends() -> None:
    """The connection may stay open after it (15.3): the reader closes after a grace."""
    decoder = UpstreamDecoder()
    events = decoder.feed((GOLDEN / "finished_then_open.sse").read_bytes())
    assert decoder.done
    assert not any(isinstance(event, TurnEnd) for event in events)
    assert decoder.close() == [TurnEnd("stop", used(5))]


def test_usage_that_trails_the_finished_frame_ends_the_turn() -> None:
    frames = spell_all([created(I0), *answer(I0, HELLO, family="input")])
    late = spell({"choices": [], "usage": {"input_tokens": 812, "output_tokens": 77}})
    decoder = UpstreamDecoder()
    decoder.feed(b"".join(frames))
    assert decoder.feed(late) == [TurnEnd("stop", used(77))]
    assert decoder.close() == []


def test_a_finished_frame_of_another_phase_ends_nothing() -> None:
    frames = [delta(I0, "a", phase="think"), finished(I0, phase="think")]
    frames += [finished(I0, phase="web_search"), finished(I0, phase="thinking_summary")]
    decoder = UpstreamDecoder()
    decoder.feed(b"".join(spell_all(frames)))
    assert not decoder.done


@pytest.mark.parametrize(
    "late",
    [b"data: {broken\n\n", spell({"error": "late"}), b"data: {half", spell(delta(I0, "more"))],
    ids=["broken JSON", "failure", "cut", "more text"],
)
def test_nothing_spoils_a_finished_answer(late: bytes) -> None:
    body = b"".join(spell_all(answer(I0, HELLO)))
    assert told(decode([body + late])) == HELLO_TOLD
    assert told(decode([body, late])) == HELLO_TOLD


def test_reasoning_or_a_picture_alone_is_an_answer() -> None:
    assert told(decode_frames(*thinking(I0, ["Hm."]), finished(I0))).error is None
    shown = delta(I0, "", phase="image_gen_tool", extra={"image_list": [{"image": PICTURE}]})
    assert told(decode_frames(shown, finished(I0))).error is None


def test_sources_alone_are_no_answer() -> None:
    found = web_search(I0, ["q"], [{"url": "https://example.org/"}])
    assert told(decode_frames(*found, finished(I0))).error is UpstreamEmpty


def test_a_frame_that_is_no_json_fails_the_turn() -> None:
    events = decode_frames(delta(I0, "Hel"), b'{"choices": [', delta(I0, "lo"))
    assert told(events) == Told("Hel", error=UpstreamProtocolError)


def test_a_frame_that_is_no_utf8_fails_the_turn() -> None:
    body = spell(delta(I0, "Hel")) + spell(delta(I0, "X")).replace(b"X", b"\xff")
    assert told(decode([body])) == Told("Hel", error=UpstreamProtocolError)


def test_a_frame_nested_beyond_reason_fails_the_turn() -> None:
    deep = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert told(decode_frames(delta(I0, "Hel"), deep)).error is UpstreamProtocolError


def test_a_frame_too_large_fails_the_turn() -> None:
    body = spell(delta(I0, "Hel")) + b"data: " + b"x" * (17 * 1024 * 1024)
    assert told(decode([body])) == Told("Hel", error=UpstreamProtocolError)


def test_events_glued_by_a_blank_in_their_empty_line_are_read_apart() -> None:
    body = b"\n \n".join(spell(frame).strip() for frame in answer(I0, HELLO)) + b"\n\n"
    assert told(decode([body])) == HELLO_TOLD
    glued = spell(delta(I0, "Hi")).strip() + b"\n \n" + b"data: [DONE]\n \ndata: {late\n\n"
    assert told(decode([glued])) == Told("Hi")


def test_events_without_data_mean_nothing() -> None:
    body = b"data:\n\n" + b"".join(b"data: \n\n" + spell(one) for one in answer(I0, HELLO))
    assert told(decode([body])) == HELLO_TOLD


# -- candidates


def test_an_announcement_that_is_repeated_changes_nothing() -> None:
    frames = [created(I0), created(I0), *answer(I0, HELLO[:1], end=False), created(I0)]
    assert told(decode_frames(*frames, finished(I0))).text == HELLO[0]


def test_a_candidate_announced_first_with_another_index_is_not_followed() -> None:
    other = msgspec.structs.replace(I0, response_id="other")
    frames = [created(other, index=1), delta(other, "No"), created(I0), *answer(I0, HELLO)]
    assert told(decode_frames(*frames)) == HELLO_TOLD


def test_the_failure_of_a_candidate_that_is_not_followed_fails_nothing() -> None:
    other = msgspec.structs.replace(I0, response_id="other")
    failed = {"error": {"code": "internal_error"}, "response_id": "other"}
    frames = [created(I0), created(other, index=1), failed, *answer(I0, HELLO)]
    assert told(decode_frames(*frames)) == HELLO_TOLD


def test_the_announced_ids_are_known_from_the_first_frame_on() -> None:
    decoder = UpstreamDecoder()
    decoder.feed(spell(created(I0)))
    assert (decoder.chat_id, decoder.response_id) == (I0.chat_id, I0.response_id)
    without = UpstreamDecoder()
    without.feed(spell(delta(I0, "Hel")))
    assert without.response_id == I0.response_id


# -- findings


def test_sources_are_told_once_and_with_what_was_searched_for() -> None:
    one, two = {"url": "https://example.org/1", "title": "One"}, {"url": "https://example.org/2"}
    events = decode_frames(
        *web_search(I0, ["first"], [one]),
        *web_search(I0, ["second"], [one, two]),
        *web_search(I0, ["third"], [two]),
        *answer(I0, HELLO),
    )
    found = [event for event in events if isinstance(event, SourcesFound)]
    assert [[source.url[-1] for source in event.sources] for event in found] == [["1"], ["2"]]
    assert [event.queries for event in found] == [("first",), ("second",)]


@pytest.mark.parametrize(
    "extra",
    [None, [], "x", {"web_search_info": None}, {"web_search_info": [None]}, {"image_list": [{}]}],
)
def test_findings_of_a_shape_we_do_not_know_are_skipped(extra: object) -> None:
    odd = delta(I0, "", phase="web_search", name="web_search", extra=extra, function_call="x")
    assert told(decode_frames(odd, *answer(I0, HELLO))) == HELLO_TOLD


def test_the_text_of_a_tool_result_is_no_answer() -> None:
    result = delta(I0, "raw result", phase=None, role="function", name="web_search")
    assert told(decode_frames(result, *answer(I0, HELLO))) == HELLO_TOLD


def test_a_summary_grows_at_its_end_and_nothing_is_said_twice() -> None:
    def summary(titles: list[str], thoughts: list[str]) -> object:
        extra = {"summary_title": {"content": titles}, "summary_thought": {"content": thoughts}}
        return delta(I0, "", phase="thinking_summary", extra=extra)

    events = decode_frames(
        summary(["One"], []),
        summary(["One"], ["First"]),
        summary(["One"], ["First thought."]),
        summary(["One"], ["First thought."]),
        summary(["One", "Two"], ["First thought."]),
        *answer(I0, HELLO),
    )
    deltas = [event.text for event in events if isinstance(event, ReasoningDelta)]
    assert deltas == ["One", "\n\nFirst", " thought.", "\n\nTwo"]


# -- characters in halves


def test_a_half_character_never_crosses_from_reasoning_to_text() -> None:
    frames = [delta(I0, "a" + HIGH, phase="think"), delta(I0, LOW + "b"), finished(I0)]
    events = decode_frames(*lone_surrogates(frames))
    assert told(events) == Told("\ufffdb", "a\ufffd")
    frames = [delta(I0, "a" + HIGH), delta(I0, LOW + "b", phase="think"), finished(I0)]
    assert told(decode_frames(*lone_surrogates(frames))) == Told("a\ufffd", "\ufffdb")


def test_halves_in_a_frame_without_content_do_no_harm() -> None:
    odd = {"choices": [{"delta": {"status": HIGH}}], "trace": [LOW, 1, None]}
    frames = lone_surrogates([odd, *answer(I0, HELLO)])
    assert told(decode_frames(*frames)) == HELLO_TOLD


def test_a_half_character_at_the_end_is_not_lost_silently() -> None:
    frames = [delta(I0, "a" + HIGH), finished(I0)]
    assert told(decode_frames(*lone_surrogates(frames))) == Told("a\ufffd")


def test_halves_elsewhere_in_a_frame_do_no_harm() -> None:
    found = web_search(I0, [HIGH], [{"url": "https://example.org/", "title": LOW}])
    frames = lone_surrogates([*found, *answer(I0, HELLO)])
    assert told(decode_frames(*frames)) == msgspec.structs.replace(HELLO_TOLD, sources=1)


# -- shapes nobody promised


@pytest.mark.parametrize(
    "frame",
    [
        {"choices": {"delta": {}}},
        {"choices": [{"delta": {"content": ["a"]}}]},
        {"choices": [{"delta": {"content": 5, "phase": "answer"}}]},
        {"response_id": 7},
        {"response.created": None},
        {"response.created": {"response_index": [1]}},
        {"usage": None},
        {"usage": {"output_tokens": "many"}, "choices": []},
        {"error": None},
        {"success": True},
        [1, 2],
        "text",
        None,
    ],
    ids=str,
)
def test_frames_of_unknown_shape_are_skipped(frame: object) -> None:
    events = decode_frames(msgspec.json.encode(frame), *answer(I0, HELLO))
    assert told(events) == HELLO_TOLD


def test_members_that_are_null_do_not_hide_a_delta() -> None:
    frames = [
        frame | {"error": None, "usage": None, "success": None, "ret": None}
        for frame in answer(I0, HELLO)
    ]
    assert told(decode_frames(*frames)) == Told(HELLO_TEXT)


def test_a_failure_beside_odd_choices_is_still_a_failure() -> None:
    odd = {"choices": "none", "error": {"code": "server_busy"}}
    assert told(decode_frames(odd)).error is UpstreamUnavailable


def test_a_challenge_without_any_known_member_is_known_by_its_words() -> None:
    challenge = {"rgv587_flag": "sm", "url": "https://chat.qwen.ai/_____tmd_____/punish?x5=made-up"}
    assert told(decode_frames(challenge)).error is UpstreamBlocked
    assert told(decode([msgspec.json.encode(challenge)])).error is UpstreamBlocked


def test_prose_in_place_of_a_stream_is_a_failure() -> None:
    assert told(decode([b"upstream connect error"])).error is UpstreamProtocolError


def test_whole_tokens_in_floats_are_no_reason_to_fail() -> None:
    odd = delta(I0, "Hi", usage={"input_tokens": 1.0, "output_tokens": 2.0})
    assert told(decode_frames(odd, finished(I0))).error is None


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (b"", None),
        (b" \r\n", None),
        (b"\xef\xbb\xbf", None),
        (b"\xef\xbb\xbfdata", True),
        (b": comment", True),
        (b'\n{"success"', False),
        (b"\xef\xbb\xbf<!doctype", False),
        (b"[1]", False),
    ],
)
def test_the_first_byte_tells_events_from_documents(head: bytes, verdict: bool | None) -> None:
    assert begins_like_sse(head) is verdict
