"""Lending accounts, one process after the other."""

import pytest

from shared.settings import AccountEntry
from shared.store.leases import SERVED
from shared.store.store import Store

pytestmark = pytest.mark.anyio


def entries(count: int, **fields: str) -> list[AccountEntry]:
    return [
        AccountEntry(email=f"a{i:05d}@example.org", password=f"pw{i}", **fields)
        for i in range(count)
    ]


async def test_an_account_is_lent_and_comes_back(store: Store) -> None:
    assert await store.accounts.add_missing(entries(1)) == 1
    lease = await store.leases.acquire("chat")
    assert lease.account == "a00000@example.org"
    assert (await store.pool_state()).leases_in_flight == 1
    assert await store.leases.release(lease, SERVED)
    assert (await store.pool_state()).leases_in_flight == 0
