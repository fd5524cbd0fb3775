"""Anthropic's own SDK: its tool runner, its streams, its parsed answers, its token counts."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

from tests.fakes.agents import assert_script_used_up, script, tool_call
from tests.fakes.chat import MODEL
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client("Anthropic SDK", python="anthropic", speaks="Anthropic Messages")

QUESTION = "What is it like in Oslo?"


class Weather(BaseModel):
    city: str
    degrees: int


@beta_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


@beta_tool
def get_time(city: str) -> str:
    """The time in a city."""
    return "12:00"


@pytest.fixture
def client(stack: Stack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=stack.url, api_key=stack.key, max_retries=0, timeout=20
    ) as client:
        yield client


def asked(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": MODEL, "max_tokens": 1000, "messages": messages, **more}


@pytest.mark.shows("tool_runner: a loop with parallel calls, streamed and whole")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_tool_runner_runs_to_its_end(
    stack: Stack, client: anthropic.Anthropic, stream: bool
) -> None:
    both = tool_call("get_weather", city="Oslo") + "\n" + tool_call("get_time", city="Oslo")
    script(stack, QUESTION, "I look both up.\n" + both, "Sunny at noon.")
    tools = [get_weather, get_time]
    runner: Any = client.beta.messages.tool_runner(**asked(tools=tools, stream=stream))
    last = list(runner)[-1]
    if stream:
        last = last.get_final_message()
    assert [(block.type, block.text) for block in last.content] == [("text", "Sunny at noon.")]
    prompt = stack.sim.prompts()[-1]
    assert 'name="get_weather">\nSunny in Oslo.\n' in prompt
    assert 'name="get_time">\n12:00\n' in prompt
    assert_script_used_up(stack)


@pytest.mark.shows("messages.parse")
def test_an_answer_in_a_schema(stack: Stack, client: anthropic.Anthropic) -> None:
    script(stack, QUESTION, "It is nice.", '{"city": "Oslo", "degrees": 7}')
    message: Any = client.messages.parse(**asked(output_format=Weather))
    assert message.parsed_output == Weather(city="Oslo", degrees=7)
    assert_script_used_up(stack)


@pytest.mark.shows("count_tokens")
def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    request = asked(tools=[get_weather.to_dict()])
    del request["max_tokens"]
    assert client.messages.count_tokens(**request).input_tokens > 50


@pytest.mark.shows("models.list")
def test_models_are_listed(client: anthropic.Anthropic) -> None:
    assert MODEL in {model.id for model in client.models.list()}
