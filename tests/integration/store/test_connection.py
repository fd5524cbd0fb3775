"""Promise 7 of the contract at the store: Redis frozen, stopped, and back."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from shared.errors import NoAccount, StoreUnavailable, Unauthorized
from shared.settings import Settings
from shared.store import keys
from shared.store.connection import (
    ADMISSION_BUDGET_SECONDS,
    MAX_CONNECTIONS,
    Connection,
)
from shared.store.leases import QUOTA, SERVED, Cooldown, Outcome
from shared.store.store import SCHEMA, SchemaTooNew, Store
from shared.store.subscriber import Subscriber
from tests.fakes.redis_server import RedisServer
from tests.integration.store.pool import email, entries, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_settings(own_redis: RedisServer) -> Settings:
    return Settings(
        redis_url=own_redis.url,
        secret_key="0123456789abcdef0123456789abcdef",
        api_key="sk-admin,sk-regular",
        login_min_interval_ms=0,
        lease_ttl_seconds=2,
    )


@pytest.fixture
async def own_store(own_settings: Settings) -> AsyncIterator[Store]:
    async with Store(own_settings) as store:
        yield store


async def answers(store: Store) -> bool:
    try:
        await store.ping()
    except StoreUnavailable:
        return False
    return True


async def test_frozen_every_new_request_has_its_503_within_two_seconds(
    own_redis: RedisServer, own_store: Store
) -> None:
    await own_store.accounts.add_missing(entries(20))
    own_redis.freeze()

    async def admit() -> None:
        async with own_store.connection.admission():
            await own_store.limits.take("key", 1000)
            await own_store.leases.lend("chat", wait_seconds=30)

    async def admission() -> float:
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await admit()
        return time.monotonic() - started

    first = await asyncio.gather(*(admission() for _ in range(100)))
    assert max(first) < 2
    at_once = await asyncio.gather(*(admission() for _ in range(100)))
    assert max(at_once) < 0.2  # the breaker is open
    own_redis.thaw()

    async def lends() -> bool:
        try:
            await own_store.leases.acquire("chat")
        except StoreUnavailable:
            return False
        return True

    await until(lends, seconds=3)


async def test_what_a_frozen_server_lent_to_nobody_comes_back(
    own_redis: RedisServer, own_store: Store
) -> None:
    """The script of a timed-out acquire still runs once the server thaws."""
    await own_store.accounts.add_missing(entries(2))
    own_redis.freeze()
    await asyncio.gather(
        *(own_store.leases.acquire("chat") for _ in range(4)), return_exceptions=True
    )
    own_redis.thaw()

    async def nothing_lent() -> bool:
        page = await own_store.accounts.page()
        return [account.in_flight for account in page.accounts] == [0, 0]

    async def back() -> bool:
        return await answers(own_store) and await nothing_lent()

    await until(back, seconds=4)


async def test_stopped_and_started_it_recovers_by_itself(
    own_redis: RedisServer, own_store: Store
) -> None:
    await own_store.accounts.add_missing(entries(1))
    held = await own_store.leases.acquire("chat")
    own_redis.stop()
    for _ in range(5):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await own_store.leases.lend("chat", wait_seconds=30)
        assert time.monotonic() - started < 1
    spent = Outcome(cooldown=Cooldown(reason=QUOTA, seconds=60))
    with pytest.raises(StoreUnavailable):
        await own_store.leases.release(held, spent)
    own_redis.start()

    async def back() -> bool:
        return await answers(own_store)

    await until(back, seconds=3)

    async def released() -> bool:  # the release that failed is made up for, with what it told
        account = await own_store.accounts.get(email(0))
        return account.in_flight == 0 and [c.reason for c in account.cooldowns] == [QUOTA]

    await until(released, seconds=3)


async def test_a_stream_that_outlives_an_outage_keeps_its_slot(
    own_redis: RedisServer, own_store: Store
) -> None:
    await own_store.accounts.add_missing(entries(1))
    await own_store.accounts.set_concurrency(email(0), 1)
    held = await own_store.leases.acquire("chat")
    own_redis.stop()
    await asyncio.sleep(2.5)  # longer than the lease
    own_redis.start()

    async def back() -> bool:
        return await answers(own_store)

    await until(back, seconds=3)
    await own_store.leases.extend_all()
    with pytest.raises(NoAccount):
        await own_store.leases.acquire("chat")
    assert await own_store.leases.release(held, SERVED)

    async def lent_again() -> bool:  # an extension under way may hold the slot for a moment more
        try:
            return bool(await own_store.leases.acquire("chat"))
        except NoAccount:
            return False

    await until(lent_again, seconds=1)


async def test_those_who_wait_in_line_hear_of_an_outage(
    own_redis: RedisServer, own_store: Store
) -> None:
    await own_store.accounts.add_missing(entries(1))
    for _ in range(2):
        await own_store.leases.acquire("chat")
    waiters = [
        asyncio.create_task(own_store.leases.lend("chat", wait_seconds=30)) for _ in range(5)
    ]
    await asyncio.sleep(0.1)
    own_redis.stop()
    results = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 3)
    assert {type(result) for result in results} == {StoreUnavailable}


async def test_a_store_opens_while_redis_is_away_and_works_once_it_is_there(
    own_redis: RedisServer, own_settings: Settings
) -> None:
    own_redis.stop()
    async with Store(own_settings) as store:
        with pytest.raises(StoreUnavailable):
            await store.leases.acquire("chat")
        assert (await store.api_keys.find("sk-admin")).admin
        with pytest.raises(StoreUnavailable):
            await store.pool_state()
        own_redis.start()

        async def back() -> bool:
            return await answers(store)

        await until(back, seconds=3)
        assert not (await store.pool_state()).any_usable

        async def marked() -> bool:
            return bool(await store.connection.ask("schema", "GET", keys.schema()) == str(SCHEMA))

        await until(marked, seconds=1)


async def test_keys_while_redis_is_away(own_redis: RedisServer, own_store: Store) -> None:
    cached = (await own_store.api_keys.create("cached")).key
    unknown_yet = (await own_store.api_keys.create("not cached")).key
    await own_store.api_keys.look()  # the version of both creations: nothing is forgotten later
    await own_store.api_keys.find(cached)
    own_redis.freeze()
    assert (await own_store.api_keys.find(cached)).name == "cached"
    assert (await own_store.api_keys.find("sk-regular")).admin is False
    with pytest.raises(StoreUnavailable):
        await own_store.api_keys.find(unknown_yet)
    with pytest.raises(StoreUnavailable):  # never a 401 on suspicion
        await own_store.api_keys.find("sk-nobody")
    own_redis.thaw()

    async def back() -> bool:
        return await answers(own_store)

    await until(back, seconds=3)
    assert (await own_store.api_keys.find(unknown_yet)).name == "not cached"
    with pytest.raises(Unauthorized):
        await own_store.api_keys.find("sk-nobody")


async def test_rate_limits_fail_open_and_the_retry_budget_closed(
    own_redis: RedisServer, own_store: Store
) -> None:
    own_redis.stop()
    admissions = [await own_store.limits.take("key", 1) for _ in range(3)]
    assert all(admission.allowed for admission in admissions)
    assert own_store.limits.uncounted == 3
    assert not await own_store.limits.may_try_again()


async def test_the_last_model_list_is_served_while_redis_is_away(
    own_redis: RedisServer, own_store: Store
) -> None:
    claim = await own_store.cache.models_claim()
    assert claim is not None
    await own_store.cache.models_put(claim, b"[1]", ttl_seconds=60)
    assert (await own_store.cache.models_get()).fresh
    own_redis.stop()
    last = await own_store.cache.models_get()
    assert (last.body, last.fresh) == (b"[1]", False)


async def test_without_a_list_ever_read_an_outage_is_told(
    own_redis: RedisServer, own_store: Store
) -> None:
    own_redis.stop()
    with pytest.raises(StoreUnavailable):
        await own_store.cache.models_get()


async def test_the_breaker_opens_once_and_closes_by_itself(
    own_redis: RedisServer, own_store: Store
) -> None:
    returns: list[bool] = []
    own_store.connection.on_return(lambda: returns.append(own_store.connection.is_away))
    own_redis.freeze()
    with pytest.raises(StoreUnavailable):
        await own_store.ping()
    assert own_store.connection.is_away
    own_redis.thaw()

    async def closed() -> bool:
        return not own_store.connection.is_away

    await until(closed, seconds=2)
    assert returns == [False]


async def test_the_admission_budget_ends_what_takes_too_long(own_store: Store) -> None:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        async with own_store.connection.admission():
            await asyncio.sleep(30)
    assert time.monotonic() - started < ADMISSION_BUDGET_SECONDS + 0.3


async def test_a_newer_layout_is_refused_at_the_start(own_store: Store) -> None:
    await own_store.connection.ask("schema", "SET", keys.schema(), SCHEMA + 1)
    await own_store.close()
    with pytest.raises(SchemaTooNew, match="newer"):
        await own_store.open()


async def test_a_full_server_is_told_as_away_and_not_as_a_bug(
    own_redis: RedisServer, own_store: Store
) -> None:
    await own_store.accounts.add_missing(entries(1))
    own_redis.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable):
        await own_store.leases.acquire("chat")
    own_redis.command("CONFIG", "SET", "maxmemory", "0")

    async def lends() -> bool:
        try:
            await own_store.leases.acquire("chat")
        except StoreUnavailable:
            return False
        return True

    await until(lends, seconds=3)


async def test_every_call_is_observed_with_its_name_and_outcome(own_redis: RedisServer) -> None:
    seen: list[tuple[str, float, bool]] = []
    connection = Connection(
        own_redis.url, observe=lambda name, seconds, ok: seen.append((name, seconds, ok))
    )
    await connection.ask("ping", "PING")
    own_redis.stop()
    with pytest.raises(StoreUnavailable):
        await connection.run("lease_reclaim", "gw:{pool}", 2, 10)
    assert [(name, ok) for name, _, ok in seen] == [("ping", True), ("lease_reclaim", False)]
    await connection.close()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_what_is_observed_is_finer_than_the_loops_clock(redis_url: str) -> None:
    """uvloop's own clock stands still within a millisecond: most calls would take no time."""
    seen: list[float] = []
    connection = Connection(redis_url, observe=lambda name, seconds, ok: seen.append(seconds))
    for _ in range(50):
        await connection.ask("ping", "PING")
    await connection.close()
    assert len(set(seen)) > 40
    assert min(seen) > 0


async def test_a_burst_opens_few_connections(own_redis: RedisServer, own_store: Store) -> None:
    await asyncio.gather(*(own_store.ping() for _ in range(500)))
    clients = await own_store.connection.ask("clients", "CLIENT", "LIST")
    assert len(clients.splitlines()) <= MAX_CONNECTIONS + 2


async def test_a_restarted_server_that_knows_no_script_gets_them_again(
    own_redis: RedisServer, own_store: Store
) -> None:
    await own_store.pool_state()
    own_redis.command("SCRIPT", "FLUSH")
    assert (await own_store.pool_state()).leases_in_flight == 0


async def test_a_server_that_takes_no_writes_now_is_told_as_away(
    own_redis: RedisServer, own_store: Store
) -> None:
    """NOREPLICAS stands for all that pass by themselves: LOADING, MISCONF."""
    own_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(StoreUnavailable):
        await own_store.connection.ask("write", "SET", "test:key", 1)
    assert not own_store.connection.is_away, "it answers: nobody else is to be refused"
    own_redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
    await own_store.connection.ask("write", "SET", "test:key", 1)


async def test_a_wrong_command_is_a_bug_and_no_outage(own_store: Store) -> None:
    await own_store.connection.ask("write", "SET", "test:key", "text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await own_store.connection.ask("wrong", "LPUSH", "test:key", 1)
    assert not own_store.connection.is_away


async def test_whatever_answers_in_redis_place_the_probe_goes_on(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(own_redis.url)
    own_redis.stop()
    with pytest.raises(StoreUnavailable):
        await connection.ask("ping", "PING")
    own_redis.socket.unlink(missing_ok=True)

    async def talk_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(4096):
            writer.write(b"%1\r\n+proto\r\n:3\r\n" * said.count(b"HELLO"))
            writer.write(b"+OK\r\n" * said.count(b"SETINFO"))
            writer.write(b":not a number\r\n" * said.count(b"PING"))
        writer.close()
        await writer.wait_closed()

    impostor = await asyncio.start_unix_server(talk_nonsense, own_redis.socket)

    async def probe_failed() -> bool:
        return "probe of the store failed" in caplog.text

    await until(probe_failed, seconds=3)
    impostor.close()
    own_redis.start()

    async def back() -> bool:
        return not connection.is_away

    await until(back, seconds=3)
    await connection.close()


async def test_a_database_that_comes_back_newer_is_told(
    own_redis: RedisServer, own_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.command("SET", keys.schema(), str(SCHEMA + 1))
    await come_back(own_redis, own_store)

    async def told() -> bool:
        return "the store came back newer than this gateway" in caplog.text

    await until(told, seconds=2)


async def test_a_database_that_comes_back_without_taking_writes_is_looked_at_later(
    own_redis: RedisServer, own_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.options = (*own_redis.options, "--min-replicas-to-write", "1")
    with caplog.at_level("DEBUG"):
        await come_back(own_redis, own_store)

        async def told() -> bool:
            return "store away again" in caplog.text

        await until(told, seconds=2)


async def come_back(redis: RedisServer, store: Store) -> None:
    redis.stop()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    redis.start()

    async def back() -> bool:
        return await answers(store)

    await until(back, seconds=3)


async def test_leases_are_kept_alive_whatever_becomes_of_another_step(
    own_redis: RedisServer, own_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in looking for changed keys must not end the task, nor that of the leases."""
    await own_store.accounts.add_missing(entries(1))
    lease = await own_store.leases.acquire("chat")
    own_redis.command("LPUSH", keys.api_keys_version(), "no number")

    async def told() -> bool:
        return caplog.text.count("not kept up") >= 2

    await until(told, seconds=5)
    assert await own_store.leases.release(lease)


async def test_who_wants_to_listen_to_a_frozen_server_is_not_kept(own_redis: RedisServer) -> None:
    connection = Connection(own_redis.url)
    subscriber = Subscriber(connection, "test:channel", lambda message: None)
    own_redis.freeze()
    started = time.monotonic()
    await subscriber.start()
    assert time.monotonic() - started < 2
    own_redis.thaw()
    await subscriber.stop()
    await connection.close()
