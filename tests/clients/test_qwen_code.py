"""Qwen Code (`qwen`): loops of its own tools over OpenAI's chat, and over Anthropic's Messages.

Source: version 0.15 from npm, seen 2026-11: `POST /v1/chat/completions`, streamed, with 17 tools; its
calls must come with whole arguments, its shell tool refuses a call without `is_background`.
"""

from typing import Any

import pytest

from tests.fakes.agents import Agent, Told, assert_script_used_up, script, tool_call
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client(
    "Qwen Code", npm="@qwen-code/qwen-code", speaks="OpenAI Chat, Anthropic Messages"
)

TASK = "Make greeting.txt, then shout it"
SETTINGS = """{
  "privacy": {"usageStatisticsEnabled": false},
  "general": {"enableAutoUpdate": false, "disableAutoUpdate": true}
}"""
TEXT = 'Hello, "world"!\n\tTwo lines, a tab, a backslash \\ and </tool_call> in it.\n'


def run(
    agent: Agent, stack: Stack, *arguments: str, speaks: str = "openai", model: str = ""
) -> Told:
    """`qwen`, as the README says to set it up."""
    settings = agent.home / ".qwen" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(SETTINGS)
    environ = {
        "OPENAI_BASE_URL": f"{stack.url}/v1",
        "OPENAI_API_KEY": stack.key,
        "OPENAI_MODEL": model or "qwen3-coder-plus",
        "ANTHROPIC_BASE_URL": stack.url,
        "ANTHROPIC_API_KEY": stack.key,
        "ANTHROPIC_MODEL": model or "qwen3-coder-plus",
    }
    return agent.run(
        "qwen", "--auth-type", speaks, "--yolo", "--output-format", "stream-json", *arguments, TASK,
        environ=environ,
    )  # fmt: skip


def blocks_of(told: Told, role: str, kind: str) -> list[dict[str, Any]]:
    return [
        block
        for event in told.events
        if event["type"] == role
        for block in event["message"]["content"]
        if block["type"] == kind
    ]


def answer_of(told: Told) -> str:
    last = told.events[-1]
    assert (last["type"], last["is_error"]) == ("result", False), told.output
    answer: str = last["result"]
    return answer


@pytest.mark.shows("a loop of two tools (write_file, run_shell_command), streamed, in both APIs")
@pytest.mark.parametrize("speaks", ["openai", "anthropic"])
def test_a_loop_of_two_tools_runs_to_its_end(stack: Stack, agent: Agent, speaks: str) -> None:
    shout = "tr a-z A-Z < greeting.txt"
    script(
        stack,
        TASK,
        "I write it.\n"
        + tool_call("write_file", file_path=str(agent.work / "greeting.txt"), content=TEXT),
        tool_call("run_shell_command", command=shout, is_background=False),
        "It is shouted.",
    )
    told = run(agent, stack, speaks=speaks)
    assert answer_of(told) == "It is shouted."
    assert (agent.work / "greeting.txt").read_text() == TEXT
    assert "TWO LINES, A TAB" in str(blocks_of(told, "user", "tool_result")[1]["content"])
    assert_script_used_up(stack)


@pytest.mark.shows("calls in parallel, a result that is an error")
def test_calls_in_parallel_and_a_failing_one(stack: Stack, agent: Agent) -> None:
    (agent.work / "here.txt").write_text("the text that is here\n")
    paths = (agent.work / "here.txt", agent.work / "missing.txt")
    script(
        stack,
        TASK,
        "\n".join(tool_call("read_file", file_path=str(path)) for path in paths),
        "One of two.",
    )
    told = run(agent, stack)
    assert answer_of(told) == "One of two."
    found = blocks_of(told, "user", "tool_result")
    assert [one["is_error"] for one in found] == [False, True]
    prompt = stack.sim.prompts()[-1]
    assert prompt.count('name="read_file"') == 2
    assert "the text that is here" in prompt


@pytest.mark.shows("reasoning")
def test_reasoning_is_told(stack: Stack, agent: Agent) -> None:
    script(stack, TASK, {"think": "I must look first.", "say": "Nothing is there."})
    told = run(agent, stack, model="qwen3.5-plus-thinking")
    assert answer_of(told) == "Nothing is there."
    [thought] = blocks_of(told, "assistant", "thinking")
    assert thought["thinking"].strip() == "I must look first."


@pytest.mark.shows("--json-schema")
def test_an_answer_in_a_schema(stack: Stack, agent: Agent) -> None:
    schema = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'
    script(stack, TASK, tool_call("structured_output", city="Oslo"))
    told = run(agent, stack, "--json-schema", schema)
    assert told.events[-1]["structured_result"] == {"city": "Oslo"}
