"""What is read once and shared by all processes: the upstream's model list.

Knows: freshness, and that one process reads at a time. Does not know: what a model is, how to read.

The list itself is kept; only its freshness lapses. So the last list is served when a refresh fails,
and this process's copy of it when Redis is away.
"""

import secrets
from typing import Final

import msgspec

from shared.errors import StoreUnavailable
from shared.store import keys
from shared.store.connection import Connection

_CLAIM_TTL_SECONDS: Final = 30.0
_AFTER_FAILURE_SECONDS: Final = 5.0
# `MODELS_CACHE_TTL=0`, until restart: longer than any process lives; a start claims with `forced`.
_NEVER_STALE_SECONDS: Final = 365 * 86400.0
_FAILED: Final = b"failed"  # in place of a claim's token, see models_put.lua
_TAG: Final = keys.models()


class CachedModels(msgspec.Struct, frozen=True):
    """What everybody knows of the list.

    Attributes:
        body: the last list as it was stored, None when none ever was.
        fresh: it needs no refresh.
        failed: reading it anew failed a moment ago; nobody tries again yet.
    """

    body: bytes | None
    fresh: bool
    failed: bool = False


class Cache:
    """The shared model list."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: bytes | None = None

    async def models_get(self) -> CachedModels:
        """The list and whether it is fresh. Redis away: this process's last copy, not fresh.

        Raises:
            StoreUnavailable: Redis is away and this process never had a list.
        """
        try:
            body, fresh, claim = await self._connection.read_bytes(
                "models_get", "MGET", keys.models(), keys.models_fresh(), keys.models_claim()
            )
        except StoreUnavailable:
            if self._last is None:
                raise
            return CachedModels(self._last, fresh=False)
        self._last = body
        return CachedModels(body, fresh=fresh is not None, failed=claim == _FAILED)

    async def models_claim(self, *, forced: bool = False) -> str | None:
        """The right to read the list from the upstream, as a token for `models_put`.

        None: it is fresh (unless `forced`), another process reads it, or one failed a moment ago.

        Script: models_claim.lua
        """
        token = secrets.token_hex(8)
        claimed = await self._connection.run(
            "models_claim", _TAG, token, int(_CLAIM_TTL_SECONDS * 1000), "1" if forced else ""
        )
        return token if claimed else None

    async def models_put(self, claim: str, body: bytes, *, ttl_seconds: float) -> bool:
        """The list is everybody's and fresh for that long (0 = for good).

        Returns False, and writes nothing, when the claim had lapsed and another process has one.

        Script: models_put.lua
        """
        ttl_ms = int((ttl_seconds or _NEVER_STALE_SECONDS) * 1000)
        stored = await self._connection.run("models_put", _TAG, claim, body, ttl_ms)
        if stored:
            self._last = body
        return bool(stored)

    async def models_last_at_most(self, ttl_seconds: float) -> None:
        """The list needs a refresh after that long at the latest, however it was stored."""
        await self._connection.ask(
            "models_last", "PEXPIRE", keys.models_fresh(), int(ttl_seconds * 1000), "LT"
        )

    async def models_failed(self, claim: str) -> None:
        """The list could not be read: the old one stays, for 5 s nobody tries again."""
        await self._connection.run(
            "models_put", _TAG, claim, "", int(_AFTER_FAILURE_SECONDS * 1000)
        )
