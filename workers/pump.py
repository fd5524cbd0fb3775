"""A pump: the part of a job process that does lines of batches, as long as any wait.

There are as many in the fleet as a host has job processes; they share what may be under way at
once. One that dies is due again like every step, and its lines wait again; `workers.batches` looks
after them. Which lines and how: `shared.batches`.
"""

import asyncio
import math

from shared.batches import Pump
from workers.runtime import Resources, Transient, hand_on_counts, lasting_job

COUNTS_SECONDS = 2.0
"""How often what was counted meanwhile is handed on."""


async def _given_up(resources: Resources) -> None:
    """Never: it has no number of tries. Its lines wait for the next pump all the same."""


@lasting_job(given_up=_given_up)
async def run(resources: Resources) -> None:
    """No line waits; or this process stops, and another pump goes on."""

    def share() -> int:
        settings = resources.settings
        return math.ceil(settings.batch_login_concurrency / settings.worker_processes)

    batches = resources.store.batches
    pump = Pump(resources.line_work, batches, share=share, stopping=resources.stopping)
    running = asyncio.ensure_future(pump.run())
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=COUNTS_SECONDS)
            await hand_on_counts(resources)
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    if resources.stopping.is_set():
        raise Transient("this process stops", retry_after_seconds=0)
