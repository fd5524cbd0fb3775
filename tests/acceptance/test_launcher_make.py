"""`make` before the launcher: signals reach it, whoever is killed."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.components import requires_component
from tests.fakes.processes import (
    ROOT,
    Watched,
    clean_environment,
    free_port,
    wait_until_gone,
)

pytestmark = requires_component("make")

STOP_SECONDS = 15.0


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """What `make setup` leaves behind, around the interpreter that runs this test."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "venv" / ".runtime").touch()
    return tmp_path / "venv"


@pytest.fixture
def make(venv: Path, tmp_path: Path) -> Iterator[Watched]:
    """`make demo`, ready."""
    environ = clean_environment(SERVICE_PORT=str(free_port()), WORKERS="1", DRAIN_DELAY_SECONDS="0")
    command = ["make", "-f", str(ROOT / "Makefile"), "demo", f"VENV={venv}"]
    (tmp_path / "requirements.txt").touch()
    (venv / ".runtime").touch()
    with Watched.start(command, environ, directory=tmp_path) as started:
        started.wait_for_line("Try it")
        yield started


def test_sigterm_to_make_stops_everything(make: Watched) -> None:
    family = make.family()
    assert len(family) >= 7
    make.send(signal.SIGTERM)
    make.wait(STOP_SECONDS)
    wait_until_gone(family, 1)
    assert "stopped" in make.stderr
    assert "child killed" not in make.stderr


def test_ctrl_c_stops_everything(make: Watched) -> None:
    """A terminal sends SIGINT to make and to the launcher at once."""
    family = make.family()
    os.killpg(os.getpgid(make.pid), signal.SIGINT)
    make.wait(STOP_SECONDS)
    wait_until_gone(family, STOP_SECONDS)
    assert "stopped" in make.stderr
    assert "child killed" not in make.stderr


def test_sigterm_to_the_group_stops_everything_in_order_although_it_comes_twice(
    make: Watched,
) -> None:
    """`timeout` and some shells signal the group: make passes it on and the launcher got it too."""
    family = make.family()
    os.killpg(os.getpgid(make.pid), signal.SIGTERM)
    make.wait(STOP_SECONDS)
    wait_until_gone(family, STOP_SECONDS)
    assert "stopped" in make.stderr
    assert "child killed" not in make.stderr


def test_a_killed_make_leaves_nothing_behind(make: Watched) -> None:
    family = make.family()
    make.kill()
    wait_until_gone(family, STOP_SECONDS)
    assert "stopped" in make.stderr


def test_help_names_every_target(tmp_path: Path) -> None:
    with Watched.start(
        ["make", "-f", str(ROOT / "Makefile"), "help"], clean_environment(), directory=tmp_path
    ) as started:
        assert started.wait(10) == 0
        for target in ("demo", "run", "test", "check", "bench", "soak", "docs", "golden"):
            assert f"make {target} " in started.stdout


def test_a_machine_without_a_new_enough_python_is_told_so(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "make", "awk", "touch", "rm", "find"):
        for folder in ("/bin", "/usr/bin"):
            if Path(folder, tool).exists() and not (tools / tool).exists():
                (tools / tool).symlink_to(Path(folder, tool))
    (tmp_path / "requirements.txt").touch()
    with Watched.start(
        [str(tools / "make"), "-f", str(ROOT / "Makefile"), "setup"],
        {**clean_environment(), "PATH": str(tools)},
        directory=tmp_path,
    ) as started:
        assert started.wait(10) != 0
        assert "No Python >= 3.11 with venv found" in started.stderr
