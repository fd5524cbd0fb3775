"""Around every request: its id, its clock, its log line, its metrics. Pure ASGI.

What a request leaves for the log line it writes into its scope: `scope["story"]`, a dict;
`scope["failure"]` = the error it was told; `scope["caller"]` = whose key it showed.
"""

import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.accounting import Accounting
from gateway.resources import Resources
from shared import metrics
from shared.log import context, mask_email
from shared.turns.run import ChatTurn

log = logging.getLogger("gateway.access")

_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


class RequestFrame:
    """Gives each request `request_id`, `arrived_at`, `story` and `answer_headers` in its scope.

    `answer_headers`: header pairs (bytes) added to the answer whoever makes it, such as the
    caller's rate counters.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        scope["arrived_at"] = arrived_at = time.monotonic()
        story: dict[str, Any] = {}
        scope["story"] = story
        # The second is where Anthropic's SDKs look for it.
        told = request_id.encode()
        scope["answer_headers"] = extra = [(b"x-request-id", told), (b"request-id", told)]
        status = 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *extra]
            elif not message.get("more_body") and (accounting := _accounting_of(scope)):
                seconds = time.monotonic() - arrived_at
                await accounting.before_last_byte(
                    scope, route=route_of(scope), status=status, seconds=seconds
                )
            await send(message)

        with context(request_id=request_id):
            try:
                await self._app(scope, receive, send_framed)
            finally:
                seconds = time.monotonic() - arrived_at
                if accounting := _accounting_of(scope):
                    accounting.after(scope, route=route_of(scope), status=status, seconds=seconds)
                _tell(scope, story, status, seconds)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value, "ascii")
    return uuid.uuid4().hex


def _accounting_of(scope: Scope) -> Accounting | None:
    """None while the process is starting or stopping: it serves nobody then."""
    app = scope.get("app")
    resources: Resources | None = getattr(app.state, "resources", None) if app else None
    return None if resources is None else resources.accounting


def route_of(scope: Scope) -> str:
    """The path pattern of the route that matched: bounded, whatever paths clients invent."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else "other"


def _tell(scope: Scope, story: dict[str, Any], status: int, seconds: float) -> None:
    """One log line and the request's metrics. 499: the client left before an answer began."""
    route = route_of(scope)
    if scope.get("client_left") and not status:
        status = 499
    turn: ChatTurn | None = scope.get("turn")
    model = turn.variant.model_id if turn is not None else metrics.OTHER
    metrics.REQUESTS.of(route, model, str(status or 500)).inc()
    metrics.REQUEST_SECONDS.of().observe(seconds)
    if "overhead_seconds" in scope:
        metrics.OVERHEAD_SECONDS.of().observe(scope["overhead_seconds"])
    if turn is not None:
        story |= _story_of(turn, scope["arrived_at"])
    if "failure" in scope:
        story["error"] = scope["failure"].code
    if route in _QUIET and status < 400:
        return
    log.info(
        "request",
        extra={
            "route": route,
            "method": scope["method"],
            "status": status,
            "ms": round(seconds * 1000, 1),
            **story,
        },
    )


def _story_of(turn: ChatTurn, arrived_at: float) -> dict[str, Any]:
    """What the log says of a turn, and what the metrics count of it."""
    story: dict[str, Any] = {"model": turn.variant.model_id, "attempts": turn.attempts}
    if turn.account is not None:
        story["account"] = mask_email(turn.account)
    if turn.first_event_at is not None:
        first_token_seconds = turn.first_event_at - arrived_at
        metrics.FIRST_TOKEN_SECONDS.of(turn.variant.model_id).observe(first_token_seconds)
        story["first_token_ms"] = round(first_token_seconds * 1000, 1)
    if turn.usage is not None:
        metrics.TOKENS.of(turn.variant.model_id, "input").inc(turn.usage.input_tokens)
        metrics.TOKENS.of(turn.variant.model_id, "output").inc(turn.usage.output_tokens)
        story["input_tokens"] = turn.usage.input_tokens
        story["output_tokens"] = turn.usage.output_tokens
    if turn.error is not None:
        story["error"] = turn.error.code
    return story


_QUIET = {"/healthz", "/readyz", "/metrics"}
