"""One program as an operator starts it, watched with its whole family: for tests of the launcher,
of the server and of the job processes. (`stack.py` has the whole product, ready to be asked.)

    with Watched.start([sys.executable, "-m", "gateway"], clean_environment(...)) as gateway:
        gateway.member("granian").kill()
        gateway.send(signal.SIGTERM)
        assert gateway.wait(10) == 0

A program gets directories of its own and a clean environment; what it leaves behind is killed at the
end of its block, whatever the test did.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.fakes.stack import eventually

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def status_of(url: str) -> int:
    """The status of a GET; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def clean_environment(**variables: str) -> dict[str, str]:
    """A path and a home, nothing of the machine's or the runner's configuration."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    environ = {name: os.environ[name] for name in kept if name in os.environ}
    return {**environ, "PYTHONPATH": str(ROOT), **variables}


class Watched:
    """One program in a session of its own, its output in files, its family known."""

    def __init__(self, process: "subprocess.Popen[bytes]", stdout: Path, stderr: Path) -> None:
        self.process = process
        self._stdout = stdout
        self._stderr = stderr

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, command: Sequence[str], environ: Mapping[str, str], *, directory: Path | None = None
    ) -> Iterator[Self]:
        with tempfile.TemporaryDirectory(prefix="gw-program-") as folder:
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            with stdout.open("wb") as out, stderr.open("wb") as err:
                process = subprocess.Popen(
                    command,
                    env=dict(environ),
                    cwd=directory or folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            program = cls(process, stdout, stderr)
            try:
                yield program
            except BaseException:
                sys.stderr.write(f"--- {' '.join(map(str, command[:4]))}\n{program.stderr}\n")
                raise
            finally:
                for member in program.family():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        member.kill()
                process.kill()
                process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def said(self) -> dict[str, str]:
        """The `Name: value` lines of stdout."""
        pairs = (line.partition(": ") for line in self.stdout.splitlines())
        return {name: value for name, colon, value in pairs if colon}

    def wait_for_line(self, name: str, seconds: float = START_SECONDS) -> str:
        """The value of stdout's line `name: value`, once it is there."""

        def find() -> str | None:
            if self.process.poll() is not None and name not in self.said():
                raise AssertionError(f"ended with {self.process.returncode}: {self.stderr}")
            return self.said().get(name)

        return eventually(find, within_seconds=seconds) or ""

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9; its children are on their own."""
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit status; fails when it still runs after `seconds`."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds:g} s\n{self.stderr}") from None

    def family(self) -> list[psutil.Process]:
        """Its living descendants, itself excluded."""
        try:
            return [
                child
                for child in psutil.Process(self.pid).children(recursive=True)
                if child.status() != psutil.STATUS_ZOMBIE
            ]
        except psutil.NoSuchProcess:
            return []

    def member(self, pattern: str) -> psutil.Process | None:
        """The eldest descendant whose command line matches."""
        for child in sorted(self.family(), key=lambda child: child.create_time()):
            with contextlib.suppress(psutil.NoSuchProcess):
                if re.search(pattern, " ".join(child.cmdline())):
                    return child
        return None


def wait_until_gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    """None of them runs any more; fails after `seconds`."""

    def alive() -> list[psutil.Process]:
        found = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    eventually(alive, within_seconds=seconds, until=lambda found: not found)
