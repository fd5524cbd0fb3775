"""A store on a real, empty Redis for each test."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from shared.settings import Settings
from shared.store.store import Store
from tests.fakes.redis_server import own_redis, redis_server, redis_url

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


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    store = open_store()
    await store.open()
    return store
