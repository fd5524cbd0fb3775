"""POST: change one thing with the verbs of the admin API, then show what came of it."""

import time
import urllib.parse
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.forms import read_form
from gateway.admin.pages import AccountForm, KeyForm, gather_accounts, gather_keys, redacted
from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.api import accounts
from gateway.api.accounts import NEW_ACCOUNT
from gateway.api.keys import NEW_KEY, NewKey, create
from gateway.dialects.body import read_body as decode_body
from gateway.errors import retry_after
from gateway.resources import Resources, resources_of
from shared.errors import (
    BadRequest,
    Conflict,
    GatewayError,
    LoginRefused,
    NotFound,
    UpstreamError,
)

_DAY_SECONDS: Final = 86_400


class KeyCreatedPage(Page, frozen=True, kw_only=True):
    """The one page that ever shows `key` in clear."""

    name: str
    key: str
    base_url: str


async def create_key(request: Request) -> Response:
    """`POST /admin/keys`: 201 with the key, or 400 and the form as it was filled in.

    No redirect afterwards: the key would have to lie somewhere in between.
    """
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    given = msgspec.convert(form, KeyForm)
    try:
        created = await create(resources.store.api_keys, _read_new_key(given))
    except BadRequest as error:
        page = await gather_keys(request, message=error.message, given=given)
        return render("keys", page, status=400)
    shown = KeyCreatedPage(
        csrf_token=csrf_token_of(request),
        name=created.record.name,
        key=created.key,
        base_url=f"{str(request.base_url).rstrip('/')}/v1",
    )
    return render("key_created", shown, status=201)


async def delete_key(request: Request) -> Response:
    """`POST /admin/keys/{id}/delete`; one that is gone already is what was wanted."""
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    try:
        await resources.store.api_keys.delete(request.path_params["id"])
    except NotFound:
        pass
    return lead_to("/admin/keys?deleted")


async def add_account(request: Request) -> Response:
    """`POST /admin/accounts`: signed in and added; or the reason, and the form as it was."""
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    fields = {name: form.get(name, "") for name in ("email", "password", "proxy")}
    try:
        await accounts.create(resources, decode_body(msgspec.json.encode(fields), NEW_ACCOUNT))
    except (BadRequest, Conflict, LoginRefused, UpstreamError) as error:
        return await _not_done(request, form, error)
    return lead_to("/admin/accounts?done=added")


async def act_on_account(request: Request) -> Response:
    """`POST /admin/accounts/{email}/{action}`, one of `_ACTIONS`; then the list it came from."""
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    action = request.path_params["action"]
    if action not in _ACTIONS:
        raise NotFound(f"There is nothing at {request.url.path}")
    act, done = _ACTIONS[action]
    try:
        await act(resources, request.path_params["email"])
    except (NotFound, LoginRefused, UpstreamError) as error:
        return await _not_done(request, form, error)
    address = form.get("back", "")
    if not address.startswith("/admin/accounts?"):  # never to somewhere else
        address = "/admin/accounts?"
    return lead_to(f"{address}&done={done}".replace("?&", "?"))


async def _not_done(request: Request, form: Mapping[str, str], error: GatewayError) -> Response:
    """The list that the form was on, with the reason above it."""
    asked = dict(urllib.parse.parse_qsl(form.get("back", "").partition("?")[2]))
    proxy = form.get("proxy", "")
    given = AccountForm(email=form.get("email", ""), proxy="" if "@" in proxy else proxy)
    message = redacted(error.message)
    page = await gather_accounts(request, asked, message=message, given=given)
    return render("accounts", page, status=error.status, headers=retry_after(error))


async def _reset(resources: Resources, email: str) -> None:
    await resources.store.accounts.reset(email)


async def _enable(resources: Resources, email: str) -> None:
    await resources.store.accounts.set_enabled(email, True)


async def _disable(resources: Resources, email: str) -> None:
    await resources.store.accounts.set_enabled(email, False)


async def _delete(resources: Resources, email: str) -> None:
    await resources.store.accounts.delete(email)


# Action → what it does, and the entry of `DONE` that says so.
_ACTIONS: Final = {
    "refresh": (accounts.refresh, "refreshed"),
    "reset": (_reset, "reset"),
    "enable": (_enable, "enabled"),
    "disable": (_disable, "disabled"),
    "delete": (_delete, "deleted"),
}


def _read_new_key(given: KeyForm) -> NewKey:
    """The form's texts under the rules of the admin API.

    Raises:
        BadRequest: a field is wrong; `param` says which.
    """
    fields: dict[str, object] = {
        "name": given.name,
        "rate_limit_per_minute": _number(given.rate_limit_per_minute),
        "max_streams": _number(given.max_streams),
        "daily_token_budget": _number(given.daily_token_budget),
        "models": [name.strip() for name in given.models.split(",") if name.strip()] or None,
    }
    days = _number(given.expires_in_days)
    if isinstance(days, str):
        raise BadRequest("expires_in_days: expected integer", param="expires_in_days")
    if days is not None:
        fields["expires_at"] = time.time() + days * _DAY_SECONDS
    return decode_body(msgspec.json.encode(fields), NEW_KEY)


def _number(text: str) -> int | str | None:
    """A number where it is one; what isn't, the rules refuse in their own words."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
