"""From lines to a batch on a real Redis, and what a Qwen2API instance leaves beside its accounts."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator

import msgspec
import pytest
import redis.asyncio as redis

from shared.errors import BadRequest, StoreUnavailable
from shared.imports import Seen, dry_run, put_down
from shared.intake.lines import BatchLine, InvalidLine, Line
from shared.settings import Settings
from shared.store.qwen2api import Qwen2ApiRedis
from shared.store.settings import Author
from shared.store.store import Store
from shared.takeover import KEY_NAME, take_over
from tests.fakes.batches import each
from tests.fakes.redis_server import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]

pytestmark = pytest.mark.anyio

BY = Author(key="a test")
COUNT = 100_000
WATCHED_FROM = 90_000
MOST_BYTES_A_LINE = 300
"""What is remembered of a line: its e-mail address and its number; not its password."""


def line(number: int, **more: str) -> BatchLine:
    fields = {"email": f"a{number}@example.org", "password": f"password-{number}"} | more
    return BatchLine(number=number, **fields)


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, secret_key="0123456789abcdef0123456789abcdef")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with Store(settings) as store:
        yield store


async def told(store: Store, lines: list[Line], seen: Seen | None = None) -> list[str]:
    found = dry_run(store.batches, each(lines), seen=seen)
    return [f"{one.line} {one.status} {one.message}".rstrip() async for one in found]


async def test_an_address_that_comes_twice_is_told_with_its_first_place(store: Store) -> None:
    seen = Seen()
    seen.begin("one.txt")
    assert await told(store, [line(1), line(2, email="A1@EXAMPLE.org"), line(3)], seen) == [
        "1 valid",
        "2 skipped The same e-mail address as in line 1.",
        "3 valid",
    ]
    seen.begin("two.txt")
    assert await told(store, [line(2, email="a3@example.org"), line(7), line(8)], seen) == [
        "2 skipped The same e-mail address as in line 3 of one.txt.",
        "7 valid",
        "8 valid",
    ]


@pytest.mark.parametrize("proxy", ["http://", "socks5://h:99999", "http://h:x", "https://:1"])
async def test_a_proxy_nobody_could_dial_is_told_before_any_login(store: Store, proxy: str) -> None:
    bad = InvalidLine(number=2, reason="no password")
    assert await told(store, [line(1, proxy=proxy), bad]) == [
        "1 invalid the proxy is no scheme://[user:password@]host[:port]",
        "2 invalid no password",
    ]


async def test_no_lines_are_no_batch(store: Store) -> None:
    for nothing in (put_down(store.batches, each([])), told(store, [])):
        with pytest.raises(BadRequest):
            await nothing
    assert await store.batches.newest() == []


async def test_100_000_lines_are_put_down_without_a_second_copy(store: Store) -> None:
    async def lines() -> AsyncIterator[Line]:
        for number in range(1, COUNT + 1):
            if number == WATCHED_FROM:
                tracemalloc.start()
            yield line(number, token=f"{number:0500}")

    try:
        batch_id = await put_down(store.batches, lines())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (await store.batches.get(batch_id)).valid == COUNT
    # One piece of 500 lines is on its way to Redis at a time.
    assert peak_bytes < (COUNT - WATCHED_FROM) * MOST_BYTES_A_LINE + 2_000_000


# -- Qwen2API


async def test_its_settings_and_keys_are_taken_over_once(store: Store) -> None:
    created = await store.api_keys.create("mine")
    kept = {
        "apiKeys": ["sk-1", " sk-2 ", "sk-1", "", 7, created.key],
        "chatRetryCount": "3",
        "outThink": "false",
        "batchLoginConcurrency": 200,
        "searchInfoMode": "text",
        "smth": {"deep": [1]},
        "autoRefresh": None,
    }
    text = json.dumps(kept).encode()
    taken = await take_over(store, text, by=BY)
    assert sorted(taken.settings) == ["chat_retry_count", "output_think", "search_info_mode"]
    assert taken.api_keys == 2
    [refused] = taken.refused
    assert "BATCH_LOGIN_CONCURRENCY" in refused
    current = store.settings.current
    assert (current.chat_retry_count, current.output_think) == (3, False)
    assert (await store.api_keys.find("sk-2")).name == f"{KEY_NAME} 2"
    assert not (await store.api_keys.find("sk-1")).admin
    assert (await store.api_keys.find(created.key)).name == "mine"
    audit = await store.settings.audit(10)
    again = await take_over(store, text, by=BY)
    assert again.api_keys == 0
    assert await store.settings.audit(10) == audit


async def test_a_key_of_the_environment_stays_what_it_is(settings: Settings) -> None:
    own = msgspec.structs.replace(settings, api_key="sk-admin,sk-1")
    async with Store(own) as store:
        kept = json.dumps({"apiKeys": ["sk-admin", "sk-1", "sk-2"]}).encode()
        assert (await take_over(store, kept, by=BY)).api_keys == 1
        assert (await store.api_keys.find("sk-admin")).admin
        assert [key.name for key in await store.api_keys.created()] == [f"{KEY_NAME} 3"]


@pytest.mark.parametrize("kept", [b"", b"null", b"[1]", b'{"apiKeys":', b"\xff", b'{"apiKeys":{}}'])
async def test_settings_that_cannot_be_read_change_nothing(store: Store, kept: bytes) -> None:
    taken = await take_over(store, kept, by=BY)
    assert (taken.settings, taken.api_keys, taken.refused) == ([], 0, [])


async def test_its_redis_is_read_in_both_layouts_and_not_written(redis_url: str) -> None:
    url = f"{redis_url}?db=5"
    async with redis.Redis.from_url(url, decode_responses=True) as old:
        for number in range(1, 451):
            record = {"password": f"p{number}", "token": "tok", "expires": "1900000000"}
            await old.hset(f"user:a{number}@example.org", mapping=record)
        await old.hset("qwen2api:settings", mapping={"chatRetryCount": "2"})
        await old.set("user", "no account")
        source = Qwen2ApiRedis(url)
        try:
            lines = [found async for found in source.lines()]
            assert [one.number for one in lines] == list(range(1, 451))
            assert len({one.email for one in lines}) == 450
            assert {one.expires_at for one in lines if isinstance(one, BatchLine)} == {1.9e9}
            assert json.loads(await source.settings()) == {"chatRetryCount": "2"}
            await old.hset("qwen2api:settings", "json", '{"apiKeys":["sk-1"]}')
            assert await source.settings() == b'{"apiKeys":["sk-1"]}'
            await old.delete("qwen2api:settings")
            assert await source.settings() == b""
            assert await old.dbsize() == 451
        finally:
            await source.close()
            await old.flushdb()


async def test_a_redis_that_is_not_there_is_told(tmp_path: object) -> None:
    source = Qwen2ApiRedis(f"unix://{tmp_path}/none.sock")
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(5):
            await source.settings()
    await source.close()
