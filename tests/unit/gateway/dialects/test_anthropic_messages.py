"""How Anthropic's answers are written: events, blocks, citations, errors."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import Rendering, Turn, anthropic_messages
from gateway.dialects.anthropic_request import Given
from shared import errors
from shared.chat.collect import Collector, Reply
from shared.chat.events import (
    Event,
    ReasoningDelta,
    Source,
    SourcesFound,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    TurnStart,
    Usage,
)
from shared.chat.request import TextPart, ToolResultPart
from shared.errors import GatewayError, UpstreamProtocolError
from tests.fakes.frames import (
    Json,
    assert_message_grammar,
    chunks,
    read_anthropic_reply,
    read_anthropic_stream,
)

ONE = Source(title="One", url="https://e.org/1", snippet="a fjord", date="2026-05-01")
TWO = Source(url="https://e.org/2", hostname="e.org")
NO_LINK = Source(title="None", url="javascript:alert(1)")
END = TurnEnd("stop", Usage(3, 4))
CALL: list[Event] = [
    ToolCallStart(0, "call_1", "f"),
    ToolCallDelta(0, '{"a":'),
    ToolCallDelta(0, "1}"),
    ToolCallEnd(0),
]


def turn_of(
    *, web_search: bool = False, prefill: str = "", thinking: bool | None = True, **rendering: Any
) -> Turn:
    return Turn(
        id="msg_ab",
        created=1795400000,
        model="claude-sonnet-4-5",
        request_id="req-1",
        thinking=thinking,
        rendering=Rendering(**rendering),
        given=Given(web_search=web_search, prefill=prefill),
    )


def stream(turn: Turn, *events: Event) -> bytes:
    written = b"".join(map(anthropic_messages.open_writer(turn).feed, events))
    assert_message_grammar(written)
    return written


def frames(turn: Turn, *events: Event) -> list[Json]:
    return chunks(stream(turn, *events))


def whole(turn: Turn, *events: Event) -> Json:
    body = anthropic_messages.write_reply(turn, reply_of(*events))
    message: Json = msgspec.json.decode(body)
    return message


def reply_of(*events: Event) -> Reply:
    collector = Collector()
    for event in events:
        collector.feed(event)
    return collector.reply


def told(turn: Turn, *events: Event) -> list[str]:
    """The types of the frames, blocks by their kind."""
    return [_kind(frame) for frame in frames(turn, *events)]


def _kind(frame: Json) -> str:
    inner: Json = frame.get("content_block") or frame.get("delta") or {}
    return str(inner.get("type", frame["type"]))


# -- the order of events


def test_a_turn_is_told_in_the_apis_order() -> None:
    events: list[Event] = [
        TurnStart(Usage(10, 1)),
        ReasoningDelta("hm"),
        TextDelta("So"),
        TextDelta("."),
        *CALL,
        ToolCallStart(1, "call_2", "g"),
        ToolCallEnd(1),
        TurnEnd("tool_calls", Usage(10, 20)),
    ]
    assert told(turn_of(), *events) == [
        "message_start",
        *("thinking", "thinking_delta", "signature_delta", "content_block_stop"),
        *("text", "text_delta", "text_delta", "content_block_stop"),
        *("tool_use", "input_json_delta", "input_json_delta", "content_block_stop"),
        *("tool_use", "content_block_stop"),
        "message_delta",
        "message_stop",
    ]


def test_arguments_go_out_as_they_come() -> None:
    writer = anthropic_messages.open_writer(turn_of())
    (start,) = chunks(writer.feed(CALL[0]))[1:]
    assert start["content_block"] == {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}
    (delta,) = chunks(writer.feed(CALL[1]))
    assert delta["delta"] == {"type": "input_json_delta", "partial_json": '{"a":'}


def test_the_input_of_a_whole_message_is_an_object() -> None:
    empty: list[Event] = [ToolCallStart(1, "call_2", "g"), ToolCallEnd(1)]
    message = whole(turn_of(), *CALL, *empty, TurnEnd("tool_calls"))
    assert message["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
    ]


@pytest.mark.parametrize("cut", ['{"a": "O', '{"a":', "{", ""])
def test_a_call_that_max_tokens_cut_has_no_input_in_a_whole_message(cut: str) -> None:
    events = (ToolCallStart(0, "call_1", "f"), ToolCallDelta(0, cut), TurnEnd("length"))
    message = whole(turn_of(), *events)
    assert message["content"] == [{"type": "tool_use", "id": "call_1", "name": "f", "input": {}}]
    assert message["stop_reason"] == "max_tokens"
    assert [frame["type"] for frame in frames(turn_of(), *events)][-3:] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        (TurnEnd("stop"), "end_turn", None),
        (TurnEnd("length"), "max_tokens", None),
        (TurnEnd("tool_calls"), "tool_use", None),
        (TurnEnd("content_filter"), "refusal", None),
        (TurnEnd("stop", stop_sequence="END"), "stop_sequence", "END"),
    ],
)
def test_why_it_ended_is_told_in_the_apis_words(
    end: TurnEnd, reason: str, sequence: str | None
) -> None:
    stopped = {"stop_reason": reason, "stop_sequence": sequence}
    assert frames(turn_of(), TextDelta("x"), end)[-2]["delta"] == stopped
    message = whole(turn_of(), TextDelta("x"), end)
    assert {name: message[name] for name in stopped} == stopped


def test_usage_stands_in_the_first_frame_when_it_is_known_then_and_in_the_last() -> None:
    first, *_, delta, _ = frames(
        turn_of(), TurnStart(Usage(10, 1)), TextDelta("x"), TurnEnd("stop", Usage(10, 20))
    )
    assert first["message"]["usage"]["input_tokens"] == 10
    assert first["message"]["usage"]["output_tokens"] == 1
    assert (delta["usage"]["input_tokens"], delta["usage"]["output_tokens"]) == (10, 20)
    assert frames(turn_of(), TextDelta("x"), END)[0]["message"]["usage"]["input_tokens"] == 0


def test_cached_tokens_are_told_apart() -> None:
    end = TurnEnd("stop", Usage(100, 5, reasoning_tokens=2, cached_tokens=60))
    expected = {
        "input_tokens": 40,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 60,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 2},
    }
    assert frames(turn_of(), TextDelta("x"), end)[-2]["usage"] == expected
    assert whole(turn_of(), TextDelta("x"), end)["usage"] == expected


def test_an_empty_turn_is_balanced_too() -> None:
    assert told(turn_of(), END) == ["message_start", "message_delta", "message_stop"]
    assert whole(turn_of(), END)["content"] == []


# -- thinking


def test_thinking_is_signed_alike_in_the_stream_and_whole() -> None:
    events: list[Event] = [ReasoningDelta("h"), ReasoningDelta("m"), TextDelta("x"), END]
    (signature,) = [
        frame["delta"]["signature"]
        for frame in frames(turn_of(), *events)
        if frame.get("delta", {}).get("type") == "signature_delta"
    ]
    assert signature
    (thinking, _) = whole(turn_of(), *events)["content"]
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": signature}


@pytest.mark.parametrize(
    "turn",
    [turn_of(thinking=False), turn_of(output_think=False)],
    ids=["nobody asked", "the operator hides it"],
)
def test_thinking_that_isnt_to_be_seen_leaves_no_block(turn: Turn) -> None:
    events: list[Event] = [ReasoningDelta("hm"), TextDelta("x"), END]
    assert "thinking" not in told(turn, *events)
    assert [block["type"] for block in whole(turn, *events)["content"]] == ["text"]


@pytest.mark.parametrize("thinking", [True, None])
def test_thinking_is_seen_when_it_was_asked_for_or_left_to_the_model(thinking: bool | None) -> None:
    events: list[Event] = [ReasoningDelta("hm"), TextDelta("x"), END]
    assert "thinking" in told(turn_of(thinking=thinking), *events)


# -- failures


@pytest.mark.parametrize(
    "before",
    [[], [ReasoningDelta("hm")], [TextDelta("x")], CALL[:2], CALL],
    ids=["nothing", "thinking", "text", "half a call", "a call"],
)
def test_a_failure_closes_what_is_open_and_is_the_last_event(before: list[Event]) -> None:
    error = UpstreamProtocolError("The upstream's answer was cut off")
    written = frames(turn_of(), *before, TurnFailed(error), TextDelta("more"), END)
    assert written[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "The upstream's answer was cut off"},
        "request_id": "req-1",
    }
    assert "message_stop" not in [frame["type"] for frame in written]
    read = read_anthropic_stream(stream(turn_of(), *before, TurnFailed(error)))
    assert read.failure is not None


@pytest.mark.parametrize(
    ("error", "status", "type_"),
    [
        (errors.Unauthorized(), 401, "authentication_error"),
        (errors.Forbidden(), 403, "permission_error"),
        (errors.BadRequest(), 400, "invalid_request_error"),
        (errors.ContextTooLong(), 400, "invalid_request_error"),
        (errors.ContentRefused(), 400, "invalid_request_error"),
        (errors.UnknownModel(), 404, "not_found_error"),
        (errors.NotFound(), 404, "not_found_error"),
        (errors.MethodNotAllowed(), 405, "invalid_request_error"),
        (errors.Conflict(), 409, "invalid_request_error"),
        (errors.PayloadTooLarge(), 413, "request_too_large"),
        (errors.RateLimited(), 429, "rate_limit_error"),
        (errors.AccountsExhausted(), 429, "rate_limit_error"),
        (errors.NoAccount(), 503, "overloaded_error"),
        (errors.UpstreamBlocked(), 503, "overloaded_error"),
        (errors.StoreUnavailable(), 503, "overloaded_error"),
        (errors.NoCatalogue(), 503, "overloaded_error"),
        (errors.Draining(), 503, "overloaded_error"),
        (errors.UpstreamError(), 502, "api_error"),
        (errors.UpstreamEmpty(), 502, "api_error"),
        (errors.UpstreamSilent(), 504, "timeout_error"),
        (GatewayError(), 500, "api_error"),
    ],
)
def test_every_situation_has_the_contracts_type(
    error: GatewayError, status: int, type_: str
) -> None:
    assert error.status == status
    body = msgspec.json.decode(anthropic_messages.write_error(error, "req-1"))
    assert body == {
        "type": "error",
        "error": {"type": type_, "message": body["error"]["message"]},
        "request_id": "req-1",
    }


def test_a_prompt_that_is_too_long_is_told_in_the_words_agents_look_for() -> None:
    for message in ("The prompt is longer than the model takes.", "prompt is too long: 3 > 2"):
        body = msgspec.json.decode(
            anthropic_messages.write_error(errors.ContextTooLong(message), "r")
        )
        assert body["error"]["message"].startswith("prompt is too long")
        assert body["error"]["message"].count("prompt is too long") == 1


def test_a_thread_is_refused_so_that_the_sdk_goes_on_without() -> None:
    request = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"thread":{"type":"create"}}'
    with pytest.raises(errors.BadRequest) as refused:
        anthropic_messages.read_request(request)
    body = msgspec.json.decode(anthropic_messages.write_error(refused.value, "r"))
    assert body["error"]["details"] == {"error_code": "thread_unsupported_request"}


# -- web search


def test_a_search_that_was_offered_is_told_in_blocks() -> None:
    found = SourcesFound((ONE, TWO), ("fjords", "norway"))
    turn = turn_of(web_search=True)
    events: list[Event] = [found, TextDelta("Inlets [[1]]."), END]
    use, result, text = whole(turn, *events)["content"]
    assert use == {
        "type": "server_tool_use",
        "id": "srvtoolu_ab00",
        "name": "web_search",
        "input": {"query": "fjords; norway"},
    }
    assert result["tool_use_id"] == use["id"]
    assert [hit["url"] for hit in result["content"]] == ["https://e.org/1", "https://e.org/2"]
    assert [hit["page_age"] for hit in result["content"]] == ["2026-05-01", None]
    assert text["text"] == "Inlets [[1]]."
    assert text["citations"] == [
        {
            "type": "web_search_result_location",
            "url": "https://e.org/1",
            "title": "One",
            "encrypted_index": "1",
            "cited_text": "a fjord",
        }
    ]
    assert told(turn, *events) == [
        "message_start",
        *("server_tool_use", "input_json_delta", "content_block_stop"),
        *("web_search_tool_result", "content_block_stop"),
        *("text", "text_delta", "citations_delta", "content_block_stop"),
        "message_delta",
        "message_stop",
    ]
    assert frames(turn, *events)[-2]["usage"]["server_tool_use"]["web_search_requests"] == 1


def test_what_is_cited_is_read_back_as_it_was_found() -> None:
    turn = turn_of(web_search=True)
    message = whole(turn, SourcesFound((ONE,)), TextDelta("See [[1]]."), END)
    history = [
        {"role": "assistant", "content": message["content"]},
        {"role": "user", "content": "?"},
    ]
    body = {"model": "m", "max_tokens": 9, "messages": history}
    first = anthropic_messages.read_request(msgspec.json.encode(body)).messages[0]
    found = (TextPart("[[1]] One https://e.org/1\na fjord"),)
    assert first.parts == (
        ToolResultPart("srvtoolu_ab00", found, name="web_search"),
        TextPart("See [[1]]."),
    )


def test_an_answer_that_names_no_source_rests_on_all_of_them() -> None:
    turn = turn_of(web_search=True)
    events: list[Event] = [SourcesFound((ONE, NO_LINK, TWO)), TextDelta("Inlets."), END]
    read = read_anthropic_stream(stream(turn, *events))
    assert [cited["url"] for cited in read.citations] == [ONE.url, TWO.url]
    assert read == read_anthropic_reply(anthropic_messages.write_reply(turn, reply_of(*events)))


def test_a_search_that_nobody_offered_follows_the_text() -> None:
    events: list[Event] = [SourcesFound((ONE,)), TextDelta("Inlets [[1]]."), END]
    (text,) = whole(turn_of(), *events)["content"]
    assert text["text"].startswith("Inlets [[1]].\n\n| # | Source | Site |")
    assert "citations" not in text
    assert "server_tool_use" not in told(turn_of(), *events)


searches = st.builds(
    SourcesFound,
    st.lists(st.sampled_from([ONE, TWO, NO_LINK]), max_size=3).map(tuple),
    st.lists(st.text(max_size=5), max_size=2).map(tuple),
)
pieces = st.sampled_from(["Inlets", " [[1]]", "[[", "2]]", "[[9]]", "[[0]]", "\n", "{", ""])


@given(
    found=st.lists(searches, max_size=2),
    thought=st.booleans(),
    said=st.lists(pieces, max_size=6),
    called=st.booleans(),
    prefill=st.sampled_from(["", "Inlets [[1]]", "{", "\n"]),
)
def test_a_stream_with_searches_joined_is_the_whole_message(
    found: list[SourcesFound], thought: bool, said: list[str], called: bool, prefill: str
) -> None:
    """Block by block: same order, same text, same citations."""
    turn = turn_of(web_search=True, prefill=prefill)
    thinking: list[Event] = [ReasoningDelta("hm")] if thought else []
    calls = CALL if called else []
    events: list[Event] = [*found, *thinking, *map(TextDelta, said), *calls, END]
    assert joined(frames(turn, *events)) == whole(turn, *events)["content"]


def joined(written: list[Json]) -> list[Json]:
    """The content blocks of a stream."""
    blocks: list[Json] = []
    arguments = ""
    for frame in written:
        if frame["type"] == "content_block_start":
            blocks.append(frame["content_block"])
            arguments = ""
        elif frame["type"] == "content_block_delta":
            match frame["delta"]:
                case {"text": text}:
                    blocks[-1]["text"] += text
                case {"thinking": thinking}:
                    blocks[-1]["thinking"] += thinking
                case {"signature": signature}:
                    blocks[-1]["signature"] = signature
                case {"citation": citation}:
                    blocks[-1].setdefault("citations", []).append(citation)
                case {"partial_json": partial}:
                    arguments += partial
        elif frame["type"] == "content_block_stop" and arguments:
            blocks[-1]["input"] = msgspec.json.decode(arguments)
            arguments = ""
    return blocks


# -- prefill


@pytest.mark.parametrize(
    ("prefill", "said", "shown"),
    [
        ("{", ['{"a": 1}'], '"a": 1}'),
        ("{", ['"a": 1}'], '"a": 1}'),
        ("The answer is", ["\n\nThe", " ans", "wer", " is 7."], " 7."),
        ("The answer is", ["The", " anchor"], "The anchor"),
        ("The answer is", ["The an"], "The an"),
        ("The answer is", ["The answer is"], ""),
        ("The answer is", ["  7."], "  7."),
        ("", ["x"], "x"),
    ],
)
def test_a_prefill_that_is_repeated_is_taken_off(prefill: str, said: list[str], shown: str) -> None:
    turn = turn_of(prefill=prefill)
    events: list[Event] = [*map(TextDelta, said), END]
    assert read_anthropic_stream(stream(turn, *events)).text == shown
    assert "".join(block["text"] for block in whole(turn, *events)["content"]) == shown


def test_what_is_held_for_a_prefill_goes_out_before_a_call_and_before_an_error() -> None:
    held: list[Event] = [TextDelta("The an")]
    turn = turn_of(prefill="The answer")
    assert told(turn, *held, *CALL, END).index("text") < told(turn, *held, *CALL, END).index(
        "tool_use"
    )
    assert b"The an" in stream(turn, *held, TurnFailed(UpstreamProtocolError()))
