"""Errors on their way out: `GatewayError` → status, headers and the dialect's error body.

Every answer that is no success is made here, so none is an HTML page, a stack trace or a secret.
(For a person in front of a page a page is right: those of `/admin` are `admin/errors.py`'s.)
"""

import math

from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects import DIALECTS, Dialect
from shared.errors import GatewayError

# Whose error shape an address speaks; everything else speaks OpenAI's.
DIALECT_OF_PREFIX = {"/v1/messages": "anthropic_messages"}


def retry_after(error: GatewayError) -> dict[str, str]:
    """`Retry-After` in whole seconds, rounded up: who obeys it must not come too early."""
    if error.retry_after_seconds is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(error.retry_after_seconds)))}


async def handle_gateway_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for everything in our tree."""
    assert isinstance(error, GatewayError)  # noqa: S101 registered for this class only
    request.scope["failure"] = error
    return Response(
        dialect_of(request.url.path).write_error(error, request.scope["request_id"]),
        status_code=error.status,
        headers=retry_after(error),
        media_type="application/json",
    )


def dialect_of(path: str) -> Dialect:
    for prefix, name in DIALECT_OF_PREFIX.items():
        if path.startswith(prefix):
            return DIALECTS[name]
    return DIALECTS["openai_chat"]
