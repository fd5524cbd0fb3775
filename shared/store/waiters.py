"""Those of this process who wait in line for an account.

Knows: who waits here, how they are woken, that this process must say it lives. Does not know: who
is next (the queue in Redis does) and what they do once awake.

A release names the first waiter in a message to his process. Messages can be lost, so once a second
(or when an account becomes ready by time alone) one script asks whether one of ours is first and
could be served; the same script is the heartbeat: a process that misses it for 3 s loses its
places.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from shared.errors import StoreUnavailable
from shared.store import keys
from shared.store.connection import Connection
from shared.store.settings import SettingsInForce
from shared.store.subscriber import Subscriber

log = logging.getLogger(__name__)

_BEAT_SECONDS = 1.0


class Woken:
    """What one waiter sleeps on."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Returns when woken, at the latest after `seconds`."""
        # Not `asyncio.timeout`: that ends a wait by a cancellation, as one who leaves does.
        timer = asyncio.get_running_loop().call_later(seconds, self._event.set)
        try:
            await self._event.wait()
        finally:
            timer.cancel()
        self._event.clear()


class Waiters:
    """The waiters of one process, their subscription and their heartbeat."""

    def __init__(
        self,
        connection: Connection,
        *,
        process: str,
        settings: SettingsInForce,
        unknown: Callable[[str], None],
    ) -> None:
        """`unknown` hears the name of a waiter whose turn it is and who isn't listening."""
        self._connection = connection
        self._process = process
        self._settings = settings
        self._unknown = unknown
        self._waiting: dict[str, Woken] = {}
        self._subscriber = Subscriber(connection, keys.WAKE_CHANNEL + process, self._wake)
        self._beats: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self, token: str) -> AsyncIterator[Woken]:
        """Inside, the waiter `token` is woken when it is first and could be served.

        On entry messages arrive already: whoever looks now misses nothing.
        """
        woken = self._waiting[token] = Woken()
        try:
            self._keep_beating()
            await self._subscriber.start()
            yield woken
        finally:
            del self._waiting[token]

    async def sleep(self, woken: Woken, seconds: float) -> None:
        """Returns when `woken`, at the latest after so long."""
        self._keep_beating()
        await woken.wait(seconds)

    async def close(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
            self._beats = None
        await self._subscriber.stop()

    def _wake(self, token: str | None) -> None:
        """`None`: messages may have been lost, so all look for themselves."""
        if token is None:
            for woken in self._waiting.values():
                woken.set()
        elif token in self._waiting:
            self._waiting[token].set()
        else:
            self._unknown(token)

    def _keep_beating(self) -> None:
        if self._beats is None or self._beats.done():
            self._beats = asyncio.create_task(self._beat_forever(), name="store-waiters")

    async def _beat_forever(self) -> None:
        while self._waiting:
            try:
                concurrency = self._settings.current.account_concurrency
                next_ms, *servable = await self._connection.run(
                    "queue_beat", keys.POOL, self._process, concurrency
                )
            except StoreUnavailable:
                self._wake(None)  # each of them hears it for himself
                next_ms, servable = -1, []
            except Exception:
                # A bug in one beat must not end them: all would sleep on and lose their places.
                log.exception("beat of the waiters failed")
                next_ms, servable = -1, []
            for token in servable:
                self._wake(token)
            pause = _BEAT_SECONDS if next_ms < 0 else min(_BEAT_SECONDS, next_ms / 1000)
            await asyncio.sleep(max(pause, 0.002))
            if not self._waiting:
                await self._subscriber.stop()  # one who comes meanwhile is found by the loop
