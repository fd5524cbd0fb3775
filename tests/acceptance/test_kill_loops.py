"""Five rounds of the soak's kill loop, and a few seconds of its long run: the same code as
`make soak`, which has the full counts. Contract, section 7: promises 1, 2, 7."""

import asyncio

import pytest

from tests.soak.endurance import WATCHED, run_long
from tests.soak.imports import run_imports
from tests.soak.kills import run_rounds
from tests.soak.product import ROLES, Role, running

LEASE_TTL_SECONDS = 3.0


@pytest.mark.timeout(400)
def test_whoever_is_killed_everything_comes_back_and_nothing_is_answered_wrongly() -> None:
    with running(lease_ttl_seconds=LEASE_TTL_SECONDS) as product:
        rounds = asyncio.run(run_rounds(product, rounds=5, seed=7, tell=lambda _: None))
    assert {one.killed for one in rounds} == set(ROLES) - {"job_parent"}
    assert [one.violations for one in rounds] == [[]] * 5
    assert all(one.turns["whole"] for one in rounds)


@pytest.mark.timeout(300)
def test_an_import_loses_no_line_and_does_none_twice_whoever_is_killed() -> None:
    """Job processes: tests/acceptance/test_batches.py. Contract, section 7: promise 4."""
    roles: tuple[Role, ...] = ("redis", "gateway_parent", "job_parent")
    with running(lease_ttl_seconds=LEASE_TTL_SECONDS) as product:
        rounds = run_imports(product, rounds=3, seed=3, tell=lambda _: None, roles=roles)
    assert {one.killed for one in rounds} == set(roles)
    assert [one.violations for one in rounds] == [[]] * 3


@pytest.mark.timeout(120)
def test_steady_load_is_answered_whole_and_every_process_is_watched() -> None:
    with running(lease_ttl_seconds=LEASE_TTL_SECONDS) as product:
        long = asyncio.run(run_long(product, seconds=6, tell=lambda *_: None))
    assert long.violations == []
    assert set(long.turns) <= {"whole", "left"}
    assert {one.role for one in long.growth} == set(WATCHED)
