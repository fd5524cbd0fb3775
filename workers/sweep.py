"""The sweep: what died without giving back is brought back.

Leases lapse by themselves after `LEASE_TTL_SECONDS`; whoever asks for an account takes lapsed ones
back in passing. The sweep does it when nobody asks, so that the numbers on the page are right.
"""

import logging

from workers.runtime import Resources, job

log = logging.getLogger(__name__)


@job
async def run(resources: Resources) -> None:
    """Lapsed leases are free again."""
    reclaimed = await resources.store.leases.reclaim()
    if reclaimed:
        log.info("leases reclaimed", extra={"leases": reclaimed})
