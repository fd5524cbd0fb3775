"""Promise 3: a client that leaves closes its upstream stream within 1 s and frees the lease, in
every phase; the upstream is told to stop what nobody reads."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from shared.store import keys
from tests.fakes.caller import KEEPALIVE, MODEL, Call, ask, calling, leases, sample, soon
from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.stack import Stack

BOUND_SECONDS = 1.0

BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])


@pytest.fixture(scope="module")
def one_account() -> Iterator[Stack]:
    """One account with one slot, so that a lease that isn't freed is felt by the next caller."""
    environment = {"ACCOUNT_CONCURRENCY": "1", "KEEPALIVE_SECONDS": "1"}
    with Stack(environment=environment, accounts=1) as stack:
        yield stack


@pytest.fixture
def stack(one_account: Stack) -> Stack:
    one_account.clear()
    return one_account


def at_work(stack: Stack, operation: str, *, times: int = 1) -> Any:
    return lambda: len(stack.sim.recorded(operation)) >= times


def in_line(stack: Stack) -> int:
    return int(stack.redis.command("ZCARD", keys.queue("chat")).strip(b":\r\n"))


async def freed(stack: Stack) -> None:
    """Nothing is lent, nothing is streamed: from now on within the promise's bound."""
    await soon(
        lambda: leases(stack.url) == 0 and stack.sim.open_streams() == 0,
        within_seconds=BOUND_SECONDS,
        what=lambda: (leases(stack.url), stack.sim.stats()["streams"]),
    )


async def next_one_is_served(stack: Stack) -> None:
    call = await asyncio.wait_for(ask(stack.url, stack.key, "next"), 5)
    assert call.whole, (call.status, call.body)


@BOTH
@pytest.mark.anyio
async def test_a_caller_that_leaves_the_line_costs_nobody_anything(
    stack: Stack, stream: bool
) -> None:
    async with calling(stack.url, stack.key, "holds it [[sim: frames=400 delay_ms=5]]") as holder:
        await holder.until(lambda: holder.text != "")
        async with calling(stack.url, stack.key, "leaves the line", stream=stream):
            await soon(lambda: in_line(stack) == 1, within_seconds=5)
        await soon(lambda: in_line(stack) == 0, within_seconds=BOUND_SECONDS)
        assert leases(stack.url) == 1
    await freed(stack)
    assert len(stack.sim.recorded("completions")) == 1  # the one in line never got there
    await next_one_is_served(stack)


@BOTH
@pytest.mark.anyio
async def test_a_caller_that_leaves_during_the_login_frees_the_account(
    stack: Stack, stream: bool
) -> None:
    stack.sim.revoke()
    stack.sim.next(operation="signin", latency_ms=30_000)
    async with calling(stack.url, stack.key, stream=stream):
        await soon(at_work(stack, "signin"), within_seconds=5)
    await freed(stack)
    assert stack.sim.recorded("completions")[1:] == []
    # Nobody waits for the login that was given up.
    await next_one_is_served(stack)


# Where the turn is when its caller leaves: what the simulator is told, how it is seen.
PHASES: dict[str, tuple[str, dict[str, Any]]] = {
    "the chat is being opened": ("chats_new", {"operation": "chats_new", "latency_ms": 30_000}),
    "no headers yet": ("completions", {"operation": "completions", "hang": "before"}),
    "headers but no frame": ("completions", {"operation": "completions", "hang": "after"}),
    "no text yet": ("completions", {"operation": "completions", "stall_after": 1}),
    "in the middle": ("completions", {"operation": "completions", "stall_after": 5}),
    "frames come and come": (
        "completions",
        {"frames": 5000, "delay_ms": 5, "operation": "completions"},
    ),
}


@BOTH
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.anyio
async def test_a_caller_that_leaves_ends_its_upstream_stream_and_frees_the_lease(
    stack: Stack, phase: str, stream: bool
) -> None:
    operation, action = PHASES[phase]
    stack.sim.next(action)
    before = sample(stack.url, "client_disconnects_total")
    async with calling(stack.url, stack.key, phase, stream=stream) as call:
        await soon(at_work(stack, operation), within_seconds=5)
        if operation == "completions":
            await soon(lambda: stack.sim.open_streams() == 1, within_seconds=5)
        if stream and phase in ("in the middle", "frames come and come"):
            await call.until(lambda: call.text != "")
    await freed(stack)

    if operation == "completions":
        await soon(lambda: len(stack.sim.aborted()) == 1, within_seconds=BOUND_SECONDS)
        [chat] = [one["query"]["chat_id"] for one in stack.sim.recorded("completions")]
        assert [one["chat_id"] for one in stack.sim.stops()] == [chat]
    assert sample(stack.url, "client_disconnects_total") == before + 1
    await next_one_is_served(stack)


@pytest.mark.anyio
async def test_a_caller_that_leaves_after_keep_alives_only_frees_the_lease(stack: Stack) -> None:
    stack.sim.next(operation="completions", hang="before")
    async with calling(stack.url, stack.key) as call:
        await call.until(lambda: len(call.comments) == 2)
        assert call.body == KEEPALIVE * 2
    await freed(stack)
    assert len(stack.sim.stops()) == 1
    await next_one_is_served(stack)


@pytest.mark.anyio
async def test_a_caller_that_does_not_read_holds_the_upstream_back_and_frees_all_when_it_leaves(
    stack: Stack,
) -> None:
    """Parked in `send()`: the phase in which a naive streaming response never notices."""
    words = "word " * 4_000_000  # 20 MB: more than all the buffers on the way
    stack.sim.script("long", {"say": words, "frames": 4_000, "delay_ms": 0})
    async with FaultProxy("127.0.0.1", simulator_port(stack)) as way:
        gateway = stack.add_gateway({"QWEN_CHAT_PROXY_URL": way.url})
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", gateway.port))
            connection.sendall(request(stack, "[[sim: script=long]]"))
            await soon(lambda: way.answered_bytes > 100_000, within_seconds=5)
            await stalled(way)
            assert leases(stack.url) == 1
        await freed(stack)
        gateway.stop()
    assert way.answered_bytes < len(words)  # held back, not piled up in our memory
    assert len(stack.sim.stops()) == 1
    await next_one_is_served(stack)


def simulator_port(stack: Stack) -> int:
    return int(stack.sim.url.rpartition(":")[2])


def request(stack: Stack, prompt: str) -> bytes:
    document = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    body = msgspec.json.encode(document)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (stack.key.encode(), len(body), body)
    )


async def stalled(way: FaultProxy) -> None:
    """Returns once nothing more comes from the upstream for half a second."""
    async with asyncio.timeout(10):
        seen = -1
        while seen != way.answered_bytes:
            seen = way.answered_bytes
            await asyncio.sleep(0.5)


@pytest.mark.anyio
async def test_a_hundred_callers_that_leave_at_any_moment_leave_nothing_behind(
    stack: Stack,
) -> None:
    async def leave(number: int) -> Call:
        async with calling(
            stack.url, stack.key, f"{number} [[sim: frames=50 delay_ms=2]]", stream=number % 2 == 0
        ) as call:
            await asyncio.sleep(number * 0.004)
            return call

    await asyncio.gather(*[leave(number) for number in range(100)])
    await freed(stack)
    await next_one_is_served(stack)
