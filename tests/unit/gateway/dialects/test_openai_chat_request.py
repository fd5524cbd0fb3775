import time
from typing import Any

import msgspec
import pytest

from gateway.dialects.fields import (
    EFFORT_BUDGETS,
    STOP_SEQUENCE_LENGTH_MAX,
    STOP_SEQUENCES_MAX,
    THINKING_BUDGET_MAX,
)
from gateway.dialects.openai_chat import read_request
from shared.chat.request import (
    ChatRequest,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from shared.errors import BadRequest

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def read(**fields: Any) -> ChatRequest:
    return read_request(msgspec.json.encode({"model": "qwen3-max", "messages": HI} | fields))


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_value"
    return caught.value


def test_the_smallest_request_has_every_default() -> None:
    assert read() == ChatRequest(model="qwen3-max", messages=(Message("user", (TextPart("hi"),)),))


def test_what_the_caller_sets_is_read() -> None:
    request = read(
        stream=True,
        stream_options={"include_usage": True},
        max_tokens=100,
        stop=["a", "b"],
        enable_thinking=True,
        thinking_budget=1000,
        web_search_options={},
    )
    assert (request.stream, request.include_usage) == (True, True)
    assert (request.max_output_tokens, request.stop_sequences) == (100, ("a", "b"))
    assert (request.thinking, request.thinking_budget) == (True, 1000)
    assert request.search


@pytest.mark.parametrize("empty", [None, []])
@pytest.mark.parametrize(
    "name",
    [
        "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "n", "tools",
        "tool_choice", "functions", "function_call", "response_format", "modalities",
        "enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "web_search_options",
        "temperature", "logit_bias", "metadata", "user",
    ],
)  # fmt: skip
def test_null_and_an_empty_list_count_as_absent(name: str, empty: Any) -> None:
    assert read(**{name: empty}) == read()


def test_a_schema_stays_as_it_is_whatever_else_has_to_be_read_twice() -> None:
    """A body with an empty field of another type, or a wrong one, is decoded a second time."""
    schema = b'{"type": "object",  "n": 1.0}'
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stop":null,"stream":[ ],%s"tools":[{"type":"function","function":{"name":"f","parameters":%s}}]}'
    assert bytes(read_request(body % (b"", schema)).tools[0].schema) == schema
    with pytest.raises(BadRequest) as caught:
        read_request(body % (b'"max_tokens":"9",', schema))
    assert caught.value.param == "max_tokens"


def test_unknown_fields_are_accepted() -> None:
    assert read(something_new={"a": [1]}, extra=3.5) == read()


# -- what is missing or wrong


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": " "}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [*HI, {"role": "user", "content": [{"type": "text"}]}]},
            "messages[1].content[0].text",
        ),
        (
            {"messages": [*HI, {"role": "user", "content": [{"type": "hologram"}]}]},
            "messages[1].content[0].type",
        ),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].function"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": -1}, "max_tokens"),
        ({"stop": ""}, None),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"stop": "x" * (STOP_SEQUENCE_LENGTH_MAX + 1)}, "stop"),
        ({"stop": ["x"] * (STOP_SEQUENCES_MAX + 1)}, "stop"),
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"enable_thinking": "on"}, "enable_thinking"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"thinking_budget": 0}, "thinking_budget"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"enable_thinking": True, "reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"web_search_options": True}, "web_search_options"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_path(fields: dict[str, Any], param: str | None) -> None:
    if param is None:
        assert read(**fields) == read()
        return
    error = refused(**fields)
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": "2"}, "n: expected integer, got string"),
        ({"stream": 1}, "stream: expected boolean, got integer"),
        ({"stop": {}}, "stop: expected string or array, got object"),
        ({"messages": [{}]}, "messages[0].role is missing"),
        ({"model": None}, "model is missing"),
    ],
)
def test_a_wrong_field_is_told_in_words_of_json(fields: dict[str, Any], message: str) -> None:
    assert refused(**fields).message == message


# -- what isn't supported yet is refused, never dropped


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"messages": [*HI, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio"),
    ],
)
def test_what_is_not_supported_yet_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert "support" in error.message


@pytest.mark.parametrize(
    "kind",
    ["image_url", "image", "video_url", "video", "input_video", "input_audio", "file"],
)
@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_media_are_refused_in_every_role(kind: str, role: str) -> None:
    part = {"type": kind, kind: {"url": "https://example.org/a"}}
    error = refused(
        messages=[*HI, {"role": role, "content": [{"type": "text", "text": "see"}, part]}]
    )
    assert error.param == "messages[1].content[1].type"
    assert "isn't supported yet" in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"function_call": "none"},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"n": 1},
    ],
)
def test_what_asks_for_nothing_more_than_text_is_fine(fields: dict[str, Any]) -> None:
    assert read(**fields) == read()


# -- messages


def test_roles_and_parts_are_read() -> None:
    request = read(
        messages=[
            {"role": "developer", "content": "D"},
            {"role": "system", "content": [{"type": "text", "text": "S"}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": "A", "reasoning_content": "R"},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
        ]
    )
    assert request.messages == (
        Message("system", (TextPart("D"),)),
        Message("system", (TextPart("S"),)),
        Message("user", (TextPart("a"), TextPart("b"))),
        Message("assistant", (ReasoningPart("R"), TextPart("A"))),
        Message("assistant", (TextPart("no"),)),
        Message("assistant", (TextPart("never"),)),
    )


def test_tool_calls_and_results_of_the_history_are_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    request = read(
        messages=[
            *HI,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
            {"role": "assistant", "content": "", "function_call": {"name": "g", "arguments": "{}"}},
            {"role": "function", "name": "g", "content": "s"},
        ]
    )
    assert request.messages[1:] == (
        Message("assistant", (ToolCallPart("c1", "f", '{"a":1}'),)),
        Message("tool", (ToolResultPart("c1", (TextPart("r"),)),)),
        Message("assistant", (TextPart(""), ToolCallPart("", "g", "{}"))),
        Message("tool", (ToolResultPart("", (TextPart("s"),), name="g"),)),
    )


# -- thinking


@pytest.mark.parametrize(
    ("fields", "thinking", "budget"),
    [
        ({}, None, None),
        ({"enable_thinking": True}, True, None),
        ({"enable_thinking": False}, False, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 500}}, True, 500),
        ({"thinking": {"type": "disabled"}}, False, None),
        ({"thinking": {"type": "adaptive"}}, None, None),
        ({"reasoning_effort": "none"}, False, None),
        ({"reasoning_effort": "minimal"}, False, None),
        ({"reasoning_effort": "low"}, True, EFFORT_BUDGETS["low"]),
        ({"reasoning_effort": "medium"}, True, EFFORT_BUDGETS["medium"]),
        ({"reasoning_effort": "high"}, True, EFFORT_BUDGETS["high"]),
        ({"reasoning_effort": "max"}, True, THINKING_BUDGET_MAX),
        ({"reasoning_effort": "high", "thinking_budget": 7}, True, 7),
        ({"reasoning_effort": "high", "enable_thinking": False}, False, EFFORT_BUDGETS["high"]),
        ({"reasoning_effort": "none", "enable_thinking": True}, True, None),
        ({"thinking_budget": 1}, None, 1),
        ({"thinking_budget": THINKING_BUDGET_MAX}, None, THINKING_BUDGET_MAX),
        ({"thinking_budget": 1_000_000}, None, THINKING_BUDGET_MAX),
    ],
)
def test_thinking_is_read_from_every_spelling(
    fields: dict[str, Any], thinking: bool | None, budget: int | None
) -> None:
    request = read(**fields)
    assert (request.thinking, request.thinking_budget) == (thinking, budget)


def test_the_efforts_grow() -> None:
    assert list(EFFORT_BUDGETS.values()) == sorted(EFFORT_BUDGETS.values())


# -- limits


def test_max_completion_tokens_wins_over_its_old_name() -> None:
    assert read(max_tokens=5, max_completion_tokens=7).max_output_tokens == 7
    assert read(max_completion_tokens=7).max_output_tokens == 7


def test_stop_may_be_a_string_or_more_than_four() -> None:
    assert read(stop="END").stop_sequences == ("END",)
    assert len(read(stop=["a", "b", "c", "d", "e"]).stop_sequences) == 5


# -- what can't be honoured


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("top_p", 0.5),
        ("top_k", 3),
        ("seed", 0),
        ("frequency_penalty", 0.1),
        ("presence_penalty", -1),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"50256": -100}),
        ("user", "u-1"),
        ("metadata", {"a": "b"}),
        ("store", True),
        ("service_tier", "flex"),
        ("prediction", {"type": "content", "content": "x"}),
    ],
)
def test_what_cannot_be_honoured_is_accepted_and_named(name: str, value: Any) -> None:
    assert read(**{name: value}).ignored == (name,)


@pytest.mark.parametrize(
    ("name", "value"),
    [("logprobs", False), ("store", False), ("logit_bias", {}), ("user", ""), ("metadata", {})],
)
def test_what_asks_for_nothing_is_not_named(name: str, value: Any) -> None:
    assert read(**{name: value}).ignored == ()


def test_names_of_participants_are_named_as_ignored_once() -> None:
    messages = [{"role": "user", "name": "Ann", "content": "x"}] * 2
    assert read(messages=messages, temperature=1).ignored == ("temperature", "messages[].name")


# -- bodies


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"model": "m", ', "not valid JSON"),
        (b'{"model": "\xff\xfe"}', "not valid UTF-8"),
        (b"[]", "the body: expected object, got array"),
    ],
)
def test_a_malformed_body_is_told_what_is_wrong(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        read_request(body)
    assert caught.value.param is None


def test_a_wrong_field_before_broken_json_is_malformed() -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        read_request(b'{"n": "2", ')


def test_a_body_of_64_mb_is_read_in_seconds() -> None:
    messages = [{"role": "user", "content": "grüße " * 1_000}] * 9_000
    body = msgspec.json.encode({"model": "m", "messages": messages, "tools": []})
    assert len(body) > 60_000_000
    started = time.perf_counter()
    assert len(read_request(body).messages) == 9_000
    assert time.perf_counter() - started < 10
