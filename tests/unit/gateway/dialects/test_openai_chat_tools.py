"""Tools, their choice and the answer's format, as OpenAI chat completions spell them."""

from typing import Any

import msgspec
import pytest

from gateway.dialects import Turn, openai_chat
from shared.chat.collect import Reply, ReplyToolCall
from shared.chat.events import (
    Event,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    Usage,
)
from shared.chat.request import ChatRequest, ToolCallPart, ToolChoice
from shared.errors import BadRequest

HI = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
PATCH = {
    "type": "custom",
    "custom": {
        "name": "apply_patch",
        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}},
    },
}


def read(**fields: Any) -> ChatRequest:
    body = {"model": "qwen3-max", "messages": HI} | fields
    return openai_chat.read_request(msgspec.json.encode(body))


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    return caught.value


def test_a_function_is_read_with_its_schema_untouched() -> None:
    (tool,) = read(tools=[WEATHER]).tools
    assert (tool.kind, tool.name, tool.description) == (
        "function",
        "get_weather",
        "Weather of a city.",
    )
    assert msgspec.json.decode(tool.schema) == WEATHER["function"]["parameters"]  # type: ignore[index]


def test_a_custom_tool_is_read_with_its_grammar() -> None:
    (tool,) = read(tools=[PATCH]).tools
    assert (tool.kind, tool.name, tool.grammar) == ("custom", "apply_patch", "start: X")


@pytest.mark.parametrize("name", ["a.b", "ns:tool", "mcp__x__y", "tool with blank", "工具"])
def test_tool_names_are_taken_as_they_come(name: str) -> None:
    assert read(tools=[{"type": "function", "function": {"name": name}}]).tools[0].name == name


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER, {"type": "function"}]}, "tools[1].type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].custom.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"functions": [{"description": "x"}]}, "functions[0].name"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "other"}},
            },
            "tool_choice",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": "no schema"}}]},
            "tools[0].function.parameters",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "nothing"}},
                }
            },
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"$ref": "http://127.0.0.1:1/schema.json"}},
                }
            },
            "response_format.json_schema.schema",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_path(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            ToolChoice("named", "get_weather"),
        ),
        ({"type": "custom", "custom": {"name": "apply_patch"}}, ToolChoice("named", "apply_patch")),
    ],
)
def test_every_tool_choice_is_read(choice: Any, expected: ToolChoice) -> None:
    assert read(tools=[WEATHER, PATCH], tool_choice=choice).tool_choice == expected


def test_allowed_tools_leave_the_others_out() -> None:
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "required",
            "tools": [{"type": "function", "function": {"name": "get_weather"}}],
        },
    }
    request = read(tools=[WEATHER, PATCH], tool_choice=allowed)
    assert [tool.name for tool in request.tools] == ["get_weather"]
    assert request.tool_choice == ToolChoice("required")


def test_parallel_calls_are_on_unless_they_are_turned_off() -> None:
    assert read(tools=[WEATHER]).parallel_tool_calls
    assert not read(tools=[WEATHER], parallel_tool_calls=False).parallel_tool_calls
    assert not read(functions=[{"name": "f"}]).parallel_tool_calls  # one is all they can say


def test_calls_of_the_history_keep_their_arguments_as_they_were() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{ "a" :1}'}},
        {"id": "c2", "type": "custom", "custom": {"name": "p", "input": "*** Begin"}},
    ]
    request = read(messages=[*HI, {"role": "assistant", "content": None, "tool_calls": calls}])
    assert request.messages[1].parts == (
        ToolCallPart("c1", "f", '{ "a" :1}'),
        ToolCallPart("c2", "p", "*** Begin", custom=True),
    )


def test_a_json_schema_format_is_read() -> None:
    schema = {"type": "object", "required": ["a"]}
    wanted = read(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": schema, "strict": True},
        }
    ).output_format
    assert wanted is not None
    assert wanted.strict
    assert msgspec.json.decode(wanted.schema or b"") == schema


EVENTS: list[Event] = [
    ToolCallStart(0, "call_1", "f"),
    ToolCallDelta(0, '{"a"'),
    ToolCallDelta(0, ":1}"),
    ToolCallEnd(0),
    TurnEnd("tool_calls", Usage(1, 1)),
]


def written(turn: Turn, events: list[Event]) -> list[dict[str, Any]]:
    writer = openai_chat.open_writer(turn)
    frames = b"".join(writer.feed(event) for event in events).split(b"\n\n")
    return [
        msgspec.json.decode(f.removeprefix(b"data: ")) for f in frames if f and b"[DONE]" not in f
    ]


def turn_of(request: ChatRequest) -> Turn:
    return Turn(id="chatcmpl-1", created=1, model="m", given=request.given)


def test_a_caller_of_functions_reads_function_call() -> None:
    turn = turn_of(read(functions=[{"name": "f"}]))
    chunks = written(turn, EVENTS)
    spoken = [chunk["choices"][0]["delta"].get("function_call") for chunk in chunks]
    assert [call for call in spoken if call] == [
        {"name": "f", "arguments": ""},
        {"arguments": '{"a"'},
        {"arguments": ":1}"},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    reply = Reply(tool_calls=[ReplyToolCall("c", "f", "{}")], reason="tool_calls")
    (choice,) = msgspec.json.decode(openai_chat.write_reply(turn, reply))["choices"]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert choice["finish_reason"] == "function_call"


def test_a_custom_call_is_streamed_as_its_input() -> None:
    events: list[Event] = [
        ToolCallStart(0, "call_1", "apply_patch", custom=True),
        ToolCallDelta(0, "*** Begin"),
        ToolCallEnd(0),
        TurnEnd("tool_calls", Usage(1, 1)),
    ]
    chunks = written(turn_of(read(tools=[PATCH])), events)
    spoken = [chunk["choices"][0]["delta"].get("tool_calls") for chunk in chunks]
    assert [calls[0] for calls in spoken if calls] == [
        {
            "index": 0,
            "id": "call_1",
            "type": "custom",
            "custom": {"name": "apply_patch", "input": ""},
        },
        {"index": 0, "custom": {"input": "*** Begin"}},
    ]
