"""Looks after batches: as long as lines wait there are pumps, whoever died."""

from shared.jobs import pump_steps
from workers.runtime import Resources, job


@job
async def run(resources: Resources) -> None:
    """Lines of dead processes wait again; where lines wait, pumps run."""
    if await resources.store.batches.pending():
        for step in pump_steps(resources.settings.worker_processes):
            await resources.due.keep(step)
