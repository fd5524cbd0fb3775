"""Turns at once and tokens of the day, counted over several processes."""

import asyncio
import time

import msgspec
import pytest

from shared.errors import StoreUnavailable
from shared.store import keys
from shared.store.allowances import Allowance, Allowances, Refusal
from shared.store.api_keys import ApiKey
from shared.store.ledger import Entry, Record
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import until

pytestmark = pytest.mark.anyio

DAY_SECONDS = 86_400


def key(id: str = "k1", **limits: int | None) -> ApiKey:
    return ApiKey(id=id, name="ci", **limits)


async def taken(store: Store, key: ApiKey, tokens: int = 10) -> Allowance:
    answer = await store.allowances.take(key, tokens=tokens)
    assert isinstance(answer, Allowance), answer
    return answer


async def refusal(store: Store, key: ApiKey, tokens: int = 10) -> Refusal:
    answer = await store.allowances.take(key, tokens=tokens)
    assert isinstance(answer, Refusal), answer
    return answer


async def use(store: Store, tokens: int, *, key_id: str = "k1") -> None:
    """Something that the key used today, as the ledger is told of it."""
    record = Record(
        request_id="r", route="/v1/messages", status=200, total_ms=1, key_id=key_id,
        input_tokens=tokens // 2, output_tokens=tokens - tokens // 2,
    )  # fmt: skip
    await store.ledger.write(Entry(record=record))


async def test_no_more_turns_than_may_run_at_once_whoever_asks(open_store: OpenStore) -> None:
    stores, limited = [open_store() for _ in range(3)], key(max_streams=7)
    asked = (stores[number % 3].allowances.take(limited, tokens=0) for number in range(50))
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(one, Allowance) for one in answers) == 7
    assert {one.reason for one in answers if isinstance(one, Refusal)} == {"streams"}


async def test_what_is_given_back_may_be_taken_and_other_keys_are_not_asked(store: Store) -> None:
    limited = key(max_streams=1)
    first = await taken(store, limited)
    assert (await refusal(store, limited)).reason == "streams"
    await taken(store, msgspec.structs.replace(limited, id="k2"))
    await store.allowances.give_back(first)
    await store.allowances.give_back(first)  # once more changes nothing
    second = await taken(store, limited)
    await store.allowances.finish(second, used_tokens=5)
    await taken(store, limited)


async def test_a_spent_budget_is_told_with_the_end_of_the_day(store: Store) -> None:
    limited = key(daily_token_budget=100)
    await use(store, 99)
    await store.allowances.give_back(await taken(store, limited))
    await use(store, 1)
    told = await refusal(store, limited)
    seconds = DAY_SECONDS - time.time() % DAY_SECONDS
    assert told.reason == "spent"
    assert abs(told.seconds - seconds) < 5
    await taken(store, msgspec.structs.replace(limited, id="k2"))
    await taken(store, key(daily_token_budget=101))


async def test_turns_that_run_at_once_do_not_pass_the_same_rest_of_a_budget(
    open_store: OpenStore,
) -> None:
    """However many processes ask: what was set aside goes beyond the budget by one turn's."""
    stores, limited = [open_store() for _ in range(3)], key(daily_token_budget=1000)
    asked = (stores[number % 3].allowances.take(limited, tokens=90) for number in range(50))
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(one, Allowance) for one in answers) == 12  # 11 * 90 < 1000
    assert {one.reason for one in answers if isinstance(one, Refusal)} == {"reserved"}


async def test_a_key_of_long_turns_sets_aside_what_they_use(store: Store) -> None:
    """Otherwise each of those that run at once would use more than anybody reckoned with."""
    limited = key(daily_token_budget=100_000)
    for _ in range(2):
        await use(store, 20_000)
    assert [(await taken(store, limited)).tokens for _ in range(3)] == [20_000] * 3
    assert (await refusal(store, limited)).reason == "reserved"


async def test_what_a_finished_turn_used_stays_set_aside_until_the_ledger_has_it(
    store: Store,
) -> None:
    limited = key(daily_token_budget=100, max_streams=1)
    first = await taken(store, limited, tokens=5000)
    await store.allowances.finish(first, used_tokens=60)
    second = await taken(store, limited, tokens=39)  # no turn runs, 40 are left
    assert (await refusal(store, limited)).reason == "streams"
    await store.allowances.finish(second, used_tokens=40)
    assert (await refusal(store, limited)).reason == "reserved"
    await use(store, 100)
    for one in (first, second):
        await store.allowances.give_back(one)
    assert (await refusal(store, limited)).reason == "spent"


async def test_a_dead_processs_turns_lapse_and_a_living_ones_do_not(store: Store) -> None:
    limited = key(max_streams=2)
    dead, living = (Allowances(store.connection, ttl_seconds=0.2) for _ in range(2))
    for process in (dead, living):
        assert isinstance(await process.take(limited, tokens=0), Allowance)

    async def one_has_lapsed() -> bool:
        await living.extend_all()
        return isinstance(await store.allowances.take(limited, tokens=0), Allowance)

    await until(one_has_lapsed, seconds=2)
    await living.extend_all()
    assert (await refusal(store, limited)).reason == "streams"


async def test_a_turn_that_had_lapsed_counts_again_with_its_next_extension(store: Store) -> None:
    limited = key(max_streams=1)
    await taken(store, limited)
    await store.connection.ask("test", "DEL", keys.ledger_running("k1"))
    await store.allowances.extend_all()
    assert (await refusal(store, limited)).reason == "streams"


async def test_who_leaves_while_he_asks_leaves_nothing_behind(
    store: Store, meddled: MeddledConnection
) -> None:
    mine, limited = Allowances(meddled), key(max_streams=1)

    async def leave() -> None:
        raise asyncio.CancelledError

    meddled.behind["allowance_take"] = leave
    with pytest.raises(asyncio.CancelledError):
        await mine.take(limited, tokens=0)
    assert (await refusal(store, limited)).reason == "streams"
    await mine.extend_all()
    await taken(store, limited)


async def test_an_extension_that_overtakes_the_end_of_a_turn_brings_nothing_back(
    store: Store, meddled: MeddledConnection
) -> None:
    mine, limited = Allowances(meddled), key(max_streams=1, daily_token_budget=1000)
    first = await mine.take(limited, tokens=10)
    assert isinstance(first, Allowance)

    async def end() -> None:
        del meddled.before["allowance_extend"]
        await mine.give_back(first)

    meddled.before["allowance_extend"] = end
    await mine.extend_all()
    assert await store.connection.ask("test", "HLEN", keys.ledger_running("k1")) == 0

    second = await mine.take(limited, tokens=10)
    assert isinstance(second, Allowance)

    async def finish() -> None:
        del meddled.before["allowance_extend"]
        await mine.finish(second, used_tokens=7)

    meddled.before["allowance_extend"] = finish
    await mine.extend_all()
    [text] = await store.connection.ask("test", "HVALS", keys.ledger_running("k1"))
    assert text.endswith(" 7 0")


async def test_without_redis_nothing_begins_and_nothing_ends_badly(
    open_store: OpenStore, meddled: MeddledConnection
) -> None:
    away = open_store(redis_url="unix:///nowhere/redis.sock")
    with pytest.raises(StoreUnavailable):
        await away.allowances.take(key(max_streams=1), tokens=0)

    async def fail() -> None:
        raise StoreUnavailable

    mine = Allowances(meddled)
    held = await mine.take(key(daily_token_budget=10), tokens=1)
    assert isinstance(held, Allowance)
    meddled.before["allowance_extend"] = fail
    await mine.finish(held, used_tokens=1)
    await mine.give_back(held)


async def test_what_is_finished_or_extended_after_it_was_given_back_stays_given_back(
    store: Store, meddled: MeddledConnection
) -> None:
    limited = key(daily_token_budget=1000)
    held = await taken(store, limited)
    await store.allowances.give_back(held)
    await store.allowances.finish(held, used_tokens=5)
    assert await store.connection.ask("test", "HLEN", keys.ledger_running("k1")) == 0

    mine = Allowances(meddled)
    first, second = [await mine.take(key(id=name), tokens=0) for name in ("k1", "k2")]
    assert isinstance(first, Allowance)
    assert isinstance(second, Allowance)

    async def end_the_other() -> None:
        del meddled.before["allowance_extend"]
        await mine.give_back(second)

    meddled.before["allowance_extend"] = end_the_other
    await mine.extend_all()
    assert await store.connection.ask("test", "HLEN", keys.ledger_running("k2")) == 0
