"""The table of jobs: every dotted path leads to a job, every number makes sense together."""

import importlib

import pytest

from shared import jobs
from workers import runtime, schedule


@pytest.mark.parametrize("name", sorted(jobs.JOBS))
def test_every_job_of_the_table_can_be_imported_and_called(name: str) -> None:
    module, _, function = jobs.JOBS[name].path.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", sorted(jobs.JOBS))
def test_a_job_ends_well_before_its_claim_lapses(name: str) -> None:
    job = jobs.JOBS[name]
    assert job.lasting or job.timeout_seconds <= jobs.STEP_SECONDS
    assert job.claim_seconds >= job.occupies_seconds + 5
    # A killed process's step must run again within 60 s (contract section 7).
    assert job.claim_seconds <= 45


@pytest.mark.parametrize("name", sorted(jobs.JOBS))
def test_a_job_lies_in_a_queue_that_is_served(name: str) -> None:
    assert jobs.JOBS[name].queue in jobs.QUEUES


def test_a_job_that_lasts_is_kept_by_many_extensions_of_its_claim() -> None:
    """Should Redis be away for some of them, nobody else begins it."""
    for job in jobs.JOBS.values():
        if job.lasting:
            assert job.claim_seconds >= 10 * runtime.EXTEND_SECONDS


def test_periodic_work_names_jobs_of_the_table() -> None:
    assert {work.job for work in schedule.PERIODIC} <= set(jobs.JOBS)


def test_pauses_between_tries_grow_to_a_minute() -> None:
    pauses = [jobs.retry_pause_seconds("sweep", tries) for tries in range(1, 8)]
    assert pauses == [5, 10, 20, 40, 60, 60, 60]


def test_a_step_has_the_claim_of_its_job() -> None:
    made = jobs.step("sweep", "sweep-1", "a")
    assert (made.job, made.arguments) == ("sweep", ("a",))
    assert made.claim_seconds == jobs.JOBS["sweep"].claim_seconds
