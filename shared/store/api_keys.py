"""API keys: those of `API_KEY`, which never need Redis, and those an operator creates.

Knows: who a key belongs to, its limits, whether it still holds. Does not know: HTTP, enforcing.

A key is never stored: its id is an HMAC of it, and the record lies under that id. The id is also
the owner of everything that belongs to a caller, so reordering `API_KEY` moves nothing.
Processes cache what they looked up; a version in Redis that grows with every change, read once a
second, makes them forget it.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from shared.errors import Conflict, Forbidden, NotFound, Unauthorized
from shared.sealing import Sealer
from shared.store import keys
from shared.store.connection import Connection
from shared.store.fingerprints import FingerprintKeys

_TAG: Final = keys.api_keys()
WATCH_SECONDS: Final = 1.0
_USED_INTERVAL_SECONDS = 60.0
_CACHED_AT_MOST = 10_000
_READ_AT_ONCE = 500
_ID_CHARACTERS = 32


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key without the key: `prefix` is what is shown of it. Times are epoch seconds.

    `configured`: it is one of `API_KEY`: it always holds, and only the environment changes it.
    """

    id: str
    name: str
    prefix: str = ""
    admin: bool = False
    configured: bool = False
    rate_limit_per_minute: int | None = None
    daily_token_budget: int | None = None
    max_streams: int | None = None
    models: list[str] | None = None
    created_at: int = 0
    expires_at: float | None = None
    last_used_at: int | None = None


class NewApiKey(msgspec.Struct, frozen=True):
    """A created key; `key` in clear is here and nowhere else, ever."""

    record: ApiKey
    key: str

    def __repr__(self) -> str:
        return f"NewApiKey({self.record.id})"


class ApiKeyChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What a change may set; what isn't given stays, None takes a limit away."""

    name: str | UnsetType = UNSET
    rate_limit_per_minute: int | UnsetType | None = UNSET
    daily_token_budget: int | UnsetType | None = UNSET
    max_streams: int | UnsetType | None = UNSET
    models: list[str] | UnsetType | None = UNSET
    expires_at: float | UnsetType | None = UNSET


class ApiKeys:
    """The keys as one process sees them."""

    def __init__(
        self, connection: Connection, sealer: Sealer, *, configured: Sequence[str] = ()
    ) -> None:
        """`configured`: the keys of `API_KEY`, the admin key first."""
        self._connection = connection
        self._sealer = sealer
        self._fingerprint_keys = FingerprintKeys(connection, sealer)
        self._given = tuple(configured)
        self._configured = self._read_given()
        self._cached: dict[str, ApiKey] = {}
        self._version: str | None = None
        self._forgotten = 0  # grows whenever the cache is emptied
        self._ahead = 0.0  # Redis' clock less this process's
        self._used_at: dict[str, float] = {}
        self._used: set[str] = set()

    async def find(self, key: str) -> ApiKey:
        """Whose key this is.

        Raises:
            Unauthorized: nobody's, or it has expired.
            StoreUnavailable: it isn't one of `API_KEY`, not cached, and Redis is away.

        Script: api_key_find.lua, once per key and change
        """
        ids = self._ids(key)
        configured = self._configured.get(ids[0])
        if configured is not None:
            self._note_use(configured.id)
            return configured
        found = self._cached.get(ids[0]) or await self._look_up(ids)
        if found.expires_at is not None and found.expires_at <= self._now():
            raise Unauthorized("This API key has expired.")
        self._note_use(found.id)
        return found

    async def create(
        self,
        name: str,
        *,
        rate_limit_per_minute: int | None = None,
        daily_token_budget: int | None = None,
        max_streams: int | None = None,
        models: list[str] | None = None,
        expires_at: float | None = None,
    ) -> NewApiKey:
        """There is a new key, valid at once everywhere."""
        key = "sk-" + secrets.token_urlsafe(32)
        key_id = self._ids(key)[0]
        now, _ = await self._read([key_id])
        record = ApiKey(
            id=key_id,
            name=name,
            prefix=key[:10],
            rate_limit_per_minute=rate_limit_per_minute,
            daily_token_budget=daily_token_budget,
            max_streams=max_streams,
            models=models,
            created_at=now,
            expires_at=expires_at,
        )
        await self._write(key_id, expected="", record=_encode(record))
        return NewApiKey(record, key)

    async def adopt(self, key: str, name: str) -> bool:
        """A key that callers have already holds here, too; False when it did before."""
        ids = self._ids(key)
        now, texts = await self._read(ids)
        if ids[0] in self._configured or any(text is not None for text in texts):
            return False
        record = ApiKey(id=ids[0], name=name, prefix=key[:6], created_at=now)
        return await self._write(ids[0], expected="", record=_encode(record))

    async def all(self) -> list[ApiKey]:
        """Those of `API_KEY` as they stand there, then the created ones, oldest first."""
        configured = sorted(self._configured.values(), key=lambda key: _number(key.name))
        records = await self._connection.ask("api_keys", "HGETALL", keys.api_keys())
        created = sorted(
            (_decode(text) for text in records.values()),
            key=lambda key: (key.created_at, key.name, key.id),
        )
        used = await self._connection.ask("api_keys", "HGETALL", keys.api_key_used())
        return [
            msgspec.structs.replace(key, last_used_at=int(used[key.id]) if key.id in used else None)
            for key in (*configured, *created)
        ]

    async def created(self) -> list[ApiKey]:
        """Without those of `API_KEY`."""
        return [key for key in await self.all() if not key.configured]

    async def known(self, key_id: str) -> ApiKey | None:
        """The key with this id, also one of `API_KEY`; None when it is gone."""
        if key_id in self._configured:
            return self._configured[key_id]
        _, [text] = await self._read([key_id])
        return None if text is None else _decode(text)

    async def get(self, key_id: str) -> ApiKey:
        """
        Raises:
            NotFound: there is none.
        """
        _, [text] = await self._read([key_id])
        if text is None:
            raise NotFound("There is no such API key.")
        used = await self._connection.ask("api_keys", "HGET", keys.api_key_used(), key_id)
        return msgspec.structs.replace(_decode(text), last_used_at=int(used) if used else None)

    async def change(self, key_id: str, changes: ApiKeyChanges) -> ApiKey:
        """In force here at once, in every process within 2 s.

        Raises:
            NotFound: there is none.
            Forbidden: it is one of `API_KEY`.
            Conflict: somebody else changes it all the time.
        """
        self._require_created(key_id)
        given = {
            name: value
            for name in changes.__struct_fields__
            if (value := getattr(changes, name)) is not UNSET
        }
        for _ in range(5):
            _, [text] = await self._read([key_id])
            if text is None:
                raise NotFound("There is no such API key.")
            record = msgspec.structs.replace(_decode(text), **given)
            if await self._write(key_id, expected=text, record=_encode(record)):
                return record
        raise Conflict("This API key is being changed by somebody else.")

    async def delete(self, key_id: str) -> None:
        """It no longer holds: here at once, in every process within 2 s.

        Raises:
            NotFound: there was none.
            Forbidden: it is one of `API_KEY`.
        """
        self._require_created(key_id)
        for _ in range(5):
            _, [text] = await self._read([key_id])
            if text is None:
                raise NotFound("There is no such API key.")
            if await self._write(key_id, expected=text, record=""):
                return
        raise Conflict("This API key is being changed by somebody else.")

    async def load(self) -> None:
        """Ids are made as everybody else makes them.

        Raises:
            StoreUnavailable: Redis did not answer; `look` makes up for it.
        """
        await self._fingerprint_keys.load()
        self._configured = self._read_given()
        self._forget()

    async def put_back(
        self, records: Sequence[ApiKey], *, fingerprint_keys: Sequence[bytes]
    ) -> int:
        """Keys out of a backup hold again, those that are here stay; returns how many came back.

        Args:
            fingerprint_keys: what their ids were made with.
        """
        await self._fingerprint_keys.add([*self._sealer.fingerprint_keys, *fingerprint_keys])
        put_back = 0
        for record in records:
            put_back += await self._write(record.id, expected="", record=_encode(record))
        return put_back

    async def look(self) -> None:
        """Learns of changes, writes down which keys were used. The open store does it each second.

        After a change the keys that were known are read anew: whoever was known before an outage of
        Redis is known in it, too, whichever other key was changed just before.

        Scripts: api_key_watch.lua, api_key_find.lua
        """
        used = list(self._used)
        words = [f"{key_id}+" if key_id in self._configured else key_id for key_id in used]
        version, seconds = await self._connection.run("api_key_watch", _TAG, *words)
        self._used.difference_update(used)
        self._learn_time(seconds)
        if version != self._version:
            known = dict(self._cached)
            await self.load()
            self._version = version
            await self._read_anew(known)

    async def _read_anew(self, known: dict[str, ApiKey]) -> None:
        places = list(known)
        for at in range(0, len(places), _READ_AT_ONCE):
            forgotten = self._forgotten
            some = places[at : at + _READ_AT_ONCE]
            _, texts = await self._read([known[place].id for place in some])
            if forgotten != self._forgotten:
                return  # changed again meanwhile
            self._cached |= {
                place: _decode(text) for place, text in zip(some, texts, strict=True) if text
            }

    def _require_created(self, key_id: str) -> None:
        if key_id in self._configured:
            raise Forbidden(
                f"{self._configured[key_id].name} comes from the environment: "
                "only API_KEY itself can change or remove it"
            )

    async def _look_up(self, ids: list[str]) -> ApiKey:
        forgotten = self._forgotten
        _, texts = await self._read(ids)
        text = next((text for text in texts if text is not None), None)
        if text is None:
            raise Unauthorized("This API key is not valid.")
        found = _decode(text)
        # What was read before a change became known must not be cached after it.
        if forgotten == self._forgotten and len(self._cached) < _CACHED_AT_MOST:
            self._cached[ids[0]] = found
        return found

    async def _read(self, ids: Sequence[str]) -> tuple[int, list[str | None]]:
        """Redis' time in seconds, and the records as text."""
        seconds, *texts = await self._connection.run("api_key_find", _TAG, *ids)
        self._learn_time(seconds)
        return int(seconds), texts

    async def _write(self, key_id: str, *, expected: str, record: str) -> bool:
        written = await self._connection.run("api_key_put", _TAG, key_id, expected, record)
        self._cached = {place: key for place, key in self._cached.items() if key.id != key_id}
        self._forgotten += 1
        return bool(written)

    def _read_given(self) -> dict[str, ApiKey]:
        """The keys of `API_KEY` by their ids; of one that stands there twice the first."""
        return {
            self._ids(key)[0]: ApiKey(
                id=self._ids(key)[0],
                name=f"API_KEY {number}",
                prefix=key[:6],
                admin=number == 1,
                configured=True,
            )
            for number, key in reversed(list(enumerate(self._given, start=1)))
        }

    def _ids(self, key: str) -> list[str]:
        """The id of a key, and those it may have by other fingerprint keys."""
        prints = self._sealer.fingerprints(key, purpose="api key")
        return [text[:_ID_CHARACTERS] for text in prints]

    def _forget(self) -> None:
        self._cached.clear()
        self._forgotten += 1

    def _learn_time(self, seconds: str) -> None:
        self._ahead = float(seconds) - asyncio.get_running_loop().time()

    def _now(self) -> float:
        """Redis' time; the clocks of processes never meet."""
        return asyncio.get_running_loop().time() + self._ahead

    def _note_use(self, key_id: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._used_at.get(key_id, float("-inf")) >= _USED_INTERVAL_SECONDS:
            self._used_at[key_id] = now
            self._used.add(key_id)


def _number(name: str) -> int:
    """`API_KEY 2` → 2"""
    return int(name.rpartition(" ")[2])


def _encode(record: ApiKey) -> str:
    return msgspec.json.encode(record).decode()


def _decode(text: str) -> ApiKey:
    return msgspec.json.decode(text, type=ApiKey)
