"""Fixtures of every level. Levels add their own: see tests/integration and tests/acceptance."""

import pytest

from tests.fakes.components import check_component


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`requires_component(…)`: skip with the install command, or fail under REQUIRE_COMPONENTS=1."""
    for marker in item.iter_markers("component"):
        check_component(marker.args[0])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
