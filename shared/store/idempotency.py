"""Idempotency keys: who runs a request, who waits for it, what was answered.

Knows: one record per owner and key. Does not know: what a request is; it gets a hash of the body
and an answer as bytes with its head.

    begin → Run        this process runs it; `complete` with the answer or `forget`
          → Running    another one does; ask again soon
          → Answer     the answer, again

A runner's right lapses unless `extend_all` is called (the store does, with the leases): when its
process dies the next one who asks runs it. 429 and 5xx answers and those over 4 MB are not kept.
"""

import hashlib
import secrets
from typing import Final

import msgspec

from shared.errors import Conflict
from shared.store import keys
from shared.store.connection import Connection

ANSWER_TTL_SECONDS: Final = 24 * 3600
LARGEST_ANSWER_BYTES: Final = 4 * 1024 * 1024
RUN_TTL_SECONDS: Final = 30.0


class Run(msgspec.Struct, frozen=True):
    """The right to run the request."""

    record: str
    token: str


class Running(msgspec.Struct, frozen=True):
    """Another one runs it; if it falls silent its right lapses after `milliseconds`."""

    milliseconds: int


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer as it was sent: status, headers worth repeating, the whole body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def is_kept(status: int) -> bool:
    """Whether an answer with this status would be the same when asked again."""
    return status != 429 and status < 500


class Idempotency:
    """The idempotency records, and the runs of this process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._running: dict[str, Run] = {}

    async def begin(self, owner: str, key: str, body_hash: str) -> Run | Running | Answer:
        """Says whether the caller runs the request, waits, or has its answer already.

        Args:
            owner: of the API key; the keys of two owners never meet.
            key: as the caller sent it.

        Raises:
            Conflict: the key was used with another body.
            StoreUnavailable: Redis did not answer; the request must not run.

        Script: idempotency_begin.lua
        """
        # A caller's key may be long and hold anything: only its hash names the record.
        name = keys.idempotent(owner, hashlib.sha256(key.encode()).hexdigest()[:32])
        token = secrets.token_hex(8)
        reply = await self._connection.run_bytes(
            "idempotency_begin", name, body_hash, token, int(RUN_TTL_SECONDS * 1000)
        )
        match reply:
            case [b"run"]:
                run = Run(name, token)
                self._running[token] = run
                return run
            case [b"wait", milliseconds]:
                return Running(milliseconds)
            case [b"answered", answer]:
                return msgspec.msgpack.decode(answer, type=Answer)
            case _:
                raise Conflict("This Idempotency-Key was used with another request body.")

    async def complete(self, run: Run, answer: Answer) -> bool:
        """The answer is kept for 24 h; 429, 5xx and answers over 4 MB are forgotten instead.

        Returns whether it was kept.
        """
        self._running.pop(run.token, None)
        packed = msgspec.msgpack.encode(answer)
        if not is_kept(answer.status) or len(answer.body) > LARGEST_ANSWER_BYTES:
            await self.forget(run)
            return False
        kept = await self._end(run, packed, ANSWER_TTL_SECONDS * 1000)
        return bool(kept)

    async def forget(self, run: Run) -> None:
        """The request may run again: it failed, or its client left before the end."""
        self._running.pop(run.token, None)
        await self._end(run, b"", 0)

    async def extend_all(self) -> None:
        """The runs of this process live on."""
        for run in list(self._running.values()):
            await self._end(run, b"", int(RUN_TTL_SECONDS * 1000))

    async def _end(self, run: Run, answer: bytes, ttl_ms: int) -> int:
        done: int = await self._connection.run(
            "idempotency_end", run.record, run.token, answer, ttl_ms
        )
        return done
