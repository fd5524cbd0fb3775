"""Live, ready, metrics, and whether a key is good."""

import hmac

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth import bearer_of
from gateway.bodies import read_body
from gateway.resources import resources_of
from shared import metrics
from shared.errors import BadRequest, StoreUnavailable, Unauthorized


async def live(request: Request) -> Response:
    """`GET /healthz`: this process answers."""
    return _json({"status": "ok"})


async def ready(request: Request) -> Response:
    """`GET /readyz`: 200 `{"status": "ready", "accounts_usable": bool}`, else 503 and why."""
    resources = resources_of(request)
    try:
        usable = (await resources.store.pool_state()).any_usable
    except StoreUnavailable:
        return _json({"status": "store_unavailable", "accounts_usable": False}, status=503)
    if resources.drain.began:
        return _json({"status": "draining", "accounts_usable": usable}, status=503)
    return _json({"status": "ready", "accounts_usable": usable})


async def show_metrics(request: Request) -> Response:
    """`GET /metrics`: all processes of this host summed, pool-wide state read now."""
    resources = resources_of(request)
    token = resources.settings.metrics_token
    if token and not hmac.compare_digest((bearer_of(request.scope) or "").encode(), token.encode()):
        raise Unauthorized("/metrics wants its own bearer token")
    page = metrics.render(await resources.metrics_state(), directory=resources.metrics_directory)
    return Response(page, media_type=metrics.CONTENT_TYPE)


class _Verify(msgspec.Struct):
    api_key: str = msgspec.field(name="apiKey")


async def verify(request: Request) -> Response:
    """`POST /verify` `{"apiKey"}` → `{"status": 200, "isAdmin": bool}` or 401."""
    resources = resources_of(request)
    body = await read_body(request.scope, request.receive, max_bytes=10_000)
    try:
        asked = msgspec.json.decode(body, type=_Verify)
    except msgspec.DecodeError as error:
        raise BadRequest('expected {"apiKey": "sk-…"}', param="apiKey") from error
    caller = await resources.store.api_keys.find(asked.api_key)
    return _json({"status": 200, "isAdmin": caller.admin})


def _json(document: object, *, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(document), status_code=status, media_type="application/json"
    )
