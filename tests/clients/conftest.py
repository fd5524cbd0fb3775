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

import pytest

from deploy.clients import write_seen
from tests.fakes.agents import Agent, check_installed, installed_version
from tests.fakes.outside import Outside
from tests.fakes.seen import Family, Outcome, Seen
from tests.fakes.stack import Stack

# Claude Code insists on Anthropic's names, Codex knows OpenAI's best: both mean the coder.
ALIASES = '{"claude-*":"qwen3-coder-plus","gpt-*":"qwen3-coder-plus"}'


_seen = pytest.StashKey[Seen]()


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
    report = yield
    shows = item.get_closest_marker("shows")
    if shows is not None and (report.when == "call" or report.failed):
        seen = item.config.stash.setdefault(_seen, Seen())
        if hasattr(report, "wasxfail"):
            seen.note(_family_of(item), report.wasxfail, "not_yet")
        elif not report.skipped:
            outcome: Outcome = "works" if report.passed else "fails"
            seen.note(_family_of(item), shows.args[0], outcome)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--write-seen", default=False):
        return
    seen = session.config.stash.get(_seen, Seen())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    write_seen([seen.client(one, version=_version(one), date=today) for one in seen.families])


def _version(family: Family) -> str:
    if family.python is not None:
        return importlib.metadata.version(family.python)
    assert family.npm is not None
    return installed_version(family.npm) or ""


def _family_of(item: pytest.Item) -> Family:
    mark = item.get_closest_marker("client")
    assert mark is not None, f"{item.path.name} doesn't say which client it is about"
    return Family(*mark.args, **mark.kwargs)


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
