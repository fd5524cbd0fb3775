"""pydantic-ai: agents with tools and structured output, over all three APIs, whole and streamed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel

pytest.importorskip("pydantic_ai", reason="`make setup` installs pydantic-ai-slim")

from pydantic_ai import Agent, ModelRetry, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.messages import ThinkingPart, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.fakes.agents import assert_script_used_up, script, tool_call
from tests.fakes.chat import MODEL
from tests.fakes.stack import Stack

pytestmark = [
    pytest.mark.client(
        "pydantic-ai",
        python="pydantic-ai-slim",
        speaks="OpenAI Chat, OpenAI Responses, Anthropic Messages",
    ),
    pytest.mark.anyio,
]

QUESTION = "What is it like in Oslo?"
APIS = pytest.mark.parametrize("api", ["chat", "responses", "messages"])


class Weather(BaseModel):
    """What it is like somewhere."""

    city: str
    degrees: int


class Clients:
    """The SDKs' clients that pydantic-ai speaks through; closed with the test."""

    def __init__(self, stack: Stack) -> None:
        self.openai = AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0)
        self.anthropic = AsyncAnthropic(base_url=stack.url, api_key=stack.key, max_retries=0)

    def model(self, api: str, name: str = MODEL) -> Model:
        if api == "messages":
            return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=self.anthropic))
        kind = OpenAIResponsesModel if api == "responses" else OpenAIChatModel
        return kind(name, provider=OpenAIProvider(openai_client=self.openai))


@pytest.fixture
async def clients(stack: Stack) -> AsyncIterator[Clients]:
    clients = Clients(stack)
    async with clients.openai, clients.anthropic:
        yield clients


def with_tools(model: Model, **more: Any) -> Agent[None, Any]:
    agent: Agent[None, Any] = Agent(model, **more)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        if city == "Atlantis":
            raise ModelRetry("There is no such city.")
        return f"Sunny in {city}."

    @agent.tool_plain
    def get_time(city: str) -> str:
        """The time in a city."""
        return "12:00"

    return agent


@pytest.mark.shows("an agent's loop with parallel calls, whole, in all three APIs")
@APIS
async def test_a_loop_with_two_calls_at_once(stack: Stack, clients: Clients, api: str) -> None:
    both = tool_call("get_weather", city="Oslo") + "\n" + tool_call("get_time", city="Oslo")
    script(stack, QUESTION, "I look both up.\n" + both, "Sunny at noon.")
    result = await with_tools(clients.model(api)).run(QUESTION)
    assert result.output == "Sunny at noon."
    returned = [
        (part.tool_name, part.content)
        for message in result.all_messages()
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
    assert returned == [("get_weather", "Sunny in Oslo."), ("get_time", "12:00")]
    assert result.usage.input_tokens > 100
    assert_script_used_up(stack)


@pytest.mark.shows("the same streamed")
@APIS
async def test_a_streamed_loop(stack: Stack, clients: Clients, api: str) -> None:
    script(
        stack,
        QUESTION,
        tool_call("get_weather", city="Oslo"),
        {"say": "Sunny at noon.", "frames": 3},
    )
    async with with_tools(clients.model(api)).run_stream(QUESTION) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == "Sunny at noon."
    assert len(pieces) > 1
    assert_script_used_up(stack)


@pytest.mark.shows("a tool that asks to be called again (ModelRetry)")
@APIS
async def test_a_call_is_made_again(stack: Stack, clients: Clients, api: str) -> None:
    script(
        stack,
        QUESTION,
        tool_call("get_weather", city="Atlantis"),
        tool_call("get_weather", city="Oslo"),
        "Sunny.",
    )
    result = await with_tools(clients.model(api)).run(QUESTION)
    assert result.output == "Sunny."
    assert "There is no such city." in stack.sim.prompts()[1]


JSON = '{"city": "Oslo", "degrees": 7}'


@pytest.mark.shows("structured output by tool, by schema, by prompt")
@APIS
@pytest.mark.parametrize("mode", ["tool", "native", "prompted"])
async def test_an_answer_in_a_schema(stack: Stack, clients: Clients, api: str, mode: str) -> None:
    output: Any = {
        "tool": ToolOutput(Weather, name="final_result"),
        "native": NativeOutput(Weather),
        "prompted": PromptedOutput(Weather),
    }[mode]
    final = tool_call("final_result", city="Oslo", degrees=7) if mode == "tool" else JSON
    script(stack, QUESTION, tool_call("get_weather", city="Oslo"), final)
    # It offers Anthropic's own structured output to models whose names it knows.
    name = "claude-opus-4-8" if (mode, api) == ("native", "messages") else MODEL
    result = await with_tools(clients.model(api, name), output_type=output).run(QUESTION)
    assert result.output == Weather(city="Oslo", degrees=7)
    assert_script_used_up(stack)


@pytest.mark.shows("thinking, sent back with the next turn")
@APIS
async def test_thinking_goes_back(stack: Stack, clients: Clients, api: str) -> None:
    script(
        stack,
        QUESTION,
        {"think": "I must look.", "say": tool_call("get_weather", city="Oslo")},
        {"think": "Now I know.", "say": "Sunny."},
    )
    result = await with_tools(clients.model(api, "qwen3.5-plus-thinking")).run(QUESTION)
    assert result.output == "Sunny."
    thoughts = [
        part.content.strip()
        for message in result.all_messages()
        for part in message.parts
        if isinstance(part, ThinkingPart)
    ]
    assert thoughts == ["I must look.", "Now I know."]
