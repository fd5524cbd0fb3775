"""The OpenAI Agents SDK: runs with tools, handoffs and structured output, over Responses and chat."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

pytest.importorskip("agents", reason="`make setup` installs openai-agents")

from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
)
from agents.items import ToolCallItem, ToolCallOutputItem

from tests.fakes.agents import assert_script_used_up, script, tool_call
from tests.fakes.chat import MODEL
from tests.fakes.stack import Stack

pytestmark = [
    pytest.mark.client(
        "OpenAI Agents SDK", python="openai-agents", speaks="OpenAI Responses, OpenAI Chat"
    ),
    pytest.mark.anyio,
]

QUESTION = "What is it like in Oslo?"
APIS = pytest.mark.parametrize("api", ["responses", "chat"])
QUIET = RunConfig(tracing_disabled=True)  # traces would go to OpenAI


class Weather(BaseModel):
    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


@function_tool
def get_time(city: str) -> str:
    """The time in a city."""
    return "12:00"


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0, timeout=20
    ) as client:
        yield client


def model_of(client: AsyncOpenAI, api: str, name: str = MODEL) -> Model:
    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatCompletionsModel
    return kind(name, openai_client=client)


def helper(model: Model, **more: Any) -> Agent[Any]:
    return Agent(
        "Helper", instructions="Be terse.", model=model, tools=[get_weather, get_time], **more
    )


@pytest.mark.shows("a run with parallel calls, streamed and whole, in both APIs")
@APIS
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_loop_with_two_calls_at_once(
    stack: Stack, client: AsyncOpenAI, api: str, stream: bool
) -> None:
    both = tool_call("get_weather", city="Oslo") + "\n" + tool_call("get_time", city="Oslo")
    script(stack, QUESTION, "I look both up.\n" + both, "Sunny at noon.")
    agent = helper(model_of(client, api))
    if stream:
        streamed = Runner.run_streamed(agent, QUESTION, run_config=QUIET)
        async for _ in streamed.stream_events():
            pass
        items, output = streamed.new_items, streamed.final_output
    else:
        result = await Runner.run(agent, QUESTION, run_config=QUIET)
        items, output = result.new_items, result.final_output
    assert output == "Sunny at noon."
    assert sum(isinstance(item, ToolCallItem) for item in items) == 2
    outputs = [item.output for item in items if isinstance(item, ToolCallOutputItem)]
    assert outputs == ["Sunny in Oslo.", "12:00"]
    assert_script_used_up(stack)


@pytest.mark.shows("handoffs")
@APIS
async def test_a_handoff(stack: Stack, client: AsyncOpenAI, api: str) -> None:
    expert = Agent("Expert", model=model_of(client, api), instructions="You know Oslo.")
    agent = helper(model_of(client, api), handoffs=[expert])
    script(stack, QUESTION, tool_call("transfer_to_expert"), "It is nice.")
    result = await Runner.run(agent, QUESTION, run_config=QUIET)
    assert (result.final_output, result.last_agent.name) == ("It is nice.", "Expert")
    assert "You know Oslo." in stack.sim.prompts()[-1]


@pytest.mark.shows("structured output, after calls")
@APIS
async def test_an_answer_in_a_schema(stack: Stack, client: AsyncOpenAI, api: str) -> None:
    agent = helper(model_of(client, api), output_type=Weather)
    script(stack, QUESTION, tool_call("get_weather", city="Oslo"), '{"city": "Oslo", "degrees": 7}')
    result = await Runner.run(agent, QUESTION, run_config=QUIET)
    assert result.final_output == Weather(city="Oslo", degrees=7)


@pytest.mark.shows("a conversation by previous_response_id")
async def test_a_conversation_goes_on(stack: Stack, client: AsyncOpenAI) -> None:
    agent = helper(model_of(client, "responses"))
    script(stack, QUESTION, tool_call("get_weather", city="Oslo"), "Sunny.", "Yes.")
    first = await Runner.run(agent, QUESTION, run_config=QUIET)
    assert first.last_response_id is not None
    second = await Runner.run(
        agent, "Are you sure?", previous_response_id=first.last_response_id, run_config=QUIET
    )
    assert second.final_output == "Yes."
    assert "Sunny in Oslo." in stack.sim.prompts()[-1]


@pytest.mark.shows("a conversation by a session")
@APIS
async def test_a_session_goes_on(stack: Stack, client: AsyncOpenAI, api: str) -> None:
    agent = helper(model_of(client, api))
    session = SQLiteSession("one")
    script(stack, QUESTION, tool_call("get_weather", city="Oslo"), "Sunny.", "Yes.")
    await Runner.run(agent, QUESTION, session=session, run_config=QUIET)
    second = await Runner.run(agent, "Are you sure?", session=session, run_config=QUIET)
    assert second.final_output == "Yes."
    assert "Sunny in Oslo." in stack.sim.prompts()[-1]
    session.close()


@pytest.mark.shows("reasoning items")
async def test_reasoning_comes_as_items(stack: Stack, client: AsyncOpenAI) -> None:
    agent = helper(model_of(client, "responses", "qwen3.5-plus-thinking"))
    script(
        stack,
        QUESTION,
        {"think": "I must look.", "say": tool_call("get_weather", city="Oslo")},
        {"think": "Now I know.", "say": "Sunny."},
    )
    result = await Runner.run(agent, QUESTION, run_config=QUIET)
    assert [item.type for item in result.new_items] == [
        "reasoning_item", "tool_call_item", "tool_call_output_item",
        "reasoning_item", "message_output_item",
    ]  # fmt: skip
