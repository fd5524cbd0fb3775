"""Promise 2: ACCOUNT_CONCURRENCY is never exceeded across all processes; a killed process's leases
come back within 60 s (here much sooner, since LEASE_TTL_SECONDS is small)."""

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.fakes.caller import Call, ask, calling, leases, soon
from tests.fakes.stack import Gateway, Stack

CONCURRENCY = 2
LEASE_TTL_SECONDS = 2
# A lapsed lease is taken back by the next acquire, by a waiter's look (1 s) at the latest.
BACK_SECONDS = LEASE_TTL_SECONDS + 2


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[Stack]:
    environment = {
        "ACCOUNT_CONCURRENCY": str(CONCURRENCY),
        "LEASE_TTL_SECONDS": str(LEASE_TTL_SECONDS),
    }
    with Stack(environment=environment) as stack:
        stack.add_gateway()
        yield stack


@pytest.fixture
def stack(two_gateways: Stack) -> Stack:
    two_gateways.clear()
    return two_gateways


async def call_and_perhaps_leave(stack: Stack, number: int) -> Call | None:
    """Every third caller leaves: at once, while it waits, or in the middle. None then."""
    url = stack.gateways[number % 2].url
    async with calling(url, stack.key, f"{number} [[sim: frames=12 delay_ms=10]]") as call:
        if number % 3 == 0:
            await asyncio.sleep(random.Random(number).choice([0, 0.02, 0.1, 0.2]))
            return None
        return await call.end()


@pytest.mark.anyio
async def test_no_account_ever_carries_more_streams_than_its_limit_while_callers_come_and_leave(
    stack: Stack,
) -> None:
    calls = await asyncio.gather(*[call_and_perhaps_leave(stack, n) for n in range(150)])

    stayed = [call for call in calls if call is not None]
    assert [call.status for call in stayed if not call.whole] == []
    most = stack.sim.stats()["streams"]["max_open_by_account"]
    assert most == dict.fromkeys(stack.emails, CONCURRENCY)  # reached, never passed
    await soon(lambda: leases(stack.url) == 0, within_seconds=1)
    assert stack.sim.open_streams() == 0


@pytest.mark.anyio
async def test_the_leases_of_a_process_killed_with_9_come_back_and_its_successor_serves(
    stack: Stack,
) -> None:
    """One instance, so that half of the streams are the killed process's."""
    gateway = stack.gateway
    before = gateway.pids()
    assert len(before) == 2
    limit = CONCURRENCY * len(stack.emails)
    prompt = "long [[sim: frames=1000 delay_ms=10]]"
    calls = [
        asyncio.create_task(run_until_broken(gateway, stack.key, prompt)) for _ in range(limit)
    ]
    await soon(lambda: stack.sim.open_streams() == limit, within_seconds=10)

    os.kill(before[0], signal.SIGKILL)

    # What it carried ends at once for its callers; what the other process carries goes on.
    await soon(lambda: any(call.done() for call in calls), within_seconds=5)
    lost = [call for call in calls if call.done()]
    assert all(call.result().broke is not None for call in lost)
    # The pool was full: whoever is served now has a slot that the killed process held.
    fresh = await asyncio.wait_for(ask_until_served(gateway, stack.key), BACK_SECONDS)
    assert fresh.whole
    await soon(lambda: len(living(gateway)) == 2, within_seconds=10)
    assert [call for call in calls if call.done()] == lost
    for call in calls:
        call.cancel()
    most = stack.sim.stats()["streams"]["max_open_by_account"]
    assert most == dict.fromkeys(stack.emails, CONCURRENCY)
    await soon(lambda: leases(gateway.url) == 0, within_seconds=BACK_SECONDS)


async def run_until_broken(gateway: Gateway, key: str, prompt: str) -> Call:
    async with calling(gateway.url, key, prompt) as call:
        return await call.end(within_seconds=60)


def living(gateway: Gateway) -> list[int]:
    return [pid for pid in gateway.pids() if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


async def ask_until_served(gateway: Gateway, key: str) -> Call:
    """A request may meet the dying process: its client tries again, as SDKs do."""
    while True:
        call = await ask(gateway.url, key, "after the kill")
        if call.status:
            return call
        await asyncio.sleep(0.05)


@pytest.mark.anyio
async def test_an_instance_killed_with_9_leaves_no_process_and_no_lease_behind(
    stack: Stack,
) -> None:
    doomed = stack.gateways[1]
    processes = [psutil.Process(pid) for pid in doomed.pids()]
    limit = CONCURRENCY * len(stack.emails)
    prompt = "long [[sim: frames=1000 delay_ms=10]]"
    calls = [asyncio.create_task(run_until_broken(doomed, stack.key, prompt)) for _ in range(limit)]
    await soon(lambda: stack.sim.open_streams() == limit, within_seconds=10)

    assert doomed.program is not None
    doomed.program.process.kill()
    doomed.program.process.wait()

    broken = await asyncio.wait_for(asyncio.gather(*calls), 5)  # nobody hangs
    assert all(call.broke is not None for call in broken)
    await soon(lambda: not any(map(psutil.Process.is_running, processes)), within_seconds=5)
    # The other instance gets every slot.
    others = asyncio.gather(*[ask(stack.url, stack.key, f"mine {n}") for n in range(limit)])
    assert all(call.whole for call in await asyncio.wait_for(others, BACK_SECONDS))
    await soon(lambda: leases(stack.url) == 0, within_seconds=BACK_SECONDS)
    doomed.start()
    assert (await ask(doomed.url, stack.key)).whole
