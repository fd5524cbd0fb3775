"""`python -m workers`: the job processes, `WORKER_PROCESSES` of them, and the clock.

`python -m workers import FILE…`: accounts from files (workers/accounts_import.py, `--help`).

Reads the environment; without `REDIS_URL` it joins what a launcher runs for the same `DATA_DIR`.
Exit status: 2 configuration. (`python -m workers job-process` is what it starts.)
"""

import asyncio
import logging
import os
import sys

from shared import discovery
from shared.jobs import RQ_KEY_PREFIX
from shared.log import set_up_log
from shared.settings import SettingsError, notices


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["import"]:
        return _import(arguments[1:])
    if arguments not in ([], ["job-process"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        settings = discovery.load_settings(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    set_up_log("workers", settings)
    os.environ["RQ_KEY_PREFIX"] = RQ_KEY_PREFIX  # read when rq is imported
    if arguments == ["job-process"]:
        from workers import job_process

        return job_process.serve(settings)
    for line in notices(os.environ):
        print(line, file=sys.stderr)
    from workers.supervisor import Supervisor

    supervisor = Supervisor(settings)
    asyncio.run(supervisor.run())
    return 0


def _import(arguments: list[str]) -> int:
    from workers import accounts_import
    from workers.progress import Progress

    order = accounts_import.read_order(arguments)
    try:
        settings = discovery.load_settings(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return accounts_import.USAGE
    set_up_log("import", settings)
    logging.disable(logging.INFO)  # what is going on stands in its results
    return accounts_import.run(settings, order, Progress(results=sys.stdout, screen=sys.stderr))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
