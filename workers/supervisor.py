"""The parent of the job processes, and the clock: what is due goes into RQ every second.

Every parent of the fleet does the same and none leads: a step goes to one taker, periodic work is
put down once per slot however many ask. A parent takes no more than its processes can soon begin,
so that what it holds isn't due again before its turn.

Knows: processes, the clock. Does not know: what a job does.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from typing import Final

from redis.exceptions import RedisError

from shared.child import Child, python
from shared.errors import StoreUnavailable
from shared.jobs import STEP_SECONDS, JobQueues, open_rq_connection, step
from shared.sealing import Sealer
from shared.settings import Settings, environment_of
from shared.store.connection import Connection
from shared.store.due import Due
from shared.store.settings import SettingsInForce
from workers.schedule import PERIODIC, Periodic

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 1.0
# Steps waiting in RQ per job process: enough that none idles for a tick.
AHEAD: Final = 4
# A job process that is asked to stop finishes its step.
STOP_SECONDS: Final = STEP_SECONDS + 5.0


class Supervisor:
    """Job processes and clock of one host, from `run` to a signal."""

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str] = (*python("-m", "workers"), "job-process"),
        periodic: Sequence[Periodic] = PERIODIC,
    ) -> None:
        self._settings = settings
        self._command = command
        self._periodic = periodic
        self._connection = Connection(settings.redis_url)
        self._due = Due(self._connection)
        self._stored_settings = SettingsInForce(
            self._connection,
            Sealer(settings.secret_key, settings.secret_key_previous),
            settings,
        )
        self._told_overridden = False
        self._queues = JobQueues(open_rq_connection(settings.redis_url))

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; job processes have then finished their steps.

        Raises:
            Exception: whatever stopped the clock.
        """
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        environ = {**os.environ, **environment_of(self._settings)}  # noqa: TID251  # handed on
        children = [
            Child(f"job process {n}", self._command, environ=environ)
            for n in range(1, self._settings.worker_processes + 1)
        ]
        for child in children:
            await child.start()
        clock = asyncio.create_task(self._tick_for_ever(), name="clock")
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, clock}, return_when=asyncio.FIRST_COMPLETED)
        ended_by_itself = clock.done()
        for task in (stopped, clock):
            task.cancel()
        await asyncio.gather(stopped, clock, return_exceptions=True)
        stops = [child.stop(signal.SIGTERM, grace_seconds=STOP_SECONDS) for child in children]
        await asyncio.gather(*stops)
        await self._connection.close()
        if ended_by_itself:
            await clock  # a fault of ours: say so and be started again, rather than stand still

    async def _tick_for_ever(self) -> None:
        away = False
        while True:
            try:
                await self._tick()
                away = False
            except (StoreUnavailable, RedisError, OSError) as error:
                # What was taken and not enqueued is due again when its claim lapses.
                if not away:
                    log.warning("clock stands, store away", extra={"error": type(error).__name__})
                away = True
            await asyncio.sleep(TICK_SECONDS)

    async def _tick(self) -> None:
        if not self._told_overridden:
            await self._stored_settings.load()
            self._stored_settings.tell_overridden()
            self._told_overridden = True
        for work in self._periodic:
            await self._due.add_slot(
                work.job, step(work.job, ""), period_seconds=work.period_seconds
            )
        waiting = await asyncio.to_thread(self._queues.waiting)
        free = self._settings.worker_processes * AHEAD - waiting
        if free <= 0:
            return
        for taken in await self._due.take(free):
            await asyncio.to_thread(self._queues.enqueue, taken)
            log.debug("step taken", extra={"step": taken.id, "tries": taken.tries})
