"""A backup is put back: into the same gateway, into another one with another SECRET_KEY, twice."""

import time

import pytest

from shared.errors import Unauthorized
from shared.store.accounts import AccountChanges
from shared.store.archive import Contents
from shared.store.backup import collect, restore
from shared.store.settings import Author
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import email, entries, sign_in

pytestmark = pytest.mark.anyio

OPERATOR = Author(key="admin")
ELSEWHERE = "another secret key, long enough for that"


async def fill(store: Store) -> str:
    """Accounts of each kind, a setting, a key; returns the key."""
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0), "jwt 0", lapses_in=3600)
    await store.accounts.add(email(1), "pw1", proxy="socks5://u:p@proxy:1080")
    changes = AccountChanges(enabled=False, concurrency=7, cookies="ssxmod=1")
    await store.accounts.change(email(1), changes)
    await store.settings.change({"chat_retry_count": 5, "site_cookies": "acw=1"}, by=OPERATOR)
    return (await store.api_keys.create("ci", models=["qwen3-max"], max_streams=3)).key


async def flush(store: Store) -> None:
    await store.connection.ask("test", "FLUSHALL")
    await store.settings.look()
    await store.api_keys.look()


async def check(store: Store, key: str) -> None:
    """All that `fill` put in is there."""
    lease = await store.leases.acquire("chat")
    assert (lease.account, lease.access_token) == (email(0), "jwt 0")
    await store.leases.release(lease)
    second = await store.accounts.get(email(1))
    assert (second.state, second.concurrency, second.proxy) == (
        "disabled",
        7,
        "socks5://proxy:1080",
    )
    assert await store.accounts.password(email(1)) == "pw1"
    await store.accounts.set_enabled(email(1), True)
    second_lease = await store.leases.lend("image", wait_seconds=1, tried=frozenset({email(0)}))
    assert (second_lease.proxy, second_lease.cookies) == ("socks5://u:p@proxy:1080", "ssxmod=1")
    assert store.settings.current.chat_retry_count == 5
    assert store.settings.current.site_cookies == "acw=1"
    found = await store.api_keys.find(key)
    assert (found.name, found.models, found.max_streams) == ("ci", ["qwen3-max"], 3)


async def test_it_comes_back_where_everything_was_lost(store: Store) -> None:
    key = await fill(store)
    contents = await collect(store)
    await flush(store)
    done = await restore(store, contents, by=OPERATOR)
    assert (done.accounts.restored, done.keys.restored, done.settings.restored) == (2, 1, 2)
    await check(store, key)


async def test_it_comes_back_under_another_secret_key_and_its_keys_still_hold(
    store: Store, open_store: OpenStore
) -> None:
    key = await fill(store)
    contents = await collect(store)
    await store.connection.ask("test", "FLUSHALL")
    other = open_store(secret_key=ELSEWHERE)
    neighbour = open_store(secret_key=ELSEWHERE)
    for one in (other, neighbour):
        await one.open()
    made_there = (await other.api_keys.create("made there")).key
    with pytest.raises(Unauthorized):
        await neighbour.api_keys.find(key)
    await restore(other, contents, by=OPERATOR)
    await neighbour.api_keys.look()
    await neighbour.settings.look()
    for one in (other, neighbour):
        assert (await one.api_keys.find(made_there)).name == "made there"
        assert (await one.api_keys.find(key)).name == "ci"
    await check(other, key)
    again = await collect(other)  # and from there it can go on
    assert len(again.keys) == 2
    assert len(again.fingerprint_keys) == 2


async def test_what_is_there_stays_as_it_is_and_settings_are_what_they_were(store: Store) -> None:
    key = await fill(store)
    contents = await collect(store)
    await store.accounts.replace(email(0), "a newer password")
    await store.settings.change({"chat_retry_count": 1, "max_body_mb": 3}, by=OPERATOR)
    await store.accounts.delete(email(1))
    done = await restore(store, contents, by=OPERATOR)
    assert (done.accounts.restored, done.accounts.skipped) == (1, 1)
    assert (done.keys.restored, done.keys.skipped) == (0, 1)
    assert await store.accounts.password(email(0)) == "a newer password"
    assert store.settings.current.chat_retry_count == 5
    assert store.settings.current.max_body_mb == 3
    assert (await store.api_keys.find(key)).name == "ci"
    assert (await store.settings.audit(1))[0].by == OPERATOR


async def test_a_restore_can_be_run_again(store: Store) -> None:
    key = await fill(store)
    contents = await collect(store)
    await flush(store)
    await restore(store, contents, by=OPERATOR)
    done = await restore(store, contents, by=OPERATOR)
    assert (done.accounts.restored, done.keys.restored) == (0, 0)
    assert len(await store.api_keys.created()) == 1
    await check(store, key)


async def test_a_setting_that_is_unknown_here_is_skipped(store: Store) -> None:
    settings = {"no_such_setting": 1, "chat_retry_count": 5, "max_body_mb": "many"}
    done = await restore(store, Contents(settings=settings), by=OPERATOR)
    assert (done.settings.restored, done.settings.skipped) == (1, 2)
    assert store.settings.current.chat_retry_count == 5


async def test_a_token_that_has_lapsed_is_left_behind(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0), lapses_in=3600)
    contents = await collect(store)
    await flush(store)
    lapsed = contents.accounts[0].__class__(
        email=email(0), password="pw0", token="jwt", token_expires_at=time.time() - 1
    )
    await restore(store, Contents(accounts=[lapsed]), by=OPERATOR)
    assert (await store.accounts.get(email(0))).state == "new"


async def test_an_account_that_cannot_be_read_is_left_out(
    store: Store, open_store: OpenStore
) -> None:
    await store.accounts.add_missing(entries(1))
    stranger = open_store(secret_key=ELSEWHERE)
    await stranger.accounts.add(email(1), "pw")
    assert [one.email for one in (await collect(store)).accounts] == [email(0)]


async def test_a_large_pool_is_read_whole(store: Store) -> None:
    await store.accounts.add_missing(entries(1200))
    contents = await collect(store)
    assert [one.email for one in contents.accounts] == [email(number) for number in range(1200)]
    await flush(store)
    assert (await restore(store, contents, by=OPERATOR)).accounts.restored == 1200
