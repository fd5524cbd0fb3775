"""Why an account is or isn't lent now: what is said agrees with what lending does."""

import asyncio
import time

import pytest

from shared.errors import GatewayError, NotFound
from shared.store.leases import QUOTA, SERVED, Cooldown, EgressRest, Outcome
from shared.store.logins import Claim
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import email, entries, sign_in, until

pytestmark = pytest.mark.anyio


async def codes(store: Store, number: int = 0, capability: str = "chat") -> list[str]:
    """What is in the way; and it must agree with what acquiring would say of a pool of one."""
    found = {one.capability: one for one in await store.explanations.of(email(number))}
    return [reason.code for reason in found[capability].reasons]  # type: ignore[index]


async def lent(store: Store, number: int = 0) -> bool:
    return (await store.explanations.of(email(number)))[0].lent


async def is_lent(store: Store) -> bool:
    """What really happens when a turn asks."""
    try:
        lease = await store.leases.acquire("chat")
    except GatewayError:
        return False
    await store.leases.release(lease)
    return True


@pytest.fixture
async def one(store: Store) -> Store:
    """A pool of one account that is signed in."""
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0))
    return store


async def test_a_ready_account_has_nothing_in_its_way(one: Store) -> None:
    assert await codes(one) == []
    assert await lent(one) == await is_lent(one) == True  # noqa: E712 all three


async def test_a_disabled_account_is_not_lent(one: Store) -> None:
    await one.accounts.set_enabled(email(0), False)
    assert await codes(one) == ["disabled"]
    assert not await lent(one)
    assert not await is_lent(one)


async def test_a_dead_account_says_what_killed_it(one: Store) -> None:
    lease = await one.leases.acquire("chat")
    await one.leases.release(lease, Outcome(dead="wrong password"))
    [reason] = (await one.explanations.of(email(0)))[0].reasons
    assert reason.code == "dead"
    assert "wrong password" in reason.message
    assert not await lent(one)


async def test_a_cooldown_has_its_end_and_its_cause_for_its_capability_alone(one: Store) -> None:
    lease = await one.leases.acquire("chat")
    resting = Cooldown(reason=QUOTA, seconds=60)
    await one.leases.release(lease, Outcome(cooldown=resting))
    chat, image, _ = await one.explanations.of(email(0))
    [reason] = chat.reasons
    assert (reason.code, chat.lent) == ("cooling", False)
    assert QUOTA in reason.message
    assert reason.until is not None
    assert abs(reason.until - (time.time() + 60)) < 3
    assert (image.reasons, image.lent) == ([], True)


async def test_an_egress_at_rest_is_told_with_its_end(one: Store) -> None:
    lease = await one.leases.acquire("chat")
    await one.leases.release(lease, Outcome(egress_rest=EgressRest(seconds=60)))
    [reason] = (await one.explanations.of(email(0)))[0].reasons
    assert reason.code == "egress_resting"
    assert reason.until is not None
    assert abs(reason.until - (time.time() + 60)) < 3
    assert not await is_lent(one)


async def test_a_busy_account_says_how_many_slots_it_has(one: Store) -> None:
    leases = [await one.leases.acquire("chat") for _ in range(2)]
    [reason] = (await one.explanations.of(email(0)))[0].reasons
    assert (reason.code, "2 of 2" in reason.message) == ("busy", True)
    assert not await lent(one)
    await one.leases.release(leases[0], SERVED)
    assert await codes(one) == []


async def test_while_one_request_probes_the_account_gets_no_other(one: Store) -> None:
    lease = await one.leases.acquire("chat")
    await one.leases.release(lease, Outcome(cooldown=Cooldown(reason="burst", seconds=0.02)))
    probe = []

    async def probing() -> bool:
        try:
            probe.append(await one.leases.acquire("chat"))
        except GatewayError:
            return False
        return True

    await until(probing, seconds=2)
    assert probe[0].probing
    assert await codes(one) == ["probing"]
    assert not await is_lent(one)


async def test_a_pause_between_two_requests_is_told(open_store: OpenStore) -> None:
    store = open_store(account_min_interval_ms=60_000)
    await store.accounts.add_missing(entries(1))
    await sign_in(store, email(0))
    await store.leases.release(await store.leases.acquire("chat"), SERVED)
    assert await codes(store) == ["pausing"]
    assert not await is_lent(store)


async def test_an_account_without_a_token_comes_after_all_that_have_one(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    assert await codes(store) == ["login_first"]
    assert await lent(store)
    await sign_in(store, email(1))
    assert await codes(store) == ["signed_out"]
    assert not await lent(store)
    assert isinstance(await store.logins.claim(email(0), margin_seconds=60), Claim)
    assert await codes(store) == ["login_under_way"]


async def test_it_says_how_many_have_been_ready_longer(store: Store) -> None:
    await store.accounts.add_missing(entries(3))
    for number in range(3):
        await sign_in(store, email(number))
    used = await store.leases.acquire("chat")
    await store.leases.release(used, SERVED)
    await asyncio.sleep(0.01)  # the pool's clock has milliseconds
    again = await store.leases.acquire("chat")
    await store.leases.release(again, SERVED)
    last = (await store.explanations.of(again.account))[0]
    assert (last.lent, last.ahead) == (True, 2)


async def test_a_low_limit_of_its_own_counts(one: Store) -> None:
    await one.accounts.set_concurrency(email(0), 1)
    lease = await one.leases.acquire("chat")
    [reason] = (await one.explanations.of(email(0).upper()))[0].reasons
    assert "1 of 1" in reason.message
    await one.leases.release(lease)


async def test_nobody_has_no_explanation(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.explanations.of("nobody@example.org")
