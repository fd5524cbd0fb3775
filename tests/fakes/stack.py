"""A running product for tests: a real Redis, the simulator, gateway processes; all on loopback.

    with Stack(environment={"KEEPALIVE_SECONDS": "1"}) as stack:
        httpx.get(f"{stack.url}/v1/models", headers=stack.headers)
        stack.sim.next(operation="completions", fail="waf_page")
        assert stack.sim.recorded("completions") == []
        os.kill(stack.gateway_pids()[0], signal.SIGKILL)

`tests/acceptance/conftest.py` has a stack with the default settings for everybody; a module that
needs other settings makes its own, once. Starting one takes about 2 s.

Everything started here ends with the test process, however that ends.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import psutil  # type: ignore[import-untyped]  # no stubs in the lock file

from shared import lifeline
from shared.address import TAKEN_STATUS
from shared.settings import load
from shared.store import keys
from shared.store.accounts import Account
from shared.store.store import Store
from tests.fakes.redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 15.0
SETTLE_SECONDS = 3.0

ADMIN_KEY = "sk-admin-key-of-the-tests"
REGULAR_KEY = "sk-regular-key-of-the-tests"
OTHER_KEY = "sk-other-key-of-the-tests"

_DELETE = "for _, k in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', k) end"

T = TypeVar("T")


def eventually(
    look: Callable[[], T], *, within_seconds: float = 5.0, until: Callable[[T], bool] = bool
) -> T:
    """What `look` gives once `until` says it is right; polled to the bound, which is a promise's."""
    deadline = time.monotonic() + within_seconds
    while True:
        found = look()
        if until(found):
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds} s; last seen: {found!r}")
        time.sleep(0.02)


class Program:
    """One program with its output in a file; ends with us."""

    def __init__(self, *arguments: str, environ: Mapping[str, str], log: Path) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        with log.open("ab") as lines:
            self.process = subprocess.Popen(
                lifeline.tied([sys.executable, *arguments], signal_number=signal.SIGTERM),
                cwd=log.parent,
                env={**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environ},
                stdin=subprocess.DEVNULL,
                stdout=lines,
                stderr=lines,
                start_new_session=True,
            )
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def logs(self) -> str:
        return self.log.read_text(errors="replace")

    def check(self) -> None:
        """
        Raises:
            RuntimeError: it has ended; with the end of its log.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with {self.process.returncode}:\n{self.logs()[-3000:]}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, *, within_seconds: float = STOP_SECONDS) -> int:
        """SIGTERM, and SIGKILL when that does not do; the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            for process in psutil.Process(self.pid).children(recursive=True):
                process.kill()
            self.process.kill()
            return self.process.wait()


class SimulatorControl:
    """The simulator as a process, and its control route (tests/simulator/README.md).

    `recorded`, `aborted` and `stops` show what happened since the last `clear`.
    """

    def __init__(
        self, folder: Path, *, accounts: int, options: Sequence[str], port: int = 0
    ) -> None:
        self._arguments = ("-m", "tests.simulator", "--accounts", str(accounts), *options)
        self._folder = folder
        self._port = port  # 0: a free one, kept from the first start on
        self._since = 0.0
        self._config: dict[str, Any] = {}
        self.url = ""
        self.program: Program | None = None
        self.http = httpx.Client(timeout=10)

    def start(self) -> None:
        """Starts, or starts again at the same address, knowing nothing of before."""
        log = self._folder / "simulator.log"
        log.unlink(missing_ok=True)
        port = ("--port", str(self._port))
        self.program = program = Program(*self._arguments, *port, environ={}, log=log)

        def first_line() -> str:
            program.check()
            return program.logs().partition("\n")[0]

        line = eventually(first_line, within_seconds=START_SECONDS)
        self.url = line.removeprefix("Simulator: ")
        self._port = int(self.url.rpartition(":")[2])
        self._config = self._ask("GET", "/config")

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()

    def next(self, *actions: dict[str, Any], **action: Any) -> None:
        """Queue one action by keywords, or several in order."""
        self._ask("POST", "/next", list(actions) or action)

    def config(self, **fields: Any) -> None:
        """Until the next `clear`."""
        self._ask("POST", "/config", fields)

    def script(self, name: str, *steps: dict[str, Any]) -> None:
        self._ask("POST", "/scripts", {"name": name, "steps": steps})

    def account(self, email: str, **fields: Any) -> None:
        """Add or change an account: `password`, `state`, `quota`, `remove`."""
        self._ask("POST", "/accounts", {"email": email, **fields})

    def revoke(self, **which: Any) -> None:
        """Drop web tokens, of one account (`email=`) or of all."""
        self._ask("POST", "/revoke", which)

    def clear(self) -> None:
        """The queue is empty, the configuration as at the start, the records begin here."""
        self._ask("DELETE", "/next")
        self._ask("POST", "/config", self._config)
        self._since = time.time()

    def stats(self, *, requests: int = 0) -> dict[str, Any]:
        stats: dict[str, Any] = self._ask("GET", f"/stats?requests={requests}")
        return stats

    def recorded(self, operation: str, *, text: str = "") -> list[dict[str, Any]]:
        """Requests of one operation since `clear`, oldest first; `text`: a piece of their prompt."""
        kept = self._ask("GET", f"/stats?requests=500&operation={operation}")["last_requests"]
        new = [one for one in kept if one["at"] >= self._since]
        return [one for one in new if not text or text in str(one["body"])]

    def prompts(self) -> list[str]:
        """The text of each completion since `clear`."""
        return [one["body"]["messages"][0]["content"] for one in self.recorded("completions")]

    def aborted(self) -> list[dict[str, Any]]:
        """Streams that the gateway left before their end, since `clear`."""
        streams = self.stats()["streams"]["aborted"]
        return [one for one in streams if one["started_at"] >= self._since]

    def stops(self) -> list[dict[str, Any]]:
        """Stop calls since `clear`."""
        return [one for one in self.stats()["stops"] if one["at"] >= self._since]

    def open_streams(self) -> int:
        return int(self.stats()["streams"]["open"])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:  # Any: JSON
        answer = self.http.request(method, f"{self.url}/_sim{path}", json=body)
        if answer.status_code != 200:
            raise ValueError(f"the simulator refuses: {answer.text}")
        return answer.json()


class Gateway:
    """One gateway instance: `python -m gateway` with its processes."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self.port = 0
        self.program: Program | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, until_ready: bool = True) -> None:
        """On a free port, or again on its own; returns when `/readyz` is 200 and knows accounts."""
        for _ in range(5):
            port = self.port or free_port()
            environ = {**self._environment, "SERVICE_PORT": str(port)}
            log = self._folder / f"gateway-{port}.log"
            self.program = Program("-m", "gateway", environ=environ, log=log)
            try:
                self.port, before = port, self.port
                if until_ready:
                    self.wait_until_ready()
                return
            except RuntimeError:
                self.port = before
                if self.program.process.returncode != TAKEN_STATUS:
                    raise
        raise RuntimeError("five free ports in a row were taken")

    def wait_until_ready(self) -> None:
        assert self.program is not None
        program, wants_accounts = self.program, bool(self._environment.get("ACCOUNTS"))

        def ready() -> bool:
            program.check()
            try:
                answer = httpx.get(f"{self.url}/readyz", timeout=5)
            except httpx.TransportError:
                return False
            return answer.status_code == 200 and (
                answer.json()["accounts_usable"] or not wants_accounts
            )

        eventually(ready, within_seconds=START_SECONDS)

    def pids(self) -> list[int]:
        """The processes that answer requests; not their parent."""
        assert self.program is not None
        children = psutil.Process(self.program.pid).children()
        return [one.pid for one in children if not _is_tracker(one)]

    def logs(self) -> str:
        return "" if self.program is None else self.program.logs()

    def signal(self, number: signal.Signals) -> None:
        """To the started process, not to its children."""
        assert self.program is not None
        self.program.signal(number)

    def stop(self, *, within_seconds: float = STOP_SECONDS) -> int:
        return 0 if self.program is None else self.program.stop(within_seconds=within_seconds)


class Stack:
    """Redis, simulator and one gateway instance (two processes); more on request.

    Args:
        environment: settings of the gateway, over these defaults: three accounts, an admin key and
            two regular ones, no pause between logins, no delay before a drain.
        accounts: how many the simulator has and the gateway is told of.
        simulator: options of its command line.
        redis: options of its command line.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] | None = None,
        accounts: int = 3,
        simulator: Sequence[str] = ("--delay-ms", "1"),
        redis: Sequence[str] = (),
    ) -> None:
        # A unix socket's path is limited to 107 bytes: not below pytest's long tmp_path.
        self._folder = tempfile.TemporaryDirectory(prefix="gw-stack-")
        self.folder = Path(self._folder.name)
        self.redis = RedisServer(self.folder, *redis)
        self.sim = SimulatorControl(self.folder, accounts=accounts, options=simulator)
        self.emails = [f"demo{number}@example.com" for number in range(1, accounts + 1)]
        self._given = dict(environment or {})
        self.environment: dict[str, str] = {}
        self.gateways: list[Gateway] = []

    @property
    def gateway(self) -> Gateway:
        return self.gateways[0]

    @property
    def url(self) -> str:
        return self.gateway.url

    @property
    def key(self) -> str:
        """A regular caller's; `admin_key` is the first of `API_KEY`."""
        return self.environment["API_KEY"].split(",")[-1]

    @property
    def admin_key(self) -> str:
        return self.environment["API_KEY"].split(",")[0]

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    def start(self) -> Self:
        self.redis.start()
        self.sim.start()
        numbered = enumerate(self.emails, start=1)
        self.environment = {
            "WORKERS": "2",
            "API_KEY": f"{ADMIN_KEY},{OTHER_KEY},{REGULAR_KEY}",
            "SECRET_KEY": "a secret key of the tests, long enough",
            "ACCOUNTS": ",".join(f"{email}:demo-password-{n}" for n, email in numbered),
            "LOGIN_MIN_INTERVAL_MS": "0",
            "DRAIN_DELAY_SECONDS": "0",
            "CHAT_RETRY_BACKOFF_MS": "20",
            "REDIS_URL": self.redis.url,
            "QWEN_CHAT_PROXY_URL": self.sim.url,
            "QWEN_CLI_PROXY_URL": self.sim.url,
            "UPLOAD_ENDPOINT_URL": self.sim.url,
            **self._given,
        }
        self.add_gateway()
        return self

    def add_gateway(self, environment: Mapping[str, str] | None = None) -> Gateway:
        """One more instance over the same Redis and simulator."""
        gateway = Gateway(self.folder, {**self.environment, **(environment or {})})
        self.gateways.append(gateway)
        gateway.start()
        return gateway

    def stop(self) -> None:
        for gateway in self.gateways:
            gateway.stop()
        self.sim.stop()
        self.sim.http.close()
        self.redis.stop()
        self._folder.cleanup()

    def gateway_pids(self) -> list[int]:
        return [pid for gateway in self.gateways for pid in gateway.pids()]

    def logs(self) -> str:
        return "".join(gateway.logs() for gateway in self.gateways)

    def clear(self) -> None:
        """As after the start, for the next test: nothing scripted, no account rests, no budget of
        attempts or requests is spent."""
        self.sim.clear()
        for family in (keys.again, keys.again_second, keys.attempts, keys.rate):
            self.redis.command("EVAL", _DELETE, "0", f"{family.prefix}*")
        _run(self._revive())

    def account(self, email: str) -> Account:
        """The account as an operator sees it."""
        return _run(self._account(email))

    def store(self) -> Store:
        """A store of our own over the stack's Redis: `async with stack.store() as store`."""
        return Store(load(self.environment))

    async def _account(self, email: str) -> Account:
        async with self.store() as store:
            return await store.accounts.get(email)

    async def _revive(self) -> None:
        async with self.store() as store:
            # What still settles would let an account rest again.
            settled_by = time.monotonic() + SETTLE_SECONDS
            while (await store.pool_state()).leases_in_flight and time.monotonic() < settled_by:
                await asyncio.sleep(0.01)
            for email in self.emails:
                await store.accounts.reset(email)
                await store.accounts.set_enabled(email, True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _run(work: Coroutine[Any, Any, T]) -> T:
    """From a test of either kind: its own loop may be running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_tracker(process: psutil.Process) -> bool:
    """Python's own helper of multiprocessing."""
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return True
