"""Reads request bodies with a bound: told while reading, before the rest has arrived."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from shared.errors import BadRequest, PayloadTooLarge

# A client that is still sending may not look for our answer: what it sends is taken and thrown
# away for this long, so that closing the connection does not destroy the 413 on its way.
DISCARD_SECONDS = 2.0


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        PayloadTooLarge: it is, or says it will be, longer than `max_bytes`.
        BadRequest: a Content-Length that is no number.
        ClientDisconnect: the client left before it had sent everything.
    """
    told = _content_length(scope)
    if told is not None and told > max_bytes:
        await _discard(receive)
        raise _too_large(max_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    pieces, size = [body], len(body)
    while message.get("more_body"):
        if size > max_bytes:
            await _discard(receive)
            raise _too_large(max_bytes)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
    if size > max_bytes:
        raise _too_large(max_bytes)
    return b"".join(pieces)


def _too_large(max_bytes: int) -> PayloadTooLarge:
    limit = f"{max_bytes // 1024**2} MB" if max_bytes >= 1024**2 else f"{max_bytes} bytes"
    return PayloadTooLarge(f"The request body is larger than {limit}")


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise BadRequest("Content-Length is not a number")
            return int(value)
    return None


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass
