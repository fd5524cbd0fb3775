"""What job processes counted: a metric's samples, added up in Redis until a scrape reads them.

Job processes come and go and have no page of their own; each hands on what it counted after every
job (`shared.metrics.take_counts`), whoever is scraped adds the sums (`PoolState.counts`).
"""

from collections.abc import Mapping

from shared.store import keys
from shared.store.connection import Connection


class Counts:
    """The sums of all job processes there ever were."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, counts: Mapping[str, float]) -> None:
        """Script: counts_add.lua"""
        if counts:
            pairs = [word for pair in counts.items() for word in pair]
            await self._connection.run("counts_add", keys.DUE, *pairs)

    async def read(self) -> dict[str, float]:
        reply = await self._connection.ask("counts", "HGETALL", keys.job_counts())
        return {sample: float(value) for sample, value in reply.items()}
