"""Tools as Anthropic's requests spell them, and which of the API's own exist here."""

from typing import Any

import msgspec
import pytest

from gateway.dialects.anthropic_messages import read_request
from shared.chat.request import ChatRequest, Tool, ToolChoice
from shared.errors import BadRequest
from shared.turns.tool_prompt import describe_tools

Json = dict[str, Any]
WEATHER: Json = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NOW: Json = {"name": "now", "input_schema": {"type": "object"}}
SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}
FETCH: Json = {"type": "web_fetch_20250910", "name": "web_fetch"}
BASH: Json = {"type": "bash_20250124", "name": "bash"}
EDITOR: Json = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}


def read(**fields: Any) -> ChatRequest:
    hi = [{"role": "user", "content": "hi"}]
    body = {"model": "m", "max_tokens": 9, "messages": hi} | fields
    return read_request(msgspec.json.encode(body))


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    return caught.value


@pytest.mark.parametrize("type_", [{}, {"type": None}, {"type": "custom"}])
def test_a_callers_tool_is_read_with_its_schema_untouched(type_: Json) -> None:
    (tool,) = read(tools=[{**WEATHER, **type_, "cache_control": {"type": "ephemeral"}}]).tools
    assert (tool.kind, tool.name, tool.description) == (
        "function",
        "get_weather",
        "Weather of a city.",
    )
    assert msgspec.json.decode(tool.schema) == WEATHER["input_schema"]


@pytest.mark.parametrize("name", ["a.b", "ns:tool", "mcp__x__y", "tool with blank", "工具"])
def test_tool_names_are_taken_as_they_come(name: str) -> None:
    assert read(tools=[{**NOW, "name": name}]).tools[0].name == name


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, ToolChoice(), True),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(), False),
        ({"type": "any"}, ToolChoice("required"), True),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "now"}, ToolChoice("named", "now"), True),
        ({"type": "none"}, ToolChoice("none"), True),
        (None, ToolChoice(), True),
    ],
)
def test_every_choice_is_read(choice: Json | None, expected: ToolChoice, parallel: bool) -> None:
    request = read(tools=[WEATHER, NOW], tool_choice=choice)
    assert (request.tool_choice, request.parallel_tool_calls) == (expected, parallel)
    assert len(request.tools) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, {**NOW, "name": ""}]}, "tools[1].name"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{**NOW, "input_schema": "x"}]}, "tools[0].input_schema"),
        ({"tools": [WEATHER], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [FETCH]}, "tools"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]}, "tools"),
        (
            {"tools": [WEATHER, FETCH], "tool_choice": {"type": "tool", "name": "web_fetch"}},
            "tool_choice.name",
        ),
    ],
)
def test_what_cant_be_offered_or_chosen_is_named(fields: Json, param: str) -> None:
    assert refused(**fields).param == param


# -- what Anthropic defines


@pytest.mark.parametrize("given", [BASH, EDITOR, {"type": "memory_20250818", "name": "memory"}])
def test_a_tool_that_anthropic_defines_is_shown_with_its_schema(given: Json) -> None:
    request = read(tools=[given])
    (tool,) = request.tools
    assert tool.name == given["name"]
    told = describe_tools(request)
    assert f"## {tool.name}" in told
    assert "command" in told


def test_an_older_text_editor_inserts_new_str() -> None:
    (older,) = read(tools=[{"type": "text_editor_20250124", "name": "str_replace_editor"}]).tools
    (newer,) = read(tools=[EDITOR]).tools
    assert older.name == "str_replace_editor"
    assert "insert_text" not in properties_of(older)
    assert "insert_text" in properties_of(newer)


def properties_of(tool: Tool) -> list[str]:
    return list(msgspec.json.decode(tool.schema)["properties"])


def test_what_runs_elsewhere_is_left_out_and_named_when_others_are_there() -> None:
    computer = {"type": "computer_20250124", "name": "computer", "display_width_px": 9}
    request = read(tools=[FETCH, WEATHER, computer])
    assert [tool.name for tool in request.tools] == ["get_weather"]
    assert request.ignored == ("tools[0].web_fetch_20250910", "tools[2].computer_20250124")


def test_a_strange_kind_of_tool_is_named_as_a_header_can_hold_it() -> None:
    (name,) = read(tools=[WEATHER, {"type": "wéb\r\nx: y,z"}]).ignored
    assert name == "tools[1].w?b??x:?y?z"


# -- web search


@pytest.mark.parametrize(
    ("fields", "searches"),
    [
        ({"tools": [SEARCH]}, True),
        ({"tools": [{**SEARCH, "type": "web_search_20260209"}]}, True),
        ({"tools": [SEARCH, WEATHER]}, True),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, True),
        ({"tools": [SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, True),
        ({"tools": [SEARCH], "tool_choice": {"type": "none"}}, False),
        ({"tools": [SEARCH, NOW], "tool_choice": {"type": "tool", "name": "now"}}, False),
        ({"tools": [WEATHER]}, False),
    ],
)
def test_an_offered_search_is_the_upstreams_own(fields: Json, searches: bool) -> None:
    request = read(**fields)
    assert request.search is searches
    assert "web_search" not in [tool.name for tool in request.tools]


def test_a_search_that_must_be_made_calls_no_other_tool() -> None:
    chosen = {"type": "tool", "name": "web_search"}
    request = read(tools=[SEARCH, WEATHER], tool_choice=chosen)
    assert (request.search, request.tool_choice) == (True, ToolChoice("none"))


def test_wishes_that_the_upstreams_search_cant_honour_are_named() -> None:
    request = read(tools=[{**SEARCH, "max_uses": 5, "allowed_domains": ["e.org"]}])
    assert request.ignored == ("tools[0].max_uses", "tools[0].allowed_domains")
