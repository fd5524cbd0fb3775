"""The model catalogue as the fleet shares it: read from the upstream once, kept in Redis.

A process holds the newest catalogue it has seen and looks into Redis every few seconds, in the
background; when the shared list has outlived `MODELS_CACHE_TTL`, one process of the fleet reads
the upstream again. A refresh that fails leaves the old list in use.
"""

import asyncio
import logging
import time

import msgspec

from shared.accounts import Accounts
from shared.chat.models import Catalogue, Variant
from shared.errors import GatewayError, NoAccount, NoCatalogue, StoreUnavailable
from shared.settings import Settings
from shared.store.store import Store
from shared.upstream.client import Upstream

log = logging.getLogger(__name__)

# How old this process's copy may be before it looks into Redis again, or as old as a list lives.
LOOK_AGAIN_SECONDS = 5

# How long a request waits for the very first list while another process reads it.
FIRST_LIST_SECONDS = 5


class Catalogues:
    """The current catalogue. One per process."""

    def __init__(self, *, store: Store, accounts: Accounts, upstream: Upstream) -> None:
        self._store = store
        self._accounts = accounts
        self._upstream = upstream
        self._current: Catalogue | None = None
        self._raw = b""
        self._looked_at = 0.0
        self._look: asyncio.Task[None] | None = None
        self._shortened: asyncio.Task[None] | None = None
        self._stood_in: set[str] = set()
        self._aliases_text = ""
        self._aliases: dict[str, str] = {}
        store.settings.on_change(self._note_new_ttl)

    async def current(self) -> Catalogue:
        """The newest list this process knows; waits only while the very first one is being read.

        Raises:
            NoCatalogue: it was never read yet and can't be read now.
        """
        if self._current is None:
            await self._first()
        else:
            self.known()
        assert self._current is not None  # noqa: S101 _first() raised otherwise
        return self._current

    def known(self) -> Catalogue | None:
        """The newest list this process knows, without waiting; None while there is none at all."""
        if time.monotonic() - self._looked_at > self._look_again_seconds():
            self._start_look()
        return self._current

    def resolve(self, catalogue: Catalogue, name: str) -> Variant:
        """The variant a request names. An alias whose target is missing is logged once.

        Raises:
            UnknownModel: nobody has that name.
        """
        variant = catalogue.resolve(name, self._current_aliases())
        missing = variant.standing_in_for
        if missing is not None and missing not in self._stood_in:
            self._stood_in.add(missing)
            log.warning(
                "alias target is not in the catalogue",
                extra={"target": missing, "used_instead": variant.model_id},
            )
        return variant

    async def close(self) -> None:
        tasks = [task for task in (self._look, self._shortened) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _settings(self) -> Settings:
        return self._store.settings.current

    def _look_again_seconds(self) -> float:
        return min(LOOK_AGAIN_SECONDS, self._settings.models_cache_ttl or LOOK_AGAIN_SECONDS)

    def _note_new_ttl(self, before: Settings, now: Settings) -> None:
        """A list that was stored under a longer life doesn't outlive the new one."""
        if now.models_cache_ttl and now.models_cache_ttl != before.models_cache_ttl:
            self._shortened = asyncio.create_task(self._shorten(now.models_cache_ttl))

    async def _shorten(self, ttl_seconds: float) -> None:
        try:
            await self._store.cache.models_last_at_most(ttl_seconds)
        except StoreUnavailable:
            log.info("the model list keeps the life it was stored with")

    def _current_aliases(self) -> dict[str, str]:
        text = self._settings.model_aliases
        if text != self._aliases_text:  # read once per change, not once per request
            self._aliases_text, self._aliases = text, self._settings.aliases
        return self._aliases

    async def _first(self) -> None:
        look = self._start_look()
        await asyncio.shield(asyncio.wait({look}))
        if self._current is None:
            error = look.exception() if not look.cancelled() else None
            if isinstance(error, StoreUnavailable):
                raise error
            reason = error.message if isinstance(error, GatewayError) else "tried a moment ago"
            raise NoCatalogue(f"The upstream's model list could not be read: {reason}") from error

    def _start_look(self) -> "asyncio.Task[None]":
        if self._look is None or self._look.done():
            self._looked_at = time.monotonic()
            self._look = asyncio.create_task(self._look_again())
            self._look.add_done_callback(_tell_failure)
        return self._look

    async def _look_again(self) -> None:
        """Take over the shared list; read the upstream when it is this process's turn."""
        cache = self._store.cache
        until_restart = self._settings.models_cache_ttl == 0
        forced = until_restart and self._current is None
        give_up_at = time.monotonic() + FIRST_LIST_SECONDS
        while True:
            shared = await cache.models_get()
            if shared.body is not None:
                self._take(shared.body)
                if shared.fresh and not forced:
                    return
            claim = await cache.models_claim(forced=forced)
            if claim is not None:
                return await self._refresh(claim)
            if self._current is not None or shared.failed or time.monotonic() > give_up_at:
                return  # another process reads it, or has failed a moment ago
            await asyncio.sleep(0.1)

    async def _refresh(self, claim: str) -> None:
        """Read the upstream's list under the claim and share it."""
        cache = self._store.cache
        try:
            raw = await self._read_upstream()
        except GatewayError:
            await cache.models_failed(claim)
            raise
        self._take(raw)
        await cache.models_put(claim, raw, ttl_seconds=self._settings.models_cache_ttl)

    async def _read_upstream(self) -> bytes:
        """Without a login first, as the site allows it; else with a lent account."""
        try:
            return msgspec.json.encode(await self._upstream.models(None))
        except GatewayError as error:
            try:
                return await self._read_with_account()
            except NoAccount:
                raise error from None

    async def _read_with_account(self) -> bytes:
        leases = self._store.leases
        lease = await leases.lend("chat", wait_seconds=FIRST_LIST_SECONDS)
        try:
            session = await self._accounts.session(lease)
            return msgspec.json.encode(await self._upstream.models(session))
        finally:
            await asyncio.shield(leases.release(lease))

    def _take(self, raw: bytes) -> None:
        if raw != self._raw:
            self._current = Catalogue.from_upstream(msgspec.json.decode(raw))
            self._raw = raw


def _tell_failure(look: "asyncio.Task[None]") -> None:
    """The old list stays in use; why it could not be read anew is said once per look."""
    if not look.cancelled() and (error := look.exception()) is not None:
        log.warning("model list was not refreshed", extra={"error": str(error)})
