"""What is measured and what measures it: Redis, simulator and gateway as processes on stated cores.

    client (this process) ─┬─ gateway ─┬─ Redis
                           │           └─ simulator, canned bytes
                           └─────────────┘ straight, for comparison

The gateway has cores of its own; everything else shares the others.
"""

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import redis

from tests.bench.client import Client
from tests.bench.processes import Program, Tree, on_cores, pin
from tests.bench.targets import Direct, Gateway, Target
from tests.fakes.redis_server import RedisServer

ACCOUNTS = 300
START_SECONDS = 60.0
KEY = "sk-bench-admin-key"

# As the launcher's `file` mode has it.
REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "everysec", "--aof-use-rdb-preamble", "no")


class Other(msgspec.Struct, frozen=True):
    """Another gateway to compare with; it runs already and its upstream is our simulator."""

    url: str
    key: str
    model: str
    pids: tuple[int, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """Which cores, which ports, which targets."""

    gateway_cores: frozenset[int]
    other_cores: frozenset[int]
    workers: int
    simulator_port: int = 0
    other: Other | None = None


def plan_for(*, workers: int | None = None, simulator_port: int = 0, other: Other | None) -> Plan:
    """The last core for one gateway process, or the last `workers` cores for as many of them."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    count = min(workers or 1, max(1, len(mine) - 1))
    gateway, rest = mine[-count:], mine[:-count] or mine
    return Plan(frozenset(gateway), frozenset(rest), workers or count, simulator_port, other)


class Simulator:
    """The upstream; its canned answers are changed between phases."""

    def __init__(self, program: Program, url: str) -> None:
        self.program = program
        self.url = url
        self._client = Client(url)

    async def answer(self, *, frames: int, pace_ms: float, stamped: bool = False) -> None:
        """From now on every completion has so many frames, at once or one every `pace_ms`."""
        await self.control(
            "/_sim/config",
            {"canned_frames": frames, "canned_delay_ms": pace_ms, "canned_stamped": stamped},
        )

    async def operations(self) -> dict[str, int]:
        """How often each operation was asked for so far."""
        stats = await self.control("/_sim/stats?requests=0")
        return {name: counts["total"] for name, counts in stats["requests"].items()}

    async def open_streams(self) -> int:
        stats = await self.control("/_sim/stats?requests=0")
        return int(stats["streams"]["open"])

    async def control(self, path: str, body: Any = None) -> Any:  # Any: JSON
        method = "GET" if body is None else "POST"
        encoded = b"" if body is None else msgspec.json.encode(body)
        answer = await self._client.ask(self._client.request(method, path, body=encoded))
        if answer.error or answer.status != 200:
            raise RuntimeError(f"simulator: {answer.status} {answer.error} {answer.body!r}")
        return msgspec.json.decode(answer.body)


class RedisUse(msgspec.Struct):
    """Calls by command, those inside scripts included, and bytes on the wire."""

    commands: dict[str, int]
    bytes_in: int
    bytes_out: int

    @property
    def scripts(self) -> int:
        names = ("eval", "evalsha", "fcall", "eval_ro", "evalsha_ro", "fcall_ro")
        return sum(self.commands.get(name, 0) for name in names)

    def since(self, before: "RedisUse") -> "RedisUse":
        """What was done between the two, their own questions left out."""
        grown = {
            name: calls - before.commands.get(name, 0)
            for name, calls in self.commands.items()
            if name not in ("info", "client|setinfo", "hello")
        }
        return RedisUse(grown, self.bytes_in - before.bytes_in, self.bytes_out - before.bytes_out)


class Rig:
    """Everything of one run. `trees`: whose CPU and memory is told apart."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.gateway: Program | None = None
        self.trees: dict[str, Tree] = {"client": Tree(os.getpid(), alone=True)}
        self.targets: dict[str, Target] = {}
        self.redis_server = RedisServer(folder, *REDIS_OPTIONS)
        self.simulator: Simulator = None  # type: ignore[assignment]  # `opened` starts it

    @property
    def gateways(self) -> list[str]:
        """The gateways, without the floor."""
        return [name for name in self.targets if name != "direct"]

    def redis_use(self) -> "RedisUse":
        """Everything Redis has done so far."""
        with redis.Redis(unix_socket_path=str(self.redis_server.socket)) as connection:
            stats, by_command = connection.info("stats"), connection.info("commandstats")
        commands = {
            name.removeprefix("cmdstat_"): int(counts["calls"])
            for name, counts in by_command.items()
        }
        return RedisUse(commands, stats["total_net_input_bytes"], stats["total_net_output_bytes"])

    def flush_redis(self) -> None:
        self.redis_server.command("FLUSHALL")

    def start_gateway(self) -> None:
        plan = self.plan
        environ = {
            "SERVICE_PORT": str(self.port),
            "WORKERS": str(plan.workers),
            "REDIS_URL": self.redis_server.url,
            "API_KEY": KEY,
            "SECRET_KEY": "a secret of the load rig that keeps nothing secret",
            "ACCOUNTS": ",".join(_account(number) for number in range(1, ACCOUNTS + 1)),
            "LOGIN_MIN_INTERVAL_MS": "0",
            "QWEN_CHAT_PROXY_URL": self.simulator.url,
            "DRAIN_SECONDS": "1",
        }
        with on_cores(set(plan.gateway_cores)):
            self.gateway = Program(
                "-m", "gateway", environ=environ, log=self.folder / "gateway.log"
            )
        self.trees["gateway"] = Tree(self.gateway.pid)

    def stop_gateway(self) -> None:
        if self.gateway is not None:
            self.gateway.stop()
            self.gateway = None

    async def ready(self, *, pause_seconds: float = 0.002) -> float:
        """Waits for `/readyz` 200; the moment it came, `time.monotonic()`."""
        client = Client(self.url)
        request = client.request("GET", "/readyz")
        deadline = time.monotonic() + START_SECONDS
        try:
            while (await client.ask(request)).status != 200:
                assert self.gateway is not None
                self.gateway.check()
                if time.monotonic() > deadline:
                    raise RuntimeError(f"/readyz is not 200 after {START_SECONDS:g} s")
                await asyncio.sleep(pause_seconds)
            return time.monotonic()
        finally:
            await client.close()


@asynccontextmanager
async def opened(plan: Plan) -> AsyncIterator[Rig]:
    """Redis and simulator run; the gateway is started by the first phase (it times that)."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        stack.enter_context(on_cores(set(plan.other_cores)))  # the client, too
        rig = Rig(plan, folder)
        rig.redis_server.start()
        stack.callback(rig.redis_server.stop)
        assert rig.redis_server.process is not None
        rig.trees["redis"] = Tree(rig.redis_server.process.pid)
        program = Program(
            *("-m", "tests.simulator", "--canned", "--accounts", str(ACCOUNTS + 1)),
            *("--port", str(plan.simulator_port)),
            environ={},
            log=folder / "simulator.log",
            read_stdout=True,
        )
        stack.callback(program.stop)
        rig.simulator = Simulator(program, program.first_line().removeprefix("Simulator: "))
        rig.trees["simulator"] = Tree(program.pid)
        direct = Direct(rig.simulator.url)
        email, _, password = _account(ACCOUNTS + 1).partition(":")
        await direct.sign_in(email, password)
        rig.targets = {"gateway": Gateway("gateway", rig.url, key=KEY), "direct": direct}
        if plan.other is not None:
            _add_other(rig, plan.other)
        stack.callback(rig.stop_gateway)
        try:
            yield rig
        finally:
            for target in rig.targets.values():
                await target.client.close()


def _add_other(rig: Rig, other: Other) -> None:
    rig.targets["other"] = Gateway("other", other.url, key=other.key, model=other.model)
    if other.pids:
        rig.trees["other"] = Tree(*other.pids)
        for pid in other.pids:
            pin(pid, set(rig.plan.gateway_cores))


def _account(number: int) -> str:
    return f"demo{number}@example.com:demo-password-{number}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
