"""Cancelling a task that waits for Redis."""

import asyncio

import pytest

from shared.store.connection import Connection

pytestmark = pytest.mark.anyio


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
