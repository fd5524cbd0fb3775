"""One connection per process for messages, open only while somebody listens.

Knows: channels, and that a message may be lost whenever the connection is. Does not know: what
messages mean. Whoever listens must also look by himself from time to time: a message is a hint.
"""

import asyncio
import logging
from collections.abc import Callable

from redis.exceptions import RedisError

from shared.errors import StoreUnavailable
from shared.store.connection import Connection, honour_cancellation

log = logging.getLogger(__name__)

Receive = Callable[[str | None], None]

_RECONNECT_SECONDS = 0.5


class Subscriber:
    """Hands the messages of one channel to `receive`; `None` after every (re)connection, because
    something may have been missed."""

    def __init__(self, connection: Connection, channel: str, receive: Receive) -> None:
        self._connection = connection
        self._channel = channel
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._subscribed = asyncio.Event()

    async def start(self) -> None:
        """Returns when messages arrive, or when Redis does not let us subscribe soon."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="store-subscriber")
        try:
            # Not `wait_for`: on 3.11 it swallows a cancellation that meets the event (tried).
            async with asyncio.timeout(_RECONNECT_SECONDS):
                await self._subscribed.wait()
        except TimeoutError:
            return

    async def stop(self) -> None:
        task, self._task = self._task, None
        self._subscribed.clear()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (TimeoutError, RedisError, OSError, StoreUnavailable) as error:
                log.info("subscription lost", extra={"error": type(error).__name__})
            self._subscribed.clear()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        client = self._connection.subscriber()
        pubsub = client.redis.pubsub()
        try:
            await pubsub.subscribe(self._channel)
            honour_cancellation()
            async for message in pubsub.listen():
                self._subscribed.set()
                self._receive(message["data"] if message["type"] == "message" else None)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py left it untyped
            await client.close()
