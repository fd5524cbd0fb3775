"""An outage of the upstream is neither prolonged nor multiplied by us (contract.md 2 and 4): failures
that hit every account alike rest none for more than 5 s, turns succeed again within 10 s after the
upstream is back, the fleet's further attempts are bounded. And the line for a busy pool is fair."""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from shared.store import keys
from tests.fakes.caller import Call, ask, calling, soon
from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.stack import Gateway, Stack

BACK_SECONDS = 10.0
# Rests double with every failed probe, 1 + 2 + 4: the next one would be longer than allowed.
OUTAGE_SECONDS = 8.5
COMMON_REST_SECONDS = 5


class Askers:
    """So many callers that ask again and again, as in an outage."""

    def __init__(self, gateway: Gateway, key: str, *, count: int) -> None:
        self.calls: list[Call] = []
        self._going = True
        self._tasks = [asyncio.create_task(self._ask(gateway.url, key)) for _ in range(count)]

    async def stop(self) -> list[Call]:
        self._going = False
        await asyncio.gather(*self._tasks)
        return self.calls

    async def _ask(self, url: str, key: str) -> None:
        while self._going:
            self.calls.append(await ask(url, key, "[[sim: frames=2]]"))
            await asyncio.sleep(0.1)


def assert_outage_is_told(calls: list[Call]) -> None:
    assert len(calls) > 20
    assert {call.status for call in calls} <= {502, 503}
    waits = [int(call.headers["retry-after"]) for call in calls if call.status == 503]
    assert max(waits) <= COMMON_REST_SECONDS


async def served_again(gateway: Gateway, key: str) -> None:
    """Within the bound, and from then on."""
    deadline = time.monotonic() + BACK_SECONDS
    while not (call := await ask(gateway.url, key, "back?")).whole:
        assert time.monotonic() < deadline, call.body
    calls = await asyncio.gather(*[ask(gateway.url, key, f"and {n}") for n in range(6)])
    assert all(call.whole for call in calls)


async def outage(
    stack: Stack, gateway: Gateway, begin: Callable[[], object], end: Callable[[], object]
) -> None:
    assert (await ask(gateway.url, stack.key)).whole
    await asyncio.to_thread(begin)
    askers = Askers(gateway, stack.key, count=10)
    await asyncio.sleep(OUTAGE_SECONDS)
    calls = await askers.stop()
    await asyncio.to_thread(end)
    assert_outage_is_told(calls)
    await served_again(gateway, stack.key)


@pytest.mark.anyio
async def test_turns_succeed_within_ten_seconds_after_an_outage_of_any_kind() -> None:
    """Three products at once, each with an outage of its own: nobody listens, everything is a 500,
    and logins too are refused."""
    environment = {"ACCOUNT_WAIT_SECONDS": "1", "WORKERS": "1"}
    with (
        Stack(environment=environment) as unreachable,
        Stack(environment=environment) as broken,
        Stack(environment=environment) as forgetful,
    ):
        sim_port = int(unreachable.sim.url.rpartition(":")[2])
        loop = asyncio.get_running_loop()
        async with FaultProxy("127.0.0.1", sim_port) as way:
            behind = unreachable.add_gateway({"QWEN_CHAT_PROXY_URL": way.url})

            def on_loop(what: Callable[[], object]) -> Callable[[], object]:
                return lambda: asyncio.run_coroutine_threadsafe(what(), loop).result(5)  # type: ignore[arg-type]  # both are coroutine functions

            def forget() -> None:
                forgetful.sim.revoke()
                forgetful.sim.next(operation="*", status=503, times=0)

            def break_all() -> None:
                broken.sim.next(operation="*", fail="http_500", times=0)

            await asyncio.gather(
                outage(unreachable, behind, on_loop(way.refuse), on_loop(way.accept)),
                outage(broken, broken.gateway, break_all, broken.sim.clear),
                outage(forgetful, forgetful.gateway, forget, forgetful.sim.clear),
            )


@pytest.fixture(scope="module")
def roomy() -> Iterator[Stack]:
    with Stack(environment={"ACCOUNT_CONCURRENCY": "100", "CHAT_RETRY_COUNT": "2"}) as stack:
        stack.add_gateway()
        yield stack


async def load(stack: Stack, *, per_second: float, seconds: float) -> list[Call]:
    """Callers come evenly, whatever becomes of them; in turn at both instances."""
    count = int(per_second * seconds)
    began = time.monotonic()
    tasks = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        url = stack.gateways[number % 2].url
        tasks.append(asyncio.create_task(ask(url, stack.key, f"{number}")))
    return await asyncio.gather(*tasks)


def attempts(stack: Stack) -> int:
    asked = stack.sim.stats()["requests"].get("completions", {"total": 0})
    return int(asked["total"])


@pytest.mark.anyio
async def test_an_outage_under_load_is_not_multiplied_by_further_attempts(roomy: Stack) -> None:
    """Each caller would try twice more; the fleet's budget is 10 a second and a fifth on top."""
    roomy.clear()
    assert (await ask(roomy.url, roomy.key)).whole
    # Nonsense rests no account, so that nothing but the budget bounds the attempts.
    roomy.sim.next(operation="completions", fail="nonsense", times=0)
    before, began = attempts(roomy), time.monotonic()

    calls = await load(roomy, per_second=50, seconds=4)

    took = time.monotonic() - began
    assert {call.status for call in calls} == {502}
    further = attempts(roomy) - before - len(calls)
    assert further <= 10 * (took + 1) + 0.2 * len(calls)
    assert further >= 10 * 3  # the first ten of a second are never withheld


@pytest.mark.anyio
async def test_few_callers_get_all_their_further_attempts(roomy: Stack) -> None:
    roomy.clear()
    roomy.sim.next(operation="completions", fail="nonsense", times=0)
    before = attempts(roomy)
    calls = await load(roomy, per_second=4, seconds=2)
    assert attempts(roomy) - before == 3 * len(calls)


@pytest.mark.anyio
async def test_those_who_wait_are_served_in_their_order_over_two_instances() -> None:
    with Stack(environment={"ACCOUNT_CONCURRENCY": "1"}, accounts=1) as stack:
        stack.add_gateway()
        async with calling(stack.url, stack.key, "[[sim: frames=10000 delay_ms=10]]") as holder:
            await holder.until(lambda: holder.text != "")
            waiting = []
            for number in range(12):
                url = stack.gateways[number % 2].url
                prompt = f"number {number:02} [[sim: frames=3]]"
                waiting.append(asyncio.create_task(ask(url, stack.key, prompt)))
                await soon(partial(is_in_line, stack, number + 1), within_seconds=5)
        calls = await asyncio.gather(*waiting)
    assert all(call.whole for call in calls)
    ended = sorted(range(12), key=lambda number: calls[number].headers_at or 0)
    assert ended == list(range(12))


def is_in_line(stack: Stack, count: int) -> bool:
    return count == int(stack.redis.command("ZCARD", keys.queue("chat")).strip(b":\r\n"))
