"""`python -m tests.simulator`: the simulator as a process of its own.

The first line on stdout is `Simulator: http://HOST:PORT`, once it listens. SIGTERM and SIGINT end it, and so does
the death of its parent (Linux).
"""

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from typing import Any

import msgspec

from tests.simulator.server import Simulator

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies; leave at once if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit("the parent died before the simulator began")


async def serve(simulator: Simulator) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await simulator.start()
    print(f"Simulator: {simulator.url}", flush=True)
    await ended.wait()
    await simulator.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--prefix", default="", help="path before every route")
    parser.add_argument("--accounts", type=int, default=3, help="demo1@example.com … demoN")
    parser.add_argument("--delay-ms", type=float, default=20, help="between two frames")
    parser.add_argument("--canned", action="store_true", help="the same bytes for every completion")
    parser.add_argument("--canned-frames", type=int, default=64)
    parser.add_argument("--canned-delay-ms", type=float, default=0, help="0 = all frames at once")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a field of the config"
    )
    return parser.parse_args()


def main() -> int:
    parent = os.getppid()
    given = arguments()
    die_with_parent(parent)
    config: dict[str, Any] = {
        "delay_ms": given.delay_ms,
        "canned": given.canned,
        "canned_frames": given.canned_frames,
        "canned_delay_ms": given.canned_delay_ms,
    }
    simulator = Simulator(
        accounts=given.accounts, host=given.host, port=given.port, prefix=given.prefix, **config
    )
    simulator.configure(**dict(assignment(pair) for pair in given.set))
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serve(simulator))
    return 0


def assignment(pair: str) -> tuple[str, Any]:  # Any: a JSON value
    """`NAME=VALUE` with a JSON value, or a plain word."""
    name, _, value = pair.partition("=")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value


def fast_loop() -> Any:  # Any: uvloop is optional
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
