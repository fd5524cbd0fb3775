"""POST: change one thing with the verbs of the admin API, then show what came of it."""

import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.forms import read_form
from gateway.admin.pages import KeyForm, gather_keys
from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.api.keys import NEW_KEY, NewKey, create
from gateway.dialects.body import read_body as decode_body
from gateway.resources import resources_of
from shared.errors import BadRequest, NotFound

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
