"""Failures on the operator's pages: a page that says what is the matter and what to do.

Everything outside `/admin` has its dialect's error body instead (`gateway/errors.py`).
"""

import http

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.login import login_address, show_refusal
from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.errors import retry_after
from shared.errors import GatewayError, StoreUnavailable, Unauthorized


class ErrorPage(Page, frozen=True, kw_only=True):
    """`store_away`: the page explains what goes on without Redis, and looks again by itself."""

    status: int
    title: str
    message: str
    store_away: bool


def is_page(path: str) -> bool:
    return path == "/admin" or path.startswith("/admin/")


async def show_error(request: Request, error: GatewayError) -> Response:
    """Who isn't signed in is asked to; everybody else is told."""
    if isinstance(error, Unauthorized):
        return _ask_to_sign_in(request)
    page = ErrorPage(
        csrf_token=csrf_token_of(request),
        status=error.status,
        title=http.HTTPStatus(error.status).phrase,
        message=error.message,
        store_away=isinstance(error, StoreUnavailable),
    )
    return render("error", page, status=error.status, headers=retry_after(error))


def _ask_to_sign_in(request: Request) -> Response:
    """What was read can be read again afterwards; what was posted can't be posted again for him."""
    if request.method in ("GET", "HEAD"):
        query = f"?{request.url.query}" if request.url.query else ""
        return lead_to(login_address(request.url.path + query))
    return show_refusal(Unauthorized("Your session has ended. Sign in, then do it once more."))
