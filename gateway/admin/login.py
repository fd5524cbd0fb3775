"""Signing in with the admin key, and out again."""

import ipaddress
import logging
import urllib.parse
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.forms import read_form
from gateway.admin.rendering import Page, lead_to, render
from gateway.errors import retry_after
from gateway.resources import Resources, resources_of
from shared import metrics
from shared.errors import GatewayError, RateLimited, StoreUnavailable, Unauthorized

log = logging.getLogger(__name__)

OVERVIEW: Final = "/admin/"
ATTEMPTS_PER_MINUTE: Final = 10


class LoginPage(Page, frozen=True, kw_only=True):
    """`message`: why nobody is signed in yet; empty at first."""

    message: str = ""


async def show_form(request: Request) -> Response:
    """`GET /admin/login?next=`."""
    return render("login", LoginPage())


async def sign_in(request: Request) -> Response:
    """`POST /admin/login`: a session and the page that was asked for, or the form once more.

    401 a wrong key, 403 a regular one, 429 too many attempts from one address. A right key takes
    back what the attempts before it counted.
    """
    resources = resources_of(request)
    key = (await read_form(request)).get("key", "")
    counter = f"login:{network_of(request.client.host if request.client else '')}"
    admission = await resources.store.limits.take(counter, ATTEMPTS_PER_MINUTE)
    if not admission.allowed:
        metrics.RATE_LIMITED.of("login").inc()
        return show_refusal(
            RateLimited(
                "Too many attempts from your address. Wait a minute, then try again.",
                retry_after_seconds=admission.retry_after_seconds,
            )
        )
    sessions = resources.gate.sessions
    if not sessions.is_admin_key(key):
        log.warning("sign-in refused")
        return await _refuse(resources, key)
    await resources.store.limits.forgive(counter)
    response = lead_to(_way_back(request.query_params.get("next", "")))
    sessions.open(request, response)
    log.info("signed in")
    return response


async def sign_out(request: Request) -> Response:
    """`POST /admin/logout`."""
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    response = lead_to("/admin/login")
    resources.gate.sessions.end(request, response)
    return response


def show_refusal(error: GatewayError) -> Response:
    """The form with the reason above it."""
    page = LoginPage(message=error.message)
    return render("login", page, status=error.status, headers=retry_after(error))


def login_address(wanted: str) -> str:
    """Where to sign in, to come back to `wanted` (path and query) afterwards."""
    return f"/admin/login?next={urllib.parse.quote(wanted, safe='/')}"


def network_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, an IPv6 /64 (a household owns a whole one)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


async def _refuse(resources: Resources, key: str) -> Response:
    try:
        await resources.store.api_keys.find(key)
    except (Unauthorized, StoreUnavailable):
        return render("login", LoginPage(message="That is not the admin key."), status=401)
    message = "That is a regular API key. These pages want the admin key: the first of API_KEY."
    return render("login", LoginPage(message=message), status=403)


def _way_back(wanted: str) -> str:
    """Only to a page of ours: an address that begins so can't lead to another host."""
    return wanted if wanted.startswith(OVERVIEW) else OVERVIEW
