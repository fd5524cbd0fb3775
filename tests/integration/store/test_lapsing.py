"""Which accounts are renewed ahead of time, and when: each at a moment of its own."""

import time

import pytest

from shared.store import keys
from shared.store.store import Store
from tests.integration.store.pool import email, entries, sign_in

pytestmark = pytest.mark.anyio

DAY = 86_400.0


async def lapsing(store: Store) -> list[str]:
    found = await store.accounts.lapsing(lead_seconds=DAY, least_seconds=300, pause_seconds=60)
    return [one.account for one in found]


async def add(store: Store, number: int, *, lapses_in: float, lived: float | None = None) -> None:
    """`lived`: how long ago its token was given, None = nobody knows."""
    expires_at = time.time() + lapses_in
    await store.accounts.add(
        email(number), "pw", access_token="jwt", token_expires_at=expires_at, age="new"
    )
    await change(store, number, token_at="" if lived is None else str(time.time() - lived))


async def change(store: Store, number: int, **fields: str) -> None:
    words = [word for pair in fields.items() for word in pair]
    await store.connection.ask("test", "HSET", keys.account(email(number)), *words)


async def test_tokens_of_one_hour_are_renewed_over_a_whole_day(store: Store) -> None:
    for number in range(400):
        await add(store, number, lapses_in=2 * DAY + 60, lived=28 * DAY)
    assert await lapsing(store) == []
    shares = []
    for hours_left in (42, 36, 30):
        for number in range(400):
            await change(store, number, token_expires_at=str(time.time() + hours_left * 3600))
        shares.append(len(await lapsing(store)) / 400)
    assert shares == pytest.approx([0.25, 0.5, 0.75], abs=0.1)
    for number in range(400):
        await change(store, number, token_expires_at=str(time.time() + DAY - 60))
    assert len(await lapsing(store)) == 400


async def test_a_token_of_unknown_age_counts_as_long_lived(store: Store) -> None:
    await add(store, 0, lapses_in=3600)
    await add(store, 1, lapses_in=3 * DAY)
    assert await lapsing(store) == [email(0)]


@pytest.mark.parametrize(
    ("life", "left", "due"),
    [
        (30 * DAY, 30 * DAY, False),
        (30 * DAY, 2.1 * DAY, False),
        (30 * DAY, 0.9 * DAY, True),
        (7_200, 7_200, False),
        (7_200, 3_700, False),
        (7_200, 1_700, True),
        (900, 900, False),  # what auth.qwen.ai gives (protocol sheet 15.1)
        (900, 460, False),
        (900, 290, True),
        (60, 60, False),  # or every tick would log in
        (60, 31, False),
        (60, 10, True),
        (60, -5, True),
    ],
)
async def test_a_lead_is_no_longer_than_the_tokens_life_allows(
    store: Store, life: float, left: float, due: bool
) -> None:
    await add(store, 0, lapses_in=left, lived=life - left)
    assert await lapsing(store) == ([email(0)] if due else [])


async def test_what_was_renewed_is_not_due_again_however_short_its_life(store: Store) -> None:
    await add(store, 0, lapses_in=3600)
    assert await lapsing(store) == [email(0)]
    await sign_in(store, email(0), lapses_in=900)
    assert await lapsing(store) == []


async def test_the_soonest_to_lapse_comes_first(store: Store) -> None:
    for number, hours in enumerate((5, 1, 9, -1, 3)):
        await add(store, number, lapses_in=hours * 3600)
    assert await lapsing(store) == [email(number) for number in (3, 1, 4, 0, 2)]


async def test_who_is_dead_disabled_new_or_has_just_failed_is_left_alone(store: Store) -> None:
    for number in range(4):
        await add(store, number, lapses_in=3600)
    await store.accounts.add(email(4), "pw")
    await change(store, 0, state="dead")
    await store.accounts.set_enabled(email(1), False)
    await change(store, 2, error_at=str(int(time.time()) - 10))
    await change(store, 3, error_at=str(int(time.time()) - 70))
    assert await lapsing(store) == [email(3)]


async def test_a_large_pool_is_read_whole(store: Store) -> None:
    await store.accounts.add_missing(entries(2300))
    for number in (0, 1150, 2299):
        await sign_in(store, email(number), lapses_in=100)
        await change(store, number, token_at="")
    assert await lapsing(store) == [email(0), email(1150), email(2299)]
