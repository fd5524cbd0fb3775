"""The composition root of a gateway process: settings → resources, routes, handlers, lifespan."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from granian.utils.proxies import wrap_asgi_with_proxy_headers
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gateway.admin.errors import is_page, show_error
from gateway.drain import DRAIN_VARIABLE
from gateway.errors import handle_gateway_error
from gateway.middleware import RequestFrame
from gateway.resources import Resources
from gateway.routes import ROUTES
from shared.errors import GatewayError, MethodNotAllowed, NotFound
from shared.settings import Settings, load


def create_app() -> ASGIApp:
    """What granian asks for in each gateway process; configured by its environment alone."""
    environ = os.environ  # noqa: TID251  # a process's entry; gateway.__main__ hands on all it knows
    drain_file = environ.get(DRAIN_VARIABLE)
    return build_app(
        load(environ),
        drain_file=Path(drain_file) if drain_file else None,
        metrics_directory=environ.get("PROMETHEUS_MULTIPROC_DIR"),
    )


def build_app(
    settings: Settings, *, drain_file: Path | None = None, metrics_directory: str | None = None
) -> ASGIApp:
    """The ASGI application of one process."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        resources = Resources(settings, drain_file=drain_file, metrics_directory=metrics_directory)
        app.state.resources = resources
        async with resources.opened():
            yield

    app = Starlette(
        routes=ROUTES,
        lifespan=lifespan,
        middleware=_cors(settings),
        exception_handlers={
            GatewayError: _handle_gateway_error,
            HTTPException: _handle_http_exception,
            ClientDisconnect: _handle_client_left,
            Exception: _handle_unexpected,
        },
    )
    app.router.redirect_slashes = False
    return _believing_proxies(RequestFrame(app), settings)


def _believing_proxies(app: ASGIApp, settings: Settings) -> ASGIApp:
    """`X-Forwarded-For` and `-Proto` count, but only from `TRUSTED_PROXIES`."""
    if not settings.trusted_proxies:
        return app
    believing: ASGIApp = wrap_asgi_with_proxy_headers(app, settings.trusted_proxies)
    return believing


def _cors(settings: Settings) -> list[Middleware]:
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-gateway-model", "x-gateway-ignored", "retry-after"],
        )
    ]


async def _handle_gateway_error(request: Request, error: Exception) -> Response:
    """A page for whoever looks at pages, the dialect's error body for everybody else."""
    assert isinstance(error, GatewayError)  # noqa: S101 registered for this class only
    if is_page(request.url.path):
        return await show_error(request, error)
    return await handle_gateway_error(request, error)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in our shape."""
    assert isinstance(error, HTTPException)  # noqa: S101 registered for this class only
    ours: GatewayError = NotFound(f"There is nothing at {request.url.path}")
    if error.status_code == 405:
        ours = MethodNotAllowed(f"{request.url.path} does not take {request.method}")
    response = await _handle_gateway_error(request, ours)
    response.headers.update(error.headers or {})
    return response


async def _handle_client_left(request: Request, error: Exception) -> Response:
    """Nobody reads this answer; the log line says 499."""
    request.scope["client_left"] = True
    return Response(status_code=499)


async def _handle_unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: the caller gets our error shape, the log the traceback."""
    return await _handle_gateway_error(request, GatewayError())
