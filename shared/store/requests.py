"""The request log: the newest records, and the newest uses of an account. Reads only.

The records are the ledger's (`ledger.py`). Times are epoch seconds, of the end of a request.
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from shared.store import keys
from shared.store.accounts import account_id
from shared.store.connection import Connection
from shared.store.ledger import Record, Use

_READ_AT_ONCE: Final = 1_000

_decode_record = msgspec.json.Decoder(Record).decode
_decode_use = msgspec.json.Decoder(Use).decode


class Logged(msgspec.Struct, frozen=True):
    """One record and when its request ended."""

    at: float
    record: Record


class PastUse(msgspec.Struct, frozen=True):
    """One use of an account and when its request ended."""

    at: float
    use: Use


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are asked for; None = whichever."""

    key_ids: frozenset[str] | None = None
    model: str | None = None
    status: int | None = None
    request_id: str | None = None

    def fits(self, record: Record) -> bool:
        return (
            (self.key_ids is None or record.key_id in self.key_ids)
            and (self.model is None or (record.model or "").lower() == self.model.lower())
            and self.status in (None, record.status)
            and self.request_id in (None, record.request_id)
        )


class Requests:
    """The log of the whole fleet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def newest(self, limit: int, wanted: Wanted | None = None) -> list[Logged]:
        """The newest records that are wanted, the newest first."""
        wanted = wanted or Wanted()
        found: list[Logged] = []
        async for logged in self._all(limit if wanted == Wanted() else _READ_AT_ONCE):
            if wanted.fits(logged.record):
                found.append(logged)
                if len(found) == limit:
                    break
        return found

    async def uses_of(self, email: str) -> list[PastUse]:
        """The account's newest uses, the newest first."""
        return await self._past(keys.ledger_uses(account_id(email)))

    async def errors_of(self, email: str) -> list[PastUse]:
        """Its newest uses that failed, the newest first."""
        return await self._past(keys.ledger_errors(account_id(email)))

    async def _all(self, at_once: int) -> AsyncIterator[Logged]:
        newest = "+"
        while True:
            rows = await self._connection.ask(
                "requests", "XREVRANGE", keys.ledger_requests(), newest, "-", "COUNT", at_once
            )
            for _, fields in rows:
                yield Logged(int(fields["at"]) / 1000, _decode_record(fields["record"]))
            if len(rows) < at_once:
                return
            newest = f"({rows[-1][0]}"

    async def _past(self, key: str) -> list[PastUse]:
        lines = await self._connection.ask("requests", "LRANGE", key, 0, -1)
        return [_past_use(line) for line in lines]


def _past_use(line: str) -> PastUse:
    at_ms, _, text = line.partition(" ")
    return PastUse(int(at_ms) / 1000, _decode_use(text))
