"""Limits: requests per minute of an API key, and the fleet's budget for further attempts.

Knows: two scripts and what happens when Redis is away. Does not know: who has which limit.

Away: a rate limit fails open (a caller must not be refused because we can't count), the retry
budget fails closed (in an outage nobody multiplies it).
"""

import asyncio
import logging
from typing import Final

import msgspec

from shared.errors import StoreUnavailable
from shared.store import keys
from shared.store.connection import Connection

log = logging.getLogger(__name__)

# Further attempts of a second that are never withheld (contract section 2).
FREE_ATTEMPTS_PER_SECOND: Final = 10
# Beyond those, this share of the first attempts of the last 10 s.
FURTHER_ATTEMPTS_PERCENT: Final = 20
_LOG_INTERVAL_SECONDS = 60.0


class Admission(msgspec.Struct, frozen=True):
    """Whether a request may begin, and what `x-ratelimit-*` and `Retry-After` say."""

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    retry_after_seconds: float


class Limits:
    """Rate limits of keys and of the fleet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.uncounted = 0
        self._logged_at = float("-inf")

    async def take(self, key_id: str, limit_per_minute: int) -> Admission:
        """One request of this key begins. A limit of N admits N at once, then refills evenly.

        No limit (0) costs no round trip. Redis away: admitted, counted in `uncounted`, logged once
        a minute.

        Script: rate_take.lua
        """
        limit = limit_per_minute
        if limit <= 0:
            return Admission(True, 0, 0, 0, 0)
        try:
            allowed, remaining, reset_us, retry_us = await self._connection.run(
                "rate_take", keys.rate(key_id), limit
            )
        except StoreUnavailable:
            self._note_uncounted()
            return Admission(True, limit, limit, 0, 0)
        return Admission(bool(allowed), limit, remaining, reset_us / 1e6, retry_us / 1e6)

    async def forgive(self, key_id: str) -> None:
        """What was taken for this key doesn't count; for who has proved himself. Away: it does."""
        try:
            await self._connection.ask("rate_forgive", "DEL", keys.rate(key_id))
        except StoreUnavailable:
            self._note_uncounted()

    async def may_try_again(self) -> bool:
        """Whether a turn may make a further attempt, so that an outage isn't multiplied.

        The first 10 of a second over the fleet always may; beyond those, a fifth of the first
        attempts of the last 10 s. Redis away: no.

        Script: retry_take.lua
        """
        try:
            allowed = await self._connection.run(
                "retry_take", keys.POOL, FREE_ATTEMPTS_PER_SECOND, FURTHER_ATTEMPTS_PERCENT
            )
        except StoreUnavailable:
            return False
        return bool(allowed)

    def _note_uncounted(self) -> None:
        self.uncounted += 1
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= _LOG_INTERVAL_SECONDS:
            self._logged_at = now
            log.warning("requests not counted", extra={"total": self.uncounted})
