"""What a request of the Responses API says, in neutral words."""

from typing import Any

import msgspec
import pytest

from gateway.dialects import Turn, openai_responses
from gateway.dialects.responses_request import given_of, input_of, with_earlier
from shared.chat.collect import Reply
from shared.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from shared.errors import BadRequest

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"},
}
SEARCH = {"type": "web_search"}
AGENTS = {
    "type": "namespace",
    "name": "agents",
    "description": "Sub-agents.",
    "tools": [
        {"type": "function", "name": "spawn", "description": "Begin one.", "parameters": {}},
        {"type": "custom", "name": "note"},
    ],
}


def read(**fields: Any) -> ChatRequest:
    body = {"model": "qwen3-max", "input": "hi"} | fields
    return openai_responses.read_request(msgspec.json.encode(body))


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    return caught.value


def user(text: str) -> Message:
    return Message("user", (TextPart(text),))


def said(*parts: Part) -> Message:
    return Message("assistant", parts)


# -- input


def test_a_text_is_a_message_of_the_user() -> None:
    assert read(input="Hello").messages == (user("Hello"),)


def test_instructions_come_first_as_the_systems() -> None:
    request = read(instructions="Be brief.")
    assert request.messages == (Message("system", (TextPart("Be brief."),)), user("hi"))


def test_items_become_messages_and_calls_belong_to_the_assistants_message_before_them() -> None:
    request = read(
        input=[
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Hm."}],
                "encrypted_content": "gAAAA",
            },
            {
                "type": "message",
                "role": "assistant",
                "id": "msg_1",
                "status": "completed",
                "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "p", "input": "*** text"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {
                "type": "custom_tool_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "two"}],
            },
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}},
            {"role": "user", "content": "b"},
        ]
    )
    assert request.messages == (
        Message("system", (TextPart("Be brief."),)),
        user("a"),
        said(
            ReasoningPart("Hm."),
            TextPart("I look."),
            ToolCallPart("c1", "f", '{"a":1}'),
            ToolCallPart("c2", "p", "*** text", custom=True),
        ),
        Message("tool", (ToolResultPart("c1", (TextPart("one"),)),)),
        Message("tool", (ToolResultPart("c2", (TextPart("two"),)),)),
        user("b"),
    )


def test_two_answers_in_a_row_stay_two_messages() -> None:
    items = [{"role": "assistant", "content": text} for text in ("a", "b")]
    request = read(input=[*items, {"role": "user", "content": "c"}])
    assert [message.role for message in request.messages] == ["assistant", "assistant", "user"]


def test_reasoning_that_holds_only_what_nobody_can_read_says_nothing() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}
    assert read(input=[item, {"role": "user", "content": "a"}]).messages == (user("a"),)


def test_reasoning_in_full_is_read_when_there_is_no_summary() -> None:
    item = {
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
    }
    request = read(input=[item, {"role": "user", "content": "a"}])
    assert request.messages[0] == said(ReasoningPart("Hm."))


def test_items_of_hosted_tools_are_left_out_and_named() -> None:
    call = {"type": "mcp_call", "id": "mcp_1", "name": "x", "arguments": "{}", "output": "y"}
    request = read(input=[call, {"role": "user", "content": "a"}])
    assert request.messages == (user("a"),)
    assert request.ignored == ("input[0].mcp_call",)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "telepathy"}, "input[0].type"),
        ({"role": "alien", "content": "x"}, "input[0].role"),
        ({"role": "tool", "content": "x"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": [{"type": "smell"}]}, "input[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
            "input[0].content[0].type",
        ),
        ({"type": "function_call", "name": "f"}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "c"}, "input[0].name"),
        ({"type": "function_call_output", "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "c"}, "input[0].output"),
        ({"type": "item_reference"}, "input[0].id"),
        ({"role": "user", "content": " "}, "input"),
        ({"type": "reasoning", "summary": [{"text": "Hm."}]}, "input"),
    ],
)
def test_what_is_wrong_with_an_item_is_said_with_its_path(item: Any, param: str) -> None:
    assert refused(input=[item]).param == param


@pytest.mark.parametrize("given", ["", [], None])
def test_an_empty_input_is_refused(given: Any) -> None:
    assert refused(input=given).param == "input"


def test_a_reference_keeps_its_place_until_it_is_looked_up() -> None:
    request = read(
        input=[
            {"role": "user", "content": "a"},
            {"type": "item_reference", "id": "fc_ab_0"},
            {"id": "msg_ab_0"},
            {"role": "user", "content": "b"},
        ]
    )
    assert request.messages == (user("a"), user("b"))
    assert [r.item_id for r in given_of(request.given).references] == ["fc_ab_0", "msg_ab_0"]
    call, text = said(ToolCallPart("c", "f", "{}")), said(TextPart("t"))
    found = with_earlier(request, (user("before"),), {"fc_ab_0": call, "msg_ab_0": text})
    assert found.messages == (user("before"), user("a"), call, text, user("b"))
    assert input_of(found, {"fc_ab_0": call}) == (user("a"), call, user("b"))


def test_earlier_messages_stand_between_the_instructions_and_the_input() -> None:
    request = with_earlier(read(instructions="Now this."), (user("old"), said(TextPart("x"))), {})
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]


# -- tools


def test_functions_custom_tools_and_web_search_are_read() -> None:
    request = read(tools=[WEATHER, PATCH, SEARCH])
    weather, patch = request.tools
    assert (weather.kind, weather.name, weather.description) == (
        "function",
        "get_weather",
        "Weather of a city.",
    )
    assert msgspec.json.decode(weather.schema) == WEATHER["parameters"]
    assert (patch.kind, patch.name, patch.grammar) == ("custom", "apply_patch", "start: X")
    assert request.search
    assert request.ignored == ()


def test_the_tools_of_a_namespace_are_called_by_their_whole_names() -> None:
    request = read(tools=[AGENTS])
    assert [(tool.name, tool.kind, tool.description) for tool in request.tools] == [
        ("agents.spawn", "function", "(agents: Sub-agents.) Begin one."),
        ("agents.note", "custom", ""),
    ]
    assert given_of(request.given).echo.namespaces == {
        "agents.spawn": "agents",
        "agents.note": "agents",
    }


def test_tools_that_stand_in_the_input_are_tools() -> None:
    """Codex offers them there when it knows the model's name (seen 2026-11)."""
    more = {"type": "additional_tools", "role": "developer", "tools": [AGENTS, PATCH]}
    request = read(input=[more, {"role": "user", "content": "a"}], tools=[WEATHER])
    assert [tool.name for tool in request.tools] == [
        "get_weather",
        "agents.spawn",
        "agents.note",
        "apply_patch",
    ]
    assert request.messages == (user("a"),)
    assert request.ignored == ()
    hosted = more | {"tools": [{"type": "mcp"}]}
    assert refused(input=[hosted, {"role": "user", "content": "a"}]).param == (
        "input[0].tools[0].type"
    )


def test_a_call_in_a_namespace_is_read_back_by_its_whole_name() -> None:
    call = {"type": "function_call", "call_id": "c", "namespace": "agents", "name": "spawn"}
    request = read(input=[{"role": "user", "content": "a"}, call])
    assert request.messages[1] == said(ToolCallPart("c", "agents.spawn", ""))


@pytest.mark.parametrize("kind", ["web_search", "web_search_2025_08_26", "web_search_preview"])
def test_every_spelling_of_web_search_is_the_upstreams_own(kind: str) -> None:
    request = read(tools=[{"type": kind, "search_context_size": "low"}])
    assert request.search
    assert request.ignored == ("tools[0].search_context_size",)


def test_a_search_that_must_not_touch_the_web_is_left_out_and_named() -> None:
    """The upstream has no other; Codex sends this with every request."""
    request = read(tools=[WEATHER, {"type": "web_search", "external_web_access": False}])
    assert not request.search
    assert request.ignored == ("tools[1].web_search",)


def test_hosted_tools_are_left_out_and_named_when_something_else_is_offered() -> None:
    request = read(tools=[{"type": "file_search", "vector_store_ids": ["v"]}, WEATHER])
    assert [tool.name for tool in request.tools] == ["get_weather"]
    assert request.ignored == ("tools[0].file_search",)


@pytest.mark.parametrize("kind", ["file_search", "mcp", "computer_use_preview", "code_interpreter"])
def test_hosted_tools_alone_are_refused(kind: str) -> None:
    error = refused(tools=[{"type": kind}])
    assert error.param == "tools[0].type"
    assert kind in error.message


def test_a_hosted_tool_that_is_asked_for_is_refused() -> None:
    error = refused(tools=[{"type": "mcp"}, WEATHER], tool_choice={"type": "mcp"})
    assert error.param == "tool_choice"


@pytest.mark.parametrize(
    ("tools", "given", "choice", "search"),
    [
        ([WEATHER, SEARCH], "auto", ToolChoice("auto"), True),
        ([WEATHER, SEARCH], "none", ToolChoice("none"), False),
        ([WEATHER], "required", ToolChoice("required"), False),
        ([SEARCH], "required", ToolChoice("auto"), True),
        (
            [WEATHER],
            {"type": "function", "name": "get_weather"},
            ToolChoice("named", "get_weather"),
            False,
        ),
        ([PATCH], {"type": "custom", "name": "apply_patch"}, ToolChoice("named", "apply_patch"), 0),
        ([WEATHER, SEARCH], {"type": "web_search"}, ToolChoice("none"), True),
        (
            [AGENTS],
            {"type": "function", "namespace": "agents", "name": "spawn"},
            ToolChoice("named", "agents.spawn"),
            False,
        ),
    ],
)
def test_the_choice_is_read(tools: Any, given: Any, choice: ToolChoice, search: bool) -> None:
    request = read(tools=tools, tool_choice=given)
    assert request.tool_choice == choice
    assert request.search == search


def test_only_the_allowed_tools_may_be_called() -> None:
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "get_weather"}],
    }
    request = read(tools=[WEATHER, PATCH, SEARCH], tool_choice=allowed)
    assert [tool.name for tool in request.tools] == ["get_weather"]
    assert request.tool_choice == ToolChoice("required")
    assert not request.search


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "custom", "name": ""}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools[0].name"),
        ({"tools": [AGENTS | {"tools": [{"type": "mcp"}]}]}, "tools[0].tools[0].type"),
        ({"tools": [WEATHER], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_is_wrong_with_a_tool_is_said_with_its_path(fields: Any, param: str) -> None:
    assert refused(**fields).param == param


def test_calls_one_at_a_time_when_asked() -> None:
    assert read(tools=[WEATHER]).parallel_tool_calls
    assert not read(tools=[WEATHER], parallel_tool_calls=False).parallel_tool_calls


# -- everything else


@pytest.mark.parametrize(
    ("effort", "thinking", "budget"),
    [(None, None, None), ("none", False, None), ("low", True, 2048), ("high", True, 32768)],
)
def test_effort_says_whether_and_how_much_is_thought(
    effort: Any, thinking: Any, budget: Any
) -> None:
    request = read(reasoning={"effort": effort, "summary": "auto"})
    assert (request.thinking, request.thinking_budget) == (thinking, budget)


def test_formats_are_read() -> None:
    assert read(text={"format": {"type": "text"}}).output_format is None
    assert read(text={"format": {"type": "json_object"}}).output_format == OutputFormat()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    made = {"type": "json_schema", "name": "A", "schema": schema, "strict": True}
    format_ = read(text={"format": made}).output_format
    assert format_ is not None
    assert (format_.name, format_.strict) == ("A", True)
    assert msgspec.json.decode(bytes(format_.schema or b"")) == schema


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "all"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True, "store": False}, "background"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "A"}}}, "text.format.schema"),
        ({"reasoning": {"effort": "heroic"}}, "reasoning.effort"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": {"a": 1}}, "metadata[...]"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(fields: Any, param: str) -> None:
    assert refused(**fields).param == param


def test_what_cannot_be_honoured_is_named() -> None:
    request = read(
        temperature=0.1,
        top_p=1,
        top_logprobs=2,
        max_tool_calls=3,
        service_tier="auto",
        user="u",
        prompt_cache_key="k",
        truncation="auto",
        text={"verbosity": "low"},
        include=["reasoning.encrypted_content"],
    )
    assert set(request.ignored) == {
        "temperature", "top_p", "top_logprobs", "max_tool_calls", "service_tier", "user",
        "prompt_cache_key", "truncation", "text.verbosity", "include",
    }  # fmt: skip


def test_what_asks_for_nothing_is_not_named() -> None:
    request = read(
        temperature=None,
        include=["web_search_call.action.sources"],
        truncation="disabled",
        text={"verbosity": None},
        tools=[],
        stream=None,
        client_metadata={"a": "b"},
    )
    assert request.ignored == ()


def test_the_answer_repeats_the_request_as_it_was_given() -> None:
    echo = given_of(
        read(
            instructions="i",
            tools=[WEATHER],
            tool_choice="auto",
            metadata={"a": "b"},
            max_output_tokens=9,
            store=False,
            reasoning=None,
            previous_response_id="resp_1",
        ).given
    ).echo
    assert msgspec.json.decode(echo.tools) == [WEATHER]
    assert msgspec.json.decode(echo.reasoning) == {"effort": None, "summary": None}
    assert (echo.instructions, echo.metadata, echo.max_output_tokens) == ("i", {"a": "b"}, 9)
    assert (echo.store, echo.background, echo.previous_response_id) == (False, False, "resp_1")


def test_what_is_empty_is_repeated_as_if_it_were_absent() -> None:
    given = read(tools=None, tool_choice=[], text=[], reasoning=[]).given
    assert given_of(given).echo == given_of(read().given).echo


@pytest.mark.parametrize(
    "field",
    [
        '"instructions":"half \\ud83d"',
        '"tools":[{"type":"function","name":"f","description":"\\ud83d"}]',
        '"tools":[{"type":"function","name":"f","unknown":"\\ud83d"}]',
        '"text":{"format":{"type":"text"},"unknown":["\\udc00"]}',
    ],
)
def test_half_a_character_anywhere_spoils_neither_the_request_nor_its_answer(field: str) -> None:
    body = f'{{"model":"m","input":"half \\ud83d x",{field}}}'.encode()
    request = openai_responses.read_request(body)
    assert request.messages[-1] == user("half \ufffd x")
    turn = Turn(id="resp_" + "0" * 24, created=1, model="m", given=request.given)
    msgspec.json.decode(openai_responses.write_reply(turn, Reply(text="x")))
    echo = given_of(request.given).echo
    assert msgspec.json.decode(msgspec.json.encode(echo), type=type(echo)) == echo


def test_what_codex_sends_is_read_whole() -> None:
    """Its fields and tools as of 0.169, seen 2026-11; texts shortened."""
    request = read(
        stream=True,
        input=[
            {
                "type": "message",
                "id": "msg_92ad",
                "role": "developer",
                "content": [{"type": "input_text", "text": "You are a coding agent."}],
            },
            {
                "type": "message",
                "id": "msg_01a2",
                "role": "user",
                "content": [{"type": "input_text", "text": "say hi"}],
            },
        ],
        tools=[WEATHER, AGENTS, {"type": "web_search", "external_web_access": False}, PATCH],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="01a2",
        client_metadata={"session_id": "01a2"},
    )
    assert [tool.name for tool in request.tools] == [
        "get_weather",
        "agents.spawn",
        "agents.note",
        "apply_patch",
    ]
    assert request.stream
    assert request.ignored == ("prompt_cache_key", "include", "tools[2].web_search")
