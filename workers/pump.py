"""A pump: the part of a job process that does lines of batches, as long as any wait.

There are as many in the fleet as a host has job processes; they share what may be under way at
once. One that dies is due again like every step, and its lines wait again; `workers.batches` looks
after them. Which lines and how: `shared.batches`.
"""

import asyncio
import math
import time

from shared.batches import Pump
from workers.runtime import Resources, Transient, hand_on_counts, lasting_job

COUNTS_SECONDS = 2.0
"""How often what was counted meanwhile is handed on."""

LONGEST_SECONDS = 3_000.0
"""Then another pump goes on: a job's time is bounded, an import's is not."""


async def _given_up(resources: Resources) -> None:
    """Never: it has no number of tries. Its lines wait for the next pump all the same."""


@lasting_job(given_up=_given_up)
async def run(resources: Resources) -> None:
    """No line waits; or this process stops, and another pump goes on."""

    def share() -> int:
        settings = resources.settings
        return math.ceil(settings.batch_login_concurrency / settings.worker_processes)

    until = time.monotonic() + LONGEST_SECONDS

    def is_to_stop() -> bool:
        return resources.stopping.is_set() or time.monotonic() > until

    pump = Pump(resources.line_work, resources.store.batches, share=share, is_to_stop=is_to_stop)
    running = asyncio.ensure_future(pump.run())
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=COUNTS_SECONDS)
            await hand_on_counts(resources)
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    if is_to_stop():
        raise Transient("another pump goes on", retry_after_seconds=0)
