"""Tells the gateway's own time from the time a turn spends waiting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Tells the gateway's own time from the time spent waiting for accounts and the upstream."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._since: float | None = None

    @property
    def waited_seconds(self) -> float:
        running = time.monotonic() - self._since if self._since is not None else 0.0
        return self._waited + running

    def start_waiting(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def stop_waiting(self) -> None:
        if self._since is not None:
            self._waited += time.monotonic() - self._since
            self._since = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self.start_waiting()
        try:
            yield
        finally:
            self.stop_waiting()
