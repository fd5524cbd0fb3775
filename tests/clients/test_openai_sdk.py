"""OpenAI's own SDK: loops and parsed answers over chat and Responses."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.fakes.agents import assert_script_used_up, script, tool_call
from tests.fakes.chat import MODEL
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client(
    "OpenAI SDK", python="openai", speaks="OpenAI Chat, OpenAI Responses"
)

QUESTION = "What is it like in Oslo?"
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
BOTH = tool_call("get_weather", city="Oslo") + "\n" + tool_call("get_time", city="Oslo")


class Weather(BaseModel):
    city: str
    degrees: int


class City(BaseModel):
    """Where."""

    city: str


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key=stack.key, max_retries=0, timeout=20
    ) as client:
        yield client


@pytest.mark.shows("a loop with parallel calls, streamed and whole, in both APIs")
@STREAMED
def test_a_loop_over_chat(stack: Stack, client: openai.OpenAI, stream: bool) -> None:
    script(stack, QUESTION, "I look both up.\n" + BOTH, "Sunny at noon.")
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    tools = [openai.pydantic_function_tool(City, name=name) for name in ("get_weather", "get_time")]

    def ask() -> Any:
        if not stream:
            return client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
        with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as events:
            return events.get_final_completion()

    said = ask().choices[0].message
    calls = [(one.function.name, json.loads(one.function.arguments)) for one in said.tool_calls]
    assert calls == [("get_weather", {"city": "Oslo"}), ("get_time", {"city": "Oslo"})]
    messages.append(said.to_dict())
    messages += [
        {"role": "tool", "tool_call_id": one.id, "content": "Fine."} for one in said.tool_calls
    ]
    assert ask().choices[0].message.content == "Sunny at noon."
    assert_script_used_up(stack)


@pytest.mark.shows("a loop with parallel calls, streamed and whole, in both APIs")
@STREAMED
def test_a_loop_over_responses(stack: Stack, client: openai.OpenAI, stream: bool) -> None:
    script(stack, QUESTION, "I look both up.\n" + BOTH, "Sunny at noon.")
    items: list[Any] = [{"role": "user", "content": QUESTION}]
    schema = {**City.model_json_schema(), "additionalProperties": False}
    tools: list[Any] = [
        {"type": "function", "name": name, "parameters": schema, "strict": True}
        for name in ("get_weather", "get_time")
    ]

    def ask() -> Any:
        if not stream:
            return client.responses.create(model=MODEL, input=items, tools=tools, store=False)
        with client.responses.stream(model=MODEL, input=items, tools=tools, store=False) as events:
            events.until_done()
            return events.get_final_response()

    first = ask()
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(one.name, json.loads(one.arguments)) for one in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo"}),
    ]
    items += [item.to_dict() for item in first.output]
    items += [
        {"type": "function_call_output", "call_id": one.call_id, "output": "Fine."} for one in calls
    ]
    assert ask().output_text == "Sunny at noon."
    assert_script_used_up(stack)


@pytest.mark.shows("parse: structured answers, in both APIs")
def test_an_answer_in_a_schema(stack: Stack, client: openai.OpenAI) -> None:
    said = '{"city": "Oslo", "degrees": 7}'
    script(stack, QUESTION, "It is nice.", said, said)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Weather)
    assert chat.choices[0].message.parsed == Weather(city="Oslo", degrees=7)
    response = client.responses.parse(model=MODEL, input=QUESTION, text_format=Weather)
    assert response.output_parsed == Weather(city="Oslo", degrees=7)
    assert_script_used_up(stack)


@pytest.mark.shows("models.list")
def test_models_are_listed(client: openai.OpenAI) -> None:
    assert MODEL in {model.id for model in client.models.list()}
