"""Jobs that tests watch, kill and break: each leaves a line in a Redis list when it begins and ends."""

import asyncio
import sys

from shared import jobs
from workers.runtime import Permanent, Resources, Transient, job


@job
async def run(resources: Resources, what: str) -> None:
    """Do what the argument says."""
    await _note(resources, f"begun {what}")
    match what:
        case "slow":
            await asyncio.sleep(1.5)
        case "broken":
            raise ValueError("password=hunter2")
        case "permanent":
            raise Permanent("it will never work")
        case "transient":
            if await resources.store.connection.ask("test", "INCR", "gw:test:tries") < 3:
                raise Transient("not yet", retry_after_seconds=0.1)
        case "endless":
            await asyncio.Event().wait()
    await _note(resources, f"ended {what}")


async def _note(resources: Resources, line: str) -> None:
    await resources.store.connection.ask("test", "RPUSH", "gw:test:notes", line)


# The product's table has only the product's jobs; this process and its children know one more.
jobs.JOBS["slow_job"] = jobs.Job(
    path="tests.fakes.slow_job.run",
    timeout_seconds=3,
    max_tries=2,
    retry_seconds=0.1,
)


def main(arguments: list[str]) -> None:
    """`python -m tests.fakes.slow_job`: `python -m workers` with the further job."""
    import os

    os.environ["RQ_KEY_PREFIX"] = jobs.RQ_KEY_PREFIX
    from shared.log import set_up_log
    from shared.settings import load

    settings = load(os.environ)
    set_up_log("workers", settings)
    if arguments == ["job-process"]:
        from workers import job_process

        sys.exit(job_process.serve(settings))
    from workers.supervisor import Supervisor

    command = [sys.executable, "-m", "tests.fakes.slow_job", "job-process"]
    asyncio.run(Supervisor(settings, command=command).run())


if __name__ == "__main__":
    # The module must be the one that RQ imports, not `__main__`'s copy of it.
    from tests.fakes import slow_job

    slow_job.main(sys.argv[1:])
