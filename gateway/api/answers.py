"""What the files of the admin API share: JSON in, JSON out, the query's `limit`."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.bodies import read_body
from gateway.dialects.body import read_body as decode_body
from shared.errors import BadRequest

LARGEST_PAGE = 500
LARGEST_BODY_BYTES = 1_000_000

T = TypeVar("T")


def json_answer(document: object, *, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(document), status_code=status, media_type="application/json"
    )


async def read_json(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The request's body as the decoder's Struct.

    Raises:
        BadRequest: with `param` = path of the wrong field.
    """
    body = await read_body(request.scope, request.receive, max_bytes=LARGEST_BODY_BYTES)
    return decode_body(body or b"{}", decoder)


def limit_of(query: Mapping[str, str]) -> int:
    """`limit`: 1 to 500, 100 when it isn't given."""
    text = query.get("limit") or "100"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= LARGEST_PAGE:
        raise BadRequest(f"limit: expected 1 to {LARGEST_PAGE}", param="limit")
    return int(text)
