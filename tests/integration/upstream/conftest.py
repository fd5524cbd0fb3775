"""A fresh simulator and client per test; a certificate authority per run."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.settings import Settings
from shared.upstream.client import Session, Upstream
from tests.fakes.certificates import TLS, make_tls
from tests.simulator.server import Simulator, demo_account

MODEL = "qwen3.6-plus"
BOUND_SECONDS = 1.0
"""Contract.md 7.3: how soon the far side must see that a caller has left."""


async def until(true: Callable[[], bool]) -> None:
    """Poll to the promise's own bound."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < BOUND_SECONDS, "not within its bound"
        await asyncio.sleep(0.005)


class Observed:
    """What the client told its observer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, float]] = []

    def __call__(self, operation: str, outcome: str, seconds: float) -> None:
        self.calls.append((operation, outcome, seconds))

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(operation, outcome) for operation, outcome, _ in self.calls]


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
async def sim(anyio_backend: str) -> AsyncIterator[Simulator]:
    async with Simulator(delay_ms=0) as simulator:
        yield simulator
        assert simulator.stats.errors == [], "the simulator itself must not fail"


@pytest.fixture
async def upstream(sim: Simulator, observed: Observed) -> AsyncIterator[Upstream]:
    client = Upstream(Settings(qwen_chat_proxy_url=sim.url), observe=observed)
    yield client
    await client.close()


@pytest.fixture
async def session(upstream: Upstream) -> Session:
    email, password = demo_account(1)
    token = await upstream.sign_in(email, password)
    return Session(email, token.token)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TLS:
    directory: Path = tmp_path_factory.mktemp("tls")
    return make_tls(directory)
