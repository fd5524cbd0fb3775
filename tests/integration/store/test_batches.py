"""Batches on a real Redis: what is put down, given out, ended, by whom and how often."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from shared.errors import NotFound
from shared.intake.lines import BatchLine
from shared.store import keys
from shared.store.batches import AHEAD_SECONDS, Batch, Batches, Claim, Claims, Refused
from shared.store.outcome import EgressRest
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore

pytestmark = pytest.mark.anyio

SOON = time.time() + 86_400


def line(number: int, *, name: str = "a", proxy: str = "") -> BatchLine:
    email = f"{name}{number}@example.org"
    return BatchLine(number=number, email=email, password=f"secret-{number}", proxy=proxy)


def lines(count: int, *, name: str = "a", proxy: str = "") -> list[BatchLine]:
    return [line(number, name=name, proxy=proxy) for number in range(1, count + 1)]


async def put_down(store: Store, some: Sequence[BatchLine | Refused]) -> str:
    batch_id = await store.batches.open("import")
    await store.batches.add(batch_id, some)
    await store.batches.start(batch_id)
    return batch_id


async def claimed(store: Store, want: int = 100) -> list[Claim]:
    return (await store.batches.claim(want=want)).claims


async def succeed_all(store: Store, claims: Sequence[Claim]) -> None:
    for claim in claims:
        assert await store.batches.succeed(claim, token="jwt", expires_at=SOON) == "succeeded"


async def do_all(store: Store) -> list[Claim]:
    """Everything that waits is given out and succeeds; in the order in which it was given out."""
    done: list[Claim] = []
    while claims := await claimed(store):
        done += claims
        await succeed_all(store, claims)
    return done


async def statuses(store: Store, batch_id: str) -> dict[int, str]:
    return {result.line: result.status async for result in store.batches.results(batch_id)}


def consistent(batch: Batch) -> bool:
    return (
        batch.total == batch.valid + batch.invalid + batch.skipped
        and batch.processed == batch.succeeded + batch.failed
        and (batch.state == "completed") == (batch.processed == batch.valid)
    )


# -- from its first line to its last


async def test_a_batch_goes_from_queued_over_running_to_completed(store: Store) -> None:
    batch_id = await put_down(store, lines(2))
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.total, batch.valid, batch.started_at) == ("queued", 2, 2, None)
    [one, other] = await claimed(store)
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.processed) == ("running", 0)
    assert batch.active == ["a1@example.org", "a2@example.org"]
    await succeed_all(store, [one])
    await store.batches.fail(other, "The password is wrong.")
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.succeeded, batch.failed, batch.active) == ("completed", 1, 1, [])
    assert batch.finished_at is not None
    assert batch.started_at is not None
    assert batch.created_at <= batch.started_at <= batch.finished_at
    assert [(r.line, r.status, r.message) for r in batch.recent] == [
        (2, "failed", "The password is wrong."),
        (1, "succeeded", ""),
    ]


async def test_the_account_is_in_the_pool_ready_with_its_token_and_its_proxy(store: Store) -> None:
    proxy = "http://user:pw@proxy:3128"
    await put_down(store, [line(1, proxy=proxy)])
    await do_all(store)
    account = await store.accounts.get("a1@example.org")
    assert (account.state, account.proxy) == ("ready", "http://proxy:3128")
    assert account.token_expires_at == pytest.approx(SOON)
    assert await store.accounts.password("a1@example.org") == "secret-1"
    lease = await store.leases.acquire("chat")
    assert (lease.account, lease.access_token, lease.proxy) == ("a1@example.org", "jwt", proxy)


async def test_a_line_that_failed_stores_no_account(store: Store) -> None:
    await put_down(store, lines(1))
    [claim] = await claimed(store)
    await store.batches.fail(claim, "no")
    with pytest.raises(NotFound):
        await store.accounts.get("a1@example.org")


async def test_nobody_sees_a_batch_before_it_is_whole(store: Store) -> None:
    batch_id = await store.batches.open("import")
    await store.batches.add(batch_id, lines(3))
    assert await store.batches.newest() == []
    assert await claimed(store) == []
    with pytest.raises(NotFound):
        await store.batches.get(batch_id)
    for name in (keys.batch(batch_id), keys.batch_inputs(batch_id)):
        assert 0 < await store.connection.ask("test", "TTL", name) <= 3600  # its writer died
    await store.batches.start(batch_id)
    assert len(await claimed(store)) == 3


async def test_a_batch_without_a_valid_line_is_completed_at_once(store: Store) -> None:
    refused = Refused(number=1, email="", status="invalid", reason="no password")
    known = Refused(number=3, email="b@example.org", status="skipped", reason="twice")
    batch_id = await put_down(store, [refused, known])
    batch = await store.batches.get(batch_id)
    assert batch.ended
    assert (batch.state, batch.total, batch.invalid, batch.skipped) == ("completed", 2, 1, 1)
    assert [(r.line, r.status, r.message) async for r in store.batches.results(batch_id)] == [
        (1, "invalid", "no password"),
        (3, "skipped", "twice"),
    ]


async def test_there_is_no_batch_of_a_made_up_name(store: Store) -> None:
    for call in (store.batches.get, store.batches.cancel, store.batches.retry):
        with pytest.raises(NotFound):
            await call("batch_none")


async def test_batches_are_listed_the_newest_first(store: Store) -> None:
    ids = []
    for number in range(3):
        ids.append(await put_down(store, lines(1, name=f"n{number}-")))
        await asyncio.sleep(0.002)  # the moment of a batch is in milliseconds
    assert [batch.id for batch in await store.batches.newest()] == ids[::-1]
    assert [batch.id for batch in await store.batches.newest(limit=1)] == [ids[2]]


async def test_what_was_forgotten_while_it_was_read_takes_no_more_lines_and_does_not_start(
    store: Store,
) -> None:
    batch_id = await store.batches.open("import")
    await store.connection.ask("test", "DEL", keys.batch(batch_id))
    with pytest.raises(NotFound):
        await store.batches.add(batch_id, lines(1))
    with pytest.raises(NotFound):
        await store.batches.start(batch_id)
    with pytest.raises(NotFound):
        await store.batches.retry(batch_id)
    assert await store.batches.newest() == []


# -- secrets


async def test_no_password_lies_in_redis_in_clear_and_none_at_all_when_its_line_is_done(
    store: Store,
) -> None:
    batch_id = await put_down(store, [line(1, proxy="http://u:proxy-secret@p:1"), line(2)])
    claims = await claimed(store)
    assert {claim.input.password for claim in claims if claim.input} == {"secret-1", "secret-2"}
    dump = await store.connection.read_bytes(
        "test",
        "EVAL",
        """local all = {}
        for _, key in ipairs(redis.call('KEYS', 'gw:{pool}:batch*')) do
          all[#all + 1] = redis.call('DUMP', key)
        end
        return all""",
        0,
    )
    assert len(dump) > 5
    assert b"secret" not in b"".join(dump)
    assert "secret" not in repr(claims)
    await succeed_all(store, claims)
    assert await store.connection.ask("test", "EXISTS", keys.batch_inputs(batch_id)) == 0


async def test_a_failed_line_keeps_its_sealed_input_for_seven_days(store: Store) -> None:
    batch_id = await put_down(store, lines(1))
    [claim] = await claimed(store)
    await store.batches.fail(claim, "no")
    ttl = await store.connection.ask("test", "TTL", keys.batch_inputs(batch_id))
    assert 7 * 86_400 - 5 < ttl <= 7 * 86_400


async def test_a_line_moved_to_another_place_does_not_unseal(store: Store) -> None:
    batch_id = await put_down(store, lines(2))
    name = keys.batch_inputs(batch_id)
    other = await store.connection.ask("test", "HGET", name, "2")
    await store.connection.ask("test", "HSET", name, "1", other)
    [claim, _] = await claimed(store)
    assert claim.input is None
    assert "can't be read" in claim.unreadable


async def test_after_a_change_of_the_secret_key_the_previous_one_still_reads(
    open_store: OpenStore,
) -> None:
    old, new = (
        open_store(),
        open_store(secret_key="x" * 32, secret_key_previous="0123456789abcdef" * 2),
    )
    await put_down(old, lines(1))
    [claim] = await claimed(new)
    assert claim.input == line(1)


# -- the semaphore


@pytest.mark.parametrize("limit", [1, 7])
async def test_fifty_who_claim_at_once_get_no_more_than_the_limit_and_each_line_once(
    open_store: OpenStore, limit: int
) -> None:
    stores = [open_store(batch_login_concurrency=limit) for _ in range(5)]
    await put_down(stores[0], lines(30))
    given: Counter[int] = Counter()
    while len(given) < 30:
        rounds = await asyncio.gather(*(claimed(stores[n % 5], want=3) for n in range(50)))
        claims = [claim for some in rounds for claim in some]
        assert len(claims) == min(limit, 30 - len(given))
        given.update(claim.number for claim in claims)
        await succeed_all(stores[1], claims)
    assert set(given.values()) == {1}


async def test_another_limit_is_in_force_with_the_next_claim(
    open_store: OpenStore, store: Store
) -> None:
    await put_down(store, lines(20))
    assert len(await claimed(open_store(batch_login_concurrency=5))) == 5
    assert await claimed(open_store(batch_login_concurrency=3)) == []
    assert len(await claimed(open_store(batch_login_concurrency=9))) == 4


async def test_two_batches_share_evenly_however_long_the_first_is(open_store: OpenStore) -> None:
    store = open_store(batch_login_concurrency=4)
    long = await put_down(store, lines(200))
    await succeed_all(store, await claimed(store))
    short = await put_down(store, lines(20, name="b"))
    order = [claim.batch for claim in (await do_all(store))[:40]]
    assert Counter(order) == {long: 20, short: 20}
    assert abs(Counter(order[:10])[short] - 5) <= 1


# -- whoever dies


def with_short_claims(store: Store) -> Store:
    """A store whose claims live for 50 ms."""
    store.batches = Batches(
        store.connection,
        store.sealer,
        accounts=store.accounts,
        settings=store.settings,
        claim_seconds=0.05,
    )
    return store


@pytest.fixture
def short(store: Store) -> Store:
    return with_short_claims(store)


async def test_the_line_of_a_dead_process_is_given_out_again_and_the_dead_one_ends_nothing(
    short: Store,
) -> None:
    batch_id = await put_down(short, lines(1))
    [first] = await claimed(short)
    assert await claimed(short) == []
    await asyncio.sleep(0.06)
    [second] = await claimed(short)
    assert (second.number, second.fence > first.fence) == (1, True)
    assert await short.batches.succeed(first, token="late", expires_at=SOON) == "stale"
    assert not await short.batches.fail(first, "late")
    assert not await short.batches.again(first)
    assert not await short.batches.holds(first)
    assert await short.batches.holds(second)
    assert await short.batches.succeed(second, token="jwt", expires_at=SOON) == "succeeded"
    assert (await short.leases.acquire("chat")).access_token == "jwt"
    batch = await short.batches.get(batch_id)
    assert (batch.state, batch.processed, batch.succeeded) == ("completed", 1, 1)


async def test_whoever_looks_brings_lines_of_dead_processes_back(short: Store) -> None:
    await put_down(short, lines(3))
    await claimed(short)
    assert await short.batches.pending() == 0
    await asyncio.sleep(0.06)
    assert await short.batches.pending() == 1


async def test_ending_a_line_twice_counts_once(store: Store) -> None:
    batch_id = await put_down(store, lines(2))
    [claim, _] = await claimed(store)
    ends = await asyncio.gather(
        *(store.batches.succeed(claim, token="jwt", expires_at=SOON) for _ in range(25)),
        *(store.batches.fail(claim, "no") for _ in range(25)),
    )
    assert len([end for end in ends if end in ("succeeded", True)]) == 1
    batch = await store.batches.get(batch_id)
    assert batch.processed == 1
    assert consistent(batch)


async def test_counters_stay_exact_when_claimers_freeze_fail_and_are_cancelled_at_random(
    open_store: OpenStore,
) -> None:
    import random

    stores = [with_short_claims(open_store(batch_login_concurrency=10)) for _ in range(4)]
    rng = random.Random(7)
    batch_id = await put_down(stores[0], lines(150))
    ended: Counter[int] = Counter()

    async def work(store: Store) -> None:
        while (found := await store.batches.claim(want=3)).more_in_ms is not None or found.claims:
            for claim in found.claims:
                match rng.randrange(5):
                    case 0:
                        continue  # killed
                    case 1:
                        await asyncio.sleep(0.06)  # frozen, and back
                    case 2:
                        await store.batches.again(claim)
                        continue
                if rng.random() < 0.3:
                    done = await store.batches.fail(claim, "no")
                else:
                    end = await store.batches.succeed(claim, token="jwt", expires_at=SOON)
                    done = end == "succeeded"
                ended[claim.number] += done
            await asyncio.sleep(0.001)

    async with asyncio.timeout(20):
        while (await stores[0].batches.get(batch_id)).state != "completed":
            await asyncio.gather(*(work(store) for store in stores))
    batch = await stores[0].batches.get(batch_id)
    assert consistent(batch)
    assert batch.processed == 150
    assert set(ended.values()) == {1}
    found = Counter((await statuses(stores[0], batch_id)).values())
    assert found == {"succeeded": batch.succeeded, "failed": batch.failed}
    assert (await stores[0].accounts.counts())["ready"] == batch.succeeded


# -- accounts that are there already


async def test_one_that_was_added_meanwhile_is_skipped_without_a_login(store: Store) -> None:
    batch_id = await put_down(store, lines(2))
    await store.accounts.add("a1@example.org", "another")
    assert [claim.number for claim in await do_all(store)] == [2]
    batch = await store.batches.get(batch_id)
    assert (batch.valid, batch.skipped, batch.succeeded) == (1, 1, 1)
    assert consistent(batch)
    assert await store.accounts.password("a1@example.org") == "another"


async def test_one_that_was_added_while_its_line_logged_in_stays_as_it_is(store: Store) -> None:
    batch_id = await put_down(store, lines(1))
    [claim] = await claimed(store)
    await store.accounts.add("a1@example.org", "another")
    assert await store.batches.succeed(claim, token="jwt", expires_at=SOON) == "skipped"
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.skipped) == ("completed", 1)
    assert await store.accounts.password("a1@example.org") == "another"


async def test_the_same_account_in_two_batches_is_logged_in_by_one(store: Store) -> None:
    first, second = await put_down(store, lines(1)), await put_down(store, lines(1))
    [claim] = await claimed(store)
    assert await claimed(store) == []
    await succeed_all(store, [claim])
    async with asyncio.timeout(3):
        while not all(b.state == "completed" for b in await store.batches.newest()):
            assert await claimed(store) == []
            await asyncio.sleep(0.02)
    assert {
        (batch.succeeded, batch.skipped)
        for batch in (await store.batches.get(first), await store.batches.get(second))
    } == {(1, 0), (0, 1)}


async def test_which_accounts_exist_is_told_by_their_id(store: Store) -> None:
    await store.accounts.add("There@Example.org", "pw")
    assert await store.batches.existing(["there@example.org", "not@example.org"]) == {
        "there@example.org"
    }
    assert await store.batches.existing([]) == set()


# -- egress addresses


async def test_logins_through_one_egress_keep_their_distance_and_other_egresses_go_on(
    open_store: OpenStore,
) -> None:
    store = open_store(login_min_interval_ms=400, batch_login_concurrency=50)
    await put_down(store, [*lines(20), *[line(n, proxy=f"http://p{n}:1") for n in range(21, 31)]])
    found = await store.batches.claim(want=50)
    direct = [claim for claim in found.claims if claim.number <= 20]
    assert [claim.start_in_ms for claim in direct] == [0]
    assert len(found.claims) == 11
    assert found.more_in_ms is not None
    assert 0 < found.more_in_ms <= 400 - AHEAD_SECONDS * 1000
    await asyncio.sleep(found.more_in_ms / 1000 + 0.005)
    [following] = await claimed(store)
    assert 200 < following.start_in_ms <= 300


async def test_an_egress_that_rests_keeps_its_lines_waiting_and_resumes_by_itself(
    store: Store,
) -> None:
    batch_id = await put_down(store, [line(1), line(2), line(3, proxy="http://p:1")])
    [claim] = await claimed(store, want=1)
    assert await store.batches.again(claim, egress_rest=EgressRest(seconds=0.15))
    found = await store.batches.claim(want=10)
    assert [one.number for one in found.claims] == [3]
    assert found.more_in_ms is not None
    assert 100 < found.more_in_ms <= 150
    await asyncio.sleep(0.16)
    assert [one.number for one in await claimed(store)] == [1, 2]
    batch = await store.batches.get(batch_id)
    assert (batch.failed, batch.processed) == (0, 0)


async def test_refusals_slow_an_egress_down_once_per_incident_and_logins_that_go_well_ease_it(
    open_store: OpenStore,
) -> None:
    store = open_store(batch_login_concurrency=50)
    await put_down(store, lines(100))
    for claim in await claimed(store, want=20):  # all refused: one incident
        await store.batches.again(claim, pause_seconds=0.1)
    found = await store.batches.claim(want=50)
    assert found.claims == []
    assert found.more_in_ms is not None
    assert found.more_in_ms <= 500  # not 500 * 2 ** 20
    await asyncio.sleep(found.more_in_ms / 1000 + 0.01)
    [claim] = await claimed(store)  # one at a time from now on
    pace = await store.connection.ask("test", "GET", keys.login_pace("direct"))
    assert pace.startswith("500:")
    await succeed_all(store, [claim])
    pace = await store.connection.ask("test", "GET", keys.login_pace("direct"))
    assert pace.startswith("450:")


async def test_a_line_that_waits_again_comes_after_its_delay_and_knows_its_tries(
    store: Store,
) -> None:
    await put_down(store, lines(2))
    first, second = await claimed(store)
    await store.batches.again(first, delay_seconds=0.1, counted=True)
    await store.batches.again(second)
    [second] = await claimed(store)
    assert (second.number, second.tries) == (2, 0)
    await asyncio.sleep(0.11)
    [first] = await claimed(store)
    assert (first.number, first.tries) == (1, 1)


# -- cancel and retry


async def test_after_a_cancel_no_line_is_given_out_and_what_is_under_way_may_end(
    open_store: OpenStore,
) -> None:
    store = open_store(batch_login_concurrency=2)
    batch_id = await put_down(store, lines(10))
    one, other = await claimed(store)
    assert await store.batches.cancel(batch_id)
    assert not await store.batches.holds(one)
    assert await store.batches.claim(want=10) == Claims([], None)
    await succeed_all(store, [one])
    await store.batches.again(other)
    assert await store.batches.claim(want=10) == Claims([], None)
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.succeeded, batch.processed) == ("cancelled", 1, 1)
    assert Counter((await statuses(store, batch_id)).values()) == {"succeeded": 1, "cancelled": 9}
    assert not await store.batches.cancel(batch_id)


async def test_a_cancelled_batch_goes_on_when_it_is_retried(store: Store) -> None:
    batch_id = await put_down(store, lines(10))
    [claim] = await claimed(store, want=1)
    await store.batches.cancel(batch_id)
    await store.batches.fail(claim, "no")
    assert await store.batches.retry(batch_id) == 1
    await do_all(store)
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.succeeded, batch.failed) == ("completed", 10, 0)


async def test_a_retry_does_the_failed_lines_again_and_no_others(open_store: OpenStore) -> None:
    store = open_store(batch_login_concurrency=50)
    batch_id = await put_down(store, lines(450))
    while claims := await claimed(store):
        for claim in claims:
            if claim.number % 2:
                await store.batches.fail(claim, "no")
            else:
                await succeed_all(store, [claim])
    assert (await store.batches.get(batch_id)).failed == 225
    assert await store.batches.retry(batch_id) == 225
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.failed, batch.processed) == ("running", 0, 225)
    assert batch.finished_at is None
    assert {claim.number % 2 for claim in await do_all(store)} == {1}
    batch = await store.batches.get(batch_id)
    assert (batch.state, batch.succeeded, batch.failed) == ("completed", 450, 0)


async def test_a_retry_where_nothing_failed_changes_nothing(store: Store) -> None:
    batch_id = await put_down(store, lines(2))
    await do_all(store)
    before = await store.batches.get(batch_id)
    assert await store.batches.retry(batch_id) == 0
    assert await store.batches.get(batch_id) == before


async def test_two_retries_at_once_count_each_line_once(store: Store) -> None:
    batch_id = await put_down(store, lines(5))
    for claim in await claimed(store):
        await store.batches.fail(claim, "no")
    retried = await asyncio.gather(*(store.batches.retry(batch_id) for _ in range(10)))
    assert sum(retried) == 5
    batch = await store.batches.get(batch_id)
    assert (batch.failed, batch.processed) == (0, 0)


# -- of a refresh


async def test_the_lines_of_a_refresh_are_accounts_of_the_pool(store: Store) -> None:
    for number in (1, 2):
        await store.accounts.add(f"a{number}@example.org", "pw", proxy=f"http://p{number}:1")
    batch_id = await store.batches.open("refresh")
    await store.batches.add_accounts(batch_id, ["a1@example.org", "A2@example.org"])
    await store.batches.start(batch_id)
    claims = await claimed(store)
    assert [(c.kind, c.email, c.input) for c in claims] == [
        ("refresh", "a1@example.org", None),
        ("refresh", "a2@example.org", None),
    ]
    assert len({claim.egress for claim in claims}) == 2
    for claim in claims:
        assert await store.batches.succeed(claim) == "succeeded"
    batch = await store.batches.get(batch_id)
    assert (batch.kind, batch.state, batch.succeeded) == ("refresh", "completed", 2)


# -- numbers


async def test_what_became_of_all_lines_is_summed_over_all_batches(store: Store) -> None:
    refused = Refused(number=9, email="", status="invalid", reason="no password")
    for name in ("a", "b"):
        await put_down(store, [*lines(3, name=name), refused])
    [claim, *rest] = await claimed(store)
    await store.batches.fail(claim, "no")
    await succeed_all(store, rest)
    await do_all(store)
    assert await store.batches.outcomes() == {"invalid": 2, "failed": 1, "succeeded": 5}


async def test_a_login_costs_two_commands_and_many_are_claimed_with_one(
    open_store: OpenStore,
) -> None:
    store = open_store(batch_login_concurrency=50)
    await put_down(store, lines(200))
    before = await commands(store)
    done = await do_all(store)
    assert len(done) == 200
    assert await commands(store) - before <= 200 + 200 / 50 + 3


async def commands(store: Store) -> int:
    """Commands that clients sent; not those inside of scripts."""
    stats = await store.connection.ask("test", "INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


async def test_a_hundred_thousand_lines_are_put_down_and_read_in_pieces(store: Store) -> None:
    count = 100_000
    batch_id = await put_down(store, lines(count))
    batch: Batches = store.batches
    assert (await batch.get(batch_id)).valid == count
    numbers = [result.line async for result in batch.results(batch_id)]
    assert numbers == list(range(1, count + 1))
