"""One job process: an RQ worker that runs jobs in itself, one after the other.

`SimpleWorker` and not the forking one: a step takes milliseconds, a fork 40 of them; a crash costs
one process, which kill -9 safety must survive anyway, and its parent starts another.
"""

import importlib
import logging
import time
from types import FrameType

from redis import Redis
from redis.exceptions import ConnectionError, RedisError, TimeoutError
from rq import Queue, SimpleWorker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.worker import WorkerStatus

from shared.jobs import JOBS, JobQueues, open_rq_connection
from shared.settings import Settings
from workers import runtime

log = logging.getLogger(__name__)


class JobWorker(SimpleWorker):
    """RQ's worker that stops when told, has no command channel, and is soon back after Redis.

    RQ's own stop raises an exception out of the signal handler, wherever the program is at that
    moment: inside a job's event loop it was taken for the job's failure, and the worker ran on
    for ever (seen 2026-11). Here the handler sets a mark that is looked at between two jobs.
    """

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop_requested = True
        runtime.ask_to_finish()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue]:
        """The next job, however long it takes to come.

        Raises:
            StopRequested: told to stop.
        """
        self.set_state(WorkerStatus.IDLE)
        while not self._stop_requested:
            try:
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                found = Queue.dequeue_any(
                    self._ordered_queues,
                    _LOOK_SECONDS,
                    connection=self.connection,
                    serializer=self.serializer,
                )
            except DequeueTimeout:
                continue
            except (ConnectionError, TimeoutError):
                time.sleep(_LOOK_SECONDS)
                continue
            if found is not None:
                job, queue = found
                # RQ asks its worker for it when the job has ended.
                job.redis_server_version = self.get_redis_server_version()
                return job, queue
        raise StopRequested

    def subscribe(self) -> None:
        """Nobody sends commands to a single worker: no thread, no second connection."""

    def unsubscribe(self) -> None:
        """See `subscribe`."""


_LOOK_SECONDS = 1


def serve(settings: Settings) -> int:
    """Run jobs until a signal; a step under way is finished first. Returns the exit status."""
    runtime.configure(settings)
    for job in JOBS.values():
        importlib.import_module(job.path.rpartition(".")[0])
    connection = open_rq_connection(settings.redis_url)
    try:
        _work(connection)
    except RedisError as error:
        # Our parent starts us again, a little later each time.
        log.warning("job process ends, store away", extra={"error": type(error).__name__})
        return 1
    finally:
        runtime.finish()
    return 0


def _work(connection: Redis) -> None:
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
