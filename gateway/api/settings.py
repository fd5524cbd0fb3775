"""`/api/settings`: what is in force and why, and what an operator changes while the fleet runs."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import json_answer, limit_of, read_json
from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.settings import (
    SettingsError,
    default_of,
    description_of,
    fixed_because,
    group_of,
    is_default,
    names,
    value_of,
)
from shared.store.api_keys import ApiKey
from shared.store.settings import Author, SettingsInForce

Source = Literal["default", "environment", "stored"]

# Any: each setting says for itself what it takes.
_changes = msgspec.json.Decoder(dict[str, Any])


async def show_settings(request: Request) -> Response:
    """`GET /api/settings` → `{"data": {name: {value, source, default, description, …}}}`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    settings = resources.store.settings
    await settings.look()
    return json_answer({"data": describe(settings)})


async def change_settings(request: Request) -> Response:
    """`PATCH /api/settings` `{name: value}`: all or none; null = back to environment or default.

    Answers as `show_settings` does. In force in every process within 2 s.
    """
    resources = resources_of(request)
    admin = await resources.gate.identify_admin(request)
    changes = await read_json(request, _changes)
    settings = resources.store.settings
    await change(settings, changes, by=author_of(request, admin))
    return json_answer({"data": describe(settings)})


async def list_changes(request: Request) -> Response:
    """`GET /api/settings/audit?limit=` → who changed what, when, from and to; newest first."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    changes = await resources.store.settings.audit(limit_of(request.query_params))
    return json_answer({"data": changes})


def describe(settings: SettingsInForce) -> dict[str, dict[str, object]]:
    """Every setting as an operator sees it; secrets are masked.

    {"chat_retry_count": {"value": 1, "source": "stored", "default": 2, "description": "…",
                          "group": "upstream", "changeable": true, "fixed_because": null}}
    """
    return {
        name: {
            "value": value_of(settings.current, name),
            "source": source_of(settings, name),
            "default": default_of(name),
            "description": description_of(name),
            "group": group_of(name),
            "changeable": fixed_because(name) is None,
            "fixed_because": fixed_because(name),
        }
        for name in names()
    }


def author_of(request: Request, admin: ApiKey) -> Author:
    """Who the audit says it was."""
    return Author(
        key=admin.name,
        address=request.client.host if request.client else "",
        request_id=request.scope["request_id"],
    )


def source_of(settings: SettingsInForce, name: str) -> Source:
    """Why the value is what it is. A variable that was given its default is told as the default."""
    if name in settings.stored:
        return "stored"
    return "default" if is_default(settings.configured, name) else "environment"


async def change(settings: SettingsInForce, changes: Mapping[str, object], *, by: Author) -> None:
    """
    Raises:
        BadRequest: there is no such setting, it is fixed, or its value is wrong; nothing changed.
    """
    try:
        await settings.change(changes, by=by)
    except SettingsError as error:
        raise BadRequest(_in_lower_case(error), param=error.setting) from error


def _in_lower_case(error: SettingsError) -> str:
    """The API's names are the environment's in lower case."""
    name = error.setting
    return str(error).replace(name.upper(), name, 1)
