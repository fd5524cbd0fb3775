"""Jobs by name: where each lies, how long it may take, how it is put down.

The gateway never imports `workers`: a job is a dotted path in a string (a test imports every one),
its arguments are ids. When, whether and how often it runs is said by the steps in `store.due`; RQ
only carries a step that is due to a process that has time for it.

    await due.add(step("import_accounts", f"import-{batch_id}-1", batch_id))

Knows: the table, RQ's queues. Does not know: what a job does.
"""

import logging
from typing import TYPE_CHECKING, Final

import msgspec

from shared.store.due import Step

if TYPE_CHECKING:
    import redis
    from rq import Queue

log = logging.getLogger(__name__)

# RQ's own keys; read by rq when it is imported. The tag keeps them on one node of a cluster.
RQ_KEY_PREFIX: Final = "gw:{rq}"

# Served in this order: what is short and periodic never waits behind an import of 10,000 lines.
QUEUES: Final = ("ticks", "jobs")

# A step has ended or handed on within this time; then its process is free for another.
STEP_SECONDS: Final = 20.0


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of job runs."""

    path: str
    """Dotted path of its function."""
    queue: str = "jobs"
    timeout_seconds: float = STEP_SECONDS
    """After this it is cancelled and counts as failed."""
    max_tries: int = 5
    """A job that fails this often is given up, visible to the operator; 0 = never."""
    retry_seconds: float = 5.0
    """First pause after a failure; doubles each time, up to a minute."""
    lasting: bool = False
    """Can't be cut into steps: it runs beside the others, its claim is extended while it runs."""

    @property
    def claim_seconds(self) -> float:
        """A taker that hasn't ended (or extended) the step after this is taken for dead."""
        return min(self.timeout_seconds, STEP_SECONDS) + _CLAIM_MARGIN_SECONDS

    @property
    def occupies_seconds(self) -> float:
        """How long it may keep RQ's process from the next job: one that lasts is only begun."""
        return min(self.timeout_seconds, STEP_SECONDS)


_CLAIM_MARGIN_SECONDS: Final = 10.0
_RETRY_CAP_SECONDS: Final = 60.0

JOBS: Final[dict[str, Job]] = {
    "sweep": Job(path="workers.sweep.run", queue="ticks", max_tries=1),
    "refresh_tokens": Job(
        path="workers.refresh_tokens.run",
        queue="ticks",  # to begin it takes no time
        timeout_seconds=3_600,
        lasting=True,
    ),
    "batches": Job(path="workers.batches.run", queue="ticks", max_tries=1),
    "pump": Job(
        path="workers.pump.run",
        queue="ticks",  # to begin one takes no time
        timeout_seconds=3_600,  # then another one goes on
        max_tries=0,
        lasting=True,
    ),
    "rotate_secret_key": Job(
        path="workers.rotate_secret_key.run",
        queue="ticks",
        timeout_seconds=3_600,
        lasting=True,
    ),
    "answer": Job(
        path="workers.answer.run",
        queue="ticks",  # to begin one takes no time
        timeout_seconds=3_600,
        lasting=True,
    ),
}


def name_of(path: str) -> str:
    """The name under which a dotted path is in the table.

    Raises:
        LookupError: it isn't.
    """
    for name, job in JOBS.items():
        if job.path == path:
            return name
    raise LookupError(f"{path} is no job of the table in shared/jobs.py")


def step(job: str, step_id: str, *arguments: str) -> Step:
    """A step of a job of the table; the same id is the same step."""
    kind = JOBS[job]
    return Step(
        id=step_id,
        job=job,
        arguments=arguments,
        claim_seconds=kind.claim_seconds,
        queue=kind.queue,
    )


def answer_step(response_id: str) -> Step:
    """The turn of a response that runs in the background."""
    return step("answer", f"answer-{response_id}", response_id)


def pump_steps(count: int) -> list[Step]:
    """The pumps that do the lines of batches, one for each job process."""
    return [step("pump", f"pump-{number}") for number in range(1, count + 1)]


def retry_pause_seconds(job: str, tries: int) -> float:
    """How long a job rests that has failed `tries` times."""
    return float(min(_RETRY_CAP_SECONDS, JOBS[job].retry_seconds * 2 ** max(0, tries - 1)))


class JobQueues:
    """RQ's queues, filled with steps that are due."""

    def __init__(self, connection: "redis.Redis") -> None:
        from rq import Queue

        self._queues: dict[str, Queue] = {
            name: Queue(name, connection=connection, serializer="rq.serializers.JSONSerializer")
            for name in QUEUES
        }

    def all(self) -> "list[Queue]":
        return list(self._queues.values())

    def waiting(self) -> int:
        """Steps that no process has begun yet. Blocks for one round trip per queue."""
        return sum(queue.count for queue in self._queues.values())

    def enqueue(self, step: Step) -> None:
        """A job process will run the step. Blocks for one round trip.

        RQ neither repeats nor keeps it: a step that isn't done is due again by itself.
        """
        job = JOBS[step.job]
        self._queues[job.queue].enqueue_call(
            job.path,
            args=(step.id, *step.arguments),
            job_id=f"{_rq_safe(step.id)}-try-{step.tries}",
            # RQ's alarm is the second fence: the job's own deadline comes first.
            timeout=int(job.occupies_seconds + _CLAIM_MARGIN_SECONDS / 2),
            result_ttl=0,
            failure_ttl=3_600,
            description=f"{step.job} {step.id}",
        )


def open_rq_connection(url: str) -> "redis.Redis":
    """A connection as RQ wants it: replies are bytes, blocking reads may take a while."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        url, socket_connect_timeout=2, socket_timeout=20, retry=Retry(NoBackoff(), 0)
    )


def _rq_safe(step_id: str) -> str:
    """RQ takes letters, digits, `-` and `_` in an id."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in step_id)
