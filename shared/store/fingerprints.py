"""The keys that fingerprints are made with: kept, so that ids outlive a change of `SECRET_KEY`.

The id of an API key is its fingerprint, and everything a caller owns lies under that id; nobody
could make it anew, since the key itself is nowhere. So the first fingerprint key of a database
stays in use for good, sealed like every secret; those that came with a backup are recognised, too.

Knows: one hash. Does not know: what fingerprints are taken of.
"""

import base64
import hashlib
import logging
from collections.abc import Sequence

from shared.sealing import SealBroken, Sealer
from shared.store import keys
from shared.store.connection import Connection

log = logging.getLogger(__name__)


class FingerprintKeys:
    """Those of the whole fleet; the sealer of this process adopts them."""

    def __init__(self, connection: Connection, sealer: Sealer) -> None:
        self._connection = connection
        self._sealer = sealer

    async def load(self) -> None:
        """The sealer makes fingerprints as everybody else does.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        # After a restart with another SECRET_KEY ours is not the first; before, with a database
        # that has none yet, what this process has used so far goes on.
        await self.add(self._sealer.fingerprint_keys[:1])

    async def add(self, fingerprint_keys: Sequence[bytes]) -> None:
        """These are recognised, too, here at once, in every process within 2 s.

        Script: fingerprint_keys.lua
        """
        words = [word for key in fingerprint_keys for word in (_id(key), self._seal(key))]
        first, *pairs = await self._connection.run("fingerprint_keys", keys.API_KEYS, *words)
        known = dict(zip(pairs[::2], pairs[1::2], strict=True))
        del known["first"]
        order = [first, *sorted(known.keys() - {first})]
        self._sealer.adopt([key for name in order if (key := self._unseal(name, known[name]))])

    def _seal(self, key: bytes) -> str:
        return self._sealer.seal(base64.b64encode(key).decode(), place=_place(_id(key)))

    def _unseal(self, name: str, sealed: str) -> bytes | None:
        try:
            return base64.b64decode(self._sealer.unseal(sealed, place=_place(name)))
        except SealBroken as error:
            log.warning("a fingerprint key can't be read", extra={"error": str(error)})
            return None


def _id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]


def _place(name: str) -> str:
    return f"{keys.fingerprint_keys()}#{name}"
