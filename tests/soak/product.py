"""The whole product as `make run` starts it, over a simulator of ours: what the soak kills and watches.

    launcher ─┬─ redis (file mode, AOF)
              ├─ gateway parent ── 2 gateway processes
              └─ job parent ────── 1 job process            simulator (ours: we start it again)

The launcher is the one process that is never killed: whoever starts it restarts it.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import psutil  # type: ignore[import-untyped]  # its stubs are not worth a dependency

from tests.fakes.processes import Watched, clean_environment
from tests.fakes.stack import SimulatorControl, free_port

ACCOUNTS = 3
ACCOUNT_CONCURRENCY = 2
KEY = "sk-admin-key-of-the-soak"

Role = Literal[
    "gateway_process", "gateway_parent", "job_process", "job_parent", "redis", "simulator"
]
ROLES: tuple[Role, ...] = get_args(Role)


class Product:
    """Addresses and processes of a product that runs."""

    def __init__(self, launcher: Watched, simulator: SimulatorControl, port: int) -> None:
        self.launcher = launcher
        self.simulator = simulator
        self.url = f"http://127.0.0.1:{port}"

    def members(self) -> dict[Role, list[psutil.Process]]:
        """The living processes of each role."""
        found: dict[Role, list[psutil.Process]] = {role: [] for role in ROLES}
        for process in psutil.Process(self.launcher.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                if "-m gateway" in command:
                    found["gateway_parent"].append(process)
                    found["gateway_process"] += _workers_of(process)
                elif "-m workers" in command:
                    found["job_parent"].append(process)
                    found["job_process"] += _workers_of(process)
                elif "redis-server" in command or "valkey-server" in command:
                    found["redis"].append(process)
        assert self.simulator.program is not None
        found["simulator"].append(psutil.Process(self.simulator.program.pid))
        return found

    def counts(self) -> dict[Role, int]:
        return {role: len(processes) for role, processes in self.members().items()}


@contextlib.contextmanager
def running(*, lease_ttl_seconds: float) -> Iterator[Product]:
    """A product that is ready."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-soak-")))
        simulator = SimulatorControl(folder, accounts=ACCOUNTS, options=("--delay-ms", "10"))
        stack.callback(simulator.http.close)
        stack.callback(simulator.stop)
        simulator.start()
        port = free_port()
        environ = clean_environment(
            SERVICE_PORT=str(port),
            WORKERS="2",
            API_KEY=KEY,
            DATA_DIR=str(folder / "data"),
            DATA_SAVE_MODE="file",
            ACCOUNTS=",".join(
                f"demo{number}@example.com:demo-password-{number}"
                for number in range(1, ACCOUNTS + 1)
            ),
            ACCOUNT_CONCURRENCY=str(ACCOUNT_CONCURRENCY),
            ACCOUNT_WAIT_SECONDS="15",
            LEASE_TTL_SECONDS=f"{lease_ttl_seconds:g}",
            FIRST_TOKEN_TIMEOUT_SECONDS="10",
            STREAM_IDLE_TIMEOUT_SECONDS="10",
            LOGIN_MIN_INTERVAL_MS="0",
            QWEN_CHAT_PROXY_URL=simulator.url,
            QWEN_CLI_PROXY_URL=simulator.url,
            DRAIN_DELAY_SECONDS="0",
            DRAIN_SECONDS="2",
        )
        command = [sys.executable, "-m", "deploy.local", "run", "--stop-with-parent"]
        launcher = stack.enter_context(Watched.start(command, environ, directory=folder))
        launcher.wait_for_line("Base URL")
        yield Product(launcher, simulator, port)


def _workers_of(parent: psutil.Process) -> list[psutil.Process]:
    return [
        child
        for child in parent.children()
        if child.status() != psutil.STATUS_ZOMBIE
        and not any("resource_tracker" in word for word in child.cmdline())
    ]
