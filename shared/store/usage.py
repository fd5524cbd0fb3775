"""Usage: requests and tokens summed by account, key and model for each UTC day. Reads only.

The sums are the ledger's (`ledger.py`); a day is gone when it is 90 days old.
"""

import datetime
from collections.abc import Sequence
from typing import Final

import msgspec

from shared.store import keys
from shared.store.connection import Connection
from shared.store.ledger import DAYS_KEPT, By

_EPOCH: Final = datetime.date(1970, 1, 1)
_READ_AT_ONCE: Final = 500


class Sums(msgspec.Struct, frozen=True):
    """What was used. An account counts attempts, a key and a model count requests."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    failures: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.failures + other.failures,
        )


class Usage:
    """The sums of the whole fleet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def today(self) -> datetime.date:
        """Redis' UTC day."""
        seconds, _ = await self._connection.ask("usage", "TIME")
        return _EPOCH + datetime.timedelta(days=int(seconds) // 86_400)

    async def of_day(self, by: By, day: datetime.date) -> dict[str, Sums]:
        """What each account, key (its id) or model used on that day, in alphabetical order."""
        found: dict[str, Sums] = {}
        cursor = "0"
        while True:
            # Ten thousand accounts in one reply would hold up this process's streams for 0.1 s.
            cursor, some = await self._connection.ask(
                "usage", "HSCAN", _sums_key(by, day), cursor, "COUNT", _READ_AT_ONCE
            )
            found |= {name: _sums(text) for name, text in some.items()}
            if int(cursor) == 0:
                return dict(sorted(found.items()))

    async def of_accounts(self, accounts: Sequence[str], day: datetime.date) -> list[Sums]:
        """What these accounts used on that day, in their order."""
        if not accounts:
            return []
        reply = await self._connection.ask("usage", "HMGET", _sums_key("account", day), *accounts)
        return [_sums(text) if text else Sums() for text in reply]

    async def key_names(self) -> dict[str, str]:
        """Key id → the name it had when it was last used, also of keys that are gone."""
        names: dict[str, str] = await self._connection.ask("usage", "HGETALL", keys.ledger_keys())
        return names


def oldest_day(today: datetime.date) -> datetime.date:
    """The first day that is still kept."""
    return today - datetime.timedelta(days=DAYS_KEPT - 1)


def _sums_key(by: By, day: datetime.date) -> str:
    return keys.ledger_sums(by, str((day - _EPOCH).days))


def _sums(text: str) -> Sums:
    return Sums(*map(int, text.split()))
