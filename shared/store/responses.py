"""Stored responses: what was asked and what was answered, neutral, for 30 days.

Knows: one record per response, whose it is, how it moves on. Does not know: dialects (what one of
them wants to repeat is bytes to us), who runs a turn.

    queued → in_progress → completed | failed | cancelled      (whoever ends it first has ended it)

A record holds its own input only; what was said before stands in the records of its `history`. It
is compressed and sealed: conversations lie here for a month, and nothing but an id can be looked
up. An owner keeps `OWNER_BYTES`; beyond it the oldest give way.
"""

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from shared.chat.collect import Reply
from shared.chat.request import ChatRequest, Message
from shared.errors import GatewayError, NotFound
from shared.sealing import SealBroken, Sealer
from shared.store import keys
from shared.store.connection import Connection

TTL_SECONDS: Final = 30 * 86_400
OWNER_BYTES: Final = 256 * 1024**2
LARGEST_REQUEST_BYTES: Final = 4 * 1024**2
"""A request whose body is longer is answered and not kept."""

_READ_AT_ONCE: Final = 16
_TTL_MS: Final = TTL_SECONDS * 1000
# Beyond this packing goes to a thread: 1 MB takes about 10 ms.
_BLOCKING_BYTES: Final = 64 * 1024

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]

T = TypeVar("T")


class Failure(msgspec.Struct, frozen=True):
    """Why a turn failed, as its caller may hear it."""

    status: int
    code: str
    message: str


class Result(msgspec.Struct, frozen=True):
    """What became of it: the reply, or as much of it as there was before it failed."""

    reply: Reply | None = None
    failure: Failure | None = None

    @classmethod
    def failed(cls, reply: Reply, error: GatewayError) -> "Result":
        """Without the reply's calls: one of them may be half a call."""
        told = Failure(error.status, error.code, error.message)
        return cls(msgspec.structs.replace(reply, tool_calls=[]), told)


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response as it was asked for.

    `history` = the ids of the responses before it, the oldest first. `echo` = what its dialect
    repeats, as JSON. `model` = the name that was asked for.
    """

    id: str
    created: int
    model: str
    history: tuple[str, ...] = ()
    input: tuple[Message, ...] = ()
    echo: msgspec.Raw = msgspec.Raw(b"{}")
    owner: str = ""
    status: Status = "completed"
    result: Result = Result()

    @property
    def ended(self) -> bool:
        return self.status not in ("queued", "in_progress")


class Moved(msgspec.Struct, frozen=True):
    """Where a response stands now; `by_us`: it is this move that brought it there."""

    status: Status
    by_us: bool


class Responses:
    """The stored responses of the whole fleet."""

    def __init__(
        self, connection: Connection, sealer: Sealer, *, owner_bytes: int = OWNER_BYTES
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._owner_bytes = owner_bytes

    async def put(self, response: StoredResponse, *, work: ChatRequest | None = None) -> None:
        """It is kept for 30 days.

        Args:
            work: what a job process is to run for it.

        Script: response_put.lua
        """
        place = keys.response(response.id)
        asked = msgspec.structs.replace(response, owner="", status="completed", result=Result())
        # A dialect's own part of the request is for its writer: it lies in `echo`.
        todo = None if work is None else msgspec.structs.replace(work, given=None)
        await self._connection.run(
            "response_put",
            keys.RESPONSES,
            response.id,
            response.owner,
            response.status,
            await self._pack(asked, f"{place}#request"),
            await self._pack(response.result, f"{place}#result") if response.ended else b"",
            await self._pack(todo, f"{place}#work") if todo is not None else b"",
            _TTL_MS,
            self._owner_bytes,
        )

    async def get(self, response_id: str, *, reader: str | None) -> StoredResponse:
        """
        Args:
            reader: whose responses may be read; None = everybody's.

        Raises:
            NotFound: there is none, or it is somebody else's.

        Script: response_read.lua
        """
        [found] = await self._read([response_id])
        if found is None or reader not in (None, found.owner):
            raise NotFound(f"There is no response {response_id[:64]!r}")
        return found

    async def history_of(self, response: StoredResponse) -> list[StoredResponse]:
        """Everything that was said before and in it, the oldest first.

        Raises:
            NotFound: one of them was deleted, or its 30 days are over.
        """
        found: list[StoredResponse] = []
        for start in range(0, len(response.history), _READ_AT_ONCE):
            ids = response.history[start : start + _READ_AT_ONCE]
            for response_id, earlier in zip(ids, await self._read(ids), strict=True):
                if earlier is None:
                    raise NotFound(f"The response {response_id!r} before it isn't kept any more")
                found.append(earlier)
        return [*found, response]

    async def work_of(self, response_id: str) -> ChatRequest | None:
        """What is to be run for it; None when it has ended or isn't there. Same script as `get`."""
        [fields] = await self._fields("work", [response_id])
        if not fields or not fields[3]:
            return None
        place = f"{keys.response(response_id)}#work"
        return await self._unpack(fields[3], place, ChatRequest)

    async def begin(self, response_id: str) -> Moved | None:
        """It is in progress; None when there is none. Script: response_move.lua"""
        return await self._move(response_id, "in_progress", b"")

    async def end(self, response_id: str, status: Status, result: Result) -> Moved | None:
        """It has ended so, unless it had before; None when there is none (any more).

        Script: response_move.lua
        """
        packed = await self._pack(result, f"{keys.response(response_id)}#result")
        return await self._move(response_id, status, packed)

    async def delete(self, response_id: str) -> bool:
        """It is gone; whether it was there. Script: response_delete.lua"""
        return bool(await self._connection.run("response_delete", keys.RESPONSES, response_id))

    async def _move(self, response_id: str, status: Status, packed: bytes) -> Moved | None:
        reply = await self._connection.run(
            "response_move",
            keys.RESPONSES,
            response_id,
            status,
            packed,
            _TTL_MS,
            self._owner_bytes,
        )
        return Moved(reply[1], bool(reply[0])) if len(reply) > 1 else None

    async def _read(self, ids: Sequence[str]) -> list[StoredResponse | None]:
        return [
            await self._stored(response_id, fields) if fields else None
            for response_id, fields in zip(ids, await self._fields("result", ids), strict=True)
        ]

    async def _fields(
        self, field: Literal["result", "work"], ids: Iterable[str]
    ) -> list[list[bytes]]:
        reply: list[list[bytes]] = await self._connection.run_bytes(
            "response_read", keys.RESPONSES, field, *ids
        )
        return reply

    async def _stored(self, response_id: str, fields: list[bytes]) -> StoredResponse | None:
        """None too for one that was sealed with a key nobody has any more."""
        owner, status, request, result = fields
        place = keys.response(response_id)
        try:
            asked = await self._unpack(request, f"{place}#request", StoredResponse)
            ended = await self._unpack(result, f"{place}#result", Result) if result else Result()
        except SealBroken:
            return None
        return msgspec.structs.replace(
            asked, owner=owner.decode(), status=status.decode(), result=ended
        )

    async def _pack(self, value: object, place: str) -> bytes:
        plain = msgspec.json.encode(value)
        if len(plain) > _BLOCKING_BYTES:
            return await asyncio.to_thread(self._seal, plain, place)
        return self._seal(plain, place)

    async def _unpack(self, packed: bytes, place: str, kind: type[T]) -> T:
        if len(packed) > _BLOCKING_BYTES:
            return await asyncio.to_thread(self._unseal, packed, place, kind)
        return self._unseal(packed, place, kind)

    def _seal(self, plain: bytes, place: str) -> bytes:
        return self._sealer.seal_bytes(zlib.compress(plain, 1), place=place)

    def _unseal(self, packed: bytes, place: str, kind: type[T]) -> T:
        plain = zlib.decompress(self._sealer.unseal_bytes(packed, place=place))
        return msgspec.json.decode(plain, type=kind)
