"""Lending and taking back, seen from one process."""

import asyncio
import time

import pytest

from shared.errors import AccountsExhausted, LoginFailed, NoAccount, NotFound, UpstreamBlocked
from shared.sealing import Sealer
from shared.settings import Settings
from shared.store.leases import (
    CAPABILITIES,
    COMMON_FAILURE_CAP_SECONDS,
    NOTHING_LEARNED,
    QUOTA,
    SERVED,
    Cooldown,
    EgressRest,
    Lease,
    Leases,
    Outcome,
)
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import email, entries, in_force, sign_in, until

pytestmark = pytest.mark.anyio

SHORT = Cooldown(reason="burst", seconds=0.05)


async def acquire_all(store: Store) -> list[Lease]:
    """Chat leases until nothing can be lent."""
    leases = []
    while True:
        try:
            leases.append(await store.leases.acquire("chat"))
        except NoAccount:
            return leases


async def test_an_account_is_lent_and_comes_back(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    lease = await store.leases.acquire("chat")
    assert lease.account == email(0)
    assert (await store.pool_state()).leases_in_flight == 1
    assert await store.leases.release(lease, SERVED)
    assert (await store.pool_state()).leases_in_flight == 0
    assert (await store.accounts.get(email(0))).in_flight == 0


async def test_a_turn_asks_redis_twice(settings: Settings) -> None:
    """Once for everything that lending means, once for everything that giving back means."""
    asked: list[str] = []
    async with Store(settings, observe=lambda name, seconds, ok: asked.append(name)) as store:
        await store.accounts.add_missing(entries(3, proxy="http://proxy:1"))
        await store.leases.release(await store.leases.lend("chat"))  # the server knows the scripts
        asked.clear()
        lease = await store.leases.lend("chat", wait_seconds=5, tried=frozenset({email(1)}))
        assert asked == ["lease_acquire"]
        resting = Cooldown(reason="burst", seconds=60)
        rests = EgressRest(reason="firewall", seconds=60)
        told = Outcome(cooldown=resting, egress_rest=rests, token_rejected=True, error_code="x")
        assert await store.leases.release(lease, told)
        assert asked == ["lease_acquire", "lease_release"]


async def test_a_lease_carries_what_a_request_needs_in_clear(store: Store) -> None:
    await store.accounts.add_missing(entries(1, proxy="http://user:secret@proxy:8080"))
    await store.accounts.set_cookies(email(0), "ssxmod=1")
    version = await sign_in(store, email(0), "the token")
    lease = await store.leases.acquire("chat")
    assert (lease.access_token, lease.token_version, lease.signed_in) == (
        "the token",
        version,
        True,
    )
    assert lease.token_expires_at > time.time() + 3000
    assert lease.proxy == "http://user:secret@proxy:8080"
    assert lease.cookies == "ssxmod=1"
    assert "token" not in repr(lease)
    assert "secret" not in repr(lease)


async def test_the_longest_idle_account_is_lent_first(store: Store) -> None:
    await store.accounts.add_missing(entries(3))
    order = []
    for _ in range(6):
        lease = await store.leases.acquire("chat")
        order.append(lease.account)
        await until_the_next_millisecond(store)
        await store.leases.release(lease, SERVED)
        await until_the_next_millisecond(store)
    assert order == [email(0), email(1), email(2)] * 2


async def until_the_next_millisecond(store: Store) -> None:
    """Idleness is counted in ms."""

    async def now() -> int:
        seconds, micros = await store.connection.ask("time", "TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    begin = await now()

    async def passed() -> bool:
        return await now() > begin

    await until(passed, seconds=1, every=0)


async def test_accounts_are_spread_over_before_one_carries_two(store: Store) -> None:
    await store.accounts.add_missing(entries(3))
    leases = await acquire_all(store)
    assert sorted(lease.account for lease in leases[:3]) == [email(0), email(1), email(2)]
    assert len(leases) == 6


async def test_the_limit_counts_all_capabilities_of_an_account_together(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.leases.acquire("chat")
    await store.leases.acquire("video")
    for capability in CAPABILITIES:
        with pytest.raises(NoAccount):
            await store.leases.acquire(capability)


async def test_an_account_may_have_a_limit_of_its_own(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.accounts.set_concurrency(email(0), 3)
    assert len(await acquire_all(store)) == 3
    await store.accounts.set_concurrency(email(0), None)
    with pytest.raises(NoAccount):
        await store.leases.acquire("chat")
    await store.accounts.set_concurrency(email(0), 4)
    assert len(await acquire_all(store)) == 1


async def test_an_account_pauses_between_two_requests(open_store: OpenStore) -> None:
    store = open_store(account_min_interval_ms=80)
    await store.accounts.add_missing(entries(1))
    lease = await store.leases.acquire("chat")
    with pytest.raises(NoAccount):  # though a slot is free
        await store.leases.acquire("chat")
    await store.leases.release(lease, SERVED)
    ended = time.monotonic()
    with pytest.raises(NoAccount):
        await store.leases.acquire("chat")
    await store.leases.lend("chat", wait_seconds=1)
    assert time.monotonic() - ended >= 0.075


async def test_accounts_that_must_log_in_first_are_lent_last(store: Store) -> None:
    await store.accounts.add_missing(entries(3))
    await sign_in(store, email(2))
    leases = await acquire_all(store)
    assert [lease.account for lease in leases[:2]] == [email(2)] * 2
    assert not leases[2].signed_in


async def test_a_rejected_token_is_gone_and_a_newer_one_stays(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0), "first")
    one, two = await store.leases.acquire("chat"), await store.leases.acquire("chat")
    await store.leases.release(one, Outcome(token_rejected=True))
    await sign_in(store, email(0), "second")
    await store.leases.release(two, Outcome(token_rejected=True))  # it speaks of the first
    assert (await store.leases.acquire("chat")).access_token == "second"


async def test_tried_accounts_are_lent_only_when_nothing_else_is_ready(store: Store) -> None:
    await store.accounts.add_missing(entries(3))
    tried = frozenset([email(0), email(1)])
    first = await store.leases.acquire("chat", tried=tried)
    second = await store.leases.acquire("chat", tried=tried)
    assert first.account == second.account == email(2)
    third = await store.leases.acquire("chat", tried=tried)
    assert third.account in tried


async def test_an_account_whose_secrets_cannot_be_read_is_set_aside_and_not_used_bare(
    store: Store, open_store: OpenStore
) -> None:
    await store.accounts.add_missing(entries(1, proxy="http://user:secret@proxy:1"))
    stranger = open_store(secret_key="another key, thirty-two or longer")
    with pytest.raises(NoAccount):
        await stranger.leases.lend("chat", wait_seconds=0.1)
    with pytest.raises(LoginFailed, match="can't be read"):
        await stranger.logins.claim(email(0))
    account = await store.accounts.get(email(0))
    assert (account.state, account.in_flight) == ("cooling", 0)
    assert account.last_error is not None
    assert account.last_error.code == "seal_broken"
    await stranger.accounts.add("readable@example.org", "pw")
    await store.accounts.reset(email(0))
    for _ in range(2):  # the others are lent all the same
        assert (await stranger.leases.acquire("chat")).account == "readable@example.org"
    await store.accounts.reset(email(0))
    assert (await store.leases.acquire("chat")).proxy == "http://user:secret@proxy:1"


# -- cooldowns


async def test_a_cooldown_holds_one_capability_for_its_time(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    lease = await store.leases.acquire("chat")
    await store.leases.release(lease, Outcome(cooldown=Cooldown(reason="burst", seconds=60)))
    with pytest.raises(NoAccount) as refused:
        await store.leases.acquire("chat")
    assert 55 < (refused.value.retry_after_seconds or 0) <= 60
    await store.leases.release(await store.leases.acquire("image"))
    account = await store.accounts.get(email(0))
    assert account.state == "cooling"
    [cooldown] = account.cooldowns
    assert (cooldown.capability, cooldown.reason) == ("chat", "burst")
    assert 55 < cooldown.until - time.time() <= 60


async def test_a_cooldown_may_hold_every_capability(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    lease = await store.leases.acquire("chat")
    everywhere = Cooldown(reason="suspended", seconds=60, every_capability=True)
    await store.leases.release(lease, Outcome(cooldown=everywhere))
    for capability in CAPABILITIES:
        with pytest.raises(NoAccount):
            await store.leases.acquire(capability)


async def test_after_a_cooldown_one_request_probes_and_its_success_opens_the_account(
    store: Store,
) -> None:
    await store.accounts.add_missing(entries(1))
    await store.leases.release(await store.leases.acquire("chat"), Outcome(cooldown=SHORT))
    probe = await store.leases.lend("chat", wait_seconds=1)
    assert probe.probing
    with pytest.raises(NoAccount):  # the second slot is free, but the probe decides
        await store.leases.acquire("chat")
    image = await store.leases.acquire("image")  # another capability is not concerned
    await store.leases.release(image, SERVED)
    with pytest.raises(NoAccount):  # and its success proves nothing for chat
        await store.leases.acquire("chat")
    await store.leases.release(probe, SERVED)
    leases = await acquire_all(store)
    assert [lease.probing for lease in leases] == [False, False]


async def test_a_probe_can_be_proved_before_it_ends(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.leases.release(await store.leases.acquire("chat"), Outcome(cooldown=SHORT))
    probe = await store.leases.lend("chat", wait_seconds=1)
    await store.leases.prove(probe)
    assert len(await acquire_all(store)) == 1
    assert (await store.accounts.get(email(0))).state == "new"


async def test_a_probe_that_tells_nothing_leaves_the_next_one_to_probe(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    await store.leases.release(await store.leases.acquire("chat"), Outcome(cooldown=SHORT))
    left = await store.leases.lend("chat", wait_seconds=1)
    await store.leases.release(left, NOTHING_LEARNED)
    assert (await store.leases.acquire("chat")).probing


async def test_failed_probes_double_the_cooldown_up_to_its_cap(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    growing = Outcome(cooldown=Cooldown(reason="failed", seconds=0.04, cap_seconds=0.1))
    lengths = []
    for _ in range(4):
        lease = await store.leases.lend("chat", wait_seconds=1)
        before = time.time()
        await store.leases.release(lease, growing)
        [cooldown] = (await store.accounts.get(email(0))).cooldowns
        lengths.append(cooldown.until - before)
    assert lengths == pytest.approx([0.04, 0.08, 0.1, 0.1], abs=0.02)


async def test_two_streams_failing_together_are_one_failure(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    growing = Outcome(cooldown=Cooldown(reason="failed", seconds=10, cap_seconds=100))
    one, two = await store.leases.acquire("chat"), await store.leases.acquire("chat")
    await store.leases.release(one, growing)
    await store.leases.release(two, growing)
    [cooldown] = (await store.accounts.get(email(0))).cooldowns
    assert cooldown.until - time.time() < 11


async def test_a_common_failure_never_rests_an_account_longer_than_its_cap(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    common = Cooldown(reason="unavailable", seconds=0.02, cap_seconds=0.04)
    assert COMMON_FAILURE_CAP_SECONDS == 5  # contract section 4; the cap works at any scale
    for _ in range(6):
        lease = await store.leases.lend("chat", wait_seconds=1)
        await store.leases.release(lease, Outcome(cooldown=common))
        [cooldown] = (await store.accounts.get(email(0))).cooldowns
        assert cooldown.until - time.time() <= 0.045


# -- why nothing can be lent


async def test_without_accounts_there_is_none(store: Store) -> None:
    with pytest.raises(NoAccount, match="No account is usable"):
        await store.leases.lend("chat", wait_seconds=5)


async def test_dead_and_disabled_accounts_count_as_none(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    await store.leases.release(await store.leases.acquire("chat"), Outcome(dead="wrong password"))
    await store.accounts.set_enabled(email(1), False)
    with pytest.raises(NoAccount, match="No account is usable"):
        await store.leases.acquire("chat")
    state = await store.pool_state()
    assert not state.any_usable
    assert state.accounts == {"new": 0, "ready": 0, "cooling": 0, "disabled": 1, "dead": 1}


async def test_spent_accounts_are_exhausted_until_the_first_quota_ends(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    for seconds in (300, 100):
        spent = Cooldown(reason=QUOTA, until=time.time() + seconds)
        await store.leases.release(await store.leases.acquire("chat"), Outcome(cooldown=spent))
    with pytest.raises(AccountsExhausted) as refused:
        await store.leases.lend("chat", wait_seconds=5)
    assert 95 < (refused.value.retry_after_seconds or 0) <= 100


async def test_a_firewall_rests_the_egress_and_not_the_account(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    await store.accounts.add("other@example.org", "pw", proxy="http://elsewhere:1")
    lease = await store.leases.acquire("chat", tried=frozenset(["other@example.org"]))
    await store.leases.release(lease, Outcome(egress_rest=EgressRest(200)))
    assert (await store.accounts.get(lease.account)).cooldowns == []
    others = await acquire_all_until_blocked(store)
    assert [lease.account for lease in others] == ["other@example.org"] * 2
    await store.leases.release(others[0], Outcome(egress_rest=EgressRest(100)))
    await store.leases.release(others[1], NOTHING_LEARNED)
    with pytest.raises(UpstreamBlocked) as refused:
        await store.leases.lend("image", wait_seconds=5)
    assert 95 < (refused.value.retry_after_seconds or 0) <= 100


async def acquire_all_until_blocked(store: Store) -> list[Lease]:
    leases = []
    while True:
        try:
            leases.append(await store.leases.acquire("chat"))
        except (NoAccount, UpstreamBlocked):
            return leases


async def test_a_busy_account_on_a_resting_egress_is_not_worth_waiting_for(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    one, _two = await acquire_all(store)
    await store.leases.release(one, Outcome(egress_rest=EgressRest(100)))
    await store.accounts.set_concurrency(email(0), 1)
    started = time.monotonic()
    with pytest.raises(UpstreamBlocked):
        await store.leases.lend("chat", wait_seconds=5)
    assert time.monotonic() - started < 2


async def test_a_rest_ends_by_itself(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    lease = await store.leases.acquire("chat")
    await store.leases.release(lease, Outcome(egress_rest=EgressRest(0.05)))
    with pytest.raises(UpstreamBlocked):
        await store.leases.acquire("chat")
    assert await store.leases.lend("chat", wait_seconds=1)


async def test_a_reset_ends_cooldowns_and_the_rest_of_the_egress(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    spent = Outcome(cooldown=Cooldown(reason=QUOTA, seconds=60), egress_rest=EgressRest(60))
    lease = await store.leases.acquire("chat")
    await store.leases.release(lease, spent)
    await store.accounts.reset(lease.account)
    assert len(await acquire_all(store)) == 4


# -- tokens of leases


async def test_a_lease_is_released_once(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    one, _two = await acquire_all(store)
    assert await store.leases.release(one)
    assert not await store.leases.release(one)
    assert (await store.accounts.get(email(0))).in_flight == 1


async def test_a_lapsed_lease_comes_back_and_its_late_release_changes_nothing(
    store: Store, open_store: OpenStore
) -> None:
    await store.accounts.add_missing(entries(1))
    short = open_store(lease_ttl_seconds=0.05, account_concurrency=1)  # never opened: no keeper
    late = await short.leases.acquire("chat")
    again = await short.leases.lend("chat", wait_seconds=2)
    assert again.account == late.account
    assert not await short.leases.release(late, Outcome(dead="too late to say"))
    account = await store.accounts.get(email(0))
    assert (account.state, account.in_flight) == ("new", 1)


async def test_the_sweep_takes_lapsed_leases_back(store: Store, open_store: OpenStore) -> None:
    await store.accounts.add_missing(entries(4))
    short = open_store(lease_ttl_seconds=0.03)
    assert len(await acquire_all(short)) >= 8

    async def all_back() -> bool:
        await store.leases.reclaim()
        pages = await store.accounts.page()
        return all(account.in_flight == 0 for account in pages.accounts)

    await until(all_back, seconds=2)


async def test_extended_leases_live_on(open_store: OpenStore) -> None:
    store = open_store(lease_ttl_seconds=0.1, account_concurrency=1)
    await store.accounts.add_missing(entries(1))
    lease = await store.leases.acquire("chat")
    held_until = time.monotonic() + 0.4
    while time.monotonic() < held_until:
        await store.leases.extend_all()
        with pytest.raises(NoAccount):
            await store.leases.acquire("chat")
    assert await store.leases.release(lease)


async def test_a_lapsed_lease_takes_its_slot_again_and_nothing_new_is_lent_over_the_limit(
    open_store: OpenStore,
) -> None:
    store = open_store(lease_ttl_seconds=0.05, account_concurrency=1)
    other = open_store(account_concurrency=1)
    await store.accounts.add_missing(entries(1))
    lapsed = await store.leases.acquire("chat")
    overlapping = await other.leases.lend("chat", wait_seconds=2)
    await store.leases.extend_all()
    assert (await store.accounts.get(email(0))).in_flight == 2
    await other.leases.release(overlapping)
    await store.leases.extend_all()
    with pytest.raises(NoAccount):
        await other.leases.acquire("chat")
    assert await store.leases.release(lapsed)
    assert await other.leases.acquire("chat")


async def test_a_lease_of_a_deleted_account_ends_without_effect(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    old = await store.leases.acquire("chat")
    await store.accounts.delete(email(0))
    with pytest.raises(NotFound):
        await store.accounts.get(email(0))
    await store.accounts.add(email(0), "pw")
    one, two = await acquire_all(store)
    assert await store.leases.release(old, Outcome(dead="the old one"))
    assert (await store.accounts.get(email(0))).in_flight == 2
    assert await store.leases.release(one)
    assert await store.leases.release(two)


async def test_disabling_and_enabling_hold_with_the_next_lease(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    lease = await store.leases.acquire("chat")
    await store.accounts.set_enabled(email(0), False)
    with pytest.raises(NoAccount):
        await store.leases.acquire("chat")
    await store.leases.release(lease, SERVED)
    with pytest.raises(NoAccount):
        await store.leases.acquire("chat")
    await store.accounts.set_enabled(email(0), True)
    assert await store.leases.acquire("chat")


async def test_a_last_error_is_kept_with_the_account(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    failed = Outcome(error_code="upstream_empty", error_message="said nothing")
    await store.leases.release(await store.leases.acquire("chat"), failed)
    error = (await store.accounts.get(email(0))).last_error
    assert error is not None
    assert (error.code, error.message) == ("upstream_empty", "said nothing")
    assert abs(error.at - time.time()) < 5


# -- what only a race or a flood shows


def leases_over(connection: MeddledConnection, sealer: Sealer, *, ttl_seconds: float) -> Leases:
    settings = in_force(connection, sealer)
    return Leases(connection, sealer, settings=settings, ttl_seconds=ttl_seconds)


async def test_a_lease_released_while_its_extension_is_under_way_is_not_lent_again(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    """Timeline: it lapses, the extension sets out, it is released, the extension arrives."""
    await store.accounts.add_missing(entries(1))
    leases = leases_over(meddled, sealer, ttl_seconds=0.05)
    lease = await leases.acquire("chat")
    await asyncio.sleep(0.1)
    assert await store.leases.reclaim() == 1

    async def release() -> None:
        assert not await leases.release(lease)

    meddled.before["lease_extend"] = release
    await leases.extend_all()
    assert (await store.pool_state()).leases_in_flight == 0


async def test_any_number_of_lapsed_leases_is_taken_back(open_store: OpenStore) -> None:
    store = open_store(account_concurrency=300, lease_ttl_seconds=1)
    await store.accounts.add_missing(entries(2))
    for _ in range(600):
        await store.leases.acquire("chat")

    async def all_are_back() -> bool:
        taken_back.append(await store.leases.reclaim())
        return (await store.pool_state()).leases_in_flight == 0

    taken_back: list[int] = []
    await until(all_are_back, seconds=10, every=1.2)
    assert max(taken_back) > 500, "in one call, although a script takes 500"


async def test_a_whole_row_of_unreadable_accounts_ends_the_search_for_one(
    store: Store, open_store: OpenStore
) -> None:
    await store.accounts.add_missing(entries(12, proxy="http://user:secret@proxy:1"))
    stranger = open_store(secret_key="another key, thirty-two or longer")
    with pytest.raises(NoAccount):
        await stranger.leases.acquire("chat")
    assert (await store.accounts.counts())["cooling"] == 10
    assert (await store.pool_state()).leases_in_flight == 0


async def test_only_a_probe_has_anything_to_prove(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    await store.accounts.add_missing(entries(1))
    leases = leases_over(meddled, sealer, ttl_seconds=5)

    async def asked() -> None:
        raise AssertionError("asked Redis")

    meddled.before["lease_prove"] = asked
    await leases.prove(await leases.acquire("chat"))
