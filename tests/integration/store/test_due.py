"""Steps that are due, on a real Redis; time passes by waiting for claims of tens of milliseconds."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.store.connection import Connection
from shared.store.counts import Counts
from shared.store.due import Due, Step

pytestmark = pytest.mark.anyio

SOON = 0.05  # a claim that lapses within the test


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[Connection]:
    connection = Connection(redis_url)
    yield connection
    await connection.close()


@pytest.fixture
def due(connection: Connection) -> Due:
    return Due(connection)


async def take_when_due(due: Due, *, within_seconds: float = 2.0) -> Step:
    """The next step, polled to the bound."""
    async with asyncio.timeout(within_seconds):
        while not (taken := await due.take(1)):
            await asyncio.sleep(0.005)
    return taken[0]


async def test_a_step_is_taken_once(due: Due) -> None:
    assert await due.add(Step("import-b1-1", "import_accounts", ("b1",)))
    [step] = await due.take(10)
    assert step == Step("import-b1-1", "import_accounts", ("b1",), 30.0, tries=1)
    assert await due.take(10) == []


async def test_a_step_without_arguments_has_none_when_it_is_taken(due: Due) -> None:
    """Lua's cjson can't tell an empty list from an empty object."""
    await due.add(Step("s", "sweep"))
    assert (await due.take(1))[0].arguments == ()


async def test_a_step_that_is_there_already_is_moved_earlier_and_never_later(due: Due) -> None:
    step = Step("s", "sweep")
    assert await due.add(step, delay_seconds=60)
    assert not await due.add(step, delay_seconds=120)
    assert await due.take(1) == []
    assert not await due.add(step)
    assert len(await due.take(1)) == 1


async def test_adding_a_step_that_runs_does_not_start_it_twice(due: Due) -> None:
    step = Step("s", "sweep")
    await due.add(step)
    await due.take(1)
    assert await due.begin("s")
    await due.add(step)
    assert await due.take(1) == []


async def test_a_step_taken_and_not_ended_is_due_again(due: Due) -> None:
    await due.add(Step("s", "sweep", claim_seconds=SOON))
    [first] = await due.take(1)
    second = await take_when_due(due)
    assert (first.tries, second.tries) == (1, 2)


async def test_a_step_begun_and_not_ended_is_due_again(due: Due) -> None:
    await due.add(Step("s", "sweep", claim_seconds=SOON))
    await due.take(1)
    assert await due.begin("s")
    assert not await due.begin("s")
    await take_when_due(due)
    assert await due.begin("s")


async def test_a_step_that_has_ended_does_not_begin(due: Due) -> None:
    await due.add(Step("s", "sweep", claim_seconds=SOON))
    await due.take(1)
    await due.done("s")
    assert not await due.begin("s")
    assert await due.counts() == {}


async def test_a_step_put_off_is_due_after_its_pause_and_keeps_its_tries(due: Due) -> None:
    await due.add(Step("s", "sweep"))
    await due.take(1)
    await due.begin("s")
    await due.again("s", delay_seconds=SOON)
    assert await due.take(1) == []
    step = await take_when_due(due)
    assert step.tries == 2
    assert await due.tries("s") == 2


async def test_a_late_end_changes_nothing_for_a_step_added_again(due: Due) -> None:
    await due.again("never-there", delay_seconds=0)
    await due.done("never-there")
    assert await due.take(1) == []


async def test_a_step_given_up_is_kept_with_its_reason(due: Due) -> None:
    await due.add(Step("s", "import_accounts", ("b1", "2")))
    await due.take(1)
    await due.give_up("s", "ValueError after 5 tries")
    [failed] = await due.failed()
    assert (failed.step, failed.job, failed.arguments) == ("s", "import_accounts", ("b1", "2"))
    assert (failed.reason, failed.tries) == ("ValueError after 5 tries", 1)
    assert failed.at > 1_700_000_000
    assert await due.counts() == {("jobs", "failed"): 1}


async def test_no_more_than_a_hundred_given_up_steps_are_kept(due: Due) -> None:
    for number in range(105):
        await due.add(Step(f"s{number}", "sweep"))
        await due.give_up(f"s{number}", "x")
    failed = await due.failed()
    assert len(failed) == 100
    assert failed[0].step == "s104"


async def test_the_longest_due_is_taken_first_and_no_more_than_asked(due: Due) -> None:
    for number in range(3):
        await due.add(Step(f"s{number}", "sweep"))
        await asyncio.sleep(0.002)
    assert [step.id for step in await due.take(2)] == ["s0", "s1"]


async def test_of_fifty_takers_one_gets_a_step(due: Due) -> None:
    await due.add(Step("s", "sweep"))
    taken = await asyncio.gather(*(due.take(1) for _ in range(50)))
    assert sum(len(steps) for steps in taken) == 1


async def test_of_fifty_who_begin_a_step_one_may(due: Due) -> None:
    await due.add(Step("s", "sweep"))
    await due.take(1)
    assert sum(await asyncio.gather(*(due.begin("s") for _ in range(50)))) == 1


async def test_of_fifty_who_ask_for_a_slot_one_puts_it_down(due: Due) -> None:
    async def ask() -> str:
        return await due.add_slot("sweep", Step("", "sweep"), period_seconds=3600)

    steps = [step for step in await asyncio.gather(*(ask() for _ in range(50))) if step]
    assert len(steps) == 1
    assert steps[0].startswith("sweep-")
    assert [step.id for step in await due.take(10)] == steps


async def test_a_slot_waits_for_the_one_before_to_end(due: Due) -> None:
    work = Step("", "sweep", claim_seconds=60)

    async def next_slot() -> str:
        async with asyncio.timeout(2):
            while not (step := await due.add_slot("sweep", work, period_seconds=SOON)):
                await asyncio.sleep(0.005)
        return step

    first = await next_slot()
    await asyncio.sleep(3 * SOON)
    assert await due.add_slot("sweep", work, period_seconds=SOON) == ""
    await due.done(first)
    assert await next_slot() != first


async def test_many_missed_slots_are_made_up_for_once(due: Due) -> None:
    work = Step("", "sweep")
    first = ""
    async with asyncio.timeout(2):
        while not first:
            first = await due.add_slot("sweep", work, period_seconds=SOON)
    await due.done(first)
    await asyncio.sleep(5 * SOON)  # nobody is there for five slots
    assert await due.add_slot("sweep", work, period_seconds=SOON)
    assert len(await due.take(10)) == 1


async def test_counts_say_how_many_steps_of_which_queue_are_in_which_state(due: Due) -> None:
    await due.add(Step("due", "sweep", queue="ticks"))
    await due.add(Step("later", "sweep"), delay_seconds=60)
    await due.add(Step("later too", "sweep"), delay_seconds=60)
    assert await due.counts() == {("ticks", "due"): 1, ("jobs", "later"): 2}
    [taken] = await due.take(1)
    assert taken.queue == "ticks"
    await due.begin("due")
    assert await due.counts() == {("ticks", "running"): 1, ("jobs", "later"): 2}


async def test_what_job_processes_counted_adds_up(connection: Connection) -> None:
    counts = Counts(connection)
    assert await counts.read() == {}
    await counts.add({'["logins_total", {}]': 2})
    await asyncio.gather(*(counts.add({'["logins_total", {}]': 0.5}) for _ in range(4)))
    await counts.add({})
    assert await counts.read() == {'["logins_total", {}]': 4.0}


async def test_a_step_that_is_extended_stays_its_process_s(due: Due) -> None:
    await due.add(Step("s", "answer", claim_seconds=SOON))
    await take_when_due(due)
    assert await due.begin("s")
    for _ in range(5):
        await asyncio.sleep(SOON / 2)
        assert await due.extend("s")
        assert await due.take(1) == []
        assert not await due.begin("s")
    assert (await take_when_due(due)).tries == 2


async def test_a_step_that_has_ended_is_not_extended(due: Due) -> None:
    await due.add(Step("s", "answer"))
    await due.done("s")
    assert not await due.extend("s")
    assert await due.take(1) == []


async def test_what_was_no_try_does_not_count_as_one(due: Due) -> None:
    await due.add(Step("s", "answer"))
    for _ in range(3):
        assert (await take_when_due(due)).tries == 1
        assert await due.begin("s")
        await due.again("s", delay_seconds=0, counted=False)
    await take_when_due(due)
    await due.again("s", delay_seconds=0)
    assert (await take_when_due(due)).tries == 2


async def test_a_step_that_was_lost_is_put_down_again_and_one_that_is_there_is_left(
    due: Due,
) -> None:
    step = Step("s", "answer")
    await due.keep(step)
    await take_when_due(due)
    await due.keep(step)  # taken, and not due before its claim lapses
    assert await due.take(1) == []
    await due.again("s", delay_seconds=60)
    await due.keep(step)
    assert await due.take(1) == []
