"""`python -m workers` with a real Redis: steps are done, whoever dies."""

import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest

from shared.store.connection import Connection
from shared.store.due import Due, Step
from tests.fakes.processes import Watched, clean_environment, wait_until_gone
from tests.fakes.redis_server import RedisServer, own_redis
from tests.fakes.stack import eventually

__all__ = ["own_redis"]

pytestmark = pytest.mark.anyio

WORKERS = [sys.executable, "-m", "tests.fakes.slow_job"]
JOB_PROCESS = r"slow_job job-process"
CLAIM_SECONDS = 5.0  # longer than the job may take; the product waits longer


@pytest.fixture
def environ(own_redis: RedisServer) -> dict[str, str]:
    return clean_environment(
        REDIS_URL=own_redis.url, API_KEY="sk-x", SECRET_KEY="s" * 40, WORKER_PROCESSES="1"
    )


@contextlib.contextmanager
def started(environ: dict[str, str]) -> Iterator[Watched]:
    with Watched.start(WORKERS, environ) as workers:
        eventually(lambda: "job process ready" in workers.stderr, within_seconds=20)
        yield workers


@pytest.fixture
def workers(environ: dict[str, str]) -> Iterator[Watched]:
    with started(environ) as program:
        yield program


@pytest.fixture
async def due(own_redis: RedisServer) -> AsyncIterator[Due]:
    connection = Connection(own_redis.url)
    yield Due(connection)
    await connection.close()


def slow(step_id: str, what: str) -> Step:
    return Step(step_id, "slow_job", (what,), CLAIM_SECONDS)


def notes(redis: RedisServer) -> list[str]:
    lines = redis.command("LRANGE", "gw:test:notes", "0", "-1").decode().split("\r\n")
    return [line for line in lines if line and line[0] not in "*$"]


async def test_a_step_that_is_due_is_done_within_the_tick(
    workers: Watched, due: Due, own_redis: RedisServer
) -> None:
    await due.add(slow("s1", "quick"))
    eventually(lambda: notes(own_redis), within_seconds=5, until=lambda n: len(n) == 2)
    assert notes(own_redis) == ["begun quick", "ended quick"]


async def test_periodic_work_runs_at_start(workers: Watched, own_redis: RedisServer) -> None:
    eventually(
        lambda: own_redis.command("HGET", "gw:{due}:slots", "sweep"),
        within_seconds=5,
        until=lambda reply: reply != b"$-1\r\n",
    )
    eventually(
        lambda: own_redis.command("HLEN", "gw:{due}:steps"),
        within_seconds=5,
        until=lambda reply: reply == b":0\r\n",
    )


@pytest.mark.parametrize("victim", ["job process", "parent", "both"])
async def test_a_step_whose_process_is_killed_runs_again_within_a_minute(
    environ: dict[str, str], due: Due, own_redis: RedisServer, victim: str
) -> None:
    began = time.monotonic()
    with started(environ) as workers:
        await due.add(slow("s1", "slow"))
        eventually(lambda: notes(own_redis), within_seconds=5)
        job_process = workers.member(JOB_PROCESS)
        assert job_process is not None
        if victim != "parent":
            job_process.kill()
        if victim != "job process":
            workers.kill()
            wait_until_gone([job_process], 5)
        with contextlib.ExitStack() as held:
            if victim != "job process":
                held.enter_context(started(environ))
            eventually(
                lambda: notes(own_redis),
                within_seconds=60 - (time.monotonic() - began),
                until=lambda lines: "ended slow" in lines,
            )
    assert notes(own_redis) == ["begun slow", "begun slow", "ended slow"]


async def test_a_killed_job_process_is_replaced(workers: Watched) -> None:
    killed = workers.member(JOB_PROCESS)
    assert killed is not None
    killed.kill()

    def replaced() -> psutil.Process | None:
        found = workers.member(JOB_PROCESS)
        return found if found is not None and found.pid != killed.pid else None

    assert eventually(replaced, within_seconds=10)


async def test_a_killed_parent_takes_its_job_processes_along(workers: Watched) -> None:
    family = workers.family()
    assert family
    workers.kill()
    wait_until_gone(family, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_step_under_way_finish(
    workers: Watched, due: Due, own_redis: RedisServer, number: signal.Signals
) -> None:
    await due.add(slow("s1", "slow"))
    eventually(lambda: notes(own_redis), within_seconds=5)
    family = workers.family()
    workers.send(number)
    assert workers.wait(10) == 0
    wait_until_gone(family, 1)
    assert notes(own_redis) == ["begun slow", "ended slow"]


async def test_a_job_that_fails_is_tried_again_and_then_given_up_without_its_words(
    workers: Watched, due: Due, own_redis: RedisServer
) -> None:
    await due.add(slow("s1", "broken"))
    async with _bound(20):
        while not (failed := await due.failed()):
            await _pause()
    assert [(f.step, f.reason, f.tries) for f in failed] == [("s1", "ValueError after 2 tries", 2)]
    assert notes(own_redis) == ["begun broken", "begun broken"]
    assert "hunter2" not in workers.stderr


async def test_a_job_that_says_it_will_never_work_is_not_tried_again(
    workers: Watched, due: Due, own_redis: RedisServer
) -> None:
    await due.add(slow("s1", "permanent"))
    async with _bound(10):
        while not (failed := await due.failed()):
            await _pause()
    assert failed[0].reason == "it will never work"
    assert notes(own_redis) == ["begun permanent"]


async def test_a_job_that_is_put_off_may_be_put_off_more_often_than_it_may_fail(
    workers: Watched, due: Due, own_redis: RedisServer
) -> None:
    await due.add(slow("s1", "transient"))
    eventually(lambda: notes(own_redis), within_seconds=15, until=lambda n: "ended transient" in n)
    assert await due.failed() == []


async def test_a_job_that_takes_too_long_is_cancelled_and_the_next_one_runs(
    workers: Watched, due: Due, own_redis: RedisServer
) -> None:
    await due.add(slow("s1", "endless"))
    eventually(lambda: notes(own_redis), within_seconds=5)
    await due.add(slow("s2", "quick"))
    eventually(lambda: notes(own_redis), within_seconds=10, until=lambda n: "ended quick" in n)
    assert "TimeoutError" in workers.stderr


async def test_work_goes_on_after_redis_was_away(
    workers: Watched, due: Due, own_redis: RedisServer
) -> None:
    own_redis.stop()
    eventually(lambda: "clock stands, store away" in workers.stderr, within_seconds=10)
    own_redis.start()
    async with _bound(10):
        while True:
            try:
                await due.add(slow("s1", "quick"))
                break
            except Exception:
                await _pause()
    eventually(lambda: notes(own_redis), within_seconds=30, until=lambda n: "ended quick" in n)


async def test_two_hosts_share_the_work_and_do_each_step_once(
    environ: dict[str, str], due: Due, own_redis: RedisServer
) -> None:
    with started(environ), started(environ):
        for number in range(20):
            await due.add(slow(f"s{number}", "quick"))
        eventually(lambda: len(notes(own_redis)), within_seconds=30, until=lambda n: n >= 40)
    assert sorted(notes(own_redis)) == ["begun quick"] * 20 + ["ended quick"] * 20


async def test_nothing_but_ids_lies_in_rq_and_its_keys_have_our_prefix(
    environ: dict[str, str], due: Due, own_redis: RedisServer
) -> None:
    with started(environ) as workers:
        await due.add(slow("s1", "slow"))
        eventually(lambda: notes(own_redis), within_seconds=5)
        keys = own_redis.command("KEYS", "*").decode()
        assert "gw:{rq}:" in keys
        assert "\r\nrq:" not in keys
        workers.send(signal.SIGTERM)
        workers.wait(10)


def _bound(seconds: float) -> "contextlib.AbstractAsyncContextManager[object]":
    import asyncio

    return asyncio.timeout(seconds)


async def _pause() -> None:
    import asyncio

    await asyncio.sleep(0.05)
