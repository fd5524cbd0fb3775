"""Shapes of load: so many callers in a closed loop, or so many arrivals a second in an open one.

Open loop: a turn's time counts from the moment it was due, so a target that falls behind cannot
slow the load down and look better for it.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence

import msgspec

from tests.bench.targets import Kind, Target, Turn

# An open loop that has this many turns under way is lost: the target does not keep up.
LOST_AT = 1500


class Load(msgspec.Struct):
    """What one phase of load did. `late`: seconds from due to begun, in an open loop."""

    turns: list[Turn]
    seconds: float
    lost: bool = False
    late: list[float] = []

    @property
    def good(self) -> list[Turn]:
        return [turn for turn in self.turns if not turn.error]

    @property
    def errors(self) -> list[str]:
        return [turn.error for turn in self.turns if turn.error]

    @property
    def frames(self) -> int:
        return sum(turn.frames for turn in self.turns)


async def closed_loop(
    target: Target, kind: Kind, *, callers: int, seconds: float, stagger_seconds: float = 0.0
) -> Load:
    """`callers` ask again as soon as they are answered; the last answers are waited for.

    Args:
        stagger_seconds: the callers begin one after another over this long.
    """
    begun = time.monotonic()
    end = begun + seconds
    turns: list[Turn] = []

    async def call(number: int) -> None:
        if stagger_seconds:
            await asyncio.sleep(stagger_seconds * number / callers)
        while time.monotonic() < end:
            turns.append(await target.turn(kind))

    await asyncio.gather(*(call(number) for number in range(callers)))
    return Load(turns=turns, seconds=time.monotonic() - begun)


async def fixed_count(target: Target, kind: Kind, *, callers: int, count: int) -> Load:
    """`count` turns in all, by `callers` at once."""
    begun = time.monotonic()
    turns: list[Turn] = []
    left = count

    async def call() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            turns.append(await target.turn(kind))

    await asyncio.gather(*(call() for _ in range(callers)))
    return Load(turns=turns, seconds=time.monotonic() - begun)


async def open_loop(
    target: Target, kind: Kind, *, per_second: float, seconds: float, seed: int = 1
) -> Load:
    """Arrivals with exponential pauses at `per_second`; a turn begins when it is due."""
    pauses = random.Random(seed)
    begun = due = time.monotonic()
    end = begun + seconds
    under_way: set[asyncio.Task[None]] = set()
    turns: list[Turn] = []
    late: list[float] = []
    lost = False

    async def arrive(due_at: float) -> None:
        late.append(time.monotonic() - due_at)
        turn = await target.turn(kind)
        turn.started_at = due_at
        turns.append(turn)

    while True:
        due += pauses.expovariate(per_second)
        if due >= end:
            break
        if (pause := due - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        if len(under_way) >= LOST_AT:
            lost = True
            break
        task = asyncio.create_task(arrive(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    if under_way:
        await asyncio.wait(under_way)
    return Load(turns=turns, seconds=time.monotonic() - begun, lost=lost, late=late)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
