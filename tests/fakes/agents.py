"""Agents that others wrote, run as their users run them: from npm, each with a home of its own.

    agent = Agent(tmp_path, outside)
    told = agent.run("claude", "-p", "Make it so", environ={"ANTHROPIC_BASE_URL": stack.url})
    assert (agent.work / "it.txt").read_text() == "so"

They see neither this machine's user nor its environment, and reach loopback only.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fakes.outside import Outside
from tests.fakes.stack import Stack

# Where `make clients` installs them.
INSTALLED = Path(sys.prefix) / "clients"
HOW_TO_INSTALL = "`make clients` installs it (needs npm and Node >= 20)"
LONGEST_RUN_SECONDS = 90


class Told(msgspec.Struct, frozen=True):
    """What a run left behind. `events` = its standard output as JSON lines."""

    status: int
    output: str
    errors: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]


class Agent:
    """One run's surroundings: `home` holds its configuration, `work` is where it works."""

    def __init__(self, folder: Path, outside: Outside) -> None:
        self.home = folder / "home"
        self.work = folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        self._outside = outside

    def run(
        self, program: str, *arguments: str, environ: Mapping[str, str], stdin: str = ""
    ) -> Told:
        """Run a program from npm, or Node itself, to its end.

        Raises:
            AssertionError: it failed, with what it said; or it wanted out.
        """
        told = self.try_to_run(program, *arguments, environ=environ, stdin=stdin)
        assert told.status == 0, f"{told.output[-6000:]}\n{told.errors[-3000:]}"
        return told

    def try_to_run(
        self, program: str, *arguments: str, environ: Mapping[str, str], stdin: str = ""
    ) -> Told:
        """The same for a run that may fail.

        Raises:
            AssertionError: it wanted out.
        """
        found = installed_program(program)
        assert found is not None, f"{program} is missing"
        given = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C.UTF-8",
            **self._outside.environ,
            **environ,
        }
        done = subprocess.run(
            [found, *arguments],
            cwd=self.work,
            env=given,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LONGEST_RUN_SECONDS,
            check=False,
        )
        assert self._outside.asked == [], self._outside.asked
        return Told(done.returncode, done.stdout, done.stderr)


def installed_program(name: str) -> str | None:
    """The path of an agent's program; Node's own comes from PATH."""
    if name == "node":
        return shutil.which(name)
    path = INSTALLED / "node_modules" / ".bin" / name
    return str(path) if path.exists() else None


def installed_version(package: str) -> str | None:
    """The version of a package from npm, as `make clients` installed it."""
    described = INSTALLED / "node_modules" / package / "package.json"
    if not described.exists():
        return None
    version: str = json.loads(described.read_text())["version"]
    return version


def check_installed(package: str) -> None:
    """Skip or fail the running test when the package is missing."""
    if installed_version(package) is not None:
        return
    reason = f"{package} is missing: {HOW_TO_INSTALL}"
    if os.environ.get("REQUIRE_COMPONENTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def tool_call(name: str, **arguments: Any) -> str:
    """A call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def script(stack: Stack, match: str, *answers: str | dict[str, Any]) -> None:
    """Answer the turns whose prompt holds `match`, in order; other requests don't use them up."""
    actions = [{"say": one} if isinstance(one, str) else one for one in answers]
    stack.sim.next(*({"operation": "completions", "match": match} | one for one in actions))


def assert_script_used_up(stack: Stack) -> None:
    """Every scripted turn was asked for, so the agent went all the way."""
    assert stack.sim.stats()["queued"] == 0
