"""Codex (`codex exec`): its default tools, its patches in both forms, structured answers.

Source: version 0.169 from npm, what it sends seen 2026-11: `POST /v1/responses`, streamed, `store:
false`, with functions, a namespace of tools and a web search that must not touch the web. To models
whose names it knows it also offers `apply_patch`, a tool of type `custom`.
"""

import json
from typing import Any

import pytest

from tests.fakes.agents import Agent, Told, assert_script_used_up, script, tool_call
from tests.fakes.stack import Stack

pytestmark = pytest.mark.client("Codex", npm="@openai/codex", speaks="OpenAI Responses")

TASK = "Make greeting.txt, then shout it"
PATCH = """*** Begin Patch
*** Update File: greeting.txt
@@
-hello, "world" \\ </parameter>
+HELLO, "WORLD" \\ </parameter>
*** End Patch
"""
WRITE = "cat > greeting.txt <<'EOF'\nhello, \"world\" \\ </parameter>\nEOF\n"
SHOUTED = 'HELLO, "WORLD" \\ </parameter>\n'

CONFIGURATION = """
model = "{model}"
model_provider = "gateway"
check_for_update_on_startup = false

[analytics]
enabled = false

[features]  # it fetches its plugins from elsewhere
plugins = false

[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
"""


def run(
    agent: Agent, stack: Stack, *arguments: str, model: str = "qwen3-coder-plus", key: str = ""
) -> Told:
    """`codex exec`, as the README says to set it up; it may fail."""
    folder = agent.home / ".codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIGURATION.format(model=model, url=stack.url))
    return agent.try_to_run(
        "codex", "exec", "--json", "--skip-git-repo-check", "--sandbox", "danger-full-access",
        *arguments, environ={"GATEWAY_KEY": key or stack.key},
    )  # fmt: skip


def items_of(told: Told, kind: str) -> list[dict[str, Any]]:
    """What it did, as it tells it: `agent_message`, `command_execution`, `file_change` …"""
    done = [event["item"] for event in told.events if event["type"] == "item.completed"]
    return [item for item in done if item["type"] == kind]


def answer_of(told: Told) -> str:
    assert (told.status, told.events[-1]["type"]) == (0, "turn.completed"), told.output
    answer: str = items_of(told, "agent_message")[-1]["text"]
    return answer


@pytest.mark.shows("a loop with its default tools (exec_command, apply_patch in the shell)")
def test_a_loop_with_its_default_tools(stack: Stack, agent: Agent) -> None:
    script(
        stack,
        TASK,
        "I write it.\n" + tool_call("exec_command", cmd=WRITE),
        tool_call("exec_command", cmd=f"apply_patch <<'EOF'\n{PATCH}EOF\n"),
        tool_call("exec_command", cmd="cat greeting.txt"),
        "It is shouted.",
    )
    told = run(agent, stack, TASK)
    assert answer_of(told) == "It is shouted."
    assert (agent.work / "greeting.txt").read_text() == SHOUTED
    assert len(items_of(told, "file_change")) == 1
    assert items_of(told, "command_execution")[-1]["aggregated_output"] == SHOUTED
    assert_script_used_up(stack)


@pytest.mark.shows("apply_patch as a custom tool, free text streamed")
def test_a_patch_by_the_custom_tool(stack: Stack, agent: Agent) -> None:
    (agent.work / "greeting.txt").write_text(SHOUTED.lower())
    as_text = f"<tool_call>\n<function=apply_patch>\n<parameter=input>\n{PATCH}</parameter>\n</function>\n</tool_call>"
    script(stack, TASK, "Patching.\n" + as_text, "It is shouted.")
    told = run(agent, stack, TASK, model="gpt-5.5")
    assert answer_of(told) == "It is shouted."
    assert (agent.work / "greeting.txt").read_text() == SHOUTED
    prompt = stack.sim.prompts()[0]
    assert 'begin_patch: "*** Begin Patch" LF' in prompt, "the grammar is shown to the model"
    assert_script_used_up(stack)


@pytest.mark.shows("its one tool that takes code, for the newest names")
def test_code_that_runs_its_tools(stack: Stack, agent: Agent) -> None:
    """It offers it among the items of its input, in a namespace."""
    code = 'const r = await tools.exec_command({cmd: "echo one"}); text(r.output);'
    as_text = f"<tool_call>\n<function=functions.exec>\n<parameter=input>\n{code}\n</parameter>\n</function>\n</tool_call>"
    script(stack, TASK, as_text, "It said one.")
    told = run(agent, stack, TASK, model="gpt-6.1-sol")
    assert answer_of(told) == "It said one."
    [executed] = items_of(told, "command_execution")
    assert (executed["aggregated_output"], executed["exit_code"]) == ("one\n", 0)
    assert code in stack.sim.prompts()[-1]
    assert_script_used_up(stack)


@pytest.mark.shows("calls in parallel")
def test_calls_in_parallel(stack: Stack, agent: Agent) -> None:
    both = (
        tool_call("exec_command", cmd="echo one") + "\n" + tool_call("exec_command", cmd="echo two")
    )
    script(stack, TASK, both, "Both.")
    told = run(agent, stack, TASK)
    assert answer_of(told) == "Both."
    outputs = sorted(item["aggregated_output"] for item in items_of(told, "command_execution"))
    assert outputs == ["one\n", "two\n"]
    prompt = stack.sim.prompts()[-1]
    assert prompt.count('name="exec_command"') == 2


@pytest.mark.shows("its subagents (a namespace of tools)")
def test_a_tool_of_a_namespace_is_called(stack: Stack, agent: Agent) -> None:
    script(
        stack,
        TASK,
        tool_call("multi_agent_v1.spawn_agent", message="Find the needle."),
        "Somebody looks for it.",
    )
    told = run(agent, stack, TASK)
    assert answer_of(told) == "Somebody looks for it."
    [prompt] = [one for one in stack.sim.prompts() if '{"agent_id":' in one]
    assert '"name": "multi_agent_v1.spawn_agent"' in prompt


@pytest.mark.shows("reasoning")
def test_reasoning_is_told(stack: Stack, agent: Agent) -> None:
    script(
        stack,
        TASK,
        {"think": "I must look first.", "say": tool_call("exec_command", cmd="ls")},
        {"think": "Now I know.", "say": "Nothing is there."},
    )
    told = run(agent, stack, "-c", "web_search=disabled", TASK, model="qwen3.5-plus-thinking")
    assert answer_of(told) == "Nothing is there."
    thoughts = [item["text"].strip() for item in items_of(told, "reasoning")]
    assert thoughts == ["I must look first.", "Now I know."]


@pytest.mark.shows("--output-schema")
def test_an_answer_in_a_schema(stack: Stack, agent: Agent) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    path = agent.home / "schema.json"
    path.write_text(json.dumps(schema))
    script(stack, TASK, tool_call("exec_command", cmd="ls"), "Oslo!", '{"city": "Oslo"}')
    told = run(agent, stack, "--output-schema", str(path), TASK)
    assert json.loads(answer_of(told)) == {"city": "Oslo"}


@pytest.mark.shows("a session that is resumed")
def test_a_session_goes_on(stack: Stack, agent: Agent) -> None:
    script(stack, TASK, "Which greeting?", "Good morning, then.")
    assert answer_of(run(agent, stack, TASK)) == "Which greeting?"
    told = run(agent, stack, "resume", "--last", "The one for mornings.")
    assert answer_of(told) == "Good morning, then."
    prompt = stack.sim.prompts()[-1]
    assert prompt.index(TASK) < prompt.index("Which greeting?") < prompt.index("for mornings.")


@pytest.mark.shows("a wrong key, told as such")
def test_a_wrong_key_is_told(stack: Stack, agent: Agent) -> None:
    told = run(agent, stack, TASK, key="sk-wrong")
    assert (told.status, told.events[-1]["type"]) == (1, "turn.failed")
    assert "401" in told.events[-1]["error"]["message"]
