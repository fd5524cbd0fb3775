"""The way to Redis: open, ask within a deadline, notice that it is away and that it is back.

Knows: URLs, time-outs, the breaker, text and bytes. Does not know: what is stored.

Why there are no client retries: with redis-py's `Retry` a frozen server held one script for 35 s
and applied an INCR twice (tried, redis-py 8.1). Instead one try with a short socket time-out, and a
breaker: after a failure every call is answered `StoreUnavailable` at once while a background probe
asks at once and then once a second; the first answer closes the breaker again.

Replies become text (`str`) here and nowhere else; `read_bytes` and `run_bytes` leave them as they
are. RQ has a connection of its own, since it breaks on decoded replies.
"""

import asyncio
import builtins
import contextlib
import logging
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

import redis.asyncio as redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.errors import StoreUnavailable
from shared.store import scripts

log = logging.getLogger(__name__)

SOCKET_TIMEOUT_SECONDS = 0.5
# Connecting takes some rounds of our own loop: beside busy neighbours a burst of turns was slower
# than 0.5 s here and took itself for an outage. A frozen server is met by the time-out above (the
# kernel accepts in its place), so this one is for hosts that are gone, and below the budget.
CONNECT_TIMEOUT_SECONDS = 1.0
# A unix socket is connected at once or not at all: only our own slowness can take time.
UNIX_CONNECT_TIMEOUT_SECONDS = 5.0
ADMISSION_BUDGET_SECONDS = 1.5
PROBE_INTERVAL_SECONDS = 1.0
# More calls at once than this wait for each other: a burst of 500 turns must not open 500 sockets.
MAX_CONNECTIONS = 32

Observe = Callable[[str, float, bool], None]
Reply = (
    Any  # what a script answers: int, str, None, or a list of these; each caller knows its shape
)

_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    TimeoutError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
    OutOfMemoryError,
)


def observe_nothing(operation: str, seconds: float, ok: bool) -> None:
    """The default of `observe`."""


class Connection:
    """One process's connections to Redis, with the breaker before them."""

    def __init__(self, url: str, *, observe: Observe = observe_nothing) -> None:
        self._client = open_client(url, timeout_seconds=SOCKET_TIMEOUT_SECONDS)
        self._url = url
        self._observe = observe
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._away = False
        self._probe: asyncio.Task[None] | None = None
        self._on_return: list[Callable[[], None]] = []

    @property
    def is_away(self) -> bool:
        """Whether the breaker is open."""
        return self._away

    def on_return(self, callback: Callable[[], None]) -> None:
        """`callback` is called each time Redis answers again after it was away."""
        self._on_return.append(callback)

    async def run(self, script: str, key: str, *arguments: str | int | float | bytes) -> Reply:
        """The reply of `lua/<script>.lua` to one KEYS[1] and its arguments, in one round trip.

        Raises:
            StoreUnavailable: no answer in time; the script may have run all the same.
        """
        return await self._run(script, key, arguments, {})

    async def run_bytes(
        self, script: str, key: str, *arguments: str | int | float | bytes
    ) -> Reply:
        """Like `run`, with the strings of the reply as bytes."""
        return await self._run(script, key, arguments, {NEVER_DECODE: True})

    async def ask(self, operation: str, *command: str | int | float | bytes) -> Reply:
        """The reply to one command, as text.

        Raises:
            StoreUnavailable: no answer in time, or none expected.
        """
        return await self._ask(operation, command, {})

    async def read_bytes(self, operation: str, *command: str | int | float | bytes) -> Reply:
        """The reply to one command with bulk strings as bytes."""
        return await self._ask(operation, command, {NEVER_DECODE: True})

    @contextlib.asynccontextmanager
    async def admission(self) -> AsyncIterator[None]:
        """One budget of 1.5 s for everything a new request asks of Redis inside this block.

        Waiting for a busy account doesn't belong inside: `Leases.lend` hears of an outage itself.

        Raises:
            StoreUnavailable: the budget is spent.
        """
        try:
            async with asyncio.timeout(ADMISSION_BUDGET_SECONDS):
                yield
        except builtins.TimeoutError as error:
            raise StoreUnavailable from error

    def subscriber(self) -> "Client":
        """A client of its own for pub/sub: it waits long where the others must not.

        Messages reach every node of a cluster, so any one of them will do.
        """
        url = self._url.replace("redis+cluster", "redis", 1)
        return open_client(url, timeout_seconds=None)

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._client.close()

    async def _run(
        self, script: str, key: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Reply:
        loaded = scripts.load(script)
        try:
            return await self._ask(script, ("EVALSHA", loaded.sha, 1, key, *arguments), options)
        except NoScriptError:  # the server was restarted: it has not run; EVAL also loads it
            return await self._ask(script, ("EVAL", loaded.text, 1, key, *arguments), options)

    async def _ask(
        self, operation: str, command: tuple[Any, ...], options: dict[str, Any]
    ) -> Reply:
        if self._away:
            raise StoreUnavailable
        started = time.perf_counter()  # uvloop's own clock ticks once a millisecond
        cancels = cancellations()
        ok = False
        try:
            async with self._slots:
                if self._away:  # it went away while this call waited for its turn
                    raise StoreUnavailable
                reply = await self._client.redis.execute_command(  # type: ignore[no-untyped-call]  # redis-py left it untyped
                    *command, **options
                )
            ok = True
        except NoScriptError:
            ok = True
            raise
        except _AWAY as error:
            self._open_breaker(error)
            raise StoreUnavailable from error
        except ResponseError as error:
            if str(error).startswith(("LOADING", "MISCONF", "NOREPLICAS")):
                raise StoreUnavailable from error
            raise
        finally:
            self._observe(operation, time.perf_counter() - started, ok)
            honour_cancellation(cancels)  # also when the reply is an error: NOSCRIPT is asked again
        return reply

    def _open_breaker(self, error: BaseException) -> None:
        self._away = True
        if self._probe is None or self._probe.done():
            log.warning("store away", extra={"error": type(error).__name__})
            self._probe = asyncio.create_task(self._probe_until_back(), name="store-probe")

    async def _probe_until_back(self) -> None:
        while True:
            try:
                # What was connected before may be dead or, worse, owe replies: start afresh.
                await self._drop_idle_connections()
                await self._client.redis.execute_command("PING")  # type: ignore[no-untyped-call]  # as above
            except Exception as error:
                # Whatever it was: nobody else would ever close the breaker again.
                if not isinstance(error, RedisError | OSError):
                    log.exception("probe of the store failed")
                honour_cancellation()
                await asyncio.sleep(PROBE_INTERVAL_SECONDS)
                continue
            self._away = False
            log.info("store back")
            for callback in self._on_return:
                callback()
            return

    async def _drop_idle_connections(self) -> None:
        # A cluster client has a pool per node and looks after them itself.
        pool = getattr(self._client.redis, "connection_pool", None)
        if pool is not None:
            await pool.disconnect(inuse_connections=False)


class Client:
    """redis-py's client and what must be closed with it."""

    def __init__(self, client: redis.Redis, *companions: redis.Redis) -> None:
        self.redis = client
        self._companions = companions

    async def close(self) -> None:
        for client in (self.redis, *self._companions):
            await client.aclose()


def cancellations() -> int:
    """How often this task was asked to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def honour_cancellation(before: int = 0) -> None:
    """Ends this task if it was asked to end since there were `before` cancellations.

    Trap: redis-py sends through `asyncio.wait_for`, and on Python 3.11 that swallows a cancellation
    which arrives when the bytes are already out, that is nearly always: the caller would run on as
    if nobody had left. So whoever was cancelled meanwhile is cancelled here.
    """
    if cancellations() > before:
        raise asyncio.CancelledError


def open_client(url: str, *, timeout_seconds: float | None) -> Client:
    """A client for any URL of `REDIS_URL`; connects when first used.

    redis://, rediss://, unix://                        one server
    redis+sentinel://[user:pass@]host[:port][,host[:port]…]/<service>[/<db>]   the service's master
    redis+cluster://[user:pass@]host[:port]             a cluster; the pool lives on one node of it
    """
    is_unix = url.startswith("unix://")
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": (
            UNIX_CONNECT_TIMEOUT_SECONDS if is_unix else CONNECT_TIMEOUT_SECONDS
        ),
        "retry": Retry(NoBackoff(), 0),
    }
    if url.startswith("redis+sentinel://"):
        return _open_sentinel(url, options)
    if url.startswith("redis+cluster://"):
        # Its client has the same methods as far as we use them.
        cluster: Any = RedisCluster.from_url(url.replace("redis+cluster", "redis", 1), **options)
        return Client(cluster)
    return Client(redis.Redis.from_url(url, **options))


def _open_sentinel(url: str, options: dict[str, Any]) -> Client:
    parts = urllib.parse.urlsplit(url)
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    service, _, db = parts.path.strip("/").partition("/")
    addresses = []
    for host in hosts.split(","):
        name, _, port = host.partition(":")
        addresses.append((name, int(port or 26379)))
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py left it untyped
        addresses,
        sentinel_kwargs={
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    credentials: dict[str, Any] = {}
    if username:
        credentials["username"] = urllib.parse.unquote(username)
    if password:
        credentials["password"] = urllib.parse.unquote(password)
    master: redis.Redis = sentinel.master_for(
        service or "mymaster", db=int(db or 0), **credentials, **options
    )
    return Client(master, *sentinel.sentinels)  # redis-py leaves its sentinels open (tried)
