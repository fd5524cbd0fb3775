"""Usage stays exact whoever is killed: what a caller has seen whole is counted once, as it was told.

Of a turn that a killed gateway process was at, nobody knows what it used: it isn't counted, and its
caller has seen it break.
"""

import asyncio
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator

import httpx
import psutil  # type: ignore[import-untyped]  # no stubs in the lock file
import pytest

from shared.store.ledger import RECORDS_KEPT
from shared.store.requests import Logged, Wanted
from tests.fakes.chat import ask, asking, directive, ended_well, usage_of
from tests.fakes.ledger import records, total_of
from tests.fakes.stack import STOP_SECONDS, Stack, eventually

ROUNDS = 5
CALLERS = 6
COUNTED_SECONDS = 10.0
"""After an outage of Redis: its probe comes once a second, turns settle, then it is written."""


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Its Redis keeps what it has answered even if it is killed. (With `everysec` it answers while
    up to two seconds of its file wait for a slow disk.)"""
    redis = ("--appendonly", "yes", "--appendfsync", "always")
    with Stack(
        redis=redis, environment={"ACCOUNT_CONCURRENCY": "4", "LEASE_TTL_SECONDS": "3"}
    ) as stack:
        yield stack


class Callers:
    """Ask turn after turn until told to stop; what was whole, and how often it wasn't."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.whole: dict[str, tuple[int, int]] = {}
        self.broken = 0
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self) -> None:
        while not self._stopping.is_set():
            request_id = f"kill-{uuid.uuid4().hex}"
            used = self._ask(request_id)
            with self._lock:
                if used is None:
                    self.broken += 1
                else:
                    self.whole[request_id] = used
            if used is None:
                time.sleep(0.05)  # not in a tight loop against a gateway that is away

    def _ask(self, request_id: str) -> tuple[int, int] | None:
        """Input and output tokens as they were told; None: not a whole answer."""
        try:
            answer = ask(
                self._stack,
                "hi",
                stream=True,
                stream_options={"include_usage": True},
                headers={"x-request-id": request_id, "connection": "close"},
            )
        except httpx.HTTPError:
            return None
        if answer.status_code != 200 or not ended_well(answer):
            return None
        told = usage_of(answer)
        assert told is not None
        return told["prompt_tokens"], told["completion_tokens"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["gateway", "redis"])
def test_whoever_is_killed_each_whole_answer_is_counted_once_as_it_was_told(
    own_stack: Stack, victim: str
) -> None:
    chance = random.Random(11)
    for _ in range(ROUNDS):
        before = total_of(own_stack, "key")
        callers = Callers(own_stack)
        eventually(lambda: len(callers.whole) >= CALLERS, within_seconds=20)  # noqa: B023 at once
        time.sleep(chance.uniform(0.0, 0.4))
        if victim == "gateway":
            psutil.Process(chance.choice(own_stack.gateway_pids())).kill()
        else:
            own_stack.redis.stop()
            time.sleep(chance.uniform(0.1, 1.0))
            own_stack.redis.start()
        time.sleep(chance.uniform(0.2, 0.6))
        callers.stop()
        own_stack.gateways[0].wait_until_ready()
        check_round(own_stack, before, callers)


async def whole_log(stack: Stack) -> list[Logged]:
    """More than the 500 records that one question over HTTP may ask for."""
    async with stack.store() as store:
        return await store.requests.newest(RECORDS_KEPT, Wanted(status=200))


def check_round(stack: Stack, before: dict[str, int], callers: Callers) -> None:
    def missing() -> dict[str, tuple[int, int]]:
        """Whole answers that the log doesn't have as they were told."""
        log = [logged.record for logged in asyncio.run(whole_log(stack))]
        found = [one for one in log if one.request_id in callers.whole]
        assert len(found) == len({one.request_id for one in found})
        told = {one.request_id: (one.input_tokens, one.output_tokens) for one in found}
        return {one: used for one, used in callers.whole.items() if told.get(one) != used}

    eventually(missing, within_seconds=COUNTED_SECONDS, until=lambda found: not found)
    now = total_of(stack, "key")
    grown = {name: now[name] - before[name] for name in now}
    whole = len(callers.whole)
    assert whole <= grown["requests"] <= whole + callers.broken
    assert grown["requests"] - grown["failures"] >= whole
    assert grown["input_tokens"] >= sum(used for used, _ in callers.whole.values())
    assert grown["output_tokens"] >= sum(used for _, used in callers.whole.values())
    by_account, by_model = total_of(stack, "account"), total_of(stack, "model")
    assert by_model == now
    for name in ("input_tokens", "output_tokens"):
        assert by_account[name] == now[name]


def test_a_turn_that_a_drain_breaks_off_is_counted_with_what_it_used() -> None:
    """Its process goes on just long enough to write it down."""
    settings = {"DRAIN_DELAY_SECONDS": "0", "DRAIN_SECONDS": "1"}
    with Stack(environment=settings) as stack:
        prompt = directive(say="x " * 200, frames=200, delay_ms=50)
        with asking(stack, prompt, headers={"x-request-id": "broken-off"}) as answer:
            chunks = answer.iter_bytes()
            next(chunks)
            gateway = stack.gateways[0]
            gateway.signal(signal.SIGTERM)
            assert b'"draining"' in b"".join(chunks)
        assert gateway.program is not None
        gateway.program.process.wait(STOP_SECONDS)
        gateway.start()
        [record] = records(stack, request_id="broken-off")
        used = {name: record[name] for name in ("input_tokens", "output_tokens")}
        assert (record["status"], record["error"]) == (200, "draining")
        assert min(used.values()) > 0
        for by in ("key", "model"):
            assert total_of(stack, by) == {"requests": 1, "failures": 1, **used}
        assert total_of(stack, "account") == {"requests": 1, "failures": 0, **used}
