"""The long run: steady load without kills; whether memory and open files stay where they were."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import psutil  # type: ignore[import-untyped]  # its stubs are not worth a dependency

from tests.bench.report import Spread, spread
from tests.soak.callers import Callers
from tests.soak.product import ACCOUNT_CONCURRENCY, KEY, Product, Role

CALLERS = 10
WATCHED: tuple[Role, ...] = ("gateway_process", "gateway_parent", "job_process", "redis")
# The first part of a run fills caches, pools and allocator arenas; growth counts from then on.
WARM_UP_SHARE = 0.25
# More than this between the second quarter and the last is a leak, not noise.
GROWTH_MB = 20.0
# So many that every gateway process has some.
LEAVERS = 60
GROWTH_FILES = 20.0


class Sample(msgspec.Struct):
    """One process at one moment (`seconds` since the begin)."""

    role: Role
    pid: int
    seconds: float
    rss_mb: float
    open_files: int


class Growth(msgspec.Struct):
    """Of one process: its level in the second quarter, in the last, and the difference."""

    role: Role
    pid: int
    rss_mb_early: Spread
    rss_mb_late: Spread
    rss_mb_growth: float
    open_files_growth: float


class Endurance(msgspec.Struct):
    seconds: float
    turns: dict[str, int]
    growth: list[Growth]
    violations: list[str]


async def run_long(
    product: Product, *, seconds: float, tell: Callable[[float, Callers], None]
) -> Endurance:
    """Steady load for so long, sampled all the while."""
    await _load_vocabularies(product)
    callers = Callers(product.url, key=KEY, count=CALLERS, seed=2, leavers=0.05)
    pids_before = _pids(product)
    samples: list[Sample] = []
    begun = time.monotonic()
    pause = max(0.2, min(10.0, seconds / 60))
    callers.begin()
    try:
        while (elapsed := time.monotonic() - begun) < seconds:
            samples += _look(product, elapsed)
            tell(elapsed, callers)
            await asyncio.sleep(pause)
    finally:
        await callers.end()
        await callers.close()
    growth = _growth(samples, seconds)
    return Endurance(
        seconds=time.monotonic() - begun,
        turns=dict(callers.tally()),
        growth=growth,
        violations=[
            *_bad_turns(callers),
            *_too_much(growth),
            *_limits(product),
            *([] if _pids(product) == pids_before else ["a process was replaced during the run"]),
        ],
    )


async def _load_vocabularies(product: Product) -> None:
    """What callers used who leave is counted: the first one makes a process load 60 MB, for good."""
    leavers = Callers(product.url, key=KEY, count=CALLERS, seed=3, leavers=1.0)
    leavers.begin()
    while len(leavers.outcomes) < LEAVERS:
        await asyncio.sleep(0.05)
    await leavers.end()
    await leavers.close()


def _pids(product: Product) -> set[int]:
    members = product.members()
    return {process.pid for role in WATCHED for process in members[role]}


def _look(product: Product, seconds: float) -> list[Sample]:
    samples = []
    members = product.members()
    for role in WATCHED:
        for process in members[role]:
            try:
                rss, files = process.memory_info().rss / 1024**2, process.num_fds()
            except psutil.NoSuchProcess:
                continue
            samples.append(Sample(role, process.pid, seconds, rss, files))
    return samples


def _growth(samples: list[Sample], seconds: float) -> list[Growth]:
    found = []
    for pid in dict.fromkeys(sample.pid for sample in samples):
        mine = [sample for sample in samples if sample.pid == pid]
        early = [one for one in mine if WARM_UP_SHARE <= one.seconds / seconds < 0.5]
        late = [one for one in mine if one.seconds / seconds >= 0.75]
        if not early or not late:
            continue
        before, after = (spread([one.rss_mb for one in some]) for some in (early, late))
        files_before, files_after = (
            spread([float(one.open_files) for one in some]) for some in (early, late)
        )
        found.append(
            Growth(
                role=mine[0].role,
                pid=pid,
                rss_mb_early=before,
                rss_mb_late=after,
                rss_mb_growth=after.median - before.median,
                open_files_growth=files_after.median - files_before.median,
            )
        )
    return found


def _too_much(growth: list[Growth]) -> list[str]:
    memory = [
        f"{one.role} {one.pid} grew by {one.rss_mb_growth:.1f} MB"
        for one in growth
        if one.rss_mb_growth > GROWTH_MB and one.role != "redis"
    ]
    files = [
        f"{one.role} {one.pid} holds {one.open_files_growth:.0f} more files"
        for one in growth
        if one.open_files_growth > GROWTH_FILES
    ]
    return memory + files


def _bad_turns(callers: Callers) -> list[str]:
    """Without kills every turn is whole, or its caller left."""
    return [
        f"{outcome.verdict}: {outcome.detail}"
        for outcome in callers.outcomes
        if outcome.verdict not in ("whole", "left")
    ][:20]


def _limits(product: Product) -> list[str]:
    most = product.simulator.stats()["streams"]["max_open_by_account"]
    return [
        f"{email} carried {count} streams at once"
        for email, count in most.items()
        if count > ACCOUNT_CONCURRENCY
    ]
