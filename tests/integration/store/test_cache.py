"""The shared model list."""

import asyncio

import pytest

from shared.store import keys
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import until

pytestmark = pytest.mark.anyio


async def put(store: Store, body: bytes, ttl_seconds: float = 60) -> None:
    claim = await store.cache.models_claim(forced=True)
    assert claim is not None
    assert await store.cache.models_put(claim, body, ttl_seconds=ttl_seconds)


async def test_there_is_no_list_before_the_first(store: Store) -> None:
    cached = await store.cache.models_get()
    assert (cached.body, cached.fresh) == (None, False)


async def test_one_of_many_processes_reads_the_list(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(8)]
    claims = await asyncio.gather(*(store.cache.models_claim() for store in stores))
    assert len([claim for claim in claims if claim]) == 1


async def test_a_list_is_everybodys_and_fresh_for_its_time(
    store: Store, open_store: OpenStore
) -> None:
    await put(store, b'{"caf\xc3\xa9": "\xff"}', ttl_seconds=0.1)
    other = open_store()
    cached = await other.cache.models_get()
    assert (cached.body, cached.fresh) == (b'{"caf\xc3\xa9": "\xff"}', True)
    assert await other.cache.models_claim() is None

    async def stale() -> bool:
        return not (await other.cache.models_get()).fresh

    await until(stale, seconds=1)
    assert (await other.cache.models_get()).body is not None
    assert await other.cache.models_claim()


async def test_after_a_failure_the_old_list_stays_and_nobody_hurries(store: Store) -> None:
    await put(store, b"[1]", ttl_seconds=0.01)
    claim = await store.cache.models_claim(forced=True)
    assert claim is not None
    assert not (await store.cache.models_get()).failed
    await store.cache.models_failed(claim)
    assert await store.cache.models_claim() is None
    cached = await store.cache.models_get()
    assert (cached.body, cached.failed) == (b"[1]", True)
    assert 0 < await store.connection.ask("ttl", "PTTL", keys.models_claim()) <= 5000


async def test_a_reader_past_its_time_does_not_overwrite_its_successor(store: Store) -> None:
    late = await store.cache.models_claim()
    assert late is not None
    await store.connection.ask("lapse", "DEL", keys.models_claim())
    successor = await store.cache.models_claim()
    assert successor is not None
    assert not await store.cache.models_put(late, b"late", ttl_seconds=60)
    assert await store.cache.models_put(successor, b"good", ttl_seconds=60)
    assert (await store.cache.models_get()).body == b"good"


async def test_no_ttl_means_fresh_until_somebody_insists(store: Store) -> None:
    await put(store, b"[]", ttl_seconds=0)
    assert (await store.cache.models_get()).fresh
    assert await store.cache.models_claim() is None
    assert await store.cache.models_claim(forced=True)


async def test_a_shorter_life_holds_for_the_list_there_is_and_a_longer_one_does_not(
    store: Store,
) -> None:
    claim = await store.cache.models_claim()
    assert claim is not None
    assert await store.cache.models_put(claim, b"[1]", ttl_seconds=3600)
    await store.cache.models_last_at_most(7200)
    assert await store.connection.ask("ttl", "TTL", keys.models_fresh()) <= 3600
    await store.cache.models_last_at_most(0.03)

    async def stale() -> bool:
        return not (await store.cache.models_get()).fresh

    await until(stale, seconds=1)
    assert (await store.cache.models_get()).body == b"[1]"
