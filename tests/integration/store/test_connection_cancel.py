"""Cancelling a task that waits for Redis."""

import asyncio

import pytest

from shared.store import keys
from shared.store.connection import Connection
from tests.fakes.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("ticks", range(20))
async def test_a_cancelled_caller_of_an_unknown_script_is_cancelled_too(
    redis_url: str, redis_server: RedisServer, ticks: int
) -> None:
    """NOSCRIPT is answered by a second try, which must not begin (2026-11)."""
    redis_server.command("SCRIPT", "FLUSH")
    connection = Connection(redis_url)
    asking = asyncio.create_task(connection.run("pool_state", keys.POOL))
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = asking.done()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled() or was_done
    await connection.close()


@pytest.mark.parametrize("ticks", range(20))
async def test_a_cancelled_caller_is_cancelled_at_whatever_moment(
    redis_url: str, ticks: int
) -> None:
    """redis-py on Python 3.11 swallowed it from the third tick on (2026-11)."""
    connection = Connection(redis_url)
    asking = asyncio.create_task(connection.ask("ping", "PING"))
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = asking.done()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled() or was_done
    assert await connection.ask("ping", "PING")
    await connection.close()
