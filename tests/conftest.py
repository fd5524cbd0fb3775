"""Fixtures of every level. Levels add their own: see tests/integration and tests/acceptance."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
