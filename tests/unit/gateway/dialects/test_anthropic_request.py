from typing import Any

import msgspec
import pytest

from gateway.dialects.anthropic_messages import read_countable, read_request
from gateway.dialects.anthropic_request import CONTINUE, Given
from gateway.dialects.fields import EFFORT_BUDGETS, THINKING_BUDGET_MAX
from shared.chat.request import (
    ChatRequest,
    Message,
    OutputFormat,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from shared.errors import BadRequest
from shared.turns.prompt import write_prompt

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
Json = dict[str, Any]


def read(**fields: Any) -> ChatRequest:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": HI} | fields
    return read_request(msgspec.json.encode(body))


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.status == 400
    return caught.value


def parts_of(*blocks: Json, role: str = "user") -> tuple[Part, ...]:
    """The parts of one message with these blocks."""
    return read(messages=[{"role": role, "content": list(blocks)}, *HI]).messages[0].parts


def test_the_smallest_request_thinks_not_and_has_every_default() -> None:
    assert read() == ChatRequest(
        model="claude-sonnet-4-5",
        messages=(Message("user", (TextPart("hi"),)),),
        max_output_tokens=100,
        thinking=False,
        given=Given(),
    )


def test_what_the_caller_sets_is_read() -> None:
    request = read(
        stream=True,
        stop_sequences=["a", "b"],
        thinking={"type": "enabled", "budget_tokens": 2000},
        max_tokens=4000,
    )
    assert request.stream
    assert (request.max_output_tokens, request.stop_sequences) == (4000, ("a", "b"))
    assert (request.thinking, request.thinking_budget) == (True, 2000)


@pytest.mark.parametrize(
    ("thinking", "asked"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "enabled"}, True),
        ({"type": "adaptive", "display": "summarized"}, None),
        ({"type": "disabled"}, False),
        (None, False),
    ],
)
def test_thinking_is_the_models_own_choice_only_when_it_is_adaptive(
    thinking: Json | None, asked: bool | None
) -> None:
    assert read(thinking=thinking).thinking is asked


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh"])
def test_an_effort_is_a_budget_where_none_is_given(effort: str) -> None:
    config = {"effort": effort}
    adaptive = {"type": "adaptive"}
    assert read(output_config=config, thinking=adaptive).thinking_budget == (EFFORT_BUDGETS[effort])
    assert read(output_config=config).thinking_budget is None, "who doesn't think needs none"
    explicit = {"type": "enabled", "budget_tokens": 5000}
    assert read(output_config=config, thinking=explicit).thinking_budget == 5000


def test_a_budget_above_the_upstreams_is_lowered_and_max_is_the_highest() -> None:
    enabled = {"type": "enabled", "budget_tokens": 10**6}
    assert read(thinking=enabled).thinking_budget == THINKING_BUDGET_MAX
    request = read(output_config={"effort": "max"}, thinking={"type": "adaptive"})
    assert request.thinking_budget == THINKING_BUDGET_MAX


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": " "}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "some"}},
            "output_config.effort",
        ),
        ({"system": [{"type": "image", "source": {}}]}, "system[0].type"),
        ({"system": [{"type": "text"}]}, "system[0].text"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
        ({"output_format": {"type": "text"}}, "output_format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_format": {"type": "json_schema", "schema": {"type": 7}}}, "output_format.schema"),
    ],
)
def test_what_is_missing_or_wrong_is_named(fields: Json, param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param.rpartition(".")[2] in error.message


@pytest.mark.parametrize(
    ("role", "block", "field"),
    [
        ("user", {"type": "image", "source": {"type": "base64", "data": ""}}, "type"),
        ("user", {"type": "document", "source": {"type": "base64", "data": ""}}, "type"),
        ("user", {"type": "document", "source": {"type": "url", "url": "https://e.org"}}, "type"),
        ("user", {"type": "container_upload", "file_id": "f"}, "type"),
        ("user", {"type": "hologram"}, "type"),
        ("user", {"type": "text"}, "text"),
        ("user", {"type": "text", "text": None}, "text"),
        ("user", {"type": "tool_use", "id": "t", "name": "f", "input": {}}, "type"),
        ("user", {"type": "thinking", "thinking": "hm", "signature": ""}, "type"),
        ("assistant", {"type": "tool_result", "tool_use_id": "t"}, "type"),
        ("user", {"type": "tool_result", "content": "x"}, "tool_use_id"),
        ("assistant", {"type": "tool_use", "id": "t", "input": {}}, "name"),
        ("assistant", {"type": "tool_use", "id": "t", "name": "f", "input": [1]}, "input"),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]},
            "content[0].type",
        ),
    ],
)
def test_a_block_that_cant_be_read_is_named_with_its_path(
    role: str, block: Json, field: str
) -> None:
    text = {"type": "text", "text": "hi"}
    error = refused(messages=[*HI, {"role": role, "content": [text, block]}])
    assert error.param == f"messages[1].content[1].{field}"


@pytest.mark.parametrize("empty", [None, []])
@pytest.mark.parametrize("name", ["system", "tools", "stop_sequences"])
def test_null_and_an_empty_list_are_as_if_not_given(name: str, empty: object) -> None:
    assert read(**{name: empty}) == read()


@pytest.mark.parametrize(
    "name", ["stream", "thinking", "tool_choice", "output_config", "temperature", "metadata"]
)
def test_null_is_as_if_not_given(name: str) -> None:
    assert read(**{name: None}) == read()


def test_what_nobody_heeds_is_accepted_and_named() -> None:
    request = read(
        temperature=0.5, top_p=0.1, top_k=3, metadata={"user_id": "u"}, service_tier="auto"
    )
    assert request.ignored == ("temperature", "top_p", "top_k", "metadata", "service_tier")


def test_unknown_fields_and_cache_control_are_accepted_anywhere() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    request = read(
        system=[{"type": "text", "text": "Be brief.", **cached}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi", **cached}]}],
        anthropic_beta=["unheard-of-2030-01-01"],
        a_new_field={"x": 1},
        cache_control={"type": "ephemeral"},
    )
    assert request.messages == (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (TextPart("hi"),)),
    )
    assert request.ignored == ()


def test_a_system_text_and_blocks_come_first_and_a_system_message_stays_in_its_place() -> None:
    messages = [*HI, {"role": "system", "content": "Now in French."}, *HI]
    read_messages = read(system="Be brief.", messages=messages).messages
    assert [message.role for message in read_messages] == ["system", "user", "system", "user"]
    assert read_messages[0].parts == (TextPart("Be brief."),)
    blocks = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    assert read(system=blocks).messages[0].parts == (TextPart("One."), TextPart("Two."))


def test_a_call_keeps_its_id_its_name_and_its_input_as_written() -> None:
    body = (
        b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"},{"role":"assistant",'
        b'"content":[{"type":"tool_use","id":"toolu_1","name":"f","input":{"b": 1.50,"a":"\\u00e9"}},'
        b'{"type":"tool_use","id":"toolu_2","name":"g","input":null}]},'
        b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1"}]}]}'
    )
    assert read_request(body).messages[1].parts == (
        ToolCallPart("toolu_1", "f", '{"b": 1.50,"a":"\\u00e9"}'),
        ToolCallPart("toolu_2", "g", "{}"),
    )


def test_a_result_is_text_or_blocks_of_text_and_may_be_an_error() -> None:
    given: list[Json] = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "fine"},
        {
            "type": "tool_result",
            "tool_use_id": "t2",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "is_error": True,
        },
        {"type": "tool_result", "tool_use_id": "t3"},
        {"type": "text", "text": "go on"},
    ]
    assert parts_of(*given) == (
        ToolResultPart("t1", (TextPart("fine"),)),
        ToolResultPart("t2", (TextPart("a"), TextPart("b")), is_error=True),
        ToolResultPart("t3", ()),
        TextPart("go on"),
    )


def test_thinking_is_handed_back_with_any_signature() -> None:
    parts = parts_of(
        {"type": "thinking", "thinking": "hm", "signature": "whatever=="},
        {"type": "redacted_thinking", "data": "…"},
        {"type": "text", "text": "So."},
        role="assistant",
    )
    assert parts == (ReasoningPart("hm"), TextPart("So."))


def test_what_is_nothing_but_text_is_read_as_text() -> None:
    parts = parts_of(
        {
            "type": "search_result",
            "source": "https://e.org",
            "title": "T",
            "content": [{"type": "text", "text": "found"}],
        },
        {"type": "document", "title": "D", "source": {"type": "text", "data": "a\nb"}},
        {
            "type": "document",
            "source": {"type": "content", "content": [{"type": "text", "text": "c"}]},
        },
        {
            "type": "tool_result",
            "tool_use_id": "t",
            "content": [{"type": "tool_reference", "tool_name": "f"}],
        },
    )
    assert parts == (
        TextPart("T\nhttps://e.org\nfound"),
        TextPart("D\na\nb"),
        TextPart("c"),
        ToolResultPart("t", (TextPart("The tool f can be called now."),)),
    )


def test_a_search_of_an_earlier_turn_is_told_again_with_its_numbers() -> None:
    hit: Json = {
        "type": "web_search_result",
        "url": "https://e.org/1",
        "title": "One",
        "encrypted_content": "snippet:YSBmam9yZA==",
    }
    foreign: Json = {**hit, "url": "https://e.org/2", "encrypted_content": "EqgfCioIARgB"}
    use: Json = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    result: Json = {"type": "web_search_tool_result", "tool_use_id": "s"}
    error: Json = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
    parts = parts_of(
        use,
        {**result, "content": [hit]},
        {**result, "content": [foreign]},
        {**result, "content": error},
        {"type": "text", "text": "See [[2]]."},
        role="assistant",
    )
    assert parts == (
        ToolResultPart("s", (TextPart("[[1]] One https://e.org/1\na fjord"),), name="web_search"),
        ToolResultPart("s", (TextPart("[[2]] One https://e.org/2"),), name="web_search"),
        ToolResultPart(
            "s", (TextPart("error: max_uses_exceeded"),), name="web_search", is_error=True
        ),
        TextPart("See [[2]]."),
    )


def test_what_hosted_tools_left_in_a_history_is_left_out_and_named_once() -> None:
    use: Json = {"type": "server_tool_use", "id": "s", "name": "web_fetch", "input": {}}
    result: Json = {"type": "web_fetch_tool_result", "tool_use_id": "s", "content": {"type": "x"}}
    code: Json = {
        "type": "code_execution_tool_result",
        "tool_use_id": "c",
        "content": {"type": "y"},
    }
    said: Json = {"type": "text", "text": "Read."}
    request = read(
        messages=[*HI, {"role": "assistant", "content": [use, result, result, code, said]}, *HI]
    )
    assert request.messages[1].parts == (TextPart("Read."),)
    assert request.ignored == (
        "messages[].content[].web_fetch_tool_result",
        "messages[].content[].code_execution_tool_result",
    )


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_schema_for_the_answer_is_read_and_strict(field: str) -> None:
    schema: Json = {"type": "object", "properties": {"a": {"type": "integer"}}}
    format_ = {"type": "json_schema", "schema": schema}
    given = {"format": format_} if field == "output_config" else format_
    expected = OutputFormat(schema=msgspec.Raw(msgspec.json.encode(schema)), strict=True)
    assert read(**{field: given}).output_format == expected


# -- prefill


def test_a_prefilled_answer_is_to_be_continued() -> None:
    messages = [*HI, {"role": "assistant", "content": "The answer is: "}]
    request = read(messages=messages)
    assert request.given == Given(prefill="The answer is:")
    assert request.messages[-2:] == (
        Message("assistant", (TextPart("The answer is: "),)),
        Message("system", (TextPart(CONTINUE),)),
    )
    assert CONTINUE in write_prompt(request)


@pytest.mark.parametrize(
    "last",
    [
        {"role": "assistant", "content": " "},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]},
        {"role": "system", "content": "Be brief."},
    ],
)
def test_an_empty_last_word_is_no_prefill(last: Json) -> None:
    request = read(messages=[*HI, last])
    assert request.given == Given()
    assert CONTINUE not in write_prompt(request)


# -- count_tokens


def test_what_is_only_counted_needs_no_max_tokens() -> None:
    body = {"model": "claude-sonnet-4-5", "messages": HI}
    assert read_countable(msgspec.json.encode(body)).max_output_tokens is None
    image = [{"role": "user", "content": [{"type": "image", "source": {}}]}]
    with pytest.raises(BadRequest, match="image isn't supported yet"):
        read_countable(msgspec.json.encode(body | {"messages": image}))
