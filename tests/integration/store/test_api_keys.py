"""API keys over several processes."""

import asyncio
import time

import pytest

from shared.errors import Conflict, Forbidden, NotFound, StoreUnavailable, Unauthorized
from shared.sealing import Sealer
from shared.store import keys
from shared.store.api_keys import ApiKeyChanges, ApiKeys
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import until

pytestmark = pytest.mark.anyio


async def is_valid(store: Store, key: str) -> bool:
    try:
        await store.api_keys.find(key)
    except Unauthorized:
        return False
    return True


async def test_the_first_configured_key_is_the_admin_and_the_others_are_not(
    open_store: OpenStore,
) -> None:
    store = open_store(api_key="sk-first, sk-second")
    assert (await store.api_keys.find("sk-first")).admin
    assert not (await store.api_keys.find("sk-second")).admin
    with pytest.raises(Unauthorized):
        await store.api_keys.find("sk-third")


async def test_reordering_the_configured_keys_moves_no_owner(open_store: OpenStore) -> None:
    before = open_store(api_key="sk-admin,sk-1,sk-2")
    after = open_store(api_key="sk-admin,sk-2,sk-1")
    assert (await before.api_keys.find("sk-2")).id == (await after.api_keys.find("sk-2")).id
    assert (await before.api_keys.find("sk-1")).id != (await before.api_keys.find("sk-2")).id


async def test_a_created_key_works_at_once_in_every_process(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    created = await store.api_keys.create(
        "ci", rate_limit_per_minute=60, daily_token_budget=1000, max_streams=3, models=["qwen3-max"]
    )
    assert created.key.startswith("sk-")
    assert created.key not in repr(created)
    found = await other.api_keys.find(created.key)
    assert found == created.record
    assert (found.rate_limit_per_minute, found.daily_token_budget) == (60, 1000)
    assert (found.max_streams, found.models, found.admin) == (3, ["qwen3-max"], False)
    assert created.key.startswith(found.prefix)
    assert len(found.prefix) == 10


async def test_changes_and_deletions_are_in_force_everywhere_within_two_seconds(
    open_store: OpenStore,
) -> None:
    store, other = open_store(), open_store()
    await other.open()
    created = await store.api_keys.create("ci", rate_limit_per_minute=60)
    await other.api_keys.find(created.key)
    changes = ApiKeyChanges(name="renamed", rate_limit_per_minute=None)
    await store.api_keys.change(created.record.id, changes)
    assert (await store.api_keys.find(created.key)).name == "renamed"

    async def renamed() -> bool:
        found = await other.api_keys.find(created.key)
        return (found.name, found.rate_limit_per_minute) == ("renamed", None)

    await until(renamed, seconds=2)
    await store.api_keys.delete(created.record.id)
    assert not await is_valid(store, created.key)

    async def refused() -> bool:
        return not await is_valid(other, created.key)

    await until(refused, seconds=2)


async def test_a_cached_key_costs_no_round_trip(open_store: OpenStore) -> None:
    store = open_store()
    created = await store.api_keys.create("ci")
    await store.api_keys.find(created.key)
    before = await commands(store)
    for _ in range(100):
        await store.api_keys.find(created.key)
    assert await commands(store) - before == 1  # the question itself


async def commands(store: Store) -> int:
    info = await store.connection.ask("info", "INFO", "stats")
    return int(info["total_commands_processed"])


async def test_a_key_expires(store: Store) -> None:
    created = await store.api_keys.create("short", expires_at=time.time() + 1.5)
    assert await is_valid(store, created.key)

    async def expired() -> bool:
        return not await is_valid(store, created.key)

    await until(expired, seconds=4)


async def test_the_use_of_a_key_is_written_down_at_most_once_a_minute(store: Store) -> None:
    created = await store.api_keys.create("ci")
    assert (await store.api_keys.get(created.record.id)).last_used_at is None
    for _ in range(5):
        await store.api_keys.find(created.key)
    await store.api_keys.look()
    used = (await store.api_keys.get(created.record.id)).last_used_at
    assert used is not None
    assert abs(used - time.time()) < 5
    await store.connection.ask("forget", "DEL", keys.api_key_used())
    await store.api_keys.find(created.key)
    await store.api_keys.look()
    assert (await store.api_keys.get(created.record.id)).last_used_at is None


async def test_keys_are_listed_without_the_keys(store: Store) -> None:
    one = await store.api_keys.create("one")
    two = await store.api_keys.create("two")
    listed = await store.api_keys.all()
    assert {key.name for key in listed} == {"one", "two"}
    assert one.key not in str(listed)
    assert two.key not in str(listed)


async def test_unknown_ids_are_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.api_keys.get("nobody")
    with pytest.raises(NotFound):
        await store.api_keys.delete("nobody")
    with pytest.raises(NotFound):
        await store.api_keys.change("nobody", ApiKeyChanges(name="x"))


async def test_changes_made_at_once_are_all_there_or_told_as_a_conflict(
    open_store: OpenStore,
) -> None:
    stores = [open_store() for _ in range(10)]
    key_id = (await stores[0].api_keys.create("ci")).record.id
    fields = ("rate_limit_per_minute", "daily_token_budget", "max_streams")

    async def change(number: int) -> str | None:
        field = fields[number % 3]
        try:
            await stores[number].api_keys.change(key_id, ApiKeyChanges(**{field: number + 1}))
        except Conflict:
            return None
        return field

    made = set(await asyncio.gather(*(change(number) for number in range(10)))) - {None}
    record = await stores[0].api_keys.get(key_id)
    assert made
    assert {field for field in fields if getattr(record, field) is not None} == made


async def test_created_keys_outlive_a_rotation_of_the_secret_key(
    store: Store, open_store: OpenStore
) -> None:
    created = await store.api_keys.create("ci")
    rotated = open_store(
        secret_key="n" * 32, secret_key_previous="0123456789abcdef0123456789abcdef"
    )
    assert (await rotated.api_keys.find(created.key)).id == created.record.id


async def test_what_was_read_before_a_change_is_not_cached_after_it(store: Store) -> None:
    """Timeline: find reads the old record, the change is made and learned, find caches."""
    created = await store.api_keys.create("old")
    await store.api_keys.look()
    finding = store.api_keys.find(created.key)
    changing = store.api_keys.change(created.record.id, ApiKeyChanges(name="new"))
    await asyncio.gather(finding, changing)
    assert (await store.api_keys.find(created.key)).name == "new"


async def test_whoever_was_known_stays_known_when_another_key_changes(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    """Redis goes away right behind a change: all that this process knew still authenticate."""
    stays, changed, gone = [await store.api_keys.create(name) for name in ("a", "b", "c")]
    here = ApiKeys(meddled, sealer)
    await here.look()
    for created in (stays, changed, gone):
        await here.find(created.key)
    await store.api_keys.create("d")
    await store.api_keys.change(changed.record.id, ApiKeyChanges(name="b, too"))
    await store.api_keys.delete(gone.record.id)
    await here.look()

    async def away() -> None:
        raise StoreUnavailable

    meddled.before["api_key_find"] = away
    assert (await here.find(stays.key)).name == "a"
    assert (await here.find(changed.key)).name == "b, too"
    with pytest.raises(StoreUnavailable):
        await here.find(gone.key)


async def test_a_change_made_here_leaves_the_other_keys_known(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    here = ApiKeys(meddled, sealer)
    await here.look()
    known = (await here.create("known")).key
    other = await here.create("other")
    await here.find(known)
    await here.change(other.record.id, ApiKeyChanges(name="renamed"))

    async def away() -> None:
        raise StoreUnavailable

    meddled.before["api_key_find"] = away
    assert (await here.find(known)).name == "known"
    with pytest.raises(StoreUnavailable):
        await here.find(other.key)


async def test_a_change_that_comes_while_known_keys_are_read_anew_is_not_lost(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    created = await store.api_keys.create("old")
    here = ApiKeys(meddled, sealer)
    await here.look()
    await here.find(created.key)
    await store.api_keys.create("another")

    async def rename() -> None:
        meddled.behind.clear()
        await here.change(created.record.id, ApiKeyChanges(name="new"))

    meddled.behind["api_key_find"] = rename
    await here.look()
    assert (await here.find(created.key)).name == "new"


async def test_a_key_that_changes_under_every_try_to_delete_it_is_a_conflict(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    created = await store.api_keys.create("first name")
    names = iter(range(100))

    async def rename() -> None:
        changes = ApiKeyChanges(name=f"name {next(names)}")
        await store.api_keys.change(created.record.id, changes)

    meddled.behind["api_key_find"] = rename
    with pytest.raises(Conflict):
        await ApiKeys(meddled, sealer).delete(created.record.id)
    assert await store.api_keys.get(created.record.id)


async def test_what_is_learned_while_a_key_is_looked_up_keeps_it_out_of_the_cache(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    """Timeline: the old record is read, it is changed, the change is learned, the find goes on."""
    created = await store.api_keys.create("old")
    api_keys = ApiKeys(meddled, sealer)
    await api_keys.look()

    async def change_and_learn() -> None:
        await store.api_keys.change(created.record.id, ApiKeyChanges(name="new"))
        await api_keys.look()

    meddled.behind["api_key_find"] = change_and_learn
    assert (await api_keys.find(created.key)).name == "old"
    del meddled.behind["api_key_find"]
    assert (await api_keys.find(created.key)).name == "new"


async def test_the_keys_of_the_environment_are_listed_first_and_only_it_changes_them(
    open_store: OpenStore,
) -> None:
    store = open_store(api_key="sk-admin-1,sk-other-2")
    created = (await store.api_keys.create("ci", max_streams=2)).record
    admin, other, last = await store.api_keys.all()
    assert [one.name for one in (admin, other, last)] == ["API_KEY 1", "API_KEY 2", "ci"]
    assert (admin.configured, admin.admin, other.admin) == (True, True, False)
    assert await store.api_keys.created() == [created]
    for key_id in (admin.id, other.id):
        with pytest.raises(Forbidden):
            await store.api_keys.delete(key_id)
        with pytest.raises(Forbidden):
            await store.api_keys.change(key_id, ApiKeyChanges(max_streams=1))


async def test_a_key_is_known_by_its_id_wherever_it_comes_from(open_store: OpenStore) -> None:
    store = open_store(api_key="sk-admin-1")
    created = (await store.api_keys.create("ci", max_streams=2)).record
    [admin, _] = await store.api_keys.all()
    assert await store.api_keys.known(created.id) == created
    assert await store.api_keys.known(admin.id) == admin
    await store.api_keys.delete(created.id)
    assert await store.api_keys.known(created.id) is None


async def test_a_key_of_the_environment_says_when_it_was_last_used(open_store: OpenStore) -> None:
    store = open_store(api_key="sk-admin-1")
    [before] = await store.api_keys.all()
    await store.api_keys.find("sk-admin-1")
    await store.api_keys.look()
    [after] = await store.api_keys.all()
    assert before.last_used_at is None
    assert after.last_used_at is not None
    assert abs(after.last_used_at - time.time()) < 5
