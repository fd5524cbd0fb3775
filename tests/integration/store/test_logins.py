"""Promise 1 of the contract at the store: one login per account, and no stale write."""

import asyncio
import time

import pytest

from shared.errors import (
    AccountDead,
    Conflict,
    LoginFailed,
    NoAccount,
    NotFound,
    StoreUnavailable,
    UpstreamBlocked,
)
from shared.sealing import Sealer
from shared.settings import Settings
from shared.store import keys
from shared.store.accounts import AccountChanges
from shared.store.connection import Connection
from shared.store.logins import Claim, FreshToken, Logins, Wait
from shared.store.outcome import EgressRest
from shared.store.store import Store
from tests.fakes.redis_server import RedisServer
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import email, entries, in_force, sign_in

pytestmark = pytest.mark.anyio


async def claim_of(store: Store, account: str = email(0)) -> Claim:
    claim = await store.logins.claim(account)
    assert isinstance(claim, Claim)
    return claim


async def lapse(store: Store, account: str = email(0)) -> None:
    """The claim's time is over, as if its holder had been silent for 30 s."""
    await store.connection.ask("lapse", "DEL", keys.login(account))


async def test_a_hundred_claimers_make_one_login(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    await stores[0].accounts.add_missing(entries(1))
    logins = 0

    async def fresh_token(store: Store) -> str:
        nonlocal logins
        answer = await store.logins.claim_or_wait(email(0), wait_seconds=10)
        if isinstance(answer, FreshToken):
            return answer.access_token
        logins += 1
        await asyncio.sleep(0.1)
        await store.logins.store(answer, "the token", expires_at=time.time() + 3600)
        return "the token"

    started = time.monotonic()
    tokens = await asyncio.gather(*(fresh_token(stores[i % 4]) for i in range(100)))
    assert logins == 1
    assert set(tokens) == {"the token"}
    assert time.monotonic() - started < 2  # woken by a message, not by looking again


async def test_a_claim_carries_what_a_login_needs(store: Store) -> None:
    await store.accounts.add_missing(entries(1, proxy="socks5://u:p@proxy:1080"))
    claim = await claim_of(store)
    assert (claim.password, claim.proxy) == ("pw0", "socks5://u:p@proxy:1080")
    assert "pw0" not in repr(claim)


async def test_a_stale_holders_late_write_never_wins(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    stale = await claim_of(store)
    await lapse(store)
    successor = await claim_of(store)
    assert successor.fence > stale.fence
    later = time.time() + 3600
    # Timeline: the stale holder wakes up before and after its successor has stored.
    assert await store.logins.store(stale, "stale", expires_at=later) is None
    assert not await store.logins.fail(stale, code="stale", reason="stale", dead=True)
    assert await store.logins.store(successor, "good", expires_at=later)
    assert await store.logins.store(stale, "stale", expires_at=later) is None
    assert not await store.logins.fail(stale, code="stale", reason="stale", dead=True)
    assert (await store.leases.acquire("chat")).access_token == "good"


async def test_fences_grow_even_over_deletion(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    old = await claim_of(store)
    await store.accounts.delete(email(0))
    assert await store.logins.store(old, "old", expires_at=time.time() + 9) is None
    await store.accounts.add(email(0), "pw")
    assert await store.logins.store(old, "old", expires_at=time.time() + 9) is None
    assert (await claim_of(store)).fence > old.fence


async def test_a_fresh_token_needs_no_login_and_a_rejected_one_does(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    version = await sign_in(store, email(0), "first")
    answer = await store.logins.claim(email(0))
    assert isinstance(answer, FreshToken)
    assert (answer.access_token, answer.version) == ("first", version)
    assert "first" not in repr(answer)
    assert isinstance(await store.logins.claim(email(0), rejected_version=version), Claim)


async def test_whoever_reports_an_older_token_gets_the_newer_one(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    first = await sign_in(store, email(0), "first")
    await sign_in(store, email(0), "second")
    answer = await store.logins.claim(email(0), rejected_version=first)
    assert isinstance(answer, FreshToken)
    assert answer.access_token == "second"


async def test_a_token_about_to_lapse_is_not_fresh(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0), lapses_in=120)
    assert isinstance(await store.logins.claim(email(0)), FreshToken)
    assert isinstance(await store.logins.claim(email(0), margin_seconds=300), Claim)


async def test_others_wait_while_one_logs_in_and_hear_of_its_failure(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    claim = await claim_of(store)
    assert isinstance(await store.logins.claim(email(0)), Wait)
    waiter = asyncio.create_task(store.logins.claim_or_wait(email(0), wait_seconds=10))
    await asyncio.sleep(0.05)
    await store.logins.fail(claim, code="too_fast", reason="Logins come too fast", pause_seconds=30)
    started = time.monotonic()
    with pytest.raises(LoginFailed, match="too fast") as failed:
        await waiter
    assert time.monotonic() - started < 0.9
    assert 25 < (failed.value.retry_after_seconds or 0) <= 30
    with pytest.raises(NoAccount):  # and the account rests as long
        await store.leases.acquire("chat")


async def test_a_login_that_was_given_up_is_the_next_ones_at_once(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    claim = await claim_of(store)
    waiter = asyncio.create_task(store.logins.claim_or_wait(email(0), wait_seconds=10))
    await asyncio.sleep(0.05)
    assert await store.logins.give_up(claim)
    successor = await asyncio.wait_for(waiter, 0.9)
    assert isinstance(successor, Claim)
    assert not await store.logins.give_up(claim)  # it is the successor's now
    assert isinstance(await store.logins.claim(email(0)), Wait)
    assert (await store.accounts.get(email(0))).last_error is None


@pytest.mark.parametrize("pause_ms", range(0, 10, 2))
async def test_a_claim_whose_asker_left_meanwhile_keeps_nobody_waiting(
    store: Store, pause_ms: int
) -> None:
    """Regression, 2026-11: cancelled between the script and its reply, a caller left a claim behind
    that nobody served, and the account's other callers waited 30 s for it to lapse."""
    await store.accounts.add_missing(entries(1))
    for _ in range(20):
        asker = asyncio.create_task(store.logins.claim_or_wait(email(0), wait_seconds=10))
        await asyncio.sleep(pause_ms / 10_000)
        asker.cancel()
        [answer] = await asyncio.gather(asker, return_exceptions=True)
        if isinstance(answer, Claim):
            await store.logins.give_up(answer)
    claim = await asyncio.wait_for(store.logins.claim_or_wait(email(0), wait_seconds=10), 1)
    assert isinstance(claim, Claim)


async def test_a_wrong_password_makes_the_account_dead_until_it_is_mended(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    claim = await claim_of(store)
    await store.logins.fail(claim, code="wrong_password", reason="Wrong password", dead=True)
    with pytest.raises(AccountDead, match="Wrong password"):
        await store.logins.claim(email(0))
    account = await store.accounts.get(email(0))
    assert (account.state, account.state_reason) == ("dead", "Wrong password")
    await store.accounts.replace(email(0), "new password")
    assert (await claim_of(store)).password == "new password"


async def test_a_login_the_firewall_refused_rests_its_egress_and_not_the_account(
    store: Store,
) -> None:
    await store.accounts.add_missing(entries(2))
    claim = await claim_of(store)
    await store.logins.fail(
        claim, code="upstream_blocked", reason="firewall", egress_rest=EgressRest(60)
    )
    assert (await store.accounts.get(email(0))).cooldowns == []
    with pytest.raises(UpstreamBlocked) as refused:  # nobody hammers through it
        await store.logins.claim(email(1))
    assert 55 < (refused.value.retry_after_seconds or 0) <= 60
    with pytest.raises(UpstreamBlocked):
        await store.leases.acquire("chat")


async def test_disabled_and_unknown_accounts_do_not_log_in(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.accounts.set_enabled(email(0), False)
    with pytest.raises(NoAccount):
        await store.logins.claim(email(0))
    with pytest.raises(NotFound):
        await store.logins.claim("nobody@example.org")


async def test_logins_through_one_egress_are_spaced(open_store: OpenStore) -> None:
    store = open_store(login_min_interval_ms=1000)
    await store.accounts.add_missing(entries(3))
    await store.accounts.add("other@example.org", "pw", proxy="http://elsewhere:1")
    starts = [(await claim_of(store, email(i))).start_in_ms for i in range(3)]
    assert starts == pytest.approx([0, 1000, 2000], abs=100)
    assert (await claim_of(store, "other@example.org")).start_in_ms == 0


async def test_a_slot_beyond_the_patience_is_not_taken(open_store: OpenStore) -> None:
    store = open_store(login_min_interval_ms=1000)
    await store.accounts.add_missing(entries(4))
    assert (await claim_of(store, email(0))).start_in_ms == 0
    answer = await store.logins.claim(email(1), patience_seconds=0.5)
    assert isinstance(answer, Wait)
    assert answer.spaced
    with pytest.raises(LoginFailed):
        await store.logins.claim_or_wait(email(1), wait_seconds=0.5)
    assert (await claim_of(store, email(2))).start_in_ms == pytest.approx(1000, abs=100)


async def test_an_operators_token_beats_a_login_under_way(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    under_way = await claim_of(store)
    later = time.time() + 3600
    await store.accounts.replace(email(0), "pw", access_token="given", token_expires_at=later)
    assert await store.logins.store(under_way, "late", expires_at=later) is None
    assert (await store.leases.acquire("chat")).access_token == "given"


# -- what only a race shows


def logins_over(connection: Connection, sealer: Sealer) -> Logins:
    return Logins(connection, sealer, settings=in_force(connection, sealer))


async def test_a_claim_whose_asker_left_before_an_outage_is_left_to_lapse(
    store: Store,
    meddled: MeddledConnection,
    sealer: Sealer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await store.accounts.add_missing(entries(1))
    logins = logins_over(meddled, sealer)
    asked = asyncio.Event()

    async def lose_redis() -> None:
        asked.set()
        await asyncio.sleep(0.05)
        raise StoreUnavailable

    meddled.before["login_claim"] = lose_redis
    asking = asyncio.create_task(logins.claim_or_wait(email(0)))
    await asked.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    with caplog.at_level("INFO"):
        await logins.close()
    assert "a claim may stay until it lapses" in caplog.text


def test_a_process_that_ends_with_a_claim_under_way_ends_quietly(
    own_redis: RedisServer, sealer: Sealer, caplog: pytest.LogCaptureFixture
) -> None:
    async def end_in_the_middle() -> None:
        connection = Connection(own_redis.url)
        asking = asyncio.create_task(logins_over(connection, sealer).claim_or_wait(email(0)))
        await asyncio.sleep(0.05)
        assert not asking.done()

    own_redis.freeze()
    asyncio.run(end_in_the_middle())
    assert "Exception in callback" not in caplog.text


@pytest.mark.parametrize("ticks", range(6))
async def test_who_begins_to_wait_while_the_last_one_stops_hears_all_the_same(
    store: Store, meddled: MeddledConnection, sealer: Sealer, ticks: int
) -> None:
    await store.accounts.add_missing(entries(2))
    claims = [await claim_of(store, email(number)) for number in range(2)]
    logins = logins_over(meddled, sealer)
    last = asyncio.create_task(logins.claim_or_wait(email(0)))
    await asyncio.sleep(0.1)  # it listens
    begins = asyncio.Event()

    async def hesitate() -> None:
        del meddled.behind["login_claim"]
        await begins.wait()

    meddled.behind["login_claim"] = hesitate
    next_one = asyncio.create_task(logins.claim_or_wait(email(1)))
    await asyncio.sleep(0.02)
    begins.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    last.cancel()
    await asyncio.sleep(0.15)
    started = time.monotonic()
    await store.logins.store(claims[1], "token", expires_at=time.time() + 3600)
    assert isinstance(await next_one, FreshToken)
    assert time.monotonic() - started < 0.6  # by a message: who looks by himself does it at 1 s
    await logins.close()


# -- accounts that aren't there yet


async def claim_new(store: Store, *, proxy: str = "", patience_seconds: float = 60) -> Claim | Wait:
    return await store.logins.claim_new(
        email(0),
        password="pw0",
        proxy=proxy,
        egress=store.accounts.egress_of(proxy),
        patience_seconds=patience_seconds,
    )


async def test_one_of_many_logs_in_an_account_that_is_to_be_added(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    answers = await asyncio.gather(*(claim_new(stores[n % 4]) for n in range(40)))
    claims = [answer for answer in answers if isinstance(answer, Claim)]
    assert len(claims) == 1
    assert "pw0" not in repr(claims[0])
    await stores[0].accounts.add(email(0), "pw0", access_token="jwt", token_expires_at=9e9)
    await stores[0].logins.give_up(claims[0])
    with pytest.raises(Conflict):
        await claim_new(stores[1])


async def test_logins_of_new_accounts_keep_the_pace_of_their_egress(open_store: OpenStore) -> None:
    store = open_store(login_min_interval_ms=500)
    await store.accounts.add_missing(entries(2)[1:])
    first = await claim_of(store, email(1))
    second = await claim_new(store)
    assert isinstance(second, Claim)
    assert first.start_in_ms == 0
    assert 300 < second.start_in_ms <= 500
    await store.logins.give_up(second)
    assert isinstance(await claim_new(store, patience_seconds=0.1), Wait)
    other = await claim_new(store, proxy="http://proxy:1")
    assert isinstance(other, Claim)
    assert other.start_in_ms == 0


async def test_a_failed_login_of_a_new_account_leaves_nothing_but_the_rest_of_its_egress(
    store: Store,
) -> None:
    claim = await claim_new(store)
    assert isinstance(claim, Claim)
    assert await store.logins.fail(
        claim, code="x", reason="x", dead=True, egress_rest=EgressRest(seconds=60)
    )
    assert not await store.logins.fail(claim, code="x", reason="x")
    assert await store.connection.ask("e", "EXISTS", keys.account(email(0))) == 0
    with pytest.raises(UpstreamBlocked):
        await claim_new(store)


async def test_who_is_cancelled_while_he_claims_stands_in_nobodys_way(
    settings: Settings, meddled: MeddledConnection, store: Store, sealer: Sealer
) -> None:
    logins = Logins(meddled, sealer, settings=in_force(meddled, sealer))
    asking = asyncio.create_task(
        logins.claim_new(email(0), password="pw0", proxy="", egress="direct")
    )
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await logins.close()
    assert isinstance(await claim_new(store), Claim)


# -- by hand


async def test_an_operator_may_try_an_account_that_is_dead_pausing_or_disabled(
    store: Store,
) -> None:
    await store.accounts.add_missing(entries(1))
    assert await store.logins.fail(await claim_of(store), code="x", reason="wrong", dead=True)
    await store.accounts.set_enabled(email(0), False)
    claim = await store.logins.claim(email(0), by_hand=True)
    assert isinstance(claim, Claim)
    assert await store.logins.store(claim, "good", expires_at=time.time() + 3600)
    assert (await store.accounts.get(email(0))).state == "disabled"
    await store.accounts.set_enabled(email(0), True)
    assert (await store.accounts.get(email(0))).state == "ready"
    again = await store.logins.claim(
        email(0), rejected_version=await store.logins.token_version(email(0))
    )
    assert isinstance(again, Claim)
    assert await store.logins.fail(again, code="x", reason="not now", pause_seconds=60)
    with pytest.raises(LoginFailed):
        await store.logins.claim(email(0), margin_seconds=10**9)
    assert isinstance(await store.logins.claim(email(0), margin_seconds=10**9, by_hand=True), Claim)


async def test_the_login_with_the_old_password_never_wins_over_a_changed_one(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    old = await claim_of(store)
    await store.accounts.change(email(0), AccountChanges(password="changed"))
    new = await claim_of(store)  # at once: nobody waits for the old one
    assert new.password == "changed"
    assert not await store.logins.fail(old, code="x", reason="wrong", dead=True)
    assert await store.logins.store(old, "old", expires_at=time.time() + 3600) is None
    assert await store.logins.store(new, "new", expires_at=time.time() + 3600)
