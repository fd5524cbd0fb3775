"""Claude Code (`claude -p`): loops of tools, its own subagents and searches, its errors.

Source: version 2.1 from npm, what it sends seen 2026-11: `HEAD /`, then `POST /v1/messages?beta=true`
with 24 tools, streamed; a search of the web is a request of its own with `web_search_20250305`.
"""

import base64
import json
import re
from typing import Any

import pytest

from tests.fakes.agents import Agent, Told, assert_script_used_up, script, tool_call
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client(
    "Claude Code", npm="@anthropic-ai/claude-code", speaks="Anthropic Messages"
)

TASK = "Make greeting.txt, then shout it"
# A picture of one pixel.
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PERMITTED = ("Bash", "Read", "Write", "WebSearch", "Agent")


def run(
    agent: Agent, stack: Stack, task: str, *arguments: str, key: str = "", **environ: str
) -> Told:
    """`claude -p`, as the README says to set it up; it may fail."""
    return agent.try_to_run(
        "claude", "-p", task, "--output-format", "stream-json", "--verbose", *arguments,
        "--permission-mode", "acceptEdits", "--allowedTools", *PERMITTED,
        environ={
            "ANTHROPIC_BASE_URL": stack.url,
            "ANTHROPIC_AUTH_TOKEN": key or stack.key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            **environ,
        },
    )  # fmt: skip


def result_of(told: Told) -> dict[str, Any]:
    """The last line, which says how it went."""
    assert told.events, told.errors
    last = told.events[-1]
    assert last["type"] == "result", told.output
    return last


def answer_of(told: Told) -> str:
    result = result_of(told)
    assert (told.status, result["is_error"]) == (0, False), told.output
    answer: str = result["result"]
    return answer


def results_of(told: Told) -> list[dict[str, Any]]:
    """What its tools gave, as it tells it to the model."""
    return [
        block
        for event in told.events
        if event["type"] == "user"
        for block in event["message"]["content"]
        if block["type"] == "tool_result"
    ]


@pytest.mark.shows("a loop of two tools (Write, Bash), streamed")
def test_a_loop_of_two_tools_runs_to_its_end(stack: Stack, agent: Agent) -> None:
    text = 'Hello, "world"!\n\tTwo lines, a tab, a backslash \\ and <tool_call> in it.\n'
    script(
        stack,
        TASK,
        "I write it.\n"
        + tool_call("Write", file_path=str(agent.work / "greeting.txt"), content=text),
        tool_call("Bash", command="tr a-z A-Z < greeting.txt", description="Shout it"),
        "It is shouted.",
    )
    told = run(agent, stack, TASK)
    assert answer_of(told) == "It is shouted."
    assert (agent.work / "greeting.txt").read_text() == text
    assert "TWO LINES, A TAB" in str(results_of(told)[1]["content"])
    assert_script_used_up(stack)


@pytest.mark.shows("calls in parallel, a result that is an error")
def test_calls_in_parallel_and_a_failing_one(stack: Stack, agent: Agent) -> None:
    (agent.work / "here.txt").write_text("the text that is here\n")
    script(
        stack,
        TASK,
        tool_call("Read", file_path=str(agent.work / "here.txt"))
        + "\n"
        + tool_call("Read", file_path=str(agent.work / "missing.txt")),
        "One of two.",
    )
    told = run(agent, stack, TASK)
    assert answer_of(told) == "One of two."
    found = sorted((bool(one.get("is_error")), str(one["content"])) for one in results_of(told))
    assert [failed for failed, _ in found] == [False, True]
    assert "the text that is here" in found[0][1]
    prompt = stack.sim.prompts()[-1]
    assert prompt.count('name="Read"') == 2
    assert 'name="Read" error="true"' in prompt


@pytest.mark.shows("its subagents")
def test_a_subagent_has_turns_of_its_own(stack: Stack, agent: Agent) -> None:
    script(stack, "Find the needle.", "The needle is in the barn.")
    script(
        stack,
        TASK,
        tool_call(
            "Agent",
            description="Look for it",
            prompt="Find the needle.",
            subagent_type="general-purpose",
        ),
        "In the barn.",
    )
    told = run(agent, stack, TASK)
    assert answer_of(told) == "In the barn."
    [result] = results_of(told)
    assert "The needle is in the barn." in str(result["content"])


@pytest.mark.shows("WebSearch, by the upstream's own search")
def test_its_web_search_is_the_upstreams(stack: Stack, agent: Agent) -> None:
    found = {"match": "Perform a web search", "search": 2, "say": "Two pages say so."}
    script(stack, TASK, found, tool_call("WebSearch", query="qwen news"), "So they say.")
    told = run(agent, stack, TASK)
    assert answer_of(told) == "So they say."
    [result] = results_of(told)
    assert "https://example.org/1" in result["content"]
    assert "Two pages say so." in result["content"]


@pytest.mark.shows("thinking, sent back with the next turn")
def test_thinking_comes_as_blocks_and_goes_back(stack: Stack, agent: Agent) -> None:
    script(
        stack,
        TASK,
        {"think": "I must look first.", "say": tool_call("Bash", command="ls", description="Look")},
        {"think": "Now I know.", "say": "Nothing is there."},
    )
    told = run(agent, stack, TASK, ANTHROPIC_MODEL="qwen3.5-plus", MAX_THINKING_TOKENS="4000")
    assert answer_of(told) == "Nothing is there."
    thoughts = [
        block["thinking"]
        for event in told.events
        if event["type"] == "assistant"
        for block in event["message"]["content"]
        if block["type"] == "thinking"
    ]
    assert [thought.strip() for thought in thoughts] == ["I must look first.", "Now I know."]


@pytest.mark.shows("ANTHROPIC_MODEL with a Qwen model's own name")
def test_a_model_is_chosen_by_its_own_name(stack: Stack, agent: Agent) -> None:
    script(stack, TASK, "Done.")
    told = run(agent, stack, TASK, ANTHROPIC_MODEL="qwen3-max")
    assert answer_of(told) == "Done."
    assert told.events[0]["model"] == "qwen3-max"
    [turn] = stack.sim.recorded("completions", text=TASK)
    assert turn["body"]["model"].startswith("qwen3-max")


@pytest.mark.shows("ANTHROPIC_DEFAULT_HAIKU_MODEL for small tasks")
def test_a_small_task_has_a_model_of_its_own(stack: Stack, agent: Agent) -> None:
    told = {"description": "Look", "prompt": "Find the needle.", "model": "haiku"}
    call = tool_call("Agent", subagent_type="general-purpose", **told)
    script(stack, TASK, call, "In the barn.")
    answer = answer_of(run(agent, stack, TASK, ANTHROPIC_DEFAULT_HAIKU_MODEL="qwen3-max"))
    assert answer == "In the barn."
    asked = [
        turn["body"]["model"].startswith("qwen3-max") for turn in stack.sim.recorded("completions")
    ]
    assert asked == [False, True, False]


@pytest.mark.shows("--json-schema")
def test_an_answer_in_a_schema(stack: Stack, agent: Agent) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    script(stack, TASK, tool_call("StructuredOutput", city="Oslo"), "Said.")
    told = run(agent, stack, TASK, "--json-schema", json.dumps(schema))
    assert result_of(told)["structured_output"] == {"city": "Oslo"}


@pytest.mark.shows("a session that is continued")
def test_a_session_goes_on(stack: Stack, agent: Agent) -> None:
    script(stack, TASK, "Which greeting?", "Good morning, then.")
    assert answer_of(run(agent, stack, TASK)) == "Which greeting?"
    assert answer_of(run(agent, stack, "The one for mornings.", "--continue")) == (
        "Good morning, then."
    )
    prompt = stack.sim.prompts()[-1]
    assert prompt.index(TASK) < prompt.index("Which greeting?") < prompt.index("for mornings.")


@pytest.mark.shows("a wrong key, told as such")
def test_a_wrong_key_is_told(stack: Stack, agent: Agent) -> None:
    told = run(agent, stack, TASK, key="sk-wrong", CLAUDE_CODE_MAX_RETRIES="1")
    assert (told.status, result_of(told)["is_error"]) == (1, True)
    assert "401" in told.output


@pytest.mark.shows("compacts when the prompt is too long, and goes on")
def test_a_prompt_that_is_too_long_is_compacted(stack: Stack, agent: Agent) -> None:
    """The upstream's firewall refuses it; the agent is told in the words it waits for."""
    stack.sim.config(prompt_limit_bytes=110_000)
    files = [agent.work / f"{number}.txt" for number in range(4)]
    for path in files:
        path.write_text("All work and no play.\n" * 400)
    script(stack, "Five dull files.", "Shortened.")
    script(stack, "plain text only — an <analysis> block", "<summary>Five dull files.</summary>")
    script(stack, TASK, *(tool_call("Read", file_path=str(path)) for path in files))
    told = run(agent, stack, TASK)
    assert answer_of(told) == "Shortened."
    results = [event["compact_result"] for event in told.events if event.get("compact_result")]
    assert results == ["success"]


@pytest.mark.shows("/context, by count_tokens")
def test_it_counts_its_context(stack: Stack, agent: Agent) -> None:
    told = run(agent, stack, "/context")
    assert re.search(r"System tools \| \d\d(\.\d)?k", answer_of(told)), answer_of(told)
    lines = [
        line for line in stack.logs().splitlines() if "route=/v1/messages/count_tokens" in line
    ]
    assert lines
    assert all("status=200" in line for line in lines)
    assert stack.sim.recorded("completions") == []


@pytest.mark.shows("pictures in tool results")
@pytest.mark.xfail(reason="pictures in tool results", strict=True)
def test_a_picture_is_read(stack: Stack, agent: Agent) -> None:
    """A clear 400 until pictures are uploaded."""
    (agent.work / "dot.png").write_bytes(base64.b64decode(DOT))
    script(stack, TASK, tool_call("Read", file_path=str(agent.work / "dot.png")), "A dot.")
    assert answer_of(run(agent, stack, TASK)) == "A dot."
