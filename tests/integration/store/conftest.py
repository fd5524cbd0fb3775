"""A store on a real, empty Redis for each test."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from shared.sealing import Sealer
from shared.settings import Settings
from shared.store import keys
from shared.store.connection import Connection
from shared.store.store import Store
from tests.fakes.redis_server import own_redis, redis_server, redis_url
from tests.integration.store.meddling import MeddledConnection

__all__ = ["own_redis", "redis_server", "redis_url"]

OpenStore = Callable[..., Store]


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(
        redis_url=redis_url,
        secret_key="0123456789abcdef0123456789abcdef",
        login_min_interval_ms=0,
    )


@pytest.fixture
async def open_store(settings: Settings) -> AsyncIterator[OpenStore]:
    """Further stores of the same database, as other processes would have them."""
    stores: list[Store] = []

    def open_one(**changes: object) -> Store:
        stores.append(Store(msgspec.structs.replace(settings, **changes)))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()
    await check_keys(settings)


async def check_keys(settings: Settings) -> None:
    """Whatever a test left behind: every key is one of `keys.py`, of its type, and mortal unless
    it is kept."""
    connection = Connection(settings.redis_url)
    cursor = "0"
    while True:
        cursor, names = await connection.ask("scan", "SCAN", cursor, "COUNT", 1000)
        for name in names:
            if not name.startswith("test:"):
                await check_key(connection, name)
        if int(cursor) == 0:
            break
    await connection.close()


async def check_key(connection: Connection, name: str) -> None:
    key = keys.find(name)
    assert key is not None, name
    if key is keys.account and not name.endswith("0@example.org"):
        return  # ten thousand times the same
    assert await connection.ask("type", "TYPE", name) in (key.type, "none"), name
    mortal = await connection.ask("ttl", "PTTL", name) != -1
    assert mortal != key.kept, f"{name} is {'mortal' if mortal else 'immortal'}"


@pytest.fixture
async def meddled(settings: Settings) -> AsyncIterator[MeddledConnection]:
    """For a part of the store, made by the test, whose calls something else comes between."""
    connection = MeddledConnection(settings.redis_url)
    yield connection
    await connection.close()


@pytest.fixture
def sealer(settings: Settings) -> Sealer:
    return Sealer(settings.secret_key)


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    store = open_store()
    await store.open()
    return store
