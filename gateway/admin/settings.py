"""`/admin/settings`: what is in force and why, one form per setting that may be changed."""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.forms import read_form
from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.api.settings import Source, author_of, change, source_of
from gateway.resources import resources_of
from shared import settings as declared
from shared.errors import BadRequest
from shared.store.settings import Change, SettingsInForce

CHANGES_SHOWN: Final = 20


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One setting.

    Args:
        value: what is in force, as the environment would have it; empty for a secret.
        given: what stands in the field: the value, or what was typed and refused.
        choices: all it takes; empty where they can't be listed.
        has_secret: a secret is set.
        fixed_because: why it can't be changed here, or empty.
    """

    name: str
    description: str
    value: str
    given: str
    source: Source
    choices: tuple[str, ...]
    secret: bool
    has_secret: bool
    fixed_because: str


class SettingGroup(msgspec.Struct, frozen=True):
    """Settings that belong together; those that can be changed come first."""

    name: str
    rows: list[SettingRow]


class ChangeRow(msgspec.Struct, frozen=True):
    """One entry of the audit, told in words."""

    at: int
    by: str
    name: str
    before: str
    after: str


class SettingsPage(Page, frozen=True, kw_only=True):
    """Every setting.

    Args:
        message: why a change was refused, or empty.
        changed: name of the setting that was changed just now, or empty.
    """

    groups: list[SettingGroup]
    changes: list[ChangeRow]
    message: str = ""
    changed: str = ""


async def show_settings(request: Request) -> Response:
    """`GET /admin/settings`."""
    await resources_of(request).gate.identify_admin(request)
    changed = request.query_params.get("changed", "")
    known = changed if changed in declared.names() else ""
    return render("settings", await gather_settings(request, changed=known))


async def change_setting(request: Request) -> Response:
    """`POST /admin/settings/{name}`: `value`, or `back` to the environment's or the default.

    400 and the form as it was filled in when it isn't taken.
    """
    resources = resources_of(request)
    form = await read_form(request)
    admin = await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    name: str = request.path_params["name"]
    value = None if "back" in form else form.get("value", "")
    try:
        _require_typed(name, value)
        await change(resources.store.settings, {name: value}, by=author_of(request, admin))
    except BadRequest as error:
        page = await gather_settings(request, message=error.message, given={name: value or ""})
        return render("settings", page, status=400)
    return lead_to(f"/admin/settings?changed={name}#{name}")


async def gather_settings(
    request: Request, *, message: str = "", changed: str = "", given: dict[str, str] | None = None
) -> SettingsPage:
    """The settings as they are now, and what became of the form that was sent."""
    settings = resources_of(request).store.settings
    await settings.look()
    groups: dict[str, list[SettingRow]] = {}
    for name in declared.names():
        row = _row(settings, name, given=(given or {}).get(name))
        groups.setdefault(declared.group_of(name), []).append(row)
    return SettingsPage(
        csrf_token=csrf_token_of(request),
        groups=[
            SettingGroup(name, sorted(rows, key=lambda row: bool(row.fixed_because)))
            for name, rows in groups.items()
        ],
        changes=[_change(one) for one in await settings.audit(CHANGES_SHOWN)],
        message=message,
        changed=changed,
    )


def _require_typed(name: str, value: str | None) -> None:
    """A secret isn't shown in its field, so saving that as it is must not empty it.

    Raises:
        BadRequest: nothing was typed.
    """
    if value == "" and name in declared.names() and declared.is_secret(name):
        raise BadRequest(f"{name}: type the new one, or take back what is stored", param=name)


def _row(settings: SettingsInForce, name: str, *, given: str | None) -> SettingRow:
    value = declared.text_of(settings.current, name)
    return SettingRow(
        name=name,
        description=declared.description_of(name).replace("`", ""),
        value=value,
        given=value if given is None or declared.is_secret(name) else given,
        source=source_of(settings, name),
        choices=declared.choices_of(name),
        secret=declared.is_secret(name),
        has_secret=bool(declared.value_of(settings.current, name)),
        fixed_because=declared.fixed_because(name) or "",
    )


def _change(change: Change) -> ChangeRow:
    by = f"{change.by.key}, {change.by.address}" if change.by.address else change.by.key
    return ChangeRow(change.at, by, change.name, _told(change.from_), _told(change.to))


def _told(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
