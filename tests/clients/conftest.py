"""Real agents and SDKs against a running product; what they showed goes into `seen.json`.

    pytestmark = pytest.mark.client("Claude Code", npm="@anthropic-ai/claude-code", speaks="…")

    @pytest.mark.shows("a loop of two tools")       the words of the table in the README
    def test_…

`make clients` installs what comes from npm, runs all of it, and writes the file. An expected failure
(`xfail`) is told there by its reason.
"""

import datetime
import importlib.metadata
from collections.abc import Generator, Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.clients import Client, write_seen
from tests.fakes.agents import Agent, check_installed, installed_version
from tests.fakes.outside import Outside
from tests.fakes.stack import Stack

# Claude Code insists on Anthropic's names, Codex knows OpenAI's best: both mean the coder.
ALIASES = '{"claude-*":"qwen3-coder-plus","gpt-*":"qwen3-coder-plus"}'


class _Family(msgspec.Struct, frozen=True):
    """The client that a test file is about, as its `client` mark says."""

    name: str
    speaks: str
    npm: str | None = None
    python: str | None = None

    @property
    def version(self) -> str:
        if self.python is not None:
            return importlib.metadata.version(self.python)
        assert self.npm is not None
        return installed_version(self.npm) or ""


_seen = pytest.StashKey[dict[_Family, dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-seen", action="store_true", help="write tests/clients/seen.json")


def pytest_itemcollected(item: pytest.Item) -> None:
    if _family_of(item).npm is not None:
        item.add_marker("npm")


def pytest_runtest_setup(item: pytest.Item) -> None:
    family = _family_of(item)
    if family.npm is not None:
        check_installed(family.npm)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remembers what a test showed. One that didn't hold once doesn't hold."""
    report = yield
    shows = item.get_closest_marker("shows")
    if shows is None or not (report.when == "call" or report.failed):
        return report
    held = item.config.stash.setdefault(_seen, {}).setdefault(_family_of(item), {})
    outcome = "not_yet" if hasattr(report, "wasxfail") else "fails"
    what = report.wasxfail if outcome == "not_yet" else shows.args[0]
    if report.passed and outcome == "fails":
        held.setdefault(what, "works")
    elif not report.skipped or outcome == "not_yet":
        held[what] = outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--write-seen", default=False):
        return
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_seen(
        [
            Client(
                client=family.name,
                version=family.version,
                speaks=family.speaks,
                date=today,
                works=[what for what, outcome in held.items() if outcome == "works"],
                fails=[what for what, outcome in held.items() if outcome == "fails"],
                not_yet=[what for what, outcome in held.items() if outcome == "not_yet"],
            )
            for family, held in session.config.stash.get(_seen, {}).items()
        ]
    )


def _family_of(item: pytest.Item) -> _Family:
    mark = item.get_closest_marker("client")
    assert mark is not None, f"{item.path.name} doesn't say which client it is about"
    return _Family(*mark.args, **mark.kwargs)


@pytest.fixture(scope="session")
def clients_stack() -> Iterator[Stack]:
    with Stack(environment={"MODEL_ALIASES": ALIASES}) as stack:
        yield stack


@pytest.fixture
def stack(clients_stack: Stack) -> Stack:
    """The product with its default settings, and an alias for OpenAI's names."""
    clients_stack.clear()
    return clients_stack


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """Surroundings for one run of an agent."""
    with Outside() as outside:
        yield Agent(tmp_path, outside)
