"""What is measured and what measures it: Redis, simulator and gateway as processes on stated cores.

    client (this process) ─┬─ gateway ─┬─ Redis
                           │           └─ simulator, canned bytes
                           └─────────────┘ straight, for comparison

The gateway has cores of its own; everything else shares the others.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import redis

from tests.bench.client import Client
from tests.bench.processes import Tree, on_cores, pin
from tests.bench.targets import Direct, OpenAI, Target
from tests.fakes.redis_server import RedisServer
from tests.fakes.stack import Gateway, SimulatorControl, free_port

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


class Upstream:
    """The simulator; its canned answers are changed between phases."""

    def __init__(self, control: SimulatorControl) -> None:
        self._control = control
        self.url = control.url

    def answer(self, *, frames: int, pace_ms: float, stamped: bool = False) -> None:
        """From now on every completion has so many frames, at once or one every `pace_ms`."""
        self._control.config(canned_frames=frames, canned_delay_ms=pace_ms, canned_stamped=stamped)

    def operations(self) -> dict[str, int]:
        """How often each operation was asked for so far."""
        counts = self._control.stats()["requests"]
        return {name: count["total"] for name, count in counts.items()}

    def open_streams(self) -> int:
        return self._control.open_streams()


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

    def __init__(self, plan: Plan, redis_server: RedisServer, upstream: Upstream) -> None:
        self.plan = plan
        self.redis_server = redis_server
        self.upstream = upstream
        self.gateway = Gateway(redis_server.folder, self._environment())
        self.gateway.port = free_port()
        self.trees = {"client": Tree(os.getpid(), alone=True)}
        self.targets: dict[str, Target] = {}

    def _environment(self) -> dict[str, str]:
        return {
            "WORKERS": str(self.plan.workers),
            "REDIS_URL": self.redis_server.url,
            "API_KEY": KEY,
            "SECRET_KEY": "a secret of the load rig that keeps nothing secret",
            "ACCOUNTS": ",".join(_account(number) for number in range(1, ACCOUNTS + 1)),
            "LOGIN_MIN_INTERVAL_MS": "0",
            "QWEN_CHAT_PROXY_URL": self.upstream.url,
            "DRAIN_DELAY_SECONDS": "0",
            "DRAIN_SECONDS": "1",
        }

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
        """Starts it; `ready` waits."""
        with on_cores(set(self.plan.gateway_cores)):
            self.gateway.start(until_ready=False)
        assert self.gateway.program is not None
        self.trees["gateway"] = Tree(self.gateway.program.pid)

    async def ready(self, *, pause_seconds: float = 0.002) -> float:
        """Waits for `/readyz` 200; the moment it came, `time.monotonic()`."""
        client = Client(self.gateway.url)
        request = client.request("GET", "/readyz")
        deadline = time.monotonic() + START_SECONDS
        try:
            while (await client.ask(request)).status != 200:
                assert self.gateway.program is not None
                self.gateway.program.check()
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
        redis_server = RedisServer(folder, *REDIS_OPTIONS)
        redis_server.start()
        stack.callback(redis_server.stop)
        simulator = SimulatorControl(
            folder, accounts=ACCOUNTS + 1, options=("--canned",), port=plan.simulator_port
        )
        stack.callback(simulator.http.close)
        stack.callback(simulator.stop)
        simulator.start()
        rig = Rig(plan, redis_server, Upstream(simulator))
        stack.callback(rig.gateway.stop)
        await _add_targets(rig)
        assert redis_server.process is not None
        assert simulator.program is not None
        rig.trees["redis"] = Tree(redis_server.process.pid)
        rig.trees["simulator"] = Tree(simulator.program.pid)
        try:
            yield rig
        finally:
            for target in rig.targets.values():
                await target.client.close()


async def _add_targets(rig: Rig) -> None:
    direct = Direct(rig.upstream.url)
    email, _, password = _account(ACCOUNTS + 1).partition(":")  # an account the gateway has not
    await direct.sign_in(email, password)
    rig.targets = {"gateway": OpenAI("gateway", rig.gateway.url, key=KEY), "direct": direct}
    if rig.plan.other is not None:
        _add_other(rig, rig.plan.other)


def _add_other(rig: Rig, other: Other) -> None:
    rig.targets["other"] = OpenAI("other", other.url, key=other.key, model=other.model)
    if other.pids:
        rig.trees["other"] = Tree(*other.pids)
        for pid in other.pids:
            pin(pid, set(rig.plan.gateway_cores))


def _account(number: int) -> str:
    return f"demo{number}@example.com:demo-password-{number}"
