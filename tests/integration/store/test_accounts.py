"""Account records."""

import asyncio
import time

import pytest

from shared.errors import Conflict, NotFound
from shared.sealing import SealBroken
from shared.settings import AccountEntry
from shared.store import keys
from shared.store.accounts import State
from shared.store.leases import Cooldown, Outcome
from shared.store.rotation import Rotation
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import email, entries, sign_in

pytestmark = pytest.mark.anyio


async def test_one_of_many_processes_imports_each_entry(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(8)]
    added = await asyncio.gather(*(store.accounts.add_missing(entries(50)) for store in stores))
    assert sum(added) == 50
    assert (await stores[0].accounts.counts())["new"] == 50


async def test_an_entry_taken_over_once_changes_nothing_at_the_next_start(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0))
    assert await store.accounts.add_missing(entries(1)) == 0
    assert (await store.accounts.get(email(0))).state == "ready"


async def test_an_id_is_the_address_in_lower_case_without_blanks(store: Store) -> None:
    await store.accounts.add_missing([AccountEntry(" Some.One@Example.ORG ", "pw")])
    assert (await store.accounts.get("some.one@example.org")).email == "some.one@example.org"
    with pytest.raises(Conflict):
        await store.accounts.add("SOME.one@example.org", "pw")


async def test_a_changed_password_is_taken_over_and_the_dead_is_new_again(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.leases.release(await store.leases.acquire("chat"), Outcome(dead="wrong password"))
    assert await store.accounts.add_missing([AccountEntry(email(0), "changed")]) == 1
    assert (await store.accounts.get(email(0))).state == "new"
    assert await store.accounts.password(email(0)) == "changed"


async def test_a_deleted_account_stays_deleted_until_its_entry_changes(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    await store.accounts.delete(email(0))
    assert await store.accounts.add_missing(entries(2)) == 0
    with pytest.raises(NotFound):
        await store.accounts.get(email(0))
    assert await store.accounts.add_missing([AccountEntry(email(0), "changed")]) == 1
    assert (await store.accounts.get(email(0))).state == "new"


async def test_a_rotated_secret_key_is_no_change_of_an_entry(
    store: Store, open_store: OpenStore
) -> None:
    await store.accounts.add_missing(entries(2))
    await sign_in(store, email(0), "the token")
    await store.accounts.delete(email(1))
    rotated = open_store(
        secret_key="n" * 32, secret_key_previous="0123456789abcdef0123456789abcdef"
    )
    await rotated.open()
    assert await rotated.accounts.add_missing(entries(2)) == 0
    assert (await rotated.leases.acquire("chat")).access_token == "the token"
    assert (await rotated.accounts.counts())["ready"] == 1
    await Rotation(rotated.connection, rotated.sealer).run()
    alone = open_store(secret_key="n" * 32)  # the old key is gone: the entry is known all the same
    await alone.open()
    assert await alone.accounts.add_missing(entries(2)) == 0


async def test_an_entry_equal_to_an_account_from_elsewhere_keeps_its_token(store: Store) -> None:
    await store.accounts.add(
        email(0), "pw0", access_token="jwt", token_expires_at=time.time() + 3600
    )
    assert await store.accounts.add_missing(entries(1)) == 0
    assert (await store.leases.acquire("chat")).access_token == "jwt"


async def test_what_another_secret_key_sealed_is_listed_and_replaced_by_its_entry(
    store: Store, open_store: OpenStore
) -> None:
    await store.accounts.add(email(0), "pw0", proxy="http://proxy:1")
    stranger = open_store(secret_key="n" * 32)
    assert "another SECRET_KEY" in (await stranger.accounts.get(email(0))).proxy
    with pytest.raises(SealBroken):
        await stranger.accounts.password(email(0))
    assert await stranger.accounts.add_missing(entries(1)) == 1
    assert await stranger.accounts.password(email(0)) == "pw0"


async def test_no_secret_is_readable_in_the_database(store: Store) -> None:
    await store.accounts.add(
        email(0),
        "my-password",
        proxy="http://user:proxy-secret@proxy:1",
        access_token="my-token",
        token_expires_at=time.time() + 60,
    )
    await store.accounts.set_cookies(email(0), "cookie-secret=1")
    created = await store.api_keys.create("key")
    text = ""
    for name in await store.connection.ask("keys", "KEYS", "*"):
        kind = await store.connection.ask("type", "TYPE", name)
        read = {"hash": "HGETALL", "string": "GET"}.get(kind)
        text += name + str(await store.connection.ask("dump", read, name) if read else "")
    for secret in ("my-password", "proxy-secret", "my-token", "cookie-secret", created.key):
        assert secret not in text


async def test_an_account_shows_its_proxy_without_credentials(store: Store) -> None:
    await store.accounts.add(email(0), "pw", proxy="socks5://user:secret@proxy:1080")
    account = await store.accounts.get(email(0))
    assert account.proxy == "socks5://proxy:1080"
    await store.accounts.set_proxy(email(0), "")
    assert (await store.accounts.get(email(0))).egress == "direct"


async def test_a_changed_proxy_is_in_the_next_lease(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.accounts.set_proxy(email(0), "http://new:1")
    assert (await store.leases.acquire("chat")).proxy == "http://new:1"
    await store.accounts.set_proxy(email(0), "http://newer:1")
    assert (await store.leases.acquire("image")).proxy == "http://newer:1"


async def test_accounts_are_listed_by_page_state_and_search(store: Store) -> None:
    await store.accounts.add_missing(entries(25))
    for number in (3, 13, 23):
        await sign_in(store, email(number))
    await store.accounts.set_enabled(email(4), False)
    cooling = await store.leases.acquire("chat")
    assert cooling.account == email(3)
    await store.leases.release(cooling, Outcome(cooldown=Cooldown(reason="burst", seconds=60)))
    dead = await store.leases.acquire("chat")
    await store.leases.release(dead, Outcome(dead="wrong password"))

    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await store.accounts.page(cursor=cursor, limit=10)
        assert len(page.accounts) <= 10
        seen += [account.email for account in page.accounts]
        cursor = page.next_cursor
    assert seen == [email(number) for number in range(25)]

    async def listed(state: State | None = None, search: str = "") -> list[str]:
        page = await store.accounts.page(state=state, search=search)
        return [account.email for account in page.accounts]

    assert await listed("cooling") == [email(3)]
    assert await listed("dead") == [email(13)]
    assert await listed("ready") == [email(23)]
    assert await listed("disabled") == [email(4)]
    assert len(await listed("new")) == 21
    assert await listed(search="0013@") == [email(13)]
    assert await listed("new", search="0013@") == []
    assert await store.accounts.counts() == {
        "new": 21,
        "ready": 1,
        "cooling": 1,
        "disabled": 1,
        "dead": 1,
    }


async def test_a_page_that_ends_exactly_at_the_end_has_no_next(store: Store) -> None:
    await store.accounts.add_missing(entries(10))
    first = await store.accounts.page(limit=5)
    second = await store.accounts.page(limit=5, cursor=first.next_cursor or "")
    assert [len(first.accounts), len(second.accounts)] == [5, 5]
    assert second.next_cursor is None


async def test_a_cooldown_that_has_ended_counts_no_more(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    resting = Outcome(cooldown=Cooldown(reason="burst", seconds=0.05))
    await store.leases.release(await store.leases.acquire("chat"), resting)
    assert (await store.accounts.counts())["cooling"] == 1
    await store.leases.lend("chat", wait_seconds=1)
    assert (await store.accounts.counts())["new"] == 1


async def test_a_disabled_account_counts_as_disabled_until_it_is_enabled(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0))
    await store.accounts.set_enabled(email(0), False)
    assert (await store.pool_state()).accounts["disabled"] == 1
    await store.accounts.set_enabled(email(0), True)
    assert (await store.pool_state()).accounts["ready"] == 1


async def test_changes_of_an_unknown_account_are_not_found(store: Store) -> None:
    for change in (
        store.accounts.delete("x@example.org"),
        store.accounts.reset("x@example.org"),
        store.accounts.set_enabled("x@example.org", True),
        store.accounts.replace("x@example.org", "pw"),
        store.accounts.password("x@example.org"),
    ):
        with pytest.raises(NotFound):
            await change
    assert await store.connection.ask("e", "EXISTS", keys.account("x@example.org")) == 0


async def test_those_due_for_a_refresh_are_found(store: Store) -> None:
    await store.accounts.add_missing(entries(4))
    await sign_in(store, email(0), lapses_in=3600)
    await sign_in(store, email(1), lapses_in=30 * 86400)
    await store.accounts.set_enabled(email(3), False)
    assert await store.accounts.due_for_refresh(within_seconds=86400) == [email(0), email(2)]


async def test_a_large_pool_is_read_whole_for_a_refresh(store: Store) -> None:
    await store.accounts.add_missing(entries(1200))
    assert len(await store.accounts.due_for_refresh(within_seconds=86400)) == 1200


async def test_a_deleted_account_leaves_nothing_in_the_pool(store: Store) -> None:
    await store.accounts.add_missing(entries(1, proxy="http://proxy:1"))
    await sign_in(store, email(0))
    lease = await store.leases.acquire("chat")
    await store.accounts.delete(email(0))
    await store.leases.release(lease)
    names = await store.connection.ask("keys", "KEYS", "gw:{pool}:*")
    assert {keys.find(name) for name in names} <= {
        keys.schema,
        keys.serial,
        keys.imported,
        keys.attempts,
    }
