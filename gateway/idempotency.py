"""`Idempotency-Key`: the same request of the same caller runs once; its repeats get its answer.

Also while the first is still running, and when it is streamed. What is not kept (429, 5xx, by
status or in band, more than 4 MB, an answer whose client left) runs again.
"""

import asyncio
import hashlib
from typing import Any

from starlette.requests import Request
from starlette.types import Message

from shared.errors import BadRequest, GatewayError
from shared.store.api_keys import ApiKey
from shared.store.idempotency import LARGEST_ANSWER_BYTES, Answer, Idempotency, Run, is_kept

LONGEST_KEY = 255

# How often a repeat looks whether the first has ended.
LOOK_SECONDS = 0.2


class Once:
    """One request under its key: told by `begin` whether it runs, then records what is sent."""

    def __init__(self, records: Idempotency, *, owner: str, key: str, body_hash: str) -> None:
        self._records = records
        self._owner = owner
        self._key = key
        self._body_hash = body_hash
        self._run: Run | None = None
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._whole = False

    async def begin(self) -> Answer | None:
        """The first one's answer, waited for; None: this request is the first, and runs.

        Raises:
            Conflict: the key was used with another body.
            StoreUnavailable: Redis did not answer; the request must not run.
        """
        while True:
            found = await self._records.begin(self._owner, self._key, self._body_hash)
            if isinstance(found, Answer):
                return found
            if isinstance(found, Run):
                self._run = found
                return None
            await asyncio.sleep(LOOK_SECONDS)

    def note(self, message: Message) -> None:
        """Record a message that goes to the client; beyond 4 MB nothing is kept."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
            return
        self._size_bytes += len(message.get("body", b""))
        if self._size_bytes <= LARGEST_ANSWER_BYTES:
            self._pieces.append(message.get("body", b""))
        self._whole = not message.get("more_body")

    async def end(self, *, told_in_band: GatewayError | None = None) -> None:
        """Keep the answer for the repeats, or let one of them run.

        Args:
            told_in_band: why the answer failed after its headers; then its status counts.
        """
        if self._run is None:
            return
        failed = told_in_band is not None and not is_kept(told_in_band.status)
        if failed or not self._whole or self._size_bytes > LARGEST_ANSWER_BYTES:
            await self._records.forget(self._run)
            return
        answer = Answer(self._status, self._headers, b"".join(self._pieces))
        await self._records.complete(self._run, answer)


def once_of(request: Request, body: bytes, caller: ApiKey, records: Idempotency) -> Once | None:
    """None: the request has no key and may run as often as it is sent.

    Raises:
        BadRequest: a key that is empty or too long.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= LONGEST_KEY:
        raise BadRequest(
            f"Idempotency-Key: expected 1 to {LONGEST_KEY} characters", param="Idempotency-Key"
        )
    body_hash = hashlib.sha256(request.url.path.encode() + b"\0" + body).hexdigest()
    return Once(records, owner=caller.id, key=key, body_hash=body_hash)


def repeated(answer: Answer, *, started: bool) -> list[dict[str, Any]]:
    """The ASGI messages of a kept answer; `started`: the headers went out already."""
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    head: dict[str, Any] = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [*headers, (b"idempotent-replayed", b"true")],
    }
    said = answer.body
    if started and answer.status != 200:
        said = b"data: " + said + b"\n\n"  # comments went out while it waited: an event by now
    body: dict[str, Any] = {"type": "http.response.body", "body": said}
    return [body] if started else [head, body]
