"""The store, put together: what one process holds of it, opened and closed once.

Knows: which part gets what from the settings. Does not know: who uses the parts.

    async with Store(settings) as store:
        lease = await store.leases.lend("chat", wait_seconds=30)
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import msgspec

from shared.errors import StoreUnavailable
from shared.sealing import Sealer
from shared.settings import Settings
from shared.store import api_keys, keys
from shared.store.accounts import STATES, Accounts, State
from shared.store.allowances import ALLOWANCE_TTL_SECONDS, Allowances
from shared.store.api_keys import ApiKeys
from shared.store.batches import Batches
from shared.store.cache import Cache
from shared.store.connection import Connection, Observe, observe_nothing
from shared.store.counts import Counts
from shared.store.due import Due
from shared.store.explanations import Explanations
from shared.store.idempotency import RUN_TTL_SECONDS, Idempotency
from shared.store.leases import Leases
from shared.store.ledger import FLUSH_SECONDS, Ledger
from shared.store.limits import Limits
from shared.store.logins import Logins
from shared.store.requests import Requests
from shared.store.responses import Responses
from shared.store.settings import WATCH_SECONDS, SettingsInForce
from shared.store.usage import Usage

log = logging.getLogger(__name__)

SCHEMA: Final = 1


class SchemaTooNew(RuntimeError):
    """The data in Redis was written by a newer version of the gateway."""


class PoolState(msgspec.Struct, frozen=True):
    """The pool in numbers. Usable: enabled, not dead; it may be busy or cooling."""

    accounts: dict[State, int]
    leases_in_flight: int

    @property
    def any_usable(self) -> bool:
        return any(self.accounts[state] for state in ("new", "ready", "cooling"))


class Store:
    """Every part of the store for one process."""

    def __init__(self, settings: Settings, *, observe: Observe = observe_nothing) -> None:
        self.connection = Connection(settings.redis_url, observe=observe)
        self.sealer = Sealer(settings.secret_key, settings.secret_key_previous)
        self.settings = SettingsInForce(self.connection, self.sealer, settings)
        self.accounts = Accounts(self.connection, self.sealer, settings=self.settings)
        self.leases = Leases(
            self.connection,
            self.sealer,
            settings=self.settings,
            ttl_seconds=settings.lease_ttl_seconds,
        )
        self.logins = Logins(self.connection, self.sealer, settings=self.settings)
        self.api_keys = ApiKeys(self.connection, self.sealer, configured=settings.api_keys)
        self.limits = Limits(self.connection)
        self.allowances = Allowances(self.connection)
        self.cache = Cache(self.connection)
        self.idempotency = Idempotency(self.connection)
        self.responses = Responses(self.connection, self.sealer)
        self.batches = Batches(
            self.connection, self.sealer, accounts=self.accounts, settings=self.settings
        )
        self.due = Due(self.connection)
        self.counts = Counts(self.connection)
        self.ledger = Ledger(self.connection)
        self.usage = Usage(self.connection)
        self.requests = Requests(self.connection)
        self.explanations = Explanations(self.connection, settings=self.settings)
        self._lease_seconds = settings.lease_ttl_seconds / 3
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Stored settings are in force, leases are kept alive from now on.

        Redis may be away: then everything answers 503.

        Raises:
            SchemaTooNew: a newer gateway has written this database.
        """
        try:
            await self._check_schema()
            await self.settings.load()
            await self.api_keys.load()
        except StoreUnavailable:
            log.warning("store away at start")
        self.connection.on_return(self._check_schema_later)
        self._tasks = [
            _repeat("leases", self._lease_seconds, self.leases.extend_all),
            _repeat("runs", RUN_TTL_SECONDS / 3, self.idempotency.extend_all),
            _repeat("api keys", api_keys.WATCH_SECONDS, self.api_keys.look),
            _repeat("settings", WATCH_SECONDS, self.settings.look),
            _repeat("allowances", ALLOWANCE_TTL_SECONDS / 3, self.allowances.extend_all),
            _repeat("ledger", FLUSH_SECONDS, self.ledger.flush),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.ledger.close()
        await self.leases.close()
        await self.logins.close()
        await self.connection.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def ping(self) -> None:
        """
        Raises:
            StoreUnavailable: Redis does not answer.
        """
        await self.connection.ask("ping", "PING")

    async def pool_state(self) -> PoolState:
        """The pool in numbers, in one round trip of O(log n).

        Script: pool_state.lua
        """
        *counts, in_flight = await self.connection.run("pool_state", keys.POOL)
        return PoolState(dict(zip(STATES, counts, strict=True)), in_flight)

    def _check_schema_later(self) -> None:
        """What has come back may be empty, or another database than the one that went."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._check_what_came_back(), name="store schema"))

    async def _check_what_came_back(self) -> None:
        try:
            await self._check_schema()
            await self.api_keys.load()
        except SchemaTooNew:
            log.exception("the store came back newer than this gateway")
        except StoreUnavailable:
            log.debug("store away again")

    async def _check_schema(self) -> None:
        await self.connection.ask("schema", "SET", keys.schema(), SCHEMA, "NX")
        found = int(await self.connection.ask("schema", "GET", keys.schema()))
        if found > SCHEMA:
            raise SchemaTooNew(
                f"the database has layout {found}, this gateway knows {SCHEMA}: start a newer one"
            )


def _repeat(name: str, seconds: float, step: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
    """A task that does `step` every so often until it is cancelled, whatever becomes of a step."""

    async def forever() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except StoreUnavailable:
                log.debug("not kept up: store away", extra={"what": name})
            except Exception:
                # Leases must not lapse under running streams because one step had a bug.
                log.exception("not kept up", extra={"what": name})

    return asyncio.create_task(forever(), name=f"store {name}")
