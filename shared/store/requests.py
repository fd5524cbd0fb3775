"""The request log: the newest records, and the newest uses of an account. Reads only.

The records are the ledger's (`ledger.py`). Times are epoch seconds, of the end of a request.
"""

from typing import Final

import msgspec

from shared.store import keys
from shared.store.accounts import account_id
from shared.store.connection import Connection
from shared.store.ledger import Record, Use

_LOOK_AT: Final = 500

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

    def texts(self) -> list[list[str]]:
        """What a record has written in it that is wanted: one text of each list."""
        given = [
            ("key_id", self.key_ids),
            ("model", None if self.model is None else {self.model}),
            ("status", None if self.status is None else {self.status}),
            ("request_id", None if self.request_id is None else {self.request_id}),
        ]
        return [
            [msgspec.json.encode({name: value}).decode()[1:-1] for value in values]
            for name, values in given
            if values is not None
        ]


class Requests:
    """The log of the whole fleet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def newest(self, limit: int, wanted: Wanted | None = None) -> list[Logged]:
        """The newest records that are wanted, the newest first.

        Script: requests_find.lua, once per 500 records looked at: one call must not hold Redis up
        """
        texts = msgspec.json.encode((wanted or Wanted()).texts())
        found: list[Logged] = []
        newest = "+"
        while len(found) < limit:
            last, *rows = await self._connection.run(
                "requests_find", keys.LEDGER, newest, _LOOK_AT, limit - len(found), texts
            )
            found += [
                Logged(int(at) / 1000, _decode_record(record))
                for at, record in zip(rows[::2], rows[1::2], strict=True)
            ]
            if not last:
                break
            newest = f"({last}"
        return found

    async def uses_of(self, email: str) -> list[PastUse]:
        """The account's newest uses, the newest first."""
        return await self._past(keys.ledger_uses(account_id(email)))

    async def errors_of(self, email: str) -> list[PastUse]:
        """Its newest uses that failed, the newest first."""
        return await self._past(keys.ledger_errors(account_id(email)))

    async def _past(self, key: str) -> list[PastUse]:
        lines = await self._connection.ask("requests", "LRANGE", key, 0, -1)
        return [_past_use(line) for line in lines]


def _past_use(line: str) -> PastUse:
    at_ms, _, text = line.partition(" ")
    return PastUse(int(at_ms) / 1000, _decode_use(text))
