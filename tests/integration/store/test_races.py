"""Promise 2 of the contract at the store: the limit holds over all processes, whoever is killed."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from shared.settings import Settings
from shared.store.leases import SERVED, Lease
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.pool import Child, email, entries, until

pytestmark = pytest.mark.anyio


async def test_a_hundred_contenders_never_exceed_the_limit(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    await stores[0].accounts.add_missing(entries(5))
    users: dict[str, int] = {}
    most = 0

    async def contend(number: int) -> None:
        nonlocal most
        store = stores[number % 4]
        for turn in range(5):
            lease = await store.leases.lend("chat", wait_seconds=30)
            users[lease.account] = users.get(lease.account, 0) + 1
            most = max(most, users[lease.account])
            await asyncio.sleep((number * 7 + turn) % 5 / 1000)
            users[lease.account] -= 1
            await store.leases.release(lease, SERVED)

    await asyncio.gather(*(contend(number) for number in range(100)))
    assert most == 2
    assert (await stores[0].pool_state()).leases_in_flight == 0


async def test_ten_takers_of_eight_slots_get_eight_different_ones(open_store: OpenStore) -> None:
    stores = [open_store(account_concurrency=1) for _ in range(10)]
    await stores[0].accounts.add_missing(entries(8))
    results = await asyncio.gather(
        *(store.leases.acquire("chat") for store in stores), return_exceptions=True
    )
    lent = [result for result in results if isinstance(result, Lease)]
    assert len({lease.account for lease in lent}) == len(lent) == 8
    assert [type(r).__name__ for r in results if not isinstance(r, Lease)] == ["NoAccount"] * 2


async def test_leases_of_a_killed_process_come_back(store: Store, settings: Settings) -> None:
    await store.accounts.add_missing(entries(3))
    child = await Child.start(msgspec.structs.replace(settings, lease_ttl_seconds=1), "hold", "6")
    await child.says("held")
    await asyncio.sleep(1.5)  # past their first life: the keeper extends them
    assert (await store.pool_state()).leases_in_flight == 6
    await child.kill()
    leases = await asyncio.gather(*(store.leases.lend("chat", wait_seconds=5) for _ in range(6)))
    assert sorted(lease.account for lease in leases) == [email(i // 2) for i in range(6)]


@pytest.mark.parametrize("round_number", range(3))
async def test_the_limit_holds_over_processes_while_some_are_killed(
    store: Store, settings: Settings, round_number: int
) -> None:
    """A witness counts users from outside; it forgets the killed when their leases are back."""
    await store.accounts.add_missing(entries(4))
    settings = msgspec.structs.replace(settings, lease_ttl_seconds=1)
    survivors = [await Child.start(settings, "turns", "25") for _ in range(2)]
    victims = [await Child.start(settings, "turns", "25") for _ in range(2)]
    for child in survivors + victims:
        await child.says("begun")
    await asyncio.sleep(0.3 + round_number / 10)
    for child in victims:
        await child.kill()
    assert await most_users(store) == 2
    await asyncio.sleep(1.2)  # the life of the dead ones' leases
    await forget(store, victims)
    await until(has_users(store), seconds=4)  # dead waiters at the head of the line: 3 s
    await asyncio.sleep(0.3)
    assert await most_users(store) == 2
    for child in survivors:
        assert await child.finish() == 0

    async def all_back() -> bool:
        await store.leases.reclaim()
        return (await store.pool_state()).leases_in_flight == 0

    await until(all_back, seconds=10)
    page = await store.accounts.page()
    assert [account.in_flight for account in page.accounts] == [0] * 4


async def most_users(store: Store) -> int:
    """The highest number of users any account ever had at once."""
    return max(map(int, await store.connection.ask("most", "HVALS", "test:most")))


def has_users(store: Store) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        return bool(await store.connection.ask("most", "EXISTS", "test:most"))

    return has


async def forget(store: Store, children: list[Child]) -> None:
    """The witness begins again, without the users that died inside."""
    dead = tuple(f"{child.process.pid}:" for child in children)
    for number in range(4):
        name = f"test:users:{email(number)}"
        for user in await store.connection.ask("users", "SMEMBERS", name):
            if user.startswith(dead):
                await store.connection.ask("users", "SREM", name, user)
    await store.connection.ask("most", "DEL", "test:most")
