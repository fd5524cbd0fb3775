"""Settings changed while several processes run."""

import asyncio
import logging

import pytest

from shared.errors import Conflict, NoAccount
from shared.sealing import Sealer
from shared.settings import Settings, SettingsError
from shared.store import keys
from shared.store.settings import Author, SettingsInForce
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import email, entries, until

pytestmark = pytest.mark.anyio

ADA = Author("API_KEY 1", address="10.0.0.1", request_id="r-1")
IN_FORCE_SECONDS = 2.0


async def test_a_change_is_in_force_here_at_once_and_everywhere_within_two_seconds(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store(chat_retry_count=7)
    await store.open()
    await other.open()
    await store.settings.change({"chat_retry_count": 0, "output_think": False}, by=ADA)
    assert store.settings.current.chat_retry_count == 0
    assert not store.settings.current.output_think

    async def followed() -> bool:
        now = other.settings.current
        return (now.chat_retry_count, now.output_think) == (0, False)

    await until(followed, seconds=IN_FORCE_SECONDS)
    assert other.settings.configured.chat_retry_count == 7


async def test_a_stored_setting_outlives_every_process_and_is_in_force_from_the_start(
    open_store: OpenStore,
) -> None:
    await open_store().settings.change({"keepalive_seconds": 3}, by=ADA)
    later = open_store(keepalive_seconds=9.0)
    await later.open()
    assert later.settings.current.keepalive_seconds == 3


async def test_null_brings_back_what_the_process_was_started_with(open_store: OpenStore) -> None:
    given, defaults = open_store(search_info_mode="text"), open_store()
    await given.settings.change({"search_info_mode": "table"}, by=ADA)
    await given.settings.change({"search_info_mode": None}, by=ADA)
    await defaults.settings.look()
    assert given.settings.current.search_info_mode == "text"
    assert defaults.settings.current.search_info_mode == "table"
    assert given.settings.stored == {}


async def test_one_wrong_value_among_several_changes_nothing(store: Store) -> None:
    for wrong in ({"batch_login_concurrency": 51}, {"service_port": 1}, {"no_such": 1}):
        with pytest.raises(SettingsError) as raised:
            await store.settings.change({"chat_retry_count": 5, **wrong}, by=ADA)
        assert raised.value.setting == next(iter(wrong))
    assert store.settings.current.chat_retry_count == 2
    assert await store.settings.audit(10) == []


async def test_the_audit_says_who_changed_what_when_from_and_to(store: Store) -> None:
    bob = Author("Bob")
    before = int((await store.connection.ask("time", "TIME"))[0])
    await store.settings.change({"chat_retry_count": 5}, by=ADA)
    await store.settings.change({"chat_retry_count": 5}, by=ADA)  # changes nothing
    await store.settings.change({"chat_retry_count": None, "model_aliases": {"x": "y"}}, by=bob)
    found = await store.settings.audit(10)
    assert [(one.by, one.name, one.from_, one.to) for one in found] == [
        (bob, "model_aliases", {"claude-*": "qwen3-coder-plus"}, {"x": "y"}),
        (bob, "chat_retry_count", 5, 2),
        (ADA, "chat_retry_count", 2, 5),
    ]
    assert all(0 <= one.at - before <= 5 for one in found)
    assert len(await store.settings.audit(1)) == 1


async def test_a_secret_is_sealed_in_redis_and_masked_in_the_audit(
    store: Store, open_store: OpenStore
) -> None:
    await store.settings.change({"site_cookies": "ssxmod=very-secret"}, by=ADA)
    for command in (("HGETALL", keys.settings()), ("LRANGE", keys.settings_audit(), 0, -1)):
        assert "very-secret" not in str(await store.connection.ask("test", *command))
    other = open_store()
    await other.settings.load()
    assert other.settings.current.site_cookies == "ssxmod=very-secret"
    [entry] = await other.settings.audit(10)
    assert (entry.from_, entry.to) == ("", "***")


async def test_what_this_version_or_key_can_not_read_is_left_out_and_told(
    store: Store, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    await store.settings.change({"site_cookies": "x", "chat_retry_count": 5}, by=ADA)
    values = (
        "newer_setting",
        "1",
        "account_wait_seconds",
        "-3",
        "keepalive_seconds",
        "{",
        "workers",
        "2",
    )
    await store.connection.ask("test", "HSET", keys.settings(), *values)
    other = open_store(secret_key="another-key-another-key-another-key")
    await other.settings.load()
    assert other.settings.stored == {"chat_retry_count": 5}
    told = {getattr(record, "setting", None) for record in caplog.records}
    assert told == {
        "newer_setting", "account_wait_seconds", "keepalive_seconds", "workers", "site_cookies",
    }  # fmt: skip


async def test_fifty_changes_at_once_over_two_processes_all_count(open_store: OpenStore) -> None:
    stores = open_store(), open_store()
    names = ("chat_retry_count", "chat_retry_backoff_ms")

    async def change(number: int) -> int:
        asked = {names[number % 2]: 100 + number}
        while True:
            try:
                await stores[number % 2].settings.change(asked, by=ADA)
            except Conflict:
                continue
            return number

    await asyncio.gather(*(change(number) for number in range(50)))
    audit = await stores[0].settings.audit(1000)
    for name in names:
        mine = [(one.from_, one.to) for one in reversed(audit) if one.name == name]
        assert len(mine) == 25
        # Each was told what the one before it left: none was written over unseen.
        assert [start for start, _ in mine[1:]] == [end for _, end in mine[:-1]]


async def test_a_change_between_reading_and_writing_is_seen(
    store: Store, meddled: MeddledConnection, sealer: Sealer, settings: Settings
) -> None:
    mine = SettingsInForce(meddled, sealer, settings)

    async def overtake() -> None:
        del meddled.before["settings_put"]
        await store.settings.change({"chat_retry_count": 9}, by=ADA)

    meddled.before["settings_put"] = overtake
    await mine.change({"chat_retry_count": 1}, by=ADA)
    assert [(one.from_, one.to) for one in await store.settings.audit(10)] == [(9, 1), (2, 9)]


async def test_who_is_always_overtaken_hears_of_a_conflict(
    store: Store, meddled: MeddledConnection, sealer: Sealer, settings: Settings
) -> None:
    mine = SettingsInForce(meddled, sealer, settings)
    count = 100

    async def overtake() -> None:
        nonlocal count
        count += 1
        await store.settings.change({"chat_retry_backoff_ms": count}, by=ADA)

    meddled.before["settings_put"] = overtake
    with pytest.raises(Conflict):
        await mine.change({"chat_retry_count": 1}, by=ADA)


async def test_a_redis_that_lost_everything_brings_back_the_environment(store: Store) -> None:
    await store.settings.change({"chat_retry_count": 0}, by=ADA)
    await store.connection.ask("test", "FLUSHDB")
    await store.settings.look()
    assert store.settings.current == store.settings.configured


async def test_listeners_hear_of_changes_but_not_of_the_first_reading(
    store: Store, open_store: OpenStore
) -> None:
    await store.settings.change({"chat_retry_count": 0}, by=ADA)
    other, heard = open_store(), []
    other.settings.on_change(lambda before, now: heard.append((before, now)))
    await other.settings.load()
    assert heard == []
    await store.settings.change({"chat_retry_count": 1}, by=ADA)
    await other.settings.look()
    assert [(old.chat_retry_count, new.chat_retry_count) for old, new in heard] == [(0, 1)]


async def test_a_start_logs_each_variable_that_a_stored_setting_overrides(
    store: Store, open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"chat_retry_count": 0, "output_think": False, "site_cookies": "stored-cookie"}
    await store.settings.change(changes, by=ADA)
    other = open_store(chat_retry_count=5, site_cookies="given-cookie", keepalive_seconds=3.0)
    await other.settings.load()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        other.settings.tell_overridden()
    told = [vars(record) for record in caplog.records]
    assert [(one["variable"], one["stored"], one["environment"]) for one in told] == [
        ("CHAT_RETRY_COUNT", 0, 5),
        ("SITE_COOKIES", "***", "***"),
    ]


async def test_a_raised_limit_of_accounts_is_lent_at_once_and_a_lowered_one_kept(
    store: Store, open_store: OpenStore
) -> None:
    """Without listing busy accounts anew, the next release would be waited for."""
    other = open_store()
    await other.open()
    await store.accounts.add_missing(entries(2))
    await store.accounts.set_concurrency(email(1), 1)
    for _ in range(3):
        await store.leases.acquire("chat")
    with pytest.raises(NoAccount):
        await other.leases.acquire("chat")
    waiting = asyncio.create_task(other.leases.lend("chat", wait_seconds=30))
    await store.settings.change({"account_concurrency": 4}, by=ADA)
    lease = await asyncio.wait_for(waiting, IN_FORCE_SECONDS)
    assert lease.account == email(0)

    async def followed() -> bool:
        return other.settings.current.account_concurrency == 4

    await until(followed, seconds=IN_FORCE_SECONDS)
    await store.settings.change({"account_concurrency": 3}, by=ADA)
    await store.leases.relist()
    with pytest.raises(NoAccount):
        await store.leases.acquire("chat")


async def test_while_redis_is_away_the_last_settings_stay_in_force(
    open_store: OpenStore,
) -> None:
    store = open_store(redis_url="unix:///nowhere/redis.sock", chat_retry_count=6)
    await store.open()
    assert store.settings.current.chat_retry_count == 6
