"""One job process: an RQ worker that runs jobs in itself, one after the other.

`SimpleWorker` and not the forking one: a step takes milliseconds, a fork 40 of them; a crash costs
one process, which kill -9 safety must survive anyway, and its parent starts another.
"""

import importlib
import logging

from rq import SimpleWorker

from shared.jobs import JOBS, JobQueues, open_rq_connection
from shared.settings import Settings
from workers import runtime

log = logging.getLogger(__name__)


class JobWorker(SimpleWorker):
    """RQ's worker without its command channel; back soon after Redis is back."""

    max_connection_wait_time = 2.0

    def subscribe(self) -> None:
        """Nobody sends commands to a single worker: no thread, no second connection."""

    def unsubscribe(self) -> None:
        """See `subscribe`."""


def serve(settings: Settings) -> None:
    """Run jobs until a signal; a step under way is finished first."""
    runtime.configure(settings)
    for job in JOBS.values():
        importlib.import_module(job.path.rpartition(".")[0])
    connection = open_rq_connection(settings.redis_url)
    worker = JobWorker(
        JobQueues(connection).all(),
        connection=connection,
        serializer="rq.serializers.JSONSerializer",
        worker_ttl=20,
        maintenance_interval=15,
        log_job_description=False,
    )
    log.info("job process ready")
    worker.work(logging_level="WARNING")
