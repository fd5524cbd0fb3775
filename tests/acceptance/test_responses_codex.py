"""Codex (`codex exec`) with its default tools, against the simulator's scripted turns."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.components import find_component, requires_component
from tests.fakes.stack import Stack

pytestmark = requires_component("codex")

CONFIG = """
model = "{model}"
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
"""


@pytest.fixture(scope="module")
def aliased_stack() -> Iterator[Stack]:
    """A model whose name Codex knows gets the tools made for it: `apply_patch` as free text."""
    aliases = '{"gpt-*": "qwen3-coder-plus"}'
    with Stack(environment={"MODEL_ALIASES": aliases}) as stack:
        yield stack


@pytest.fixture
def stack(aliased_stack: Stack) -> Stack:
    aliased_stack.clear()
    return aliased_stack


def run_codex(stack: Stack, folder: Path, *, model: str) -> list[Any]:  # Any: JSON
    """What `codex exec --json` tells of its run, in a folder of its own."""
    home, work = folder / "home", folder / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(CONFIG.format(model=model, url=stack.url))
    program = find_component("codex")
    assert program is not None
    done = subprocess.run(
        [
            program,
            "exec",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            "--json",
            "Make a file.",
        ],
        cwd=work,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CODEX_HOME": str(home),
            "GATEWAY_KEY": stack.key,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()[-2000:] + done.stderr.decode()[-2000:]
    return [msgspec.json.decode(line) for line in done.stdout.splitlines() if line]


def items(told: list[Any], kind: str) -> list[Any]:
    completed = [one["item"] for one in told if one["type"] == "item.completed"]
    return [item for item in completed if item["type"] == kind]


def test_codex_runs_a_command_and_reads_what_it_said(stack: Stack, tmp_path: Path) -> None:
    command = "printf 'hello' > made.txt && cat made.txt"
    stack.sim.next(
        {"operation": "completions", "say": "I make it. ", "call": "exec_command",
         "args": {"cmd": command}},
        {"operation": "completions", "say": "It says hello."},
    )  # fmt: skip
    told = run_codex(stack, tmp_path, model="qwen3-coder-plus")
    [executed] = items(told, "command_execution")
    assert (executed["aggregated_output"], executed["exit_code"]) == ("hello", 0)
    assert [one["text"] for one in items(told, "agent_message")] == ["I make it.", "It says hello."]
    assert (tmp_path / "work" / "made.txt").read_text() == "hello"
    assert told[-1]["type"] == "turn.completed"
    assert told[-1]["usage"]["input_tokens"] > 0


def test_codex_gets_a_patch_as_free_text(stack: Stack, tmp_path: Path) -> None:
    line = 'hello "codex" \\o/ </x> {"a": 1}'
    patch = f"*** Begin Patch\n*** Add File: made.txt\n+{line}\n*** End Patch"
    said = (
        "<tool_call>\n<function=apply_patch>\n<parameter=input>\n"
        f"{patch}\n</parameter>\n</function>\n</tool_call>"
    )
    stack.sim.next(
        {"operation": "completions", "say": said, "frames": 30},
        {"operation": "completions", "say": "Patched."},
    )
    told = run_codex(stack, tmp_path, model="gpt-5.5")
    [changed] = items(told, "file_change")
    assert changed["status"] == "completed"
    assert (tmp_path / "work" / "made.txt").read_text() == line + "\n"
    first, second = stack.sim.prompts()
    assert 'begin_patch: "*** Begin Patch" LF' in first, "the grammar is shown to the model"
    assert patch in second, "and the call stands in the history as it was written"


def test_codex_runs_code_that_runs_its_tools(stack: Stack, tmp_path: Path) -> None:
    """For the newest names it knows it offers one tool that takes code, in its input."""
    code = 'const r = await tools.exec_command({cmd: "echo one"}); text(r.output);'
    said = (
        "<tool_call>\n<function=functions.exec>\n<parameter=input>\n"
        f"{code}\n</parameter>\n</function>\n</tool_call>"
    )
    stack.sim.next(
        {"operation": "completions", "say": said, "frames": 20},
        {"operation": "completions", "say": "It said one."},
    )
    told = run_codex(stack, tmp_path, model="gpt-6.1-sol")
    [executed] = items(told, "command_execution")
    assert (executed["aggregated_output"], executed["exit_code"]) == ("one\n", 0)
    assert [one["text"] for one in items(told, "agent_message")] == ["It said one."]
    assert code in stack.sim.prompts()[1]


def test_codex_calls_a_tool_of_a_namespace(stack: Stack, tmp_path: Path) -> None:
    """It answers by the name and namespace that it declared; an unknown agent is its own error."""
    stack.sim.next(
        {"operation": "completions", "call": "multi_agent_v1.close_agent",
         "args": {"target": "nobody"}},
        {"operation": "completions", "say": "Never mind."},
    )  # fmt: skip
    told = run_codex(stack, tmp_path, model="qwen3-coder-plus")
    assert [one["text"] for one in items(told, "agent_message")] == ["Never mind."]
    prompt = stack.sim.prompts()[1]
    assert 'name="multi_agent_v1.close_agent"' in prompt
    assert "unsupported call" not in prompt
