"""A loop of its own for what lasts, beside RQ's, which runs one job after the other.

RQ's thread begins work here and goes on to its next job; the work shares what it needs (Redis, HTTP
connections, the model list), opened when the first comes and closed when the process ends.

Knows: a thread, a loop, tasks. Does not know: steps, jobs.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, Protocol, TypeVar

log = logging.getLogger(__name__)

# Well within the time that the parent of the job processes gives them to stop.
STOP_SECONDS: Final = 15.0


class Opened(Protocol):
    """What the work shares."""

    @property
    def stopping(self) -> asyncio.Event: ...

    def opened(self) -> AbstractAsyncContextManager[None]: ...


S = TypeVar("S", bound=Opened)
Work = Callable[[S], Awaitable[None]]


class Beside(Generic[S]):
    """`begin` from any thread, until `stop`.

    Args:
        share: makes what the work shares; called in the loop's thread.
        most: how much runs at once.
    """

    def __init__(self, share: Callable[[], S], *, most: int) -> None:
        self._share = share
        self._places = threading.Semaphore(most)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._within_seconds = STOP_SECONDS
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lasting jobs", daemon=True)
        self._thread.start()

    def begin(self, work: Work[S], *, otherwise: Work[S]) -> None:
        """Run `work` beside all the others; `otherwise` when there are `most` of them.

        Raises:
            RuntimeError: what the work shares could not be opened.
        """
        self._ready.wait()
        if self._loop is None:
            raise RuntimeError("lasting jobs can't run here")
        if self._places.acquire(blocking=False):
            self._loop.call_soon_threadsafe(self._start, work, self._places.release)
        else:
            self._loop.call_soon_threadsafe(self._start, otherwise, _nothing)

    def ask_to_stop(self, *, within_seconds: float = STOP_SECONDS) -> None:
        """Nothing begins any more; what runs may end by itself for that long, then it is cancelled.

        Returns at once, and may be called by a signal's handler.
        """
        self._within_seconds = within_seconds
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def stop(self, *, within_seconds: float = STOP_SECONDS) -> None:
        """Like `ask_to_stop`, and all is closed when it returns."""
        self._ready.wait()
        self.ask_to_stop(within_seconds=within_seconds)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("the loop of lasting jobs broke")
        finally:
            self._loop = None
            self._ready.set()

    async def _serve(self) -> None:
        self._shared = self._share()
        async with self._shared.opened():
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stopping.wait()
            self._shared.stopping.set()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._within_seconds)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Work[S], leave: Callable[[], None]) -> None:
        if self._stopping.is_set():
            return  # its claim lapses, and another process begins it
        task = asyncio.ensure_future(self._watched(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: leave())

    async def _watched(self, work: Work[S]) -> None:
        try:
            await work(self._shared)
        except Exception:
            # Its claim lapses and it is due again.
            log.exception("a lasting job broke")


def _nothing() -> None:
    """What is done at once takes no place."""
