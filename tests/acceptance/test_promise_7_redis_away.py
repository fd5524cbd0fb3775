"""Promise 7: with Redis frozen or gone, streams already open go on, new work gets 503 within 2 s,
known keys still authenticate, the last model list is served, and everything recovers by itself."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Literal

import httpx
import pytest

from tests.fakes.caller import Call, ask, calling, leases, soon
from tests.fakes.stack import Gateway, Stack

REFUSED_SECONDS = 2.0
# Once a process has noticed: it answers without asking Redis.
REFUSED_AT_ONCE_SECONDS = 0.3
# The probe asks every second.
RECOVERED_SECONDS = 5.0

How = Literal["frozen", "gone"]
EITHER = pytest.mark.parametrize("how", ["frozen", "gone"])


@pytest.fixture(scope="module")
def persistent() -> Iterator[Stack]:
    redis = ("--appendonly", "yes", "--appendfsync", "always")
    environment = {"LEASE_TTL_SECONDS": "2", "ACCOUNT_CONCURRENCY": "10"}
    with Stack(environment=environment, redis=redis) as stack:
        yield stack


@pytest.fixture
def stack(persistent: Stack) -> Stack:
    persistent.clear()
    return persistent


@contextlib.asynccontextmanager
async def away(stack: Stack, how: How) -> AsyncIterator[None]:
    """Redis does not answer inside; afterwards it does, with what it knew before."""
    stop, start = {
        "frozen": (stack.redis.freeze, stack.redis.thaw),
        "gone": (stack.redis.stop, stack.redis.start),
    }[how]
    stop()
    try:
        yield
    finally:
        await asyncio.to_thread(start)


async def models(stack: Stack, key: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10, verify=False) as client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return await client.get(f"{stack.url}/v1/models", headers=headers)


async def recovered(gateway: Gateway, key: str) -> None:
    """Every process serves again: ten in a row."""
    deadline = time.monotonic() + RECOVERED_SECONDS
    served = 0
    while served < 10:
        call = await ask(gateway.url, key, "afterwards")
        served = served + 1 if call.whole else 0
        assert time.monotonic() < deadline, (call.status, call.body)


def assert_refused(call: Call) -> None:
    assert (call.status, call.code) == (503, "store_unavailable"), call.body
    assert int(call.headers["retry-after"]) >= 1


@EITHER
@pytest.mark.anyio
async def test_new_requests_are_refused_within_two_seconds_and_then_at_once(
    stack: Stack, how: How
) -> None:
    async with away(stack, how):
        first = await asyncio.gather(
            *[ask(stack.url, stack.key, f"{n}", stream=n % 2 == 0) for n in range(20)]
        )
        for call in first:
            assert_refused(call)
        assert max(call.seconds for call in first) <= REFUSED_SECONDS

        later = [await ask(stack.url, stack.key, f"{n}", stream=n % 2 == 0) for n in range(20)]
        for call in later:
            assert_refused(call)
        assert max(call.seconds for call in later) <= REFUSED_AT_ONCE_SECONDS

        ready = httpx.get(f"{stack.url}/readyz", timeout=5)
        assert (ready.status_code, ready.json()["status"]) == (503, "store_unavailable")
        assert httpx.get(f"{stack.url}/healthz", timeout=5).status_code == 200
        assert httpx.get(f"{stack.url}/metrics", timeout=5).status_code == 200
        assert stack.sim.recorded("completions") == []
    await recovered(stack.gateway, stack.key)


@EITHER
@pytest.mark.anyio
async def test_streams_already_open_go_on_to_their_end(stack: Stack, how: How) -> None:
    """Redis is away for longer than a lease lives; the streams last longer than that."""
    logins = stack.sim.stats()["logins"]
    async with contextlib.AsyncExitStack() as open_calls:
        calls = [
            await open_calls.enter_async_context(
                calling(stack.url, stack.key, f"{n} [[sim: frames=45 delay_ms=100]]", stream=n < 6)
            )
            for n in range(8)
        ]
        await soon(lambda: stack.sim.open_streams() == 8, within_seconds=5)
        async with away(stack, how):
            await asyncio.sleep(3)  # more than LEASE_TTL_SECONDS
            assert not any(call.ended_at for call in calls)
        await recovered(stack.gateway, stack.key)
        await asyncio.gather(*[call.end() for call in calls])
    assert all(call.whole for call in calls)
    assert {len(call.text.split()) for call in calls} == {45}
    await soon(lambda: leases(stack.url) == 0, within_seconds=5)
    assert stack.sim.stats()["logins"] == logins  # what Redis knew it still knows


@EITHER
@pytest.mark.anyio
async def test_known_keys_authenticate_and_the_last_model_list_is_served(
    stack: Stack, how: How
) -> None:
    async with stack.store() as store:
        cached = (await store.api_keys.create("used before the outage")).key
        never_seen = (await store.api_keys.create("not used before it")).key
    before = await models(stack, stack.key)
    assert before.status_code == 200
    used = await asyncio.gather(*[models(stack, cached) for _ in range(40)])
    assert {answer.status_code for answer in used} == {200}

    async with away(stack, how):
        for key in (stack.key, stack.admin_key, cached):
            answers = await asyncio.gather(*[models(stack, key) for _ in range(10)])
            assert {(one.status_code, one.text) for one in answers} == {(200, before.text)}
        # Nobody can say whether these two are good.
        for key in (never_seen, "sk-nobody-has-this-one"):
            answers = await asyncio.gather(*[models(stack, key) for _ in range(10)])
            assert {one.status_code for one in answers} == {503}
            assert {one.json()["error"]["code"] for one in answers} == {"store_unavailable"}
            assert_refused(await ask(stack.url, key))
        assert (await models(stack, "")).status_code == 401  # no key is no key
    await recovered(stack.gateway, never_seen)
    assert (await ask(stack.url, "sk-nobody-has-this-one")).status == 401


@EITHER
@pytest.mark.anyio
async def test_those_who_wait_in_line_are_told(stack: Stack, how: How) -> None:
    holders = [
        asyncio.create_task(ask(stack.url, stack.key, f"{n} [[sim: frames=30 delay_ms=100]]"))
        for n in range(30)
    ]
    await soon(lambda: stack.sim.open_streams() == 30, within_seconds=5)
    async with calling(stack.url, stack.key, "in line") as waiting:
        await asyncio.sleep(0.3)
        assert not waiting.ended_at
        async with away(stack, how):
            await waiting.end(within_seconds=REFUSED_SECONDS + 1)  # its process notices by its beat
            assert_refused(waiting)
    assert all(call.whole for call in await asyncio.gather(*holders))
    await recovered(stack.gateway, stack.key)
    await soon(lambda: leases(stack.url) == 0, within_seconds=5)


@pytest.mark.anyio
async def test_a_gateway_started_while_redis_is_away_starts_and_recovers() -> None:
    with Stack() as stack:
        stack.gateway.stop()
        stack.redis.stop()
        stack.redis.socket.unlink(missing_ok=True)
        stack.gateway.start(until_ready=False)
        await soon(lambda: readiness(stack) == (503, "store_unavailable"), within_seconds=10)
        call = await ask(stack.url, stack.key)
        assert_refused(call)
        assert call.seconds <= REFUSED_SECONDS

        await asyncio.to_thread(stack.redis.start)  # and it knows nothing
        await soon(lambda: readiness(stack) == (200, "ready"), within_seconds=RECOVERED_SECONDS)
        await recovered(stack.gateway, stack.key)


def readiness(stack: Stack) -> tuple[int, str]:
    try:
        answer = httpx.get(f"{stack.url}/readyz", timeout=5)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.json()["status"]
