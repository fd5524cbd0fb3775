"""What one gateway process holds: opened once at start, closed once at the end, in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.requests import HTTPConnection

from gateway.accounting import Accounting
from gateway.auth import Gate
from gateway.drain import Drain
from gateway.responses import OpenAnswers
from shared import metrics
from shared.accounts import Accounts
from shared.catalogues import Catalogues
from shared.errors import GatewayError, StoreUnavailable
from shared.settings import Settings
from shared.store.store import Store
from shared.turns.run import Turns
from shared.upstream.client import Upstream

log = logging.getLogger(__name__)


class Resources:
    """One process's own. Fields are public; handlers take what they need."""

    def __init__(
        self, settings: Settings, *, drain_file: Path | None, metrics_directory: str | None
    ) -> None:
        self.metrics_directory = metrics_directory
        self.drain = Drain(drain_file)
        self.open_answers = OpenAnswers()
        self._returned = asyncio.Event()
        self.store = Store(settings, observe=metrics.observe_redis)
        self.upstream = Upstream(
            settings,
            current=lambda: self.settings,
            observe=metrics.observe_upstream,
        )
        self.gate = Gate(self.store)
        self.accounting = Accounting(self.store.ledger)
        self.accounts = Accounts(store=self.store, upstream=self.upstream)
        self.catalogues = Catalogues(
            store=self.store, accounts=self.accounts, upstream=self.upstream
        )
        self.turns = Turns(store=self.store, accounts=self.accounts, upstream=self.upstream)

    @property
    def settings(self) -> Settings:
        """Those in force now; one that begins something reads them once."""
        return self.store.settings.current

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open while the block lasts; afterwards every lease is back, every socket closed."""
        await self.store.open()
        # A Redis that kept nothing on disk comes back empty: then `ACCOUNTS` is added again.
        self.store.connection.on_return(self._returned.set)
        background = [
            asyncio.create_task(self.drain.watch(self.open_answers.end_all)),
            asyncio.create_task(self._prepare()),
        ]
        try:
            yield
        finally:
            await self.turns.close()
            await self.accounting.close()
            await self.catalogues.close()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.upstream.close()
            await self.store.close()

    async def metrics_state(self) -> metrics.PoolState | None:
        """What `/metrics` shows of the whole pool; None while Redis is away."""
        try:
            pool = await self.store.pool_state()
            steps = await self.store.due.counts()
            counts = await self.store.counts.read()
            lines = await self.store.batches.outcomes()
        except StoreUnavailable:
            return None
        return metrics.PoolState(
            accounts={str(state): count for state, count in pool.accounts.items()},
            leases_in_flight=pool.leases_in_flight,
            jobs=steps,
            counts={**counts, **metrics.counts_of("batch_lines_total", "outcome", lines)},
        )

    async def _prepare(self) -> None:
        """Whenever Redis begins to answer: take over `ACCOUNTS`, read the catalogue.

        So no caller waits for either.
        """
        told = False
        while True:
            try:
                await self.store.settings.look()
                if not told:
                    self.store.settings.tell_overridden()
                    told = True
                await self.accounts.add_from_environment()
                await self.catalogues.current()
            except GatewayError as error:
                log.info("not all prepared yet", extra={"error": error.message})
            await self._returned.wait()
            self._returned.clear()


def resources_of(connection: HTTPConnection) -> Resources:
    resources: Resources = connection.app.state.resources
    return resources
