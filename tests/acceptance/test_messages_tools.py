"""Tools through Anthropic's SDK: loops with parallel calls, choices, streaming arguments, repairs."""

import time
from typing import Any

import anthropic
import msgspec
import pytest
from anthropic import beta_tool
from anthropic.types import Message, MessageParam, ToolParam, ToolUseBlock

from tests.fakes.chat import MODEL, directive
from tests.fakes.frames import Json, read_anthropic_reply, read_anthropic_stream
from tests.fakes.messages import ask, asking, blocks_of, frames_of
from tests.fakes.stack import Stack

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
TIME: ToolParam = {
    "name": "get_time",
    "description": "The time of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TOOLS = [WEATHER, TIME]


def call(name: str, **arguments: Any) -> str:
    """A call as the model writes it."""
    written = msgspec.json.encode({"name": name, "arguments": arguments}).decode()
    return f"<tool_call>\n{written}\n</tool_call>"


PARALLEL = (
    "I look both up.\n" + call("get_weather", city="Oslo", days=2) + call("get_time", city="Oslo")
)


@pytest.fixture
def client(anthropic_client: anthropic.Anthropic) -> anthropic.Anthropic:
    return anthropic_client


def ask_model(
    client: anthropic.Anthropic, messages: list[MessageParam], *, stream: bool, **more: Any
) -> Message:
    request: dict[str, Any] = {"model": MODEL, "max_tokens": 2000, "tools": TOOLS, **more}
    if not stream:
        whole: Message = client.messages.create(messages=messages, **request)
        return whole
    with client.messages.stream(messages=messages, **request) as events:
        return events.get_final_message()


def calls_of(message: Message) -> list[ToolUseBlock]:
    return [block for block in message.content if isinstance(block, ToolUseBlock)]


def run(use: ToolUseBlock) -> str:
    match use.name:
        case "get_weather":
            return f"Sunny in {use.input['city']}"
        case "get_time":
            return f"Noon in {use.input['city']}"
        case name:
            raise AssertionError(name)


@BOTH
def test_a_loop_with_two_parallel_calls_comes_to_its_end(
    stack: Stack, client: anthropic.Anthropic, stream: bool
) -> None:
    stack.sim.next(
        {"operation": "completions", "say": PARALLEL},
        {"operation": "completions", "say": call("get_weather", city="Bergen")},
        {"operation": "completions", "say": "Sunny in both; it is noon."},
    )
    messages: list[MessageParam] = [{"role": "user", "content": "Oslo now, then Bergen?"}]
    rounds: list[Message] = []
    while len(rounds) < 5:
        message = ask_model(client, messages, stream=stream)
        rounds.append(message)
        if message.stop_reason != "tool_use":
            break
        messages.append({"role": "assistant", "content": message.content})
        messages.append(
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": use.id, "content": run(use)}
                    for use in calls_of(message)
                ],
            }
        )

    first, second, last = rounds
    assert [(use.name, use.input) for use in calls_of(first)] == [
        ("get_weather", {"city": "Oslo", "days": 2}),
        ("get_time", {"city": "Oslo"}),
    ]
    assert [block.type for block in first.content] == ["text", "tool_use", "tool_use"]
    assert [(use.name, use.input) for use in calls_of(second)] == [
        ("get_weather", {"city": "Bergen"})
    ]
    ids = [use.id for message in rounds for use in calls_of(message)]
    assert len(set(ids)) == 3
    assert last.stop_reason == "end_turn"
    assert [block.type for block in last.content] == ["text"]
    prompt = stack.sim.prompts()[-1]
    for told in ("Sunny in Oslo", "Noon in Oslo", "Sunny in Bergen", *ids):
        assert told in prompt


def test_the_sdks_own_tool_runner_comes_to_its_end(
    stack: Stack, client: anthropic.Anthropic
) -> None:
    asked: list[str] = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name
        """
        asked.append(city)
        return f"Sunny in {city}"

    stack.sim.next(
        {
            "operation": "completions",
            "say": call("get_weather", city="Oslo") + call("get_weather", city="Bergen"),
        },
        {"operation": "completions", "say": "Sunny in both."},
    )
    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=2000,
        tools=[get_weather],
        messages=[{"role": "user", "content": "Oslo and Bergen?"}],
    )
    last = runner.until_done()
    assert asked == ["Oslo", "Bergen"]
    assert last.stop_reason == "end_turn"


def test_a_result_that_is_an_error_is_told_as_one(stack: Stack) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no such city"}],
                },
                {"type": "text", "text": "Try again."},
            ],
        },
    ]
    assert ask(stack, messages, tools=TOOLS).status_code == 200
    [prompt] = stack.sim.prompts()
    assert 'error="true"' in prompt
    assert prompt.index("no such city") < prompt.index("Try again.")


# -- choices


@BOTH
def test_without_parallel_use_there_is_one_call(
    stack: Stack, client: anthropic.Anthropic, stream: bool
) -> None:
    stack.sim.next(operation="completions", say=PARALLEL)
    message = ask_model(
        client,
        [{"role": "user", "content": "Oslo?"}],
        stream=stream,
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )
    assert [use.name for use in calls_of(message)] == ["get_weather"]
    assert message.stop_reason == "tool_use"


def test_a_named_tool_is_the_only_one_the_model_is_told_of(stack: Stack) -> None:
    stack.sim.next(operation="completions", say=call("get_time", city="Oslo"))
    answer = ask(stack, tools=TOOLS, tool_choice={"type": "tool", "name": "get_time"})
    [use] = blocks_of(answer)
    assert use["name"] == "get_time"
    [prompt] = stack.sim.prompts()
    assert "get_weather" not in prompt


def test_none_means_that_no_call_is_read(stack: Stack) -> None:
    stack.sim.next(operation="completions", say=call("get_time", city="Oslo"))
    [text] = blocks_of(ask(stack, tools=TOOLS, tool_choice={"type": "none"}))
    assert text["type"] == "text"
    [prompt] = stack.sim.prompts()
    assert "get_weather" not in prompt


@BOTH
def test_any_that_is_not_obeyed_is_asked_for_once_more(stack: Stack, stream: bool) -> None:
    stack.sim.next(
        {"operation": "completions", "say": "I would rather not."},
        {"operation": "completions", "say": call("get_time", city="Oslo")},
    )
    answer = ask(stack, tools=TOOLS, tool_choice={"type": "any"}, stream=stream)
    if stream:
        starts = [f for f in frames_of(answer) if f["type"] == "content_block_start"]
        blocks = [frame["content_block"] for frame in starts]
    else:
        blocks = blocks_of(answer)
    assert blocks[-1]["type"] == "tool_use"
    assert len(stack.sim.prompts()) == 2


# -- what is promised of arguments


def test_a_long_argument_starts_to_arrive_before_the_upstream_has_written_it(stack: Stack) -> None:
    text = "0123456789abcdef" * 256
    prompt = directive(call="get_time", args={"city": text}, frames=64, delay_ms=30)
    began = time.monotonic()
    first_at = 0.0
    with asking(stack, prompt, tools=TOOLS, max_tokens=9000) as answer:
        body = b""
        for piece in answer.iter_bytes():
            body += piece
            if not first_at and b"0123456789" in body:
                first_at = time.monotonic()
    took = time.monotonic() - began
    assert first_at - began < took / 2
    deltas = [
        msgspec.json.decode(line[6:])["delta"]["partial_json"]
        for line in body.splitlines()
        if line.startswith(b"data: ") and b"input_json_delta" in line
    ]
    assert len(deltas) > 10
    assert msgspec.json.decode("".join(deltas)) == {"city": text}


@BOTH
@pytest.mark.parametrize("form", ["hermes", "xml", "openai", "unclosed"])
def test_a_call_is_the_same_however_the_upstreams_bytes_are_cut(
    stack: Stack, form: str, stream: bool
) -> None:
    given: Json = {"say": "I look. ", "call": "get_time", "args": {"city": "Tromsø 🙂"}}
    read = read_anthropic_stream if stream else read_anthropic_reply
    cuts: list[Json] = [{}, {"cut": 1}, {"cut": 7}, {"burst": 1000}]
    for cut in cuts:
        stack.sim.next(operation="completions", call_form=form, **given, **cut)
        found = read(ask(stack, tools=TOOLS, stream=stream).content)
        assert (found.text, found.finish) == ("I look.", "tool_use"), cut
        [(_, name, arguments)] = found.tool_calls
        assert (name, arguments) == ("get_time", '{"city":"Tromsø 🙂"}')


@BOTH
def test_a_call_that_is_cut_off_fails_the_turn_and_is_no_call(stack: Stack, stream: bool) -> None:
    """Its arguments had begun to go out: nothing is silently restarted."""
    written = call("get_time", city="a long city name " * 20)[:-120]
    stack.sim.next(operation="completions", say=written, frames=20, times=0)
    answer = ask(stack, tools=TOOLS, stream=stream)
    if stream:
        assert frames_of(answer)[-1]["type"] == "error"
    else:
        assert answer.status_code == 502


# -- Anthropic's own


def test_bash_and_the_text_editor_are_called_as_documented(stack: Stack) -> None:
    stack.sim.next(operation="completions", say=call("bash", command="ls"))
    tools = [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
        {"type": "code_execution_20250825", "name": "code_execution"},
    ]
    answer = ask(stack, tools=tools)
    [use] = blocks_of(answer)
    assert (use["type"], use["name"], use["input"]) == ("tool_use", "bash", {"command": "ls"})
    assert answer.headers["x-gateway-ignored"] == "tools[2].code_execution_20250825"
    [prompt] = stack.sim.prompts()
    assert "str_replace" in prompt


def test_a_search_and_a_callers_tool_go_together(stack: Stack) -> None:
    stack.sim.next(
        operation="completions", search=2, say="It is sunny. " + call("get_time", city="Oslo")
    )
    search = {"type": "web_search_20250305", "name": "web_search"}
    kinds = [block["type"] for block in blocks_of(ask(stack, tools=[search, *TOOLS]))]
    assert kinds == ["server_tool_use", "web_search_tool_result", "text", "tool_use"]
