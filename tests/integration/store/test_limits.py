"""Rate limits and the retry budget."""

import asyncio

import pytest

from shared.store import keys
from shared.store.connection import Connection
from shared.store.limits import Limits
from shared.store.store import Store
from tests.fakes.redis_server import RedisServer
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import entries, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("limit", [1, 7, 60, 999])
async def test_a_limit_admits_exactly_so_many_at_once(store: Store, limit: int) -> None:
    admissions = [await store.limits.take("key", limit) for _ in range(limit)]
    assert all(admission.allowed for admission in admissions)
    # An even refill of a high limit gives some back while we ask.
    assert [a.remaining for a in admissions] == pytest.approx(
        list(range(limit - 1, -1, -1)), abs=limit / 60 * 5
    )
    if limit <= 60:
        refused = await store.limits.take("key", limit)
        assert (refused.allowed, refused.remaining, refused.limit) == (False, 0, limit)
        assert 0 < refused.retry_after_seconds <= 60 / limit
        assert 60 - 5 < refused.reset_seconds <= 60


async def test_a_refused_request_costs_nothing_and_the_refill_is_even(store: Store) -> None:
    limit = 600  # one each 100 ms
    while (admission := await store.limits.take("key", limit)).allowed:
        pass
    for _ in range(20):
        await store.limits.take("key", limit)
    assert admission.retry_after_seconds <= 0.1

    async def admitted() -> bool:
        return (await store.limits.take("key", limit)).allowed

    waited = await until(admitted, seconds=1)
    assert waited <= 0.2


async def test_a_limit_holds_over_processes(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    admissions = await asyncio.gather(*(stores[i % 4].limits.take("key", 20) for i in range(100)))
    assert sum(admission.allowed for admission in admissions) == 20


async def test_keys_do_not_share_a_limit(store: Store) -> None:
    assert (await store.limits.take("one", 1)).allowed
    assert (await store.limits.take("two", 1)).allowed
    assert not (await store.limits.take("one", 1)).allowed


async def test_no_limit_asks_nothing_of_redis(store: Store) -> None:
    assert (await store.limits.take("key", 0)).allowed
    assert not await store.connection.ask("exists", "EXISTS", keys.rate("key"))


async def test_the_first_ten_further_attempts_of_a_second_are_never_withheld(
    open_store: OpenStore,
) -> None:
    stores = [open_store() for _ in range(2)]
    for _ in range(3):
        await next_second(stores[0])
        allowed = [await stores[i % 2].limits.may_try_again() for i in range(30)]
        assert sum(allowed) == 10


async def next_second(store: Store) -> None:
    async def second() -> int:
        return int((await store.connection.ask("time", "TIME"))[0])

    begin = await second()

    async def turned() -> bool:
        return await second() > begin

    await until(turned, seconds=2, every=0.001)


async def test_beyond_those_a_fifth_of_the_first_attempts_is_allowed(
    open_store: OpenStore,
) -> None:
    store = open_store(account_concurrency=1000)
    await store.accounts.add_missing(entries(1))
    for _ in range(200):
        await store.leases.acquire("chat")
    tried = frozenset(["somebody@example.org"])
    for _ in range(50):  # further attempts don't widen the budget
        await store.leases.acquire("chat", tried=tried)
    await next_second(store)
    allowed = 0
    for _ in range(100):
        allowed += await store.limits.may_try_again()
    # All within one window of 10 s, or in two of which the elder one counts in part.
    assert 20 <= allowed <= 0.2 * 200


async def test_what_is_forgiven_does_not_count(store: Store) -> None:
    for _ in range(2):
        await store.limits.take("door", 2)
    assert not (await store.limits.take("door", 2)).allowed
    await store.limits.forgive("door")
    assert (await store.limits.take("door", 2)).remaining == 1


async def test_an_outage_forgives_nobody_and_harms_nobody(own_redis: RedisServer) -> None:
    connection = Connection(own_redis.url)
    limits = Limits(connection)
    own_redis.stop()
    await limits.forgive("door")
    assert limits.uncounted == 1
    await connection.close()
