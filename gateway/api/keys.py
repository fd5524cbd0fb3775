"""`/api/keys`: create, list, change and delete API keys. In force everywhere within 2 s."""

import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import json_answer, read_json
from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.store.api_keys import ApiKey, ApiKeyChanges, ApiKeys, NewApiKey

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Limit = Annotated[int, Meta(ge=0)]
_Expiry = float | str


class NewKey(msgspec.Struct):
    """What a new key is to be. Limits that aren't given are the defaults of all keys."""

    name: _Name
    rate_limit_per_minute: _Limit | None = None
    daily_token_budget: _Limit | None = None
    max_streams: _Limit | None = None
    models: list[_Name] | None = None
    expires_at: _Expiry | None = None


class _Changes(msgspec.Struct):
    name: _Name | UnsetType = UNSET
    rate_limit_per_minute: _Limit | UnsetType | None = UNSET
    daily_token_budget: _Limit | UnsetType | None = UNSET
    max_streams: _Limit | UnsetType | None = UNSET
    models: list[_Name] | UnsetType | None = UNSET
    expires_at: _Expiry | UnsetType | None = UNSET


NEW_KEY = msgspec.json.Decoder(NewKey)
_changes = msgspec.json.Decoder(_Changes)


async def create_key(request: Request) -> Response:
    """`POST /api/keys` → 201; `key` in clear this once."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    created = await create(resources.store.api_keys, await read_json(request, NEW_KEY))
    return json_answer(_shown(created.record) | {"key": created.key}, status=201)


async def list_keys(request: Request) -> Response:
    """`GET /api/keys` → `{"data": [...]}`, those of `API_KEY` first; never a key."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    return json_answer({"data": [_shown(key) for key in await resources.store.api_keys.all()]})


async def change_key(request: Request) -> Response:
    """`PATCH /api/keys/{id}`: what isn't given stays, null takes a limit away."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = await read_json(request, _changes)
    changes = ApiKeyChanges(
        name=asked.name,
        rate_limit_per_minute=asked.rate_limit_per_minute,
        daily_token_budget=asked.daily_token_budget,
        max_streams=asked.max_streams,
        models=asked.models,
        expires_at=UNSET if asked.expires_at is UNSET else _moment(asked.expires_at),
    )
    key = await resources.store.api_keys.change(request.path_params["id"], changes)
    return json_answer(_shown(key))


async def delete_key(request: Request) -> Response:
    """`DELETE /api/keys/{id}` → 204."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    await resources.store.api_keys.delete(request.path_params["id"])
    return Response(status_code=204)


async def create(api_keys: ApiKeys, asked: NewKey) -> NewApiKey:
    """There is such a key, valid at once everywhere; `key` in clear is in the answer only.

    Raises:
        BadRequest: `expires_at` is no moment.
    """
    return await api_keys.create(
        asked.name,
        rate_limit_per_minute=asked.rate_limit_per_minute,
        daily_token_budget=asked.daily_token_budget,
        max_streams=asked.max_streams,
        models=asked.models,
        expires_at=_moment(asked.expires_at),
    )


def _shown(key: ApiKey) -> dict[str, object]:
    """Every field, also those that are null: a page shows what isn't limited, too.

    `source`: `environment` for the keys of `API_KEY`, which can be neither changed nor deleted.
    """
    names = (name for name in key.__struct_fields__ if name != "configured")
    shown = {name: getattr(key, name) for name in names}
    return shown | {"source": "environment" if key.configured else "stored"}


def _moment(expires_at: _Expiry | UnsetType | None) -> float | None:
    """Epoch seconds of a number or an ISO 8601 text (UTC where it names no zone)."""
    if expires_at is None or isinstance(expires_at, float):
        return expires_at
    try:
        moment = datetime.datetime.fromisoformat(str(expires_at))
    except ValueError as error:
        raise BadRequest(
            "expires_at: expected epoch seconds or an ISO 8601 time", param="expires_at"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()
