"""A directory of one running instance: in memory where the system offers it, gone with its owner.

    <base>/qwen-gateway-<uid>/<name>-<random>/      base: /dev/shm, else the temporary directory

Sockets, metric files and marks live here: short paths (a unix socket's may have 107 bytes), nothing
on disk, nobody else may look in. An owner killed with -9 leaves its directory behind; the next
start of anything sees that its lock is free and sweeps it.
"""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

_LOCK = "lock"
_UNFINISHED_SECONDS = 60


class RunDirectoryError(RuntimeError):
    """There is no directory that is ours alone."""


class RunDirectory:
    """Exists from construction to `remove`, or until its process is gone and another one sweeps."""

    def __init__(self, name: str, *, base: Path | None = None) -> None:
        home = home_directory(base)
        sweep(home)
        self.path = home / f"{name}-{secrets.token_hex(4)}"
        unfinished = home / f".{self.path.name}"  # swept only when old: its lock isn't held yet
        unfinished.mkdir(mode=0o700)
        # No program started from here inherits the lock: it says that this very process lives.
        self._lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unfinished.rename(self.path)
        self._owner = os.getpid()

    def remove(self) -> None:
        if os.getpid() != self._owner:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def home_directory(base: Path | None = None) -> Path:
    """`<base>/qwen-gateway-<uid>`, ours and closed to others.

    Raises:
        RunDirectoryError: another user made it first.
    """
    home = (base or _base()) / f"qwen-gateway-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RunDirectoryError(f"{home} belongs to another user")
    if found.st_mode & 0o077:
        home.chmod(0o700)
    return home


def sweep(home: Path) -> None:
    """Remove the directories whose process is gone."""
    for directory in home.iterdir():
        if directory.name.startswith(".") and _age_seconds(directory) < _UNFINISHED_SECONDS:
            continue
        try:
            lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            continue  # not one of these, or swept by another one just now
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        except BlockingIOError:
            pass  # its owner lives
        finally:
            os.close(lock)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _base() -> Path:
    memory = Path("/dev/shm")  # noqa: S108  # a directory of our own, checked, is made inside
    if memory.is_dir() and os.access(memory, os.W_OK | os.X_OK):
        return memory
    return Path(tempfile.gettempdir())
