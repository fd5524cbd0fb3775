"""Very many accounts in every situation: acquire looks at heads, never at the crowd.

What is asserted is the work of the server, not its time: the commands that ran inside the scripts,
each of them O(log n). `python -m tests.integration.store.bench` prints times (table in its head).
"""

import time
from collections.abc import Awaitable, Callable

import pytest

from shared.errors import GatewayError
from shared.store.accounts import State
from shared.store.leases import SERVED, Outcome
from shared.store.ledger import Entry, Record, Use
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.crowd import SITUATIONS, crowd
from tests.integration.store.pool import email, entries, sign_in

pytestmark = pytest.mark.anyio

CROWD = 2_000
# Commands one acquire and release may run inside their scripts, whatever the crowd does.
COMMANDS_AT_MOST = 90


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_a_turn_costs_the_same_few_commands_in_every_situation(
    open_store: OpenStore, situation: str
) -> None:
    store = open_store()
    await crowd(store, situation, CROWD)
    before = await commands_run(store)
    turns = 10
    for _ in range(turns):
        try:
            lease = await store.leases.lend("chat", wait_seconds=0)
        except GatewayError:
            continue
        await store.leases.release(lease, SERVED)
    assert (await commands_run(store) - before) / turns <= COMMANDS_AT_MOST


async def commands_run(store: Store) -> int:
    """Every command, also those inside scripts."""
    stats = await store.connection.ask("info", "INFO", "commandstats")
    return sum(int(entry["calls"]) for entry in stats.values())


async def test_pages_searches_and_counts_of_ten_thousand_answer_within_50_ms(
    open_store: OpenStore,
) -> None:
    store = open_store()
    await store.accounts.add_missing(entries(10_000))
    for number in range(5):
        await sign_in(store, email(number))
    await store.leases.release(await store.leases.acquire("chat"), Outcome(dead="wrong password"))

    async def quickest(ask: Callable[[], Awaitable[object]]) -> float:
        """Of five: the machine is shared."""
        times = []
        for _ in range(5):
            started = time.perf_counter()
            await ask()
            times.append(time.perf_counter() - started)
        return min(times)

    async def page(state: State | None, search: str, limit: int) -> None:
        await store.accounts.page(state=state, search=search, limit=limit)

    assert await quickest(lambda: page(None, "", 50)) < 0.05
    assert await quickest(lambda: page("dead", "", 50)) < 0.05
    assert await quickest(lambda: page(None, "a09999@", 50)) < 0.05
    assert await quickest(lambda: page("cooling", "", 50)) < 0.05  # there is none: looks at all
    assert await quickest(store.accounts.counts) < 0.05

    for start in range(0, 10_000, 500):
        uses = [Use(account=email(n), request_id="r", model="m") for n in range(start, start + 500)]
        record = Record(request_id="r", route="/v1/chat/completions", status=200, total_ms=1.0)
        await store.ledger.write(Entry(record=record, uses=tuple(uses)))

    async def page_with_usage() -> None:
        shown = await store.accounts.page(limit=100)
        emails = [account.email for account in shown.accounts]
        used = await store.usage.of_accounts(emails, await store.usage.today())
        assert [one.requests for one in used] == [1] * 100

    assert await quickest(page_with_usage) < 0.05
    assert await quickest(lambda: store.explanations.of(email(5_000))) < 0.05
