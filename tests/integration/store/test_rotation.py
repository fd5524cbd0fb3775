"""SECRET_KEY is changed: everything stays readable, ids stay what they are, nothing is lost."""

import asyncio

import pytest

from shared.intake.lines import BatchLine
from shared.sealing import SEALED_PREFIX
from shared.store import keys
from shared.store.responses import StoredResponse
from shared.store.rotation import Rotated, Rotation
from shared.store.settings import Author
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import email, entries, sign_in

pytestmark = pytest.mark.anyio

OLD = "0123456789abcdef0123456789abcdef"
NEW = "fedcba9876543210fedcba9876543210"
OPERATOR = Author(key="admin")


async def opened(open_store: OpenStore, secret_key: str, previous: str = "") -> Store:
    store = open_store(
        secret_key=secret_key, secret_key_previous=previous, api_key="sk-admin,sk-regular"
    )
    await store.open()
    return store


async def sealed_values(store: Store) -> list[str]:
    """Everything in the database that looks sealed, wherever it lies."""
    found = []
    for name in await store.connection.ask("keys", "KEYS", "*"):
        if await store.connection.ask("type", "TYPE", name) == "hash":
            values = await store.connection.read_bytes("dump", "HVALS", name)
            found += [v[:12].decode() for v in values if v.startswith(SEALED_PREFIX.encode())]
    return found


async def fill(store: Store) -> str:
    """Something of everything that is sealed; returns a created API key."""
    await store.accounts.add_missing(entries(3, proxy="http://u:p@proxy:1"))
    await sign_in(store, email(0), "jwt 0")
    await store.accounts.set_cookies(email(0), "ssxmod=1")
    await store.settings.change({"site_cookies": "acw_tc=1"}, by=OPERATOR)
    caller = await store.api_keys.find("sk-regular")
    response = StoredResponse(id="resp_1", created=1, model="m", owner=caller.id)
    await store.responses.put(response)
    return (await store.api_keys.create("ci")).key


async def check(store: Store, created_key: str) -> None:
    """What `fill` put in can be read and belongs to whom it belonged."""
    assert await store.accounts.password(email(1)) == "pw1"
    lease = await store.leases.acquire("chat")
    assert (lease.account, lease.access_token) == (email(0), "jwt 0")
    assert (lease.proxy, lease.cookies) == ("http://u:p@proxy:1", "ssxmod=1")
    await store.leases.release(lease)
    assert store.settings.current.site_cookies == "acw_tc=1"
    assert (await store.api_keys.find(created_key)).name == "ci"
    caller = await store.api_keys.find("sk-regular")
    assert (await store.responses.get("resp_1", reader=caller.id)).id == "resp_1"


async def test_everything_is_sealed_anew_and_the_previous_key_can_go(
    open_store: OpenStore,
) -> None:
    created_key = await fill(await opened(open_store, OLD))
    rotating = await opened(open_store, NEW, OLD)
    await check(rotating, created_key)
    before = await sealed_values(rotating)
    # passwords and proxies; token, cookies; a setting; request and result; the fingerprint key
    assert len(before) == 3 * 2 + 2 + 1 + 2 + 1
    done = await Rotation(rotating.connection, rotating.sealer).run()
    assert done.unreadable == 0
    assert done.sealed == sum(not rotating.sealer.is_current(one) for one in before)
    assert all(rotating.sealer.is_current(one) for one in await sealed_values(rotating))
    assert await Rotation(rotating.connection, rotating.sealer).run() == Rotated(0, 0)
    await check(await opened(open_store, NEW), created_key)


async def test_processes_with_either_key_understand_each_other_meanwhile(
    open_store: OpenStore,
) -> None:
    """README, "Changing SECRET_KEY": first everybody can read the new key, then seals with it."""
    created_key = await fill(await opened(open_store, OLD))
    not_yet = await opened(open_store, OLD, NEW)
    already = await opened(open_store, NEW, OLD)
    await sign_in(already, email(1), "jwt 1")
    made = (await already.api_keys.create("made meanwhile")).key
    assert (await not_yet.api_keys.find(made)).name == "made meanwhile"
    first, second = await not_yet.leases.acquire("chat"), await not_yet.leases.acquire("chat")
    assert {first.access_token, second.access_token} == {"jwt 0", "jwt 1"}
    await not_yet.leases.release(first)
    await not_yet.leases.release(second)
    await check(already, created_key)


async def test_an_egress_keeps_its_name_and_an_entry_is_not_imported_again(
    open_store: OpenStore,
) -> None:
    old = await opened(open_store, OLD)
    await fill(old)
    egress = (await old.accounts.get(email(0))).egress
    new = await opened(open_store, NEW, OLD)
    assert new.accounts.egress_of("http://u:p@proxy:1") == egress
    await new.accounts.delete(email(1))
    assert await new.accounts.add_missing(entries(3, proxy="http://u:p@proxy:1")) == 0


async def test_the_lines_of_a_batch_are_done_after_it(open_store: OpenStore) -> None:
    old = await opened(open_store, OLD)
    line = BatchLine(number=1, email=email(9), password="pw9", proxy="http://u:p@proxy:9")
    batch_id = await old.batches.open("import")
    await old.batches.add(batch_id, [line])
    await old.batches.start(batch_id)
    rotating = await opened(open_store, NEW, OLD)
    await Rotation(rotating.connection, rotating.sealer).run()
    [claim] = (await (await opened(open_store, NEW)).batches.claim(want=1)).claims
    assert claim.input == line


async def test_what_changes_meanwhile_wins(open_store: OpenStore) -> None:
    await (await opened(open_store, OLD)).accounts.add_missing(entries(200))
    rotating = await opened(open_store, NEW, OLD)

    async def sign_all_in() -> None:
        for number in range(200):
            await sign_in(rotating, email(number), f"jwt {number}")

    rotation = Rotation(rotating.connection, rotating.sealer)
    await asyncio.gather(sign_all_in(), rotation.run(), rotation.run())
    assert all(rotating.sealer.is_current(one) for one in await sealed_values(rotating))
    new = await opened(open_store, NEW)
    for number in range(200):
        answer = await new.logins.claim(email(number))
        assert answer.access_token == f"jwt {number}"  # type: ignore[union-attr]  # a FreshToken


async def test_what_an_unknown_key_sealed_is_told_and_left(open_store: OpenStore) -> None:
    stranger = await opened(open_store, "x" * 40)
    await stranger.accounts.add_missing(entries(2))
    rotating = await opened(open_store, NEW, OLD)
    done = await Rotation(rotating.connection, rotating.sealer).run()
    assert done.unreadable == 3  # two passwords and the stranger's fingerprint key
    assert await stranger.accounts.password(email(0)) == "pw0"


async def test_a_time_to_live_survives(open_store: OpenStore) -> None:
    await fill(await opened(open_store, OLD))
    rotating = await opened(open_store, NEW, OLD)
    await Rotation(rotating.connection, rotating.sealer).run()
    ttl = await rotating.connection.ask("ttl", "TTL", keys.response("resp_1"))
    assert 29 * 86_400 < ttl <= 30 * 86_400


async def test_a_large_pool_is_sealed_anew_whole(open_store: OpenStore) -> None:
    await (await opened(open_store, OLD)).accounts.add_missing(entries(2_000))
    rotating = await opened(open_store, NEW, OLD)
    done = await Rotation(rotating.connection, rotating.sealer).run()
    assert done == Rotated(sealed=2_001, unreadable=0)
