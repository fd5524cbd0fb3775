"""The shapes of load keep what they promise, whatever the target does."""

import asyncio
import math
import time

import pytest

from tests.bench.client import Client
from tests.bench.load import closed_loop, fixed_count, open_loop, percentile
from tests.bench.targets import Kind, Turn


class OneAtATime:
    """Serves turns one after another, each for so long: it saturates at 1 / seconds."""

    name = "one at a time"
    client = Client("http://127.0.0.1:1")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self.most = 0
        self._now = 0

    async def turn(self, kind: Kind) -> Turn:
        started_at = time.monotonic()
        self._now += 1
        self.most = max(self.most, self._now)
        async with self._lock:
            await asyncio.sleep(self._seconds)
        self._now -= 1
        return Turn(started_at, time.monotonic(), None, 0, 0.0, [], "")

    async def text(self, kind: Kind) -> str:
        return ""


@pytest.mark.anyio
async def test_an_open_loop_does_not_slow_down_with_its_target() -> None:
    """Forty turns a second at a target that does twenty: the last wait for half the run."""
    load = await open_loop(OneAtATime(0.05), "plain", per_second=40, seconds=1.0)
    assert len(load.turns) > 25
    assert percentile([turn.seconds for turn in load.turns], 99) > 0.3
    assert not load.lost


class BlocksOnce(OneAtATime):
    """Its first turn keeps the whole loop, so that what is due meanwhile can't begin."""

    async def turn(self, kind: Kind) -> Turn:
        if self.most == 0:
            time.sleep(0.2)
        return await super().turn(kind)


@pytest.mark.anyio
async def test_a_turn_of_an_open_loop_counts_from_when_it_was_due() -> None:
    load = await open_loop(BlocksOnce(0), "plain", per_second=100, seconds=0.5)
    held_up = [turn for turn in load.turns if turn.seconds > 0.05]
    assert len(held_up) > 5
    assert max(load.late) > 0.1


@pytest.mark.anyio
async def test_a_closed_loop_has_so_many_callers_and_waits_for_the_last_answers() -> None:
    target = OneAtATime(0.005)
    load = await closed_loop(target, "plain", callers=7, seconds=0.1)
    assert target.most == 7
    assert load.seconds >= 0.1
    assert len(load.good) == len(load.turns) >= 7


@pytest.mark.anyio
async def test_a_fixed_count_is_exact() -> None:
    load = await fixed_count(OneAtATime(0), "plain", callers=4, count=10)
    assert len(load.turns) == 10


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert math.isnan(percentile([], 50))
