"""Where the processes of a run run, and what they use: cores, CPU time, memory, files.

Children inherit the cores of the thread that starts them, so `on_cores` is held around a start.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping

import psutil  # type: ignore[import-untyped]  # its stubs are not worth a dependency


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started inside runs on these cores only. Does nothing where that can't be asked."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, cores: set[int]) -> None:
    """Move a process that runs already, with its children and all their threads."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for process in Tree(pid).processes():
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, cores)


class Tree:
    """One or more processes with all their descendants, or without (`alone`)."""

    def __init__(self, *pids: int, alone: bool = False) -> None:
        self.pids = pids
        self._alone = alone

    def processes(self) -> list[psutil.Process]:
        found: dict[int, psutil.Process] = {}
        for pid in self.pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                below = [] if self._alone else root.children(recursive=True)
                for process in (root, *below):
                    found[process.pid] = process
        return list(found.values())

    def rss_mb(self) -> list[float]:
        """Resident memory of each process, the root first."""
        sizes = []
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss / 1024**2)
        return sizes

    def open_files(self) -> int:
        """File descriptors of all of them."""
        count = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                count += process.num_fds()
        return count


class Meter:
    """Tells the CPU seconds that each of several trees spends from now on."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self._trees = trees
        # Looking for descendants reads all of /proc, which costs the looker: not between the marks.
        self._processes = {name: tree.processes() for name, tree in trees.items()}
        self._before = self._read()

    def spent(self) -> dict[str, float]:
        """User and system time since `__init__`; of a descendant that came later, all of it."""
        after = self._read()
        spent = {name: after[name] - self._before[name] for name in self._trees}
        for name, tree in self._trees.items():
            known = {process.pid for process in self._processes[name]}
            newer = [process for process in tree.processes() if process.pid not in known]
            spent[name] += sum(map(_cpu_seconds, newer))
        return spent

    def _read(self) -> dict[str, float]:
        return {
            name: sum(map(_cpu_seconds, processes)) for name, processes in self._processes.items()
        }


def _cpu_seconds(process: psutil.Process) -> float:
    """In nanoseconds where the kernel lends us the process's clock, else in its ticks of 10 ms."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                # What clock_getcpuclockid(3) answers: ~pid, then the scheduler's clock (2).
                return time.clock_gettime((~process.pid << 3) | 2)
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
