"""One fresh simulator per test, without pauses between frames."""

from collections.abc import AsyncIterator

import pytest

from tests.simulator.server import Simulator


@pytest.fixture
async def sim(anyio_backend: str) -> AsyncIterator[Simulator]:
    async with Simulator(delay_ms=0) as simulator:
        yield simulator
        assert simulator.stats.errors == [], "the simulator itself must not fail"
