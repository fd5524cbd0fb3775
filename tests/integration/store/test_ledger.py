"""The ledger over several processes: sums, log, uses; what an outage and a lost answer do to it."""

import asyncio
import datetime
import random

import msgspec
import pytest

from shared.errors import StoreUnavailable
from shared.settings import Settings
from shared.store import keys
from shared.store.ledger import Entry, Ledger, Record, Use
from shared.store.requests import Wanted
from shared.store.store import Store
from shared.store.usage import Sums, oldest_day
from tests.fakes.redis_server import RedisServer
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import Child, email, until

pytestmark = pytest.mark.anyio


def record(number: int = 0, **fields: object) -> Record:
    given = {"request_id": f"r{number}", "route": "/v1/chat/completions", "status": 200}
    given |= {"key_id": "k1", "model": "qwen3-max", "account": email(0), "total_ms": 12.5}
    return msgspec.convert(given | fields, Record)


def entry(number: int = 0, **fields: object) -> Entry:
    """One turn of one attempt that used 10 and 3 tokens."""
    told = record(number, input_tokens=10, output_tokens=3, attempts=1, **fields)
    use = Use(
        account=told.account or "",
        request_id=told.request_id,
        model="qwen3-max",
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        error=told.error,
    )
    return Entry(record=told, key_name="ci", model="qwen3-max", uses=(use,))


async def sums(store: Store, by: str = "key") -> dict[str, Sums]:
    return await store.usage.of_day(by, await store.usage.today())  # type: ignore[arg-type]  # one of By


async def test_a_turn_is_counted_by_account_key_and_model(store: Store) -> None:
    await store.ledger.write(entry())
    await store.ledger.write(entry(1))
    used = Sums(requests=2, input_tokens=20, output_tokens=6, failures=0)
    assert await sums(store, "account") == {email(0): used}
    assert await sums(store, "key") == {"k1": used}
    assert await sums(store, "model") == {"qwen3-max": used}
    assert await store.usage.key_names() == {"k1": "ci"}


async def test_a_turn_that_failed_over_counts_for_both_accounts_and_once_for_its_caller(
    store: Store,
) -> None:
    failed = Use(account=email(1), request_id="r0", model="qwen3-max", error="upstream_error")
    served = entry().uses
    await store.ledger.write(msgspec.structs.replace(entry(), uses=(failed, *served)))
    by_account = await sums(store, "account")
    assert by_account[email(0)] == Sums(1, 10, 3, 0)
    assert by_account[email(1)] == Sums(1, 0, 0, 1)
    assert await sums(store, "key") == {"k1": Sums(1, 10, 3, 0)}


async def test_what_failed_counts_with_what_it_used(store: Store) -> None:
    await store.ledger.write(entry(error="upstream_error"))
    assert await sums(store, "key") == {"k1": Sums(1, 10, 3, 1)}
    assert await sums(store, "account") == {email(0): Sums(1, 10, 3, 1)}


async def test_what_was_put_down_before_adds_its_tokens_and_no_request(store: Store) -> None:
    await store.ledger.write(Entry(record=record(), key_name="ci", model="qwen3-max"))
    await store.ledger.write(msgspec.structs.replace(entry(1), requests=0))
    assert await sums(store, "key") == {"k1": Sums(1, 10, 3, 0)}
    assert await sums(store, "account") == {email(0): Sums(1, 10, 3, 0)}


async def test_a_refused_request_without_a_key_is_in_the_log_alone(store: Store) -> None:
    refused = record(status=401, key_id="", error="invalid_api_key")
    await store.ledger.write(Entry(record=refused))
    assert await sums(store, "key") == await sums(store, "model") == {}
    [logged] = await store.requests.newest(10)
    assert logged.record == refused


async def test_what_is_for_the_log_alone_adds_to_no_sum(store: Store) -> None:
    await store.ledger.write(Entry(record=record(status=404, error="not_found"), summed=False))
    assert await sums(store, "key") == await sums(store, "model") == {}
    assert len(await store.requests.newest(10)) == 1


@pytest.mark.parametrize(("status", "failures"), [(400, 1), (499, 0), (200, 0)])
async def test_a_repeat_of_a_refusal_is_a_failure_and_a_caller_who_left_is_none(
    store: Store, status: int, failures: int
) -> None:
    await store.ledger.write(Entry(record=record(status=status)))
    assert (await sums(store))["k1"].failures == failures


async def test_the_sums_of_many_processes_are_exact(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(5)]
    await asyncio.gather(
        *(stores[n % 5].ledger.write(entry(n, account=email(n % 7))) for n in range(500))
    )
    used = Sums(500, 5000, 1500, 0)
    assert await sums(stores[0], "key") == {"k1": used}
    assert used.tokens == 6500
    by_account = await sums(stores[0], "account")
    assert sum(one.requests for one in by_account.values()) == 500
    assert by_account[email(0)].requests == 72


async def test_a_turn_costs_at_most_one_round_trip_and_many_cost_few(settings: Settings) -> None:
    asked: list[str] = []
    async with Store(settings, observe=lambda name, seconds, ok: asked.append(name)) as store:
        await store.ledger.write(entry())  # the server knows the script
        asked.clear()
        await store.ledger.write(entry(1))
        assert asked == ["ledger_write"]
        asked.clear()
        await asyncio.gather(*(store.ledger.write(entry(n)) for n in range(100)))
        assert asked == ["ledger_write"] * 2


async def test_a_write_whose_answer_was_lost_is_counted_once(
    meddled: MeddledConnection, store: Store
) -> None:
    """The script runs, then the connection breaks: the ledger sends the same write again."""
    ledger = Ledger(meddled)

    async def lose_the_answer() -> None:
        meddled.behind.clear()
        raise StoreUnavailable

    meddled.behind["ledger_write"] = lose_the_answer
    await ledger.write(entry())
    assert await sums(store) == {"k1": Sums(1, 10, 3, 0)}  # it was applied
    await ledger.flush()
    assert await sums(store) == {"k1": Sums(1, 10, 3, 0)}
    assert len(await store.requests.newest(10)) == 1
    await ledger.write(entry(1))
    assert await sums(store) == {"k1": Sums(2, 20, 6, 0)}
    await ledger.close()


async def test_what_ends_during_an_outage_is_written_soon_after_it(
    own_redis: RedisServer, settings: Settings
) -> None:
    own = msgspec.structs.replace(settings, redis_url=own_redis.url)
    async with Store(own) as store:
        await store.ledger.write(entry())
        own_redis.freeze()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(store.ledger.write(entry(n)) for n in range(1, 200)))
        assert loop.time() - started < 2  # an answer never waits for Redis to come back
        own_redis.thaw()

        async def counted() -> bool:
            return not store.connection.is_away and (await sums(store)).get("k1") == Sums(
                200, 2000, 600, 0
            )

        await until(counted, seconds=3)


async def test_an_answer_that_ended_before_an_outage_survives_the_kill_of_redis(
    own_redis: RedisServer, settings: Settings
) -> None:
    own = msgspec.structs.replace(settings, redis_url=own_redis.url)
    async with Store(own) as store:
        counted = 0
        for _ in range(3):
            for number in range(20):
                await store.ledger.write(entry(number))
                counted += 1
            own_redis.stop()
            own_redis.start()

            async def back() -> bool:
                await asyncio.gather(store.ledger.flush(), return_exceptions=True)
                return not store.connection.is_away

            await until(back, seconds=5)
        await store.ledger.flush()
        assert (await sums(store))["k1"] == Sums(counted, counted * 10, counted * 3, 0)


@pytest.mark.timeout(60)
async def test_whatever_is_killed_every_entry_that_was_awaited_is_counted_exactly_once(
    open_store: OpenStore, settings: Settings
) -> None:
    """Five rounds: processes write as fast as they can, one is killed. Nothing that it said to be
    written is missing; at most what was on its way then comes on top."""
    store = open_store()
    chance = random.Random(5)
    said = 0
    at_most = 0
    for _ in range(5):
        children = [await Child.start(settings, "entries", "10") for _ in range(2)]
        for child in children:
            await child.says("begun")
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        children[0].process.kill()
        children[1].process.stdin.close()  # type: ignore[union-attr]  # it was asked for as a pipe
        for child in children:
            assert child.process.stdout is not None
            lines = (await child.process.stdout.read()).splitlines()
            await child.process.wait()
            said += sum(int(line) for line in lines if line.isdigit())
        at_most += 10  # as many as the killed one had on their way
        used = (await sums(store))["k1"]
        assert said <= used.requests <= said + at_most
        assert used == Sums(used.requests, used.requests * 10, used.requests * 3, 0)
        for by in ("model", "account"):
            assert sum((await sums(store, by)).values(), Sums()) == used
    assert said > 100


async def test_entries_that_wait_have_a_bound_and_idle_ones_a_lower_one(
    meddled: MeddledConnection, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(meddled)

    async def stay_away() -> None:
        raise StoreUnavailable

    meddled.before["ledger_write"] = stay_away
    for number in range(3_000):
        ledger.note(Entry(record=record(number, status=503, error="store_unavailable")))
    for number in range(20_000):
        ledger.note(entry(number))
    await ledger.write(entry(20_000))  # one too many
    with pytest.raises(StoreUnavailable):
        await ledger.flush()
    meddled.before.clear()
    await ledger.flush()
    assert (await sums(store))["k1"] == Sums(20_000, 180_000, 54_000, 2_000)
    assert "lost" in caplog.text
    await ledger.close()


async def test_closing_writes_what_waits(settings: Settings, open_store: OpenStore) -> None:
    other = open_store()
    async with Store(settings) as store:
        store.ledger.note(entry())
    assert await sums(other) == {"k1": Sums(1, 10, 3, 0)}


@pytest.mark.parametrize("hangs", [False, True])
async def test_closing_while_redis_is_away_takes_a_second_and_tells_what_is_lost(
    meddled: MeddledConnection, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    ledger = Ledger(meddled)

    async def be_away() -> None:
        await asyncio.sleep(60 if hangs else 0)
        raise StoreUnavailable

    meddled.before["ledger_write"] = be_away
    ledger.note(entry())
    started = asyncio.get_running_loop().time()
    await ledger.close()
    assert asyncio.get_running_loop().time() - started < 2
    [told] = [one for one in caplog.records if "lost" in one.message]
    assert told.__dict__["count"] == 1


async def test_an_entry_counts_for_the_day_on_which_it_ended(store: Store) -> None:
    """Redis was away over midnight: what waited is as old as it says."""
    day_ms = 86_400_000
    seconds, _ = await store.connection.ask("time", "TIME")
    today = await store.usage.today()
    age_ms = int(seconds) % 86_400 * 1000 + 1000  # one second before midnight
    told = {"age_ms": age_ms, "record": "{}", "key": ["", ""], "uses": []}
    told["sums"] = [["key", "k1", 1, 2, 3, 0]]
    text = msgspec.json.encode(told)
    await store.connection.run("ledger_write", keys.LEDGER, "p", 1, 90, 10, 20, 10, text)
    yesterday = today - datetime.timedelta(days=1)
    assert await store.usage.of_day("key", yesterday) == {"k1": Sums(1, 2, 3, 0)}
    assert await store.usage.of_day("key", today) == {}
    name = keys.ledger_sums("key", str((yesterday - datetime.date(1970, 1, 1)).days))
    lapses_in_ms = await store.connection.ask("ttl", "PTTL", name)
    midnight_in_ms = day_ms - int(seconds) % 86_400 * 1000
    assert abs(lapses_in_ms - (88 * day_ms + midnight_in_ms)) < 3_000


def test_ninety_days_are_kept_today_included() -> None:
    today = datetime.date(2026, 3, 31)
    assert oldest_day(today) == datetime.date(2026, 1, 1)


async def test_sums_stay_exact_beyond_what_a_float_prints(store: Store) -> None:
    large = 2**50 + 1
    for number in range(2):
        told = record(number, input_tokens=large)
        await store.ledger.write(Entry(record=told, model="qwen3-max"))
    assert (await sums(store))["k1"].input_tokens == 2 * large


async def test_the_log_is_newest_first_capped_and_filtered(store: Store) -> None:
    for number in range(30):
        status = 429 if number % 3 == 0 else 200
        model = "qwen3-max" if number % 2 else "qwen3-plus"
        await store.ledger.write(entry(number, status=status, model=model, key_id=f"k{number % 2}"))
    newest = await store.requests.newest(5)
    assert [one.record.request_id for one in newest] == ["r29", "r28", "r27", "r26", "r25"]
    assert newest == sorted(newest, key=lambda one: one.at, reverse=True)
    refused = await store.requests.newest(100, Wanted(status=429))
    assert len(refused) == 10
    assert len(await store.requests.newest(100, Wanted(model="qwen3-max"))) == 15
    assert len(await store.requests.newest(100, Wanted(key_ids=frozenset({"k0"})))) == 15
    [one] = await store.requests.newest(100, Wanted(request_id="r7"))
    assert one.record.request_id == "r7"
    assert await store.requests.newest(100, Wanted(request_id="nobody's")) == []
    assert await store.requests.newest(100, Wanted(request_id="r")) == []  # the whole id counts
    both = Wanted(status=429, key_ids=frozenset({"k0", "k9"}))
    assert len(await store.requests.newest(100, both)) == 5
    assert len(await store.requests.newest(2, both)) == 2


async def test_a_record_with_odd_texts_is_found_by_them(store: Store) -> None:
    odd = 'a "quoted" \\ 漢字'
    await store.ledger.write(entry(1, model=odd))
    [found] = await store.requests.newest(10, Wanted(model=odd))
    assert found.record.model == odd


async def test_the_log_keeps_about_the_newest_ten_thousand(store: Store) -> None:
    for start in range(0, 11_000, 500):
        batch = [entry(number) for number in range(start, start + 500)]
        await asyncio.gather(*(store.ledger.write(one) for one in batch))
    length = await store.connection.ask("length", "XLEN", keys.ledger_requests())
    assert 10_000 <= length <= 10_200
    found = await store.requests.newest(20_000, Wanted(status=200))
    assert len(found) == length
    assert found[0].record.request_id == "r10999"
    assert len({one.record.request_id for one in found}) == length  # no page was read twice


async def test_an_account_tells_its_last_twenty_uses_and_its_last_errors(store: Store) -> None:
    for number in range(25):
        error = "upstream_error" if number < 2 else None
        await store.ledger.write(entry(number, error=error))
    uses = await store.requests.uses_of(email(0).upper())
    assert [one.use.request_id for one in uses] == [f"r{n}" for n in range(24, 4, -1)]
    errors = await store.requests.errors_of(email(0))
    assert [one.use.request_id for one in errors] == ["r1", "r0"]  # older than the twenty
    assert await store.requests.uses_of("nobody@example.org") == []


async def test_a_long_message_is_cut(store: Store) -> None:
    use = Use(account=email(0), request_id="r", model="m", error="x", message="y" * 10_000)
    await store.ledger.write(Entry(record=record(), uses=(use,)))
    [past] = await store.requests.uses_of(email(0))
    assert past.use.message == "y" * 300


async def test_today_of_some_accounts_is_one_question(store: Store) -> None:
    await store.ledger.write(entry())
    today = await store.usage.today()
    found = await store.usage.of_accounts([email(1), email(0)], today)
    assert found == [Sums(), Sums(1, 10, 3, 0)]
    assert await store.usage.of_accounts([], today) == []


async def test_a_day_of_very_many_accounts_is_whole(store: Store) -> None:
    for start in range(0, 3_000, 500):
        some = [entry(n, account=email(n)) for n in range(start, start + 500)]
        await asyncio.gather(*(store.ledger.write(one) for one in some))
    found = await sums(store, "account")
    assert list(found) == [email(number) for number in range(3_000)]
    assert set(found.values()) == {Sums(1, 10, 3, 0)}


async def test_names_of_any_kind_are_counted_under_themselves(store: Store) -> None:
    odd = 'odd:"name"\n漢字@example.org'
    await store.ledger.write(entry(account=odd))
    assert await sums(store, "account") == {odd: Sums(1, 10, 3, 0)}
    [past] = await store.requests.uses_of(odd)
    assert past.use.account == odd


async def test_a_write_that_can_not_succeed_holds_up_none_that_follow(
    meddled: MeddledConnection, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(meddled)

    async def break_it() -> None:
        meddled.before.clear()
        raise ValueError("a bug")

    meddled.before["ledger_write"] = break_it
    await ledger.write(entry())
    await ledger.write(entry(1))
    assert await sums(store) == {"k1": Sums(1, 10, 3, 0)}
    assert "lost" in caplog.text
    await ledger.close()
