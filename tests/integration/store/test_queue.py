"""Waiting in line for a busy pool: first come, first served, over all processes."""

import asyncio
import signal
import time

import pytest

from shared.errors import NoAccount
from shared.sealing import Sealer
from shared.settings import Settings
from shared.store import keys
from shared.store.leases import QUOTA, SERVED, Cooldown, Lease, Leases, Outcome
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore
from tests.integration.store.meddling import MeddledConnection
from tests.integration.store.pool import Child, email, entries, in_force, until

pytestmark = pytest.mark.anyio

WAIT = 10.0


async def queued(store: Store, count: int, capability: str = "chat") -> None:
    async def so_many() -> bool:
        name = keys.queue(capability)
        return bool(await store.connection.ask("queue", "ZCARD", name) == count)

    await until(so_many, seconds=3, every=0.002)


async def join(stores: list[Store], count: int, served: list[int]) -> list[asyncio.Task[Lease]]:
    """So many waiters, one after the other, in turn from each store; `served` gets their order."""

    async def wait(number: int, store: Store) -> Lease:
        lease = await store.leases.lend("chat", wait_seconds=WAIT)
        served.append(number)
        return lease

    waiters = []
    for number in range(count):
        store = stores[number % len(stores)]
        waiters.append(asyncio.create_task(wait(number, store)))
        await queued(store, number + 1)
    return waiters


async def test_a_release_wakes_the_waiter_at_once(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 1)
    await asyncio.sleep(0.3)  # it listens and has looked once more; its next beat is at 1 s
    await store.leases.release(held[0])
    started = time.monotonic()
    await waiter
    assert time.monotonic() - started < 0.4


async def test_waiters_of_several_processes_are_served_in_their_order(
    open_store: OpenStore,
) -> None:
    stores = [open_store() for _ in range(3)]
    await stores[0].accounts.add_missing(entries(1))
    held = [await stores[0].leases.acquire("chat") for _ in range(2)]
    served: list[int] = []
    waiters = await join(stores, 12, served)
    await stores[0].leases.release(held[0])
    for number, waiter in enumerate(waiters):
        lease = await asyncio.wait_for(waiter, 3)
        await stores[number % 3].leases.release(lease, SERVED)
    assert served == list(range(12))


async def test_one_event_that_frees_several_slots_serves_several_waiters(
    open_store: OpenStore,
) -> None:
    stores = [open_store(), open_store()]
    await stores[0].accounts.add_missing(entries(1))
    _held = [await stores[0].leases.acquire("chat") for _ in range(2)]
    served: list[int] = []
    waiters = await join(stores, 6, served)
    await stores[0].accounts.set_concurrency(email(0), 8)
    await asyncio.wait_for(asyncio.gather(*waiters), 2)
    assert served == list(range(6))


async def test_a_newcomer_does_not_overtake_those_who_wait(
    store: Store, settings: Settings
) -> None:
    """The first in line is frozen for a moment: its slot stays free and is still its own."""
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    first = await Child.start(settings, "wait")
    await first.says("queued")
    first.process.send_signal(signal.SIGSTOP)
    await store.leases.release(held[0])
    with pytest.raises(NoAccount):
        await store.leases.acquire("chat")
    newcomer = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 2)
    first.process.send_signal(signal.SIGCONT)
    await first.says("lent")
    assert not newcomer.done()
    await store.leases.release(held[1])
    await asyncio.wait_for(newcomer, 2)
    await first.kill()


async def test_a_waiter_that_is_cancelled_costs_nobody_his_place(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    await stores[0].accounts.add_missing(entries(1))
    held = [await stores[0].leases.acquire("chat") for _ in range(2)]
    served: list[int] = []
    waiters = await join(stores, 4, served)
    waiters[0].cancel()
    waiters[2].cancel()
    started = time.monotonic()
    left = await asyncio.gather(waiters[0], waiters[2], return_exceptions=True)
    assert [type(result) for result in left] == [asyncio.CancelledError] * 2
    assert time.monotonic() - started < 1
    await queued(stores[0], 2)
    for lease in held:
        await stores[0].leases.release(lease)
    await asyncio.wait_for(asyncio.gather(waiters[1], waiters[3]), 1)
    assert served == [1, 3]


@pytest.mark.parametrize("pause_ms", range(0, 10, 2))
async def test_a_lease_lent_while_its_waiter_was_cancelled_comes_back(
    store: Store, pause_ms: int
) -> None:
    await store.accounts.add_missing(entries(1))
    for _ in range(20):
        attempt = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
        await asyncio.sleep(pause_ms / 10_000)
        attempt.cancel()
        [result] = await asyncio.gather(attempt, return_exceptions=True)
        if isinstance(result, Lease):
            await store.leases.release(result)

    async def nothing_is_lent() -> bool:
        return (await store.pool_state()).leases_in_flight == 0

    await until(nothing_is_lent, seconds=1)
    assert (await store.accounts.get(email(0))).in_flight == 0


@pytest.mark.parametrize("pause_ms", range(0, 10, 2))
async def test_a_waiter_cancelled_on_its_way_into_the_line_leaves_nobody_there(
    store: Store, pause_ms: int
) -> None:
    """Regression, 2026-11: its place stayed, its process lived, so nobody behind it was served."""
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    for _ in range(20):
        attempt = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
        await asyncio.sleep(pause_ms / 10_000)
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
    last = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await store.leases.release(held[0])
    await asyncio.wait_for(last, 2)
    await queued(store, 0)


async def test_a_place_that_nobody_here_waits_at_is_given_up_when_its_turn_comes(
    store: Store,
) -> None:
    """As when a script overtakes, on the wire, the one that takes its place back."""
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 1)
    [(name, place)] = await store.connection.ask(
        "queue", "ZRANGE", keys.queue("chat"), 0, -1, "WITHSCORES"
    )
    ghost = name.partition(".")[0] + ".ghost"
    await store.connection.ask("queue", "ZADD", keys.queue("chat"), float(place) - 0.5, ghost)
    await store.leases.release(held[0])
    await asyncio.wait_for(waiter, 2)
    await queued(store, 0)


async def test_a_dead_process_with_the_first_place_costs_at_most_three_seconds(
    store: Store, settings: Settings
) -> None:
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    first = await Child.start(settings, "wait")
    await first.says("queued")
    second = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 2)
    await first.kill()
    started = time.monotonic()
    await store.leases.release(held[0])
    await asyncio.wait_for(second, 5)
    assert time.monotonic() - started < 4  # 3 s, and the second's next beat


async def test_a_lost_message_is_made_up_for_by_the_beat(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 1)
    # The server cuts every subscriber off, again and again: no message arrives.
    async with asyncio.TaskGroup() as group:
        cutter = group.create_task(cut_subscribers(store))
        await store.leases.release(held[0])
        await asyncio.wait_for(waiter, 3)
        cutter.cancel()


async def cut_subscribers(store: Store) -> None:
    while True:
        await store.connection.ask("cut", "CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0.005)


async def test_a_waiter_is_served_when_an_account_becomes_ready_by_time(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    resting = Outcome(cooldown=Cooldown(reason="burst", seconds=0.3))
    await store.leases.release(await store.leases.acquire("chat"), resting)
    started = time.monotonic()
    await store.leases.lend("chat", wait_seconds=WAIT)
    assert 0.25 < time.monotonic() - started < 1


async def test_waiting_ends_after_its_time(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    _held = [await store.leases.acquire("chat") for _ in range(2)]
    started = time.monotonic()
    with pytest.raises(NoAccount, match="busy") as refused:
        await store.leases.lend("chat", wait_seconds=0.3)
    assert 0.3 <= time.monotonic() - started < 1
    assert refused.value.retry_after_seconds
    await queued(store, 0)


async def test_it_fails_at_once_when_no_wait_could_help(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    resting = Outcome(cooldown=Cooldown(reason="burst", seconds=60))
    await store.leases.release(await store.leases.acquire("chat"), resting)
    started = time.monotonic()
    with pytest.raises(NoAccount):
        await store.leases.lend("chat", wait_seconds=5)
    assert time.monotonic() - started < 1
    await queued(store, 0)


async def test_a_waiter_learns_that_waiting_has_become_pointless(store: Store) -> None:
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=30))
    await queued(store, 1)
    spent = Outcome(cooldown=Cooldown(reason=QUOTA, seconds=600))
    for lease in held:
        await store.leases.release(lease, spent)
    [refused] = await asyncio.wait_for(asyncio.gather(waiter, return_exceptions=True), 7)
    assert type(refused).__name__ == "AccountsExhausted"


async def test_lines_of_two_capabilities_do_not_block_each_other(store: Store) -> None:
    await store.accounts.add_missing(entries(2))
    spent = Cooldown(reason="burst", seconds=0.5)
    for _ in range(2):
        await store.leases.release(await store.leases.acquire("image"), Outcome(cooldown=spent))
    image = asyncio.create_task(store.leases.lend("image", wait_seconds=WAIT))
    await queued(store, 1, "image")
    await store.leases.release(await store.leases.acquire("chat"))
    await asyncio.wait_for(image, 2)


async def test_waiting_costs_a_few_commands_a_second_and_no_more(store: Store) -> None:
    """Regression, 2026-11: the first in line asked every millisecond."""
    await store.accounts.add_missing(entries(1))
    _held = [await store.leases.acquire("chat") for _ in range(2)]
    waiters = [asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT)) for _ in range(20)]
    await queued(store, 20)
    await asyncio.sleep(0.2)
    before = await scripts_run(store)
    await asyncio.sleep(1)
    assert await scripts_run(store) - before <= 5
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)


async def scripts_run(store: Store) -> int:
    stats = await store.connection.ask("info", "INFO", "commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


async def test_a_thousand_waiters_are_all_served(open_store: OpenStore) -> None:
    stores = [open_store(account_concurrency=4) for _ in range(2)]
    await stores[0].accounts.add_missing(entries(5))

    async def turn(store: Store) -> None:
        lease = await store.leases.lend("chat", wait_seconds=30)
        await asyncio.sleep(0.001)
        await store.leases.release(lease, SERVED)

    await asyncio.gather(*(turn(stores[i % 2]) for i in range(1000)))
    assert (await stores[0].pool_state()).leases_in_flight == 0


async def test_a_waiter_cancelled_twice_ends_at_once_and_leaves_the_line_all_the_same(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    await store.accounts.add_missing(entries(1))
    _held = [await store.leases.acquire("chat") for _ in range(2)]
    leases = Leases(meddled, sealer, settings=in_force(meddled, sealer), ttl_seconds=30)
    waiter = asyncio.create_task(leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 1)
    leaving, may_leave = asyncio.Event(), asyncio.Event()

    async def hesitate() -> None:
        leaving.set()
        await may_leave.wait()

    meddled.before["queue_leave"] = hesitate
    waiter.cancel()
    await asyncio.wait_for(leaving.wait(), 1)
    waiter.cancel()
    await asyncio.wait([waiter], timeout=1)
    assert waiter.cancelled()
    may_leave.set()
    await queued(store, 0)
    await leases.close()


async def test_a_message_for_a_waiter_who_does_not_listen_yet_is_not_taken_for_a_ghosts(
    store: Store, meddled: MeddledConnection, sealer: Sealer
) -> None:
    """Timeline: the script puts the second waiter into the line, a slot is freed and he is named,
    and only then does he begin to listen. The first, of another line, hears on the same wire."""
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    leases = Leases(meddled, sealer, settings=in_force(meddled, sealer), ttl_seconds=30)
    first = asyncio.create_task(leases.lend("image", wait_seconds=WAIT))
    await queued(store, 1, "image")
    await asyncio.sleep(0.3)  # it listens

    async def free_both() -> None:
        del meddled.behind["lease_acquire"]
        await queued(store, 1)
        for lease in held:
            await store.leases.release(lease)
        await asyncio.wait_for(asyncio.shield(first), 2)

    meddled.behind["lease_acquire"] = free_both
    assert await asyncio.wait_for(leases.lend("chat", wait_seconds=WAIT), 3)
    await leases.close()


async def test_a_beat_that_fails_ends_neither_the_beats_nor_anybodys_wait(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    await store.accounts.add_missing(entries(1))
    held = [await store.leases.acquire("chat") for _ in range(2)]
    waiter = asyncio.create_task(store.leases.lend("chat", wait_seconds=WAIT))
    await queued(store, 1)
    await store.connection.ask("spoil", "SET", keys.queue("video"), "no line at all")

    async def told() -> bool:
        return "beat of the waiters failed" in caplog.text

    await until(told, seconds=3)
    assert caplog.text.count("beat of the waiters failed") < 5, "once a second, not all the time"
    await store.connection.ask("mend", "DEL", keys.queue("video"))
    await store.leases.release(held[0])
    await asyncio.wait_for(waiter, 2)
