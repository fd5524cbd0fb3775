"""The HTTP server of one instance: granian's parent process, with the ends it leaves open tied.

What granian 2.8 does not do by itself (each reproduced, see the tests named beside it):

- SIGTERM stops accepting at once and tells the app nothing. Here: the drain file is marked, the
  workers go on accepting for `DRAIN_DELAY_SECONDS`, then finish their streams for at most
  `DRAIN_SECONDS`, then streams are told to end, a moment later what still lives is killed.
- Two crashes of one worker within 5.5 s end the whole server. Here: it is started again, with a
  pause that grows to 10 s.
- kill -9 of the parent orphans the workers, which keep the port. Here: they are tied to it.
- A worker that outgrew `WORKER_MAX_MEMORY` blocks the parent until its streams are done. Here: it
  retires on its own time while its successor serves.

Knows: processes and signals. Does not know: what the app answers.
"""

import importlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer, WorkerProcess

from gateway.drain import DRAIN_VARIABLE
from shared import lifeline
from shared.address import numeric
from shared.log import set_up_log
from shared.settings import Settings

log = logging.getLogger(__name__)


# After streams were told to end in band: time for the last frame, the lease and the socket.
ENDING_GRACE_SECONDS: Final = 5.0
RESPAWN_FIRST_SECONDS: Final = 0.5
RESPAWN_LAST_SECONDS: Final = 10.0
# A worker that lived this long had no trouble starting: its next crash counts as the first.
SETTLED_SECONDS: Final = 30.0
# How often the memory of the workers is looked at.
RSS_LOOK_SECONDS = 10

_LOOK_SECONDS = 0.1
# Requests one process holds open at once. Streams are long and cheap; a limit near the default (the
# backlog by the number of workers) would make the 1,000th stream wait for another to end.
_OPEN_REQUESTS = 16_384
_BACKLOG = 4_096  # the kernel lowers it to net.core.somaxconn

# The server's log goes where ours goes; `incremental` leaves handlers alone.
_LOG_CONFIG: Mapping[str, Any] = {"incremental": True, "handlers": {}, "loggers": {"_granian": {}}}


def serve(settings: Settings, *, run_directory: Path, app: str = "gateway.app:create_app") -> None:
    """Serve until a signal ends it; returns when every worker is gone.

    Args:
        run_directory: of this instance alone; the drain file lies in it.
        app: `module:factory`, called without arguments in every worker process.
    """
    drain_file = run_directory / "drain"
    os.environ[DRAIN_VARIABLE] = str(drain_file)  # noqa: TID251  # handed to the worker processes
    server = Server(settings, drain_file=drain_file)
    loader = partial(_load_app, app, os.getpid(), settings)
    server.serve(target_loader=loader, wrap_loader=False)


class Server(MPServer):
    """granian's multi-process server with our drain, respawn and retirement."""

    def __init__(self, settings: Settings, *, drain_file: Path) -> None:
        super().__init__(
            "gateway",
            address=numeric(settings.listen_address, settings.service_port),
            port=settings.service_port,
            interface=Interfaces.ASGI,
            workers=settings.gateway_processes,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=60_000),
            websockets=False,
            backlog=_BACKLOG,
            backpressure=_OPEN_REQUESTS,
            workers_max_rss=settings.worker_max_memory_mb,
            rss_sample_interval=RSS_LOOK_SECONDS,
            respawn_failed_workers=True,
            log_dictconfig=dict(_LOG_CONFIG),
        )
        self._drain_file = drain_file
        self._drain_delay = settings.drain_delay_seconds
        self._drain_seconds = settings.drain_seconds
        self._signals: list[int] = []
        self._accept_until: float | None = None
        self._deaf_until = 0.0
        self._hurry = False
        self._crashes: dict[int, int] = {}
        self._respawn_at: dict[int, float] = {}
        self._retired: list[WorkerProcess] = []

    # Handlers only note what came. Setting the event, as granian does, can deadlock: the handler
    # runs in the very thread that holds the event's lock while it begins or ends its wait.
    def signal_handler_interrupt(self, *args: Any, **kwargs: Any) -> None:  # signal's (int, frame)
        self._signals.append(int(args[0]))

    def signal_handler_reload(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is read again while we run."""

    def _serve_loop(
        self, spawn_target: Callable[..., None], target_loader: Callable[..., Any]
    ) -> None:
        spawn = partial(self._spawn_worker, target=spawn_target, callback_loader=target_loader)
        while not self._time_to_stop():
            self.main_loop_interrupt.wait(_LOOK_SECONDS)
            self.main_loop_interrupt.clear()
            self._note_crashes()
            self._respawn(spawn)
            if self.rss_signal:
                self.rss_signal = False
                self._retire(self._overgrown(), spawn)
                self._watch_workers_rss()
        self.interrupt_children.clear()

    def _time_to_stop(self) -> bool:
        """Whether accepting is over. A first SIGTERM begins the delay; SIGINT has none."""
        now = time.monotonic()
        number = self._next_signal(now)
        if number is not None and self._accept_until is None:
            self._announce("draining")
            delay = self._drain_delay if number == signal.SIGTERM else 0.0
            log.info("draining", extra={"accepting_seconds": delay})
            self._accept_until = now + delay
        elif number is not None:
            self._hurry = True
        return self._hurry or (self._accept_until is not None and now >= self._accept_until)

    def _next_signal(self, now: float) -> int | None:
        """A signal that isn't the echo of an earlier one."""
        number = self._signals.pop(0) if self._signals else None
        if number is None or now < self._deaf_until:
            return None
        self._deaf_until = now + lifeline.SIGNAL_ECHO_SECONDS
        return number

    def _note_crashes(self) -> None:
        now = time.monotonic()
        while self.interrupt_children:
            index = self.interrupt_children.pop(0)
            settled = now - self.wrks[index].birth > SETTLED_SECONDS
            crashes = self._crashes[index] = 1 if settled else self._crashes.get(index, 0) + 1
            pause = min(RESPAWN_LAST_SECONDS, RESPAWN_FIRST_SECONDS * 2 ** (crashes - 1))
            self._respawn_at[index] = now + (0.0 if settled else pause)

    def _respawn(self, spawn: Callable[..., WorkerProcess]) -> None:
        now = time.monotonic()
        for index in [index for index, at in self._respawn_at.items() if at <= now]:
            del self._respawn_at[index]
            self._replace(index, spawn)

    def _replace(self, index: int, spawn: Callable[..., WorkerProcess]) -> WorkerProcess:
        """The worker that held the place until now."""
        former = self.wrks[index]
        worker = spawn(idx=index)
        worker.start()
        self.wrks[index] = worker
        return former

    def _overgrown(self) -> list[int]:
        indexes = {worker._id(): worker.idx for worker in self.wrks if worker.is_alive()}
        try:
            memory: Any = self._rss_collector.memory  # pid → bytes; its stub says int
            rss: dict[int, int] = memory(list(indexes))
        except Exception as error:  # granian names no type; a process may vanish meanwhile
            log.warning("memory of workers unknown", extra={"error": str(error)})
            return []
        return [indexes[pid] for pid, held in rss.items() if held >= (self.workers_rss or held + 1)]

    def _retire(self, indexes: list[int], spawn: Callable[..., WorkerProcess]) -> None:
        """Give each a successor; the old one stops accepting and ends when its streams have."""
        self._retired = [worker for worker in self._retired if worker.is_alive()]
        for index in indexes:
            former = self._replace(index, spawn)
            log.info("gateway process retires", extra={"retired_pid": former._id()})
            former.terminate()
            self._retired.append(former)

    def _stop_workers(self) -> None:
        """Let streams finish, then tell them to end, then kill."""
        living = [worker for worker in (*self.wrks, *self._retired) if worker.is_alive()]
        for worker in living:
            worker.terminate()
        end_at = time.monotonic() + self._drain_seconds
        kill_at = end_at + ENDING_GRACE_SECONDS
        told = False
        while living := [worker for worker in living if worker.is_alive()]:
            now = time.monotonic()
            self._hurry = self._hurry or self._next_signal(now) is not None
            if not told and (now >= end_at or self._hurry):
                told, kill_at = True, now + ENDING_GRACE_SECONDS
                self._announce("ending")
                log.info("streams told to end", extra={"processes": len(living)})
            if now >= kill_at:
                for worker in living:
                    log.warning("gateway process killed", extra={"killed_pid": worker._id()})
                    worker.kill()
            living[0].join(_LOOK_SECONDS)
        self.wrks.clear()

    def _announce(self, state: Literal["draining", "ending"]) -> None:
        unfinished = self._drain_file.with_suffix(".new")
        unfinished.write_text(state)
        unfinished.replace(self._drain_file)


def _load_app(app: str, parent: int, settings: Settings) -> Any:
    """In a new worker process, before it serves: tied to its parent, with a log of its own.

    Until the loop's own handlers are in place a signal must not reach the parent's handler, which
    was inherited by the fork and would swallow it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setpgrp()  # Ctrl-C is for the parent, which lets streams finish
    lifeline.tie(parent)
    set_up_log("gateway", settings)
    module, _, factory = app.partition(":")
    return getattr(importlib.import_module(module), factory)()
