"""LangChain: `bind_tools` and `with_structured_output`, streamed and whole, over all three APIs."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

pytest.importorskip("langchain_openai", reason="`make setup` installs langchain-openai")
pytest.importorskip("langchain_anthropic", reason="`make setup` installs langchain-anthropic")

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.fakes.agents import assert_script_used_up, script, tool_call
from tests.fakes.chat import MODEL
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client(
    "LangChain",
    python="langchain-openai",
    speaks="OpenAI Chat, OpenAI Responses, Anthropic Messages",
)

QUESTION = "What is it like in Oslo?"
APIS = pytest.mark.parametrize("api", ["chat", "responses", "messages"])
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


@tool
def get_time(city: str, twelve_hours: bool = False) -> str:
    """The time in a city."""
    return "12 PM" if twelve_hours else "12:00"


TOOLS = [get_weather, get_time]


class Weather(BaseModel):
    """What it is like somewhere."""

    city: str
    degrees: int


def chat_model(stack: Stack, api: str, model: str = MODEL) -> BaseChatModel:
    key = SecretStr(stack.key)
    if api == "messages":
        return ChatAnthropic(  # type: ignore[call-arg]  # its fields go by two names
            model=model, base_url=stack.url, api_key=key, max_retries=0, timeout=20
        )
    return ChatOpenAI(
        model=model,
        base_url=f"{stack.url}/v1",
        api_key=key,
        max_retries=0,
        timeout=20,
        use_responses_api=api == "responses",
        stream_usage=True,  # it asks for it only at OpenAI's own address
    )


def ask(model: Any, messages: list[BaseMessage], *, stream: bool) -> AIMessage:
    """The message of a turn, put together by LangChain when streamed."""
    if not stream:
        answer: AIMessage = model.invoke(messages)
        return answer
    whole: AIMessageChunk | None = None
    for chunk in model.stream(messages):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole


@pytest.mark.shows("bind_tools: a loop with parallel calls, streamed and whole, in all three APIs")
@APIS
@BOTH
def test_a_loop_with_two_calls_at_once(stack: Stack, api: str, stream: bool) -> None:
    both = (
        tool_call("get_weather", city="Oslo")
        + "\n"
        + tool_call("get_time", city="Oslo", twelve_hours=True)
    )
    script(stack, QUESTION, "I look both up.\n" + both, "Sunny at noon.")
    model = chat_model(stack, api).bind_tools(TOOLS)
    messages: list[BaseMessage] = [HumanMessage(QUESTION)]

    first = ask(model, messages, stream=stream)
    assert first.text == "I look both up."
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_time", {"city": "Oslo", "twelve_hours": True}),
    ]
    assert first.invalid_tool_calls == []
    assert first.usage_metadata is not None
    assert first.usage_metadata["input_tokens"] > 100

    named = {one.name: one for one in TOOLS}
    messages.append(first)
    messages += [named[call["name"]].invoke(call) for call in first.tool_calls]
    last = ask(model, messages, stream=stream)
    assert (last.text, last.tool_calls) == ("Sunny at noon.", [])
    prompt = stack.sim.prompts()[-1]
    assert 'name="get_weather">\nSunny in Oslo.\n' in prompt
    assert 'name="get_time">\n12 PM\n' in prompt
    assert_script_used_up(stack)


def _as_json(text: str) -> str:
    return text


def _as_call(text: str) -> str:
    return f'<tool_call>\n{{"name": "Weather", "arguments": {text}}}\n</tool_call>'


METHODS: dict[str, tuple[str, Callable[[str], str]]] = {
    "chat-json_schema": ("chat", _as_json),
    "chat-json_mode": ("chat", _as_json),
    "chat-function_calling": ("chat", _as_call),
    "responses-json_schema": ("responses", _as_json),
    "messages-function_calling": ("messages", _as_call),
}


@pytest.mark.shows("with_structured_output: json_schema, json_mode, function_calling")
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # between LangChain and openai
@pytest.mark.parametrize("name", METHODS)
@BOTH
def test_an_answer_in_a_schema(stack: Stack, name: str, stream: bool) -> None:
    api, written = METHODS[name]
    method: Any = name.partition("-")[2]
    script(stack, QUESTION, written('{"city": "Oslo", "degrees": 7}'))
    model = chat_model(stack, api).with_structured_output(Weather, method=method)
    question = f"{QUESTION} Answer in JSON."
    answer = list(model.stream(question))[-1] if stream else model.invoke(question)
    assert answer == Weather(city="Oslo", degrees=7)


@pytest.mark.shows("a wrong structured answer is asked for once more")
def test_a_wrong_answer_is_corrected(stack: Stack) -> None:
    script(stack, QUESTION, "It is nice there.", '{"city": "Oslo", "degrees": 7}')
    model = chat_model(stack, "chat").with_structured_output(Weather, method="json_schema")
    assert model.invoke(QUESTION) == Weather(city="Oslo", degrees=7)
    assert_script_used_up(stack)


@pytest.mark.shows("tool_choice")
@APIS
def test_a_tool_is_demanded(stack: Stack, api: str) -> None:
    script(stack, QUESTION, "It is nice there.", tool_call("get_weather", city="Oslo"))
    bound = chat_model(stack, api).bind_tools(TOOLS, tool_choice="get_weather")
    answer: Any = bound.invoke(QUESTION)
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"]
    assert_script_used_up(stack)


@pytest.mark.shows("thinking, streamed, sent back with the next turn (ChatAnthropic)")
def test_thinking_goes_back(stack: Stack) -> None:
    script(
        stack,
        QUESTION,
        {"think": "I must look.", "say": tool_call("get_weather", city="Oslo")},
        "Sunny.",
    )
    model = chat_model(stack, "messages", model="qwen3.5-plus-thinking").bind_tools(TOOLS)
    messages: list[BaseMessage] = [HumanMessage(QUESTION)]
    first = ask(model, messages, stream=True)
    assert [block["type"] for block in first.content_blocks] == ["reasoning", "tool_call"]
    messages += [first, get_weather.invoke(first.tool_calls[0])]
    assert ask(model, messages, stream=True).text == "Sunny."
