"""The simulator as a process: first line, options, signals, canned mode, the death of its parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.simulator.raw import ask, completions_path, connected, sign_in, turn
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]


class Running(Simulator):
    """Stands for a simulator of another process: `raw` needs only its port."""

    def __init__(self, port: int) -> None:
        super().__init__(port=port)


@contextmanager
def process(*options: str) -> Iterator[tuple[Running, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "tests.simulator", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Running(port_of(child)), child
        finally:
            child.kill()


def port_of(child: "subprocess.Popen[str]") -> int:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith("Simulator: http://127.0.0.1:")
    return int(line.rsplit(":", 1)[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_ends_by_signal(number: signal.Signals) -> None:
    with process("--accounts", "2") as (sim, child):
        assert await sign_in(sim, 2)
        assert (await turn(sim, "[[sim: say=hi]]")).text() == "hi"
        child.send_signal(number)
        assert child.wait(5) == 0


async def test_it_ends_by_signal_although_a_stream_is_open() -> None:
    with process("--canned", "--canned-delay-ms", "1000") as (sim, child):
        async with connected(sim) as peer:
            await peer.send("POST", completions_path("c"), {})
            await peer.head()
            child.send_signal(signal.SIGTERM)
            assert child.wait(5) == 0


async def test_a_field_of_the_configuration_can_be_set() -> None:
    with process("--set", "signin_v1=gone", "--set", 'latency_ms={"models": 1}') as (sim, _):
        config = (await ask(sim, "GET", "/_sim/config")).json()
        assert (config["signin_v1"], config["latency_ms"]) == ("gone", {"models": 1})


async def test_canned_mode_answers_64_frames_at_once_without_a_login() -> None:
    with process("--canned") as (sim, _):
        reply = await ask(sim, "POST", completions_path("c"), {"messages": []})
        assert len(reply.chunks) == 1
        assert len(reply.frames) == 64
        assert reply.deltas[-1]["status"] == "finished"
        assert (await turn(sim, "[[sim: say=ordinary]]")).text() == "ordinary"
        stats = (await ask(sim, "GET", "/_sim/stats")).json()
        assert stats["requests"]["completions"]["by_account"]["-"] == 1


async def test_canned_mode_can_be_paced_and_notices_who_leaves() -> None:
    with process("--canned", "--canned-frames", "5", "--canned-delay-ms", "10") as (sim, _):
        reply = await ask(sim, "POST", completions_path("c"), {})
        assert len(reply.chunks) == 5
        async with connected(sim) as peer:
            await peer.send("POST", completions_path("c"), {})
            await peer.head()
        for _ in range(100):
            streams = (await ask(sim, "GET", "/_sim/stats")).json()["streams"]
            if not streams["open"]:
                break
            await asyncio.sleep(0.01)
        assert streams["ended"] == {"complete": 1, "aborted": 1}
        assert streams["max_open"] == 1


async def test_a_stamped_frame_says_when_it_was_sent() -> None:
    """The load rig reads from it how long one frame was under way."""
    options = ("--canned", "--canned-frames", "6", "--canned-delay-ms", "5")
    with process(*options, "--set", "canned_stamped=true") as (sim, _):
        before = time.monotonic_ns()
        reply = await ask(sim, "POST", completions_path("c"), {})
        stamps = [int(word) for word in reply.text().split()]
        assert len(stamps) == 4
        moments = [before, *stamps, time.monotonic_ns()]
        assert moments == sorted(moments)


async def test_it_resets_connections_on_the_fast_loop_too() -> None:
    """uvloop hands out a stand-in for the socket."""
    with process() as (sim, _):
        with pytest.raises(ConnectionResetError):
            await turn(sim, "[[sim: reset=before]]")
        assert not (await turn(sim, "[[sim: frames=9 reset_after=2]]")).complete
        assert len((await turn(sim, "[[sim: frames=9 cut=1]]")).frames) == 11


async def test_a_directive_can_ask_for_the_canned_stream() -> None:
    async with Simulator() as sim:
        reply = await turn(sim, "[[sim: canned frames=10]]")
        assert (len(reply.chunks), len(reply.frames)) == (1, 10)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_it_dies_with_its_parent() -> None:
    command = [sys.executable, "-m", "tests.simulator"]
    launcher = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({command!r}, stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", launcher]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        parent.kill()
        parent.wait()
    for _ in range(500):
        if not alive(pid):
            return
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the simulator outlived its parent")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody reaped does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
