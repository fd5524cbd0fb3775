"""Lasting jobs on a real Redis: claims, ends, interruptions."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from shared.settings import Settings
from shared.store.due import Step
from shared.store.store import Store
from tests.fakes import lasting_job
from tests.fakes.redis_server import own_redis, redis_server, redis_url
from workers import runtime
from workers.beside import Beside
from workers.runtime import Perform, Resources

__all__ = ["own_redis", "redis_server", "redis_url"]

pytestmark = pytest.mark.anyio

CLAIM_SECONDS = 2.5 * runtime.EXTEND_SECONDS


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, secret_key="0123456789abcdef0123456789abcdef")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with Store(settings) as store:
        yield store
        await store.connection.ask("test", "DEL", "gw:test:notes")


@pytest.fixture
def beside(settings: Settings) -> Iterator[Beside[Resources]]:
    """One process's loop of lasting jobs."""
    beside = Beside(lambda: Resources(settings), most=100)
    yield beside
    beside.stop(within_seconds=0)


def step(what: str, step_id: str = "s") -> Step:
    return Step(step_id, "lasting_job", (what,), CLAIM_SECONDS)


def begin(beside: Beside[Resources], what: str, step_id: str = "s") -> None:
    """As RQ's call does, but in the loop of this test."""
    body = lasting_job.run.__wrapped__  # type: ignore[attr-defined]  # set by functools.wraps
    given_up = lasting_job.given_up
    perform = Perform(body, step_id, lambda r: body(r, what), given_up=lambda r: given_up(r, what))
    beside.begin(perform.perform, otherwise=perform.put_off)


async def noted(store: Store, *lines: str, within_seconds: float = 5.0) -> None:
    """These lines, and no others, are there within the bound."""
    found: list[str] = []
    try:
        async with asyncio.timeout(within_seconds):
            while found != list(lines):
                await asyncio.sleep(0.01)
                found = await store.connection.ask("test", "LRANGE", "gw:test:notes", 0, -1)
    except TimeoutError:
        raise AssertionError(f"noted: {found}") from None


async def take(store: Store, *, within_seconds: float = 5.0) -> Step:
    async with asyncio.timeout(within_seconds):
        while not (taken := await store.due.take(1)):
            await asyncio.sleep(0.01)
    return taken[0]


async def test_what_lasts_longer_than_its_claim_runs_once(
    store: Store, beside: Beside[Resources]
) -> None:
    seconds = f"{CLAIM_SECONDS * 1.6:.2f}"
    await store.due.add(step(seconds))
    await take(store)
    begin(beside, seconds)
    for _ in range(20):
        await asyncio.sleep(CLAIM_SECONDS * 1.4 / 20)
        assert await store.due.take(1) == []
    await noted(store, f"begun {seconds}", f"ended {seconds}")
    async with asyncio.timeout(2):
        while await store.due.counts():
            await asyncio.sleep(0.01)


async def test_many_run_beside_each_other(store: Store, beside: Beside[Resources]) -> None:
    for number in range(20):
        await store.due.add(step("0.5", f"s{number}"))
        await take(store)
        begin(beside, "0.5", f"s{number}")
    await noted(store, *["begun 0.5"] * 20, *["ended 0.5"] * 20, within_seconds=3)


async def test_one_that_somebody_ended_stops_within_two_seconds(
    store: Store, beside: Beside[Resources]
) -> None:
    await store.due.add(step("endless"))
    await take(store)
    begin(beside, "endless")
    await noted(store, "begun endless")
    await store.due.done("s")
    await noted(store, "begun endless", "cancelled endless", within_seconds=2)
    assert await store.due.take(1) == []


async def test_one_whose_process_stops_is_due_again_at_once_and_that_was_no_try(
    store: Store, settings: Settings
) -> None:
    await store.due.add(step("endless"))
    for _ in range(4):  # more often than it may be interrupted
        assert (await take(store, within_seconds=0.5)).tries == 1
        beside = Beside(lambda: Resources(settings), most=100)
        begin(beside, "endless")
        await asyncio.sleep(0.1)
        await asyncio.to_thread(beside.stop, within_seconds=0)
    await noted(store, *["begun endless", "cancelled endless"] * 4)


async def test_a_stop_lets_what_ends_soon_end(store: Store, settings: Settings) -> None:
    await store.due.add(step("0.3"))
    await take(store)
    beside = Beside(lambda: Resources(settings), most=100)
    begin(beside, "0.3")
    await noted(store, "begun 0.3")
    await asyncio.to_thread(beside.stop, within_seconds=5)
    await noted(store, "begun 0.3", "ended 0.3", within_seconds=0.1)


async def test_one_whose_process_dies_again_and_again_is_given_up_and_its_record_told(
    store: Store, beside: Beside[Resources]
) -> None:
    await store.due.add(Step("s", "lasting_job", ("endless",), claim_seconds=0.02))
    for tries in range(1, 4):
        assert (await take(store)).tries == tries
        assert await store.due.begin("s")  # and then nothing was heard of it
    await asyncio.sleep(0.03)
    begin(beside, "endless")
    await noted(store, "given up endless")
    async with asyncio.timeout(2):
        while not (failed := await store.due.failed()):
            await asyncio.sleep(0.01)
    assert [one.reason for one in failed] == ["interrupted 2 times"]


async def test_one_that_fails_is_tried_again_and_then_given_up(
    store: Store, beside: Beside[Resources]
) -> None:
    await store.due.add(step("broken"))
    for _ in range(2):
        await take(store)
        begin(beside, "broken")
        await asyncio.sleep(0.1)
    await noted(store, "begun broken", "begun broken", "given up broken")
    assert await store.due.take(1) == []


async def test_a_process_takes_no_more_than_it_can_carry_and_puts_the_rest_off(
    store: Store, settings: Settings
) -> None:
    """Through the function that RQ calls."""
    runtime.configure(settings)
    count = runtime.MOST_BESIDE + 3
    try:
        for number in range(count):
            await store.due.add(step("1.5", f"s{number}"))
            await take(store)
            await asyncio.to_thread(lasting_job.run, f"s{number}", "1.5")
        await noted(store, *["begun 1.5"] * runtime.MOST_BESIDE, within_seconds=1.4)
        assert len(await store.due.take(count)) == 0
        await noted(
            store, *["begun 1.5"] * runtime.MOST_BESIDE, *["ended 1.5"] * runtime.MOST_BESIDE
        )
        async with asyncio.timeout(runtime.PUT_OFF_SECONDS + 1):
            taken: list[Step] = []
            while len(taken) < 3:
                taken += await store.due.take(count)
                await asyncio.sleep(0.01)
        assert [one.tries for one in taken] == [1, 1, 1]
    finally:
        await asyncio.to_thread(runtime.finish)
