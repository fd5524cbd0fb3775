from typing import Any

import msgspec
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.dialects import Rendering, Turn
from gateway.dialects.openai_chat import new_id, open_writer, write_error, write_reply
from shared import errors
from shared.chat.collect import Collector
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
from tests.fakes.frames import Json, chunks, payloads

THOUGHT: list[Event] = [ReasoningDelta("Let me "), ReasoningDelta("think.")]
ANSWER: list[Event] = [TextDelta("Hel"), TextDelta("lo")]
END = TurnEnd("stop", Usage(12, 7, 3, 4))
FOUND = SourcesFound((Source("Fjords", "https://example.org/fjords", hostname="example.org"),))


def turn_of(*, include_usage: bool = False, **rendering: Any) -> Turn:
    return Turn(
        id=new_id("ab" * 12),
        created=1795400000,
        model='Qwen3-"Max"',
        include_usage=include_usage,
        rendering=Rendering(**rendering),
    )


def stream(events: list[Event], turn: Turn | None = None) -> bytes:
    writer = open_writer(turn or turn_of())
    return b"".join(map(writer.feed, events))


def deltas(stream: bytes) -> list[Json]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(stream) if chunk["choices"]]


def reply(events: list[Event], turn: Turn | None = None) -> Json:
    collector = Collector()
    for event in events:
        collector.feed(event)
    return msgspec.json.decode(write_reply(turn or turn_of(), collector.reply))  # type: ignore[no-any-return]  # JSON


# -- stream


def test_a_stream_is_role_deltas_finish_done() -> None:
    written = stream([*ANSWER, END])
    assert deltas(written) == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks(written)] == [
        None,
        None,
        None,
        "stop",
    ]
    assert payloads(written)[-1] == "[DONE]"


def test_every_chunk_has_the_turns_id_time_and_model() -> None:
    for chunk in chunks(stream([*THOUGHT, FOUND, *ANSWER, END], turn_of(include_usage=True))):
        assert chunk["id"] == "chatcmpl-" + "ab" * 12
        assert (chunk["object"], chunk["created"]) == ("chat.completion.chunk", 1795400000)
        assert chunk["model"] == 'Qwen3-"Max"'
        ChatCompletionChunk.model_validate_json(msgspec.json.encode(chunk), strict=True)


def test_the_first_event_is_told_at_once_even_when_it_shows_nothing() -> None:
    for event in (ReasoningDelta("r"), FOUND, MediaReady("image", "https://a.b/c")):
        writer = open_writer(turn_of(output_think=False))
        assert deltas(writer.feed(event)) == [{"role": "assistant", "content": ""}]


def test_each_event_is_written_when_it_comes() -> None:
    writer = open_writer(turn_of())
    assert b"Hel" in writer.feed(TextDelta("Hel"))
    assert deltas(writer.feed(TextDelta("lo"))) == [{"content": "lo"}]


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
def test_every_stop_reason_has_its_finish_reason(reason: Any) -> None:
    events: list[Event] = [*ANSWER, TurnEnd(reason)]
    assert chunks(stream(events))[-1]["choices"][0]["finish_reason"] == reason
    assert reply(events)["choices"][0]["finish_reason"] == reason


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    *others, last = chunks(stream([*ANSWER, END], turn_of(include_usage=True)))
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert [chunk["usage"] for chunk in others] == [None] * len(others)


def test_usage_is_not_told_in_a_stream_that_did_not_ask() -> None:
    assert all("usage" not in chunk for chunk in chunks(stream([*ANSWER, END])))


def test_text_of_every_kind_survives() -> None:
    text = 'Grüße "世界" 🙂 \\ \u2028 \u0085 \x00 \n\r\n data: [DONE]\n\n'
    assert deltas(stream([TextDelta(text), END]))[1] == {"content": text}


# -- reasoning


def test_reasoning_has_a_field_of_its_own() -> None:
    assert deltas(stream([*THOUGHT, *ANSWER, END]))[1:3] == [
        {"reasoning_content": "Let me "},
        {"reasoning_content": "think."},
    ]
    message = reply([*THOUGHT, *ANSWER, END])["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello", "Let me think.")


def test_legacy_reasoning_stands_in_the_content() -> None:
    turn = turn_of(legacy_reasoning_in_content=True)
    written = stream([*THOUGHT, *ANSWER, END], turn)
    expected = "<think>\nLet me think.\n</think>\n\nHello"
    assert "".join(delta.get("content", "") for delta in deltas(written)) == expected
    assert "reasoning_content" not in written.decode()
    message = reply([*THOUGHT, *ANSWER, END], turn)["choices"][0]["message"]
    assert message["content"] == expected
    assert "reasoning_content" not in message


@pytest.mark.parametrize("end", [TurnEnd("length"), TurnFailed(errors.UpstreamSilent("x"))])
def test_legacy_reasoning_is_closed_however_the_turn_ends(end: Event) -> None:
    written = stream([*THOUGHT, end], turn_of(legacy_reasoning_in_content=True))
    contents = [c["choices"][0]["delta"].get("content") for c in chunks(written) if "choices" in c]
    assert "".join(filter(None, contents)) == "<think>\nLet me think.\n</think>\n\n"


@pytest.mark.parametrize("legacy", [False, True])
def test_reasoning_reaches_nobody_when_it_is_switched_off(legacy: bool) -> None:
    turn = turn_of(output_think=False, legacy_reasoning_in_content=legacy)
    written = stream([*THOUGHT, *ANSWER, END], turn)
    assert b"think" not in written
    assert b"think" not in msgspec.json.encode(reply([*THOUGHT, *ANSWER, END], turn))
    assert "".join(delta.get("content", "") for delta in deltas(written)) == "Hello"


# -- sources and pictures


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        (
            "table",
            "\n\n| # | Source | Site |\n| --- | --- | --- |\n"
            "| 1 | [Fjords](https://example.org/fjords) | example.org |",
        ),
        ("text", "\n\n1. [Fjords](https://example.org/fjords) — example.org"),
    ],
)
def test_sources_follow_the_answer_and_are_cited(mode: str, shown: str) -> None:
    turn = turn_of(search_info_mode=mode)
    delta = deltas(stream([FOUND, *ANSWER, END], turn))[-2]
    assert delta["content"] == shown
    (annotation,) = delta["annotations"]
    assert annotation["type"] == "url_citation"
    cited = annotation["url_citation"]
    assert (cited["title"], cited["url"]) == ("Fjords", "https://example.org/fjords")
    whole = "Hello" + shown
    assert (
        whole[cited["start_index"] : cited["end_index"]] == "[Fjords](https://example.org/fjords)"
    )
    message = reply([FOUND, *ANSWER, END], turn)["choices"][0]["message"]
    assert (message["content"], message["annotations"]) == (whole, [annotation])


def test_without_sources_nothing_follows_the_answer() -> None:
    message = reply([SourcesFound(()), *ANSWER, END])["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Hello", "refusal": None}


def test_pictures_of_a_chat_are_markdown_images() -> None:
    picture = MediaReady("image", "https://cdn.example/1.png?key=a_b")
    events: list[Event] = [picture, *ANSWER, END]
    assert reply(events)["choices"][0]["message"]["content"] == (
        "Hello\n\n![image](https://cdn.example/1.png?key=a_b)"
    )
    alone = reply([picture, END])["choices"][0]["message"]["content"]
    assert alone == "![image](https://cdn.example/1.png?key=a_b)"


# -- reply


def test_a_reply_has_exactly_the_shape_of_a_completion() -> None:
    body = reply([*ANSWER, END])
    assert body == {
        "id": "chatcmpl-" + "ab" * 12,
        "object": "chat.completion",
        "created": 1795400000,
        "model": 'Qwen3-"Max"',
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "total_tokens": 19,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }
    ChatCompletion.model_validate_json(msgspec.json.encode(body), strict=True)


def test_a_reply_of_tool_calls_alone_has_null_content() -> None:
    events: list[Event] = [
        ToolCallStart(0, "call_1", "now"),
        ToolCallDelta(0, "{}"),
        ToolCallEnd(0),
        TurnEnd("tool_calls"),
    ]
    message = reply(events)["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    ]


# -- errors: contract, section 4


@pytest.mark.parametrize(
    ("error", "status", "type_", "code"),
    [
        (errors.Unauthorized(), 401, "invalid_request_error", "invalid_api_key"),
        (errors.Forbidden(), 403, "permission_error", "forbidden"),
        (errors.BadRequest("x", param="a[0].b"), 400, "invalid_request_error", "invalid_value"),
        (errors.ContextTooLong(), 400, "invalid_request_error", "context_length_exceeded"),
        (errors.ContentRefused(), 400, "invalid_request_error", "content_filter"),
        (errors.UnknownModel(), 404, "invalid_request_error", "model_not_found"),
        (errors.NotFound(), 404, "invalid_request_error", "not_found"),
        (errors.MethodNotAllowed(), 405, "invalid_request_error", "method_not_allowed"),
        (errors.Conflict(), 409, "invalid_request_error", "conflict"),
        (errors.PayloadTooLarge(), 413, "invalid_request_error", "body_too_large"),
        (errors.RateLimited(), 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.AccountsExhausted(), 429, "rate_limit_error", "accounts_exhausted"),
        (errors.NoAccount(), 503, "server_error", "no_account"),
        (errors.UpstreamBlocked(), 503, "server_error", "upstream_blocked"),
        (errors.UpstreamUnavailable(), 502, "server_error", "upstream_error"),
        (errors.UpstreamProtocolError(), 502, "server_error", "upstream_error"),
        (errors.UpstreamEmpty(), 502, "server_error", "upstream_empty"),
        (errors.UpstreamSilent(), 504, "server_error", "upstream_timeout"),
        (errors.StoreUnavailable(), 503, "server_error", "store_unavailable"),
        (errors.NoCatalogue(), 503, "server_error", "no_catalogue"),
        (errors.Draining(), 503, "server_error", "draining"),
        (errors.GatewayError(), 500, "server_error", "internal_error"),
    ],
)
def test_an_error_has_the_status_type_and_code_of_the_contract(
    error: errors.GatewayError, status: int, type_: str, code: str
) -> None:
    assert error.status == status
    assert msgspec.json.decode(write_error(error, "request-1")) == {
        "error": {
            "message": error.message,
            "type": type_,
            "param": getattr(error, "param", None),
            "code": code,
        }
    }


def test_a_failure_in_band_is_the_last_frame_and_has_the_same_body() -> None:
    error = errors.UpstreamSilent("The upstream fell silent")
    written = stream([*ANSWER, TurnFailed(error), END])
    assert payloads(written)[-1] == write_error(error, "").decode()
    assert len(payloads(written)) == 4
