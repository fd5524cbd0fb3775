"""Failures on the operator's pages: a page that says what is the matter and what to do.

Everything outside `/admin` has its dialect's error body instead (`gateway/errors.py`).
"""

import http
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.login import OVERVIEW, login_address, show_refusal
from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.errors import retry_after
from shared.errors import GatewayError, StoreUnavailable, Unauthorized


class ErrorPage(Page, frozen=True, kw_only=True):
    """`again`: Redis is away; the page says what goes on without it and opens this address soon."""

    status: int
    title: str
    message: str
    again: str


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
        again=_address_of(request) if isinstance(error, StoreUnavailable) else "",
    )
    return render("error", page, status=error.status, headers=retry_after(error))


def _ask_to_sign_in(request: Request) -> Response:
    if request.method in _READING:
        return lead_to(login_address(_address_of(request)))
    return show_refusal(Unauthorized("Your session has ended. Sign in, then do it once more."))


def _address_of(request: Request) -> str:
    """Where to look once more: what was read can be read again, what was posted is not repeated."""
    if request.method not in _READING:
        return OVERVIEW
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


_READING: Final = ("GET", "HEAD")
