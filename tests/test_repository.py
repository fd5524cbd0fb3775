"""The repository's own rules: what the linter can't say."""

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import docs
from shared import jobs
from shared.store import keys, scripts

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gateway", "workers", "shared", "deploy")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Every dotted name that is called in a file, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_generated_files_are_fresh() -> None:
    stale = [
        path.name
        for path, text in docs.generated().items()
        if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run `make docs`"


def test_there_is_no_package_under_tests() -> None:
    """One `tests/**/__init__.py` and pytest takes `tests/unit/shared` for `shared`."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_folder_with_code_is_a_package() -> None:
    """A namespace package `shared` would lose to any other one on the path."""
    folders = {path.parent for path in python_files(*PACKAGES)}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").exists()] == []


def test_the_store_asks_redis_for_the_time() -> None:
    clocks = re.compile(r"^(time\.(time|time_ns)|datetime\.(now|utcnow))$|datetime\.datetime\.now")
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in python_files("shared/store")
        for name, line in calls(path)
        if clocks.search(name)
    ]
    assert found == []


def test_jobs_never_sleep() -> None:
    """A job does one step and hands on; only the clock of the parent waits."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files("workers")
        for name, line in calls(path)
        if name == "asyncio.sleep" and path.name != "supervisor.py"
    ]
    assert found == []


def test_nothing_is_printed_outside_the_entries() -> None:
    entries = {
        "gateway/__main__.py", "workers/__main__.py", "shared/settings.py", "deploy/local.py",
        "deploy/docs.py",
    }  # fmt: skip
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in python_files(*PACKAGES)
        for name, line in calls(path)
        if name == "print" and str(path.relative_to(ROOT)) not in entries
    ]
    assert found == []


def test_the_environment_is_read_in_the_entries_alone() -> None:
    """And where it is handed on to a child process."""
    allowed = {
        "gateway/__main__.py",
        "gateway/app.py",
        "gateway/server.py",
        "workers/__main__.py",
        "workers/supervisor.py",
        "shared/settings.py",
        "deploy/local.py",
    }
    found = {
        str(path.relative_to(ROOT))
        for path in python_files(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")
    }
    assert found <= allowed


@pytest.mark.parametrize("name", sorted(jobs.JOBS))
def test_every_job_leads_to_a_function(name: str) -> None:
    module, _, function = jobs.JOBS[name].path.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", scripts.names())
def test_every_script_says_what_it_does_and_what_it_takes(name: str) -> None:
    assert scripts.load(name).text


def test_every_script_is_run_by_someone() -> None:
    source = "\n".join(path.read_text() for path in python_files("shared/store"))
    unused = [name for name in scripts.names() if f'"{name}"' not in source]
    assert unused == []


def test_every_key_says_who_owns_it_and_how_long_it_lives() -> None:
    owners = {path.stem for path in (ROOT / "shared" / "store").glob("*.py")} | {"store"}
    for key in keys.ALL:
        assert key.owner in owners, key.template
        assert key.ttl, key.template
        assert key.holds, key.template
    assert len({key.template for key in keys.ALL}) == len(keys.ALL)


def test_no_lock_file_names_this_machine() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (ROOT / name).read_text()
        assert not re.search(r"file:|index-url|find-links|--trusted-host|/opt/|/home/|/work/", text)
        pinned = re.findall(r"^([a-z0-9][\w.-]*)==\S+", text, re.MULTILINE | re.IGNORECASE)
        assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE | re.IGNORECASE))
        assert text.count("--hash=sha256:") >= len(pinned)


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[\w.-]+==[^ ;\\]+", (ROOT / name).read_text(), re.MULTILINE))

    assert pins("requirements.txt") <= pins("requirements-dev.txt")


def test_every_direct_dependency_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements-dev.txt").read_text().splitlines()
        if "==" in line and line[0].isalnum()
    }
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    names = {re.split(r"[<>=;!\[ ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= locked


def test_recipes_of_run_and_demo_are_one_simple_command_each() -> None:
    """make passes SIGTERM on to a simple command only: no shell, no pipe, no second line."""
    makefile = (ROOT / "Makefile").read_text()
    for target in ("run", "demo"):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        assert recipe is not None
        [line] = recipe[1].splitlines()
        assert not re.search(r"[;&|<>`*?~]|\$\$|\|\|", line)


def test_no_file_is_tracked_that_only_a_machine_needs() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    unwanted = re.compile(r"(^|/)(\.env|__pycache__|\.venv|data|logs)(/|$)|\.pyc$|\.rdb$|\.aof$")
    assert [name for name in tracked if unwanted.search(name)] == []


def test_every_test_file_can_be_told_from_its_name() -> None:
    helpers = {"conftest.py"}
    for path in (ROOT / "tests").rglob("*.py"):
        level = path.relative_to(ROOT / "tests").parts[0]
        if level in ("unit", "integration", "acceptance") and path.name not in helpers:
            text = path.read_text()
            assert path.name.startswith("test_") or "def test_" not in text, path
