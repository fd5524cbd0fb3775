"""A lasting job that tests watch: it leaves a line in a Redis list for all that happens to it."""

import asyncio

from shared import jobs
from workers.runtime import Resources, lasting_job


async def note(resources: Resources, line: str) -> None:
    await resources.store.connection.ask("test", "RPUSH", "gw:test:notes", line)


async def given_up(resources: Resources, what: str) -> None:
    await note(resources, f"given up {what}")


@lasting_job(given_up=given_up)
async def run(resources: Resources, what: str) -> None:
    """Do what the argument says."""
    await note(resources, f"begun {what}")
    try:
        match what:
            case "endless":
                await asyncio.Event().wait()
            case "broken":
                raise ValueError("password=hunter2")
            case seconds:
                await asyncio.sleep(float(seconds))
    except asyncio.CancelledError:
        await note(resources, f"cancelled {what}")
        raise
    await note(resources, f"ended {what}")


# The product's table has only the product's jobs; who imports this knows one more.
jobs.JOBS["lasting_job"] = jobs.Job(
    path="tests.fakes.lasting_job.run",
    timeout_seconds=60,
    max_tries=2,
    retry_seconds=0.05,
    lasting=True,
)
