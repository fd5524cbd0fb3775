import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shared import run_directory
from shared.run_directory import RunDirectory, RunDirectoryError

ROOT = Path(__file__).resolve().parents[3]


def test_a_run_directory_is_closed_to_others_and_goes_with_its_owner(tmp_path: Path) -> None:
    run = RunDirectory("gateway", base=tmp_path)
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.path.parent.stat().st_mode) == 0o700
    run.remove()
    assert not run.path.exists()


def test_the_directory_of_a_living_process_is_not_swept(tmp_path: Path) -> None:
    run = RunDirectory("gateway", base=tmp_path)
    RunDirectory("other", base=tmp_path).remove()
    assert run.path.exists()
    run.remove()


def test_the_directory_of_a_killed_process_is_swept_by_the_next_start(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path;"
        "from shared.run_directory import RunDirectory;"
        "run = RunDirectory('gateway', base=Path(sys.argv[1])); print(run.path, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(done.stdout.strip())
    assert left.is_dir()
    RunDirectory("next", base=tmp_path).remove()
    assert not left.exists()


def test_an_unfinished_directory_is_left_alone_until_it_is_old(tmp_path: Path) -> None:
    home = run_directory.home_directory(tmp_path)
    fresh, old = home / ".fresh-1", home / ".old-1"
    for directory in (fresh, old):
        directory.mkdir()
        (directory / "lock").touch()
    os.utime(old, (0, 0))
    run_directory.sweep(home)
    assert fresh.exists()
    assert not old.exists()


def test_other_things_beside_run_directories_stay(tmp_path: Path) -> None:
    home = run_directory.home_directory(tmp_path)
    (home / "launcher-1.json").touch()
    (home / "no-lock").mkdir()
    run_directory.sweep(home)
    assert {path.name for path in home.iterdir()} == {"launcher-1.json", "no-lock"}


def test_a_home_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """Somebody else may have put it there."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"qwen-gateway-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError):
        run_directory.home_directory(tmp_path)


def test_a_home_that_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / f"qwen-gateway-{os.getuid()}").mkdir(mode=0o755)
    home = run_directory.home_directory(tmp_path)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_forked_child_does_not_remove_its_parents_directory(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path;"
        "from shared.run_directory import RunDirectory;"
        "run = RunDirectory('gateway', base=Path(sys.argv[1]));"
        "pid = os.fork();\n"
        "if pid == 0: run.remove(); os._exit(0)\n"
        "os.waitpid(pid, 0); print(run.path.exists())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True"
