"""Idempotency keys over several processes."""

import asyncio

import pytest

from shared.errors import Conflict
from shared.store import keys
from shared.store.idempotency import LARGEST_ANSWER_BYTES, Answer, Run, Running
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore

pytestmark = pytest.mark.anyio

ANSWER = Answer(200, [("content-type", "application/json")], b'{"ok":"\xff\x00"}')


async def begin(store: Store, body: str = "hash", key: str = "key", owner: str = "me") -> Run:
    run = await store.idempotency.begin(owner, key, body)
    assert isinstance(run, Run)
    return run


async def test_of_a_hundred_askers_one_runs_and_all_get_its_answer(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    runs = 0

    async def ask(store: Store) -> Answer:
        nonlocal runs
        while True:
            match await store.idempotency.begin("me", "key", "hash"):
                case Run() as run:
                    runs += 1
                    await asyncio.sleep(0.05)
                    await store.idempotency.complete(run, ANSWER)
                    return ANSWER
                case Running():
                    await asyncio.sleep(0.01)
                case answer:
                    return answer

    answers = await asyncio.gather(*(ask(stores[i % 4]) for i in range(100)))
    assert runs == 1
    assert answers == [ANSWER] * 100


async def test_another_body_under_the_same_key_is_a_conflict(store: Store) -> None:
    run = await begin(store)
    with pytest.raises(Conflict):
        await store.idempotency.begin("me", "key", "other")
    await store.idempotency.complete(run, ANSWER)
    with pytest.raises(Conflict):
        await store.idempotency.begin("me", "key", "other")


async def test_the_keys_of_two_owners_never_meet(store: Store) -> None:
    await begin(store, owner="me")
    await begin(store, owner="you", body="other")


async def test_a_dead_runner_is_followed_by_the_next_and_cannot_answer_late(store: Store) -> None:
    dead = await begin(store)
    assert 0 < (await running(store)).milliseconds <= 30_000
    await store.connection.ask("lapse", "DEL", dead.record)
    successor = await begin(store)
    assert not await store.idempotency.complete(dead, Answer(200, [], b"late"))
    assert await store.idempotency.complete(successor, ANSWER)
    assert await store.idempotency.begin("me", "key", "hash") == ANSWER


async def running(store: Store) -> Running:
    answer = await store.idempotency.begin("me", "key", "hash")
    assert isinstance(answer, Running)
    return answer


async def test_a_runner_that_lives_keeps_its_right(store: Store) -> None:
    run = await begin(store)
    await store.connection.ask("age", "PEXPIRE", run.record, 100)
    await store.idempotency.extend_all()
    assert (await running(store)).milliseconds > 20_000


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, [], b"slow down"),
        Answer(500, [], b"broken"),
        Answer(503, [], b"away"),
        Answer(200, [], b"x" * (LARGEST_ANSWER_BYTES + 1)),
    ],
    ids=["429", "500", "503", "too large"],
)
async def test_failures_and_huge_answers_are_not_kept(store: Store, answer: Answer) -> None:
    assert not await store.idempotency.complete(await begin(store), answer)
    await begin(store)


async def test_an_answer_of_four_megabytes_is_kept_for_a_day(store: Store) -> None:
    run = await begin(store)
    largest = Answer(200, [], b"\xff" * LARGEST_ANSWER_BYTES)
    assert await store.idempotency.complete(run, largest)
    assert await store.idempotency.begin("me", "key", "hash") == largest
    ttl = await store.connection.ask("ttl", "TTL", run.record)
    assert 24 * 3600 - 60 < ttl <= 24 * 3600


async def test_a_forgotten_run_may_run_again(store: Store) -> None:
    await store.idempotency.forget(await begin(store))
    await begin(store)


async def test_a_key_of_a_caller_may_be_anything(store: Store) -> None:
    run = await begin(store, key="x" * 5000 + "\n:{pool}")
    assert keys.find(run.record) is keys.idempotent
    assert len(run.record) < 100
