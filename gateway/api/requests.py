"""`/api/requests`: the newest requests, answered and refused."""

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import json_answer, limit_of
from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.store.requests import Logged, Wanted


async def list_requests(request: Request) -> Response:
    """`GET /api/requests?limit=&key=&model=&status=&request_id=` → `{"data": [...]}`, newest first.

    `key` is a key's name or its id. Never what was asked or answered.
    """
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = request.query_params
    names = await resources.store.usage.key_names()
    wanted = Wanted(
        key_ids=_key_ids(asked.get("key"), names),
        model=asked.get("model") or None,
        status=_status(asked.get("status")),
        request_id=asked.get("request_id") or None,
    )
    found = await resources.store.requests.newest(limit_of(asked), wanted)
    return json_answer({"data": [_shown(logged, names) for logged in found]})


def _shown(logged: Logged, key_names: Mapping[str, str]) -> dict[str, object]:
    fields = msgspec.structs.asdict(logged.record)
    key_id = fields.pop("key_id")
    return {"at": logged.at, "key": key_names.get(key_id), "key_id": key_id or None, **fields}


def _key_ids(given: str | None, key_names: Mapping[str, str]) -> frozenset[str] | None:
    """The ids of the keys with this name, which several may have, or with this id."""
    if not given:
        return None
    return frozenset(key_id for key_id, name in key_names.items() if given in (key_id, name))


def _status(given: str | None) -> int | None:
    if not given:
        return None
    if not given.isascii() or not given.isdigit() or len(given) != 3:
        raise BadRequest("status: expected an HTTP status such as 429", param="status")
    return int(given)
