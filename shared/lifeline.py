"""A process that ends when its parent ends, however the parent ended.

    lifeline.tie(os.getppid())                               in a process of ours
    lifeline.tied(["redis-server", …])  → command to start   for any other program

After `kill -9` nobody runs clean-up code, so the kernel must do it: PR_SET_PDEATHSIG on Linux.
Where there is no such thing (macOS) a process of ours looks at its parent twice a second; a foreign
program can't be tied there.

Trap: the signal is sent when the *thread* that started the process ends, so start from the main
thread. Trap: the parent may be dead before the child gets to say so, hence its pid is handed over
and compared.

This file is run by path, in a bare interpreter (`tied`): standard library only, no project imports.
"""

import os
import signal
import sys
from collections.abc import Sequence

# `make`, `timeout` and shells that signal a whole group deliver one wish twice: a second signal
# within this time is the echo of the first.
SIGNAL_ECHO_SECONDS = 1.0

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LINUX: bool = sys.platform == "linux"


def tie(parent: int, *, signal_number: int = signal.SIGKILL) -> None:
    """This process gets `signal_number` when the process `parent`, which started it, has ended."""
    if _LINUX:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal_number)
        return
    _watch(parent, signal_number)


def tied(command: Sequence[str], *, signal_number: int = signal.SIGKILL) -> list[str]:
    """The command that starts `command` tied to the calling process; its pid stays the same."""
    return [
        sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(signal_number)), *command
    ]  # fmt: skip


def _watch(parent: int, signal_number: int) -> None:
    import threading
    import time

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal_number)

    threading.Thread(target=look, name="lifeline", daemon=True).start()


if __name__ == "__main__":
    if _LINUX:
        tie(int(sys.argv[1]), signal_number=int(sys.argv[2]))
    try:
        os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606  # the command our caller gave, no shell
    except OSError as error:
        sys.exit(f"{sys.argv[3]}: {error.strerror}")
