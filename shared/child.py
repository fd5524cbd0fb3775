"""A child process that is kept running: started again when it dies, stopped when asked.

The launcher keeps the gateway, the workers' parent, Redis; the workers' parent keeps job processes.
Each child is in a session of its own, so that Ctrl-C reaches the parent alone and things end in
order, and tied to the parent, so that nothing stays behind when that is killed with -9.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Mapping, Sequence

from shared import lifeline

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 10.0
# A child that lived this long starts its pauses anew.
SETTLED_SECONDS = 30.0


class Child:
    """One program, kept running from `start` to `stop`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.exit_statuses: list[int] = []
        self.stdout: asyncio.StreamReader | None = None
        self.command = command
        self._environ = environ
        self._inherited = inherited
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self, *, read_stdout: bool = False) -> None:
        """The program runs; from now on it is started again whenever it ends."""
        process = await self._spawn(read_stdout)
        self._keeper = asyncio.create_task(
            self._keep(process, read_stdout), name=f"keep {self.name}"
        )

    async def stop(self, signal_number: int = signal.SIGTERM, *, grace_seconds: float) -> None:
        """The program has ended; by `signal_number`, or by kill when it took longer than that."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.send(signal_number)
        try:
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        except TimeoutError:
            log.warning("child killed", extra={"child": self.name})
            self.send(signal.SIGKILL)
            await process.wait()

    def send(self, signal_number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal_number)

    async def _keep(self, process: asyncio.subprocess.Process, read_stdout: bool) -> None:
        clock = asyncio.get_running_loop().time
        pause = FIRST_PAUSE_SECONDS
        while True:
            born = clock()
            status = await process.wait()
            self.exit_statuses.append(status)
            if clock() - born > SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning(
                "child ended, starting it again",
                extra={"child": self.name, "status": status, "pause_seconds": pause},
            )
            await asyncio.sleep(pause)
            pause = min(LAST_PAUSE_SECONDS, pause * 2)
            process = await self._spawn(read_stdout)

    async def _spawn(self, read_stdout: bool) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *lifeline.tied(self.command),
            stdin=asyncio.subprocess.DEVNULL,
            # What a child says on stdout is not for ours: only ready-made lines go there.
            stdout=asyncio.subprocess.PIPE if read_stdout else sys.stderr.fileno(),
            env=dict(self._environ),
            start_new_session=True,
            pass_fds=self._inherited,
        )
        self._process, self.stdout = process, process.stdout
        log.info("child started", extra={"child": self.name, "child_pid": process.pid})
        return process


def python(*arguments: str) -> list[str]:
    """The command that runs Python with this interpreter."""
    return [sys.executable, *arguments]
