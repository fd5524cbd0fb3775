"""The Vercel AI SDK (`ai_sdk.mjs`): loops of tools and objects, whole and streamed, over all three APIs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.agents import INSTALLED, Agent, assert_script_used_up, script, tool_call
from tests.fakes.chat import MODEL
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client(
    "Vercel AI SDK", npm="ai", speaks="OpenAI Chat, OpenAI Responses, Anthropic Messages"
)

PROGRAM = Path(__file__).with_name("ai_sdk.mjs")
QUESTION = "What is it like in Oslo?"
APIS = pytest.mark.parametrize("api", ["chat", "compatible", "responses", "messages"])
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def ask(
    agent: Agent, stack: Stack, api: str, *, stream: bool, model: str = MODEL, **more: Any
) -> dict[str, Any]:
    """What the program reports of one run."""
    # Node looks for packages beside the program.
    shutil.copy(PROGRAM, agent.work)
    (agent.work / "node_modules").symlink_to(INSTALLED / "node_modules")
    order = {
        "api": api, "url": stack.url, "key": stack.key, "model": model, "prompt": QUESTION,
        "stream": stream, **more,
    }  # fmt: skip
    told = agent.run("node", PROGRAM.name, environ={}, stdin=json.dumps(order))
    report: dict[str, Any] = json.loads(told.output)
    return report


@pytest.mark.shows("a loop with parallel calls, streamText and generateText, in all three APIs")
@APIS
@BOTH
def test_a_loop_with_two_calls_at_once(stack: Stack, agent: Agent, api: str, stream: bool) -> None:
    both = tool_call("get_weather", city="Oslo") + tool_call(
        "get_time", city="Oslo", twelve_hours=True
    )
    script(stack, QUESTION, "I look both up.\n" + both, {"say": "Sunny at noon.", "frames": 3})
    report = ask(agent, stack, api, stream=stream, tools=True)
    assert report["text"] == "Sunny at noon."
    first, last = report["steps"]
    assert first["calls"] == [
        ["get_weather", {"city": "Oslo"}],
        ["get_time", {"city": "Oslo", "twelve_hours": True}],
    ]
    assert first["results"] == ["Sunny in Oslo.", "12 PM"]
    assert last["calls"] == []
    assert report["usage"]["inputTokens"] > 100
    assert not stream or report["pieces"] > 2
    assert_script_used_up(stack)


@pytest.mark.shows("a tool that fails")
@APIS
def test_a_tool_that_fails(stack: Stack, agent: Agent, api: str) -> None:
    script(stack, QUESTION, tool_call("get_weather", city="Atlantis"), "Nowhere.")
    report = ask(agent, stack, api, stream=True, tools=True)
    assert report["text"] == "Nowhere."
    assert report["steps"][0]["results"] == ["Error: There is no such city."]
    assert "There is no such city." in stack.sim.prompts()[-1]


@pytest.mark.shows("Output.object, after calls")
@APIS
@BOTH
def test_an_object(stack: Stack, agent: Agent, api: str, stream: bool) -> None:
    said = '{"city": "Oslo", "degrees": 7}'
    # To models whose names it doesn't know it offers Anthropic's objects as a tool.
    last = said if api != "messages" else tool_call("json", city="Oslo", degrees=7)
    script(stack, QUESTION, tool_call("get_weather", city="Oslo"), last)
    report = ask(agent, stack, api, stream=stream, tools=True, schema=True)
    assert report.get("object") == {"city": "Oslo", "degrees": 7}, report


@pytest.mark.shows("reasoning, sent back with the next step")
@pytest.mark.parametrize("api", ["compatible", "responses", "messages"])
def test_reasoning_is_told(stack: Stack, agent: Agent, api: str) -> None:
    script(
        stack,
        QUESTION,
        {"think": "I must look.", "say": tool_call("get_weather", city="Oslo")},
        {"think": "Now I know.", "say": "Sunny."},
    )
    report = ask(agent, stack, api, stream=True, tools=True, model="qwen3.5-plus-thinking")
    assert report["text"] == "Sunny."
    assert [thought.strip() for thought in report["reasoning"]] == ["I must look.", "Now I know."]


@pytest.mark.shows("an error with its status and message")
@APIS
def test_an_error_is_told(stack: Stack, agent: Agent, api: str) -> None:
    report = ask(agent, stack, api, stream=True, model="no-such-model")
    assert report["error"]["status"] == 404
    assert "no-such-model" in report["error"]["message"]
