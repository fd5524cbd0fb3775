"""The rotation of `SECRET_KEY`: everything that is sealed is sealed anew, while all goes on.

Every process reads what either key has sealed, and seals with the current one. So nothing waits for
this: it may be interrupted anywhere, run again, run twice. Every sealed value is a field of a hash,
and its place is `<record key>#<field>`: that is all that is known of it here.

Knows: where sealed values lie. Does not know: what they are.
"""

import asyncio
from typing import Final

import msgspec

from shared.sealing import SEALED_PREFIX, SealBroken, Sealer
from shared.store import keys
from shared.store.connection import Connection

# Tag and pattern of each family of records that holds something sealed.
_FAMILIES: Final = (
    (keys.API_KEYS, keys.fingerprint_keys()),
    (keys.SETTINGS, keys.settings()),
    (keys.POOL, f"{keys.account.prefix}*"),
    (keys.POOL, f"{keys.batch_inputs.prefix}*"),
    (keys.RESPONSES, f"{keys.response.prefix}*"),
)
_SCAN: Final = 500
_AT_ONCE: Final = 8


class Rotated(msgspec.Struct, frozen=True):
    """How many values were sealed anew, and how many could not be: their key is unknown."""

    sealed: int
    unreadable: int


class Rotation:
    """The rotation of the whole database."""

    def __init__(self, connection: Connection, sealer: Sealer) -> None:
        self._connection = connection
        self._sealer = sealer

    async def run(self) -> Rotated:
        """Nothing that was there when this began is sealed with the previous key any more.

        Script: sealed_records.lua
        """
        sealed = unreadable = 0
        for tag, pattern in _FAMILIES:
            cursor = "0"
            while True:
                cursor, *names = await self._connection.run(
                    "sealed_records", tag, cursor, pattern, _SCAN
                )
                for start in range(0, len(names), _AT_ONCE):
                    some = names[start : start + _AT_ONCE]
                    for one in await asyncio.gather(*map(self._record, some)):
                        sealed += one.sealed
                        unreadable += one.unreadable
                if cursor == "0":
                    break
        return Rotated(sealed, unreadable)

    async def _record(self, name: str) -> Rotated:
        """Scripts: sealed_before.lua, sealed_swap.lua"""
        sealed = unreadable = 0
        cursor = b"0"
        while True:
            cursor, *words = await self._connection.run_bytes(
                "sealed_before", name, cursor, SEALED_PREFIX, self._sealer.current_prefix
            )
            triples: list[bytes] = []
            for field, old in zip(words[::2], words[1::2], strict=True):
                try:
                    new = self._sealer.seal_anew(old, place=f"{name}#{field.decode()}")
                except SealBroken:
                    unreadable += 1
                else:
                    triples += field, old, new
            if triples:
                sealed += await self._connection.run("sealed_swap", name, *triples)
            if cursor == b"0":
                return Rotated(sealed, unreadable)
