"""Promise 6: on SIGTERM /readyz turns 503 while requests are still taken, streams in flight finish
(up to DRAIN_SECONDS); a rolling restart behind a load balancer breaks none."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import openai
import psutil
import pytest

from shared import lifeline
from tests.fakes.caller import MODEL, ask, calling, leases, soon
from tests.fakes.components import find_component, requires_component
from tests.fakes.stack import ROOT, Gateway, Stack, free_port

DELAY_SECONDS = 2.0
DRAIN_SECONDS = 3.0
# Between a moment that a process waits for and what is seen of it outside, on a busy machine.
SLACK_SECONDS = 1.5


@pytest.fixture
def stack() -> Iterator[Stack]:
    environment = {"DRAIN_DELAY_SECONDS": "2", "DRAIN_SECONDS": "3", "ACCOUNT_CONCURRENCY": "20"}
    with Stack(environment=environment) as stack:
        yield stack


def ready(gateway: Gateway) -> tuple[int, str]:
    """Status and state of `/readyz`, over a connection of its own; (0, "") when nobody accepts."""
    try:
        answer = httpx.get(f"{gateway.url}/readyz", timeout=5)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.json()["status"]


def ended(gateway: Gateway) -> bool:
    assert gateway.program is not None
    return gateway.program.process.poll() is not None


@pytest.mark.anyio
async def test_sigterm_is_told_to_balancers_before_anything_is_refused(stack: Stack) -> None:
    gateway = stack.gateway
    family = psutil.Process(gateway.program.pid).children(recursive=True)  # type: ignore[union-attr]
    async with calling(gateway.url, stack.key, "[[sim: frames=35 delay_ms=100]]") as old:
        await old.until(lambda: old.text != "")
        gateway.signal(signal.SIGTERM)
        began = time.monotonic()

        await soon(lambda: ready(gateway) == (503, "draining"), within_seconds=1)
        while time.monotonic() - began < 0.8 * DELAY_SECONDS:  # taken all the time
            assert ready(gateway) == (503, "draining")
            call = await ask(gateway.url, stack.key, "[[sim: frames=3]]")
            assert call.whole
        await soon(
            lambda: ready(gateway) == (0, ""),
            within_seconds=DELAY_SECONDS - (time.monotonic() - began) + SLACK_SECONDS,
        )
        assert time.monotonic() - began >= DELAY_SECONDS
        assert not ended(gateway)

        await old.end()
    assert old.whole
    assert len(old.text.split()) == 35
    await soon(lambda: ended(gateway), within_seconds=SLACK_SECONDS)
    assert gateway.program is not None
    assert gateway.program.process.returncode == 0
    assert not any(process.is_running() for process in family)


@pytest.mark.anyio
async def test_what_lasts_longer_than_drain_seconds_is_told_so_and_ended(stack: Stack) -> None:
    gateway = stack.gateway
    endless = "[[sim: frames=3000 delay_ms=50]]"
    async with (
        calling(gateway.url, stack.key, endless) as streamed,
        calling(gateway.url, stack.key, endless, stream=False) as plain,
        calling(gateway.url, stack.key, "[[sim: hang=before]]") as silent,
    ):
        await streamed.until(lambda: streamed.text != "")
        await soon(lambda: stack.sim.open_streams() == 3, within_seconds=5)
        gateway.signal(signal.SIGTERM)
        began = time.monotonic()
        calls = [streamed, plain, silent]
        await asyncio.gather(*[call.end() for call in calls])

    lasted = [(call.ended_at or 0) - began for call in calls]
    assert all(seconds >= DELAY_SECONDS + DRAIN_SECONDS - 0.2 for seconds in lasted)
    assert all(seconds <= DELAY_SECONDS + DRAIN_SECONDS + SLACK_SECONDS for seconds in lasted)
    assert (streamed.status, streamed.broke, streamed.code) == (200, None, "draining")
    assert b"[DONE]" not in streamed.body
    assert [(one.status, one.code) for one in (plain, silent)] == [(503, "draining")] * 2
    await soon(lambda: ended(gateway), within_seconds=5)
    # The upstream was told, the leases are back: another instance sees it.
    assert len(stack.sim.stops()) == 3
    other = stack.add_gateway()
    assert leases(other.url) == 0
    other.signal(signal.SIGINT)


@pytest.mark.anyio
async def test_sigint_skips_the_delay_and_finishes_streams(stack: Stack) -> None:
    gateway = stack.gateway
    async with calling(gateway.url, stack.key, "[[sim: frames=15 delay_ms=100]]") as old:
        await old.until(lambda: old.text != "")
        gateway.signal(signal.SIGINT)
        await soon(lambda: ready(gateway) == (0, ""), within_seconds=1)
        await old.end()
    assert old.whole
    await soon(lambda: ended(gateway), within_seconds=SLACK_SECONDS)


@pytest.mark.anyio
async def test_a_connection_that_a_client_keeps_idle_holds_nothing_up(stack: Stack) -> None:
    """SDKs keep theirs for minutes."""
    gateway = stack.gateway
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{gateway.url}/healthz")).status_code == 200
        gateway.signal(signal.SIGINT)
        await soon(lambda: ended(gateway), within_seconds=SLACK_SECONDS)


@pytest.fixture
def two_behind_haproxy() -> Iterator[tuple[Stack, str]]:
    """Two instances, and the URL of the HAProxy before them; its check is deploy/haproxy.cfg's."""
    environment = {"DRAIN_DELAY_SECONDS": "3", "DRAIN_SECONDS": "20", "ACCOUNT_CONCURRENCY": "20"}
    with Stack(environment=environment) as stack:
        stack.add_gateway()
        with haproxy(stack) as url:
            yield stack, url
        for gateway in stack.gateways:
            gateway.signal(signal.SIGINT)


@contextlib.contextmanager
def haproxy(stack: Stack) -> Iterator[str]:
    program = find_component("haproxy")
    assert program is not None
    port = free_port()
    addresses = [f"127.0.0.1:{gateway.port}" for gateway in stack.gateways]
    with (stack.folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            lifeline.tied([program, "-f", str(ROOT / "deploy" / "haproxy.cfg")]),
            env={
                "GATEWAY_BIND": f"127.0.0.1:{port}",
                "GATEWAY_A": addresses[0],
                "GATEWAY_B": addresses[1],
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Load:
    """SDK clients that never stop asking, over connections they keep; what went wrong is kept."""

    def __init__(self, url: str, key: str) -> None:
        self._sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
        self._going = True
        self.whole = 0
        self.failures: list[str] = []

    def stop(self) -> None:
        self._going = False

    async def stream(self, *, delay_ms: int) -> None:
        await self._again_and_again(lambda: self._one_stream(delay_ms))

    async def plain(self) -> None:
        await self._again_and_again(self._one_plain)

    async def close(self) -> None:
        await self._sdk.close()

    async def _again_and_again(self, ask_once: Callable[[], Any]) -> None:
        while self._going:
            try:
                text = await ask_once()
                if len(text.split()) != 30:
                    self.failures.append(f"cut: {text!r}")
                self.whole += 1
            except Exception as error:  # whatever an SDK's user may meet is what the test is about
                self.failures.append(f"{type(error).__name__}: {error}")

    async def _one_stream(self, delay_ms: int) -> str:
        text = ""
        chunks = await self._sdk.chat.completions.create(
            model=MODEL, stream=True, messages=[self._prompt(delay_ms)]
        )
        async for chunk in chunks:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
        return text

    async def _one_plain(self) -> str:
        reply = await self._sdk.chat.completions.create(model=MODEL, messages=[self._prompt(5)])
        return reply.choices[0].message.content or ""

    def _prompt(self, delay_ms: int) -> Any:
        return {"role": "user", "content": f"[[sim: frames=30 delay_ms={delay_ms}]]"}


@requires_component("haproxy")
@pytest.mark.anyio
async def test_a_rolling_restart_behind_haproxy_breaks_no_stream_and_no_request(
    two_behind_haproxy: tuple[Stack, str],
) -> None:
    stack, url = two_behind_haproxy
    log = stack.folder / "haproxy.log"
    await soon(lambda: up(url), within_seconds=10, what=log.read_text)
    load = Load(url, stack.key)
    clients = [asyncio.create_task(load.stream(delay_ms=50)) for _ in range(8)]
    # These last longer than the delay: they are finished while nothing new is taken.
    clients += [asyncio.create_task(load.stream(delay_ms=150)) for _ in range(4)]
    clients += [asyncio.create_task(load.plain()) for _ in range(4)]
    try:
        for gateway in stack.gateways:
            assert len(gateway.pids()) == 2
            before, served = gateway.program, load.whole
            gateway.signal(signal.SIGTERM)
            await soon(partial(ended, gateway), within_seconds=30)
            assert before is not None
            assert before.process.returncode == 0
            await asyncio.to_thread(gateway.start)
            # Both carry streams again before the other one goes.
            await soon(partial(busy, gateway), within_seconds=10)
            assert load.whole > served
    finally:
        load.stop()
        await asyncio.gather(*clients)
        await load.close()
    assert load.failures == []
    assert load.whole > 50


def up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def busy(gateway: Gateway) -> bool:
    page = httpx.get(f"{gateway.url}/metrics", timeout=5).text
    lines = [line for line in page.splitlines() if line.startswith("qwen_gateway_streams_open")]
    return any(float(line.rpartition(" ")[2]) > 0 for line in lines)
