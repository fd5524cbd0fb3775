"""`/api/export`, `/api/import`: a backup under a password of its own.

curl -d '{"password":"…"}' …/api/export > backup.json
curl -H 'x-archive-password: …' -d @backup.json …/api/import
"""

import asyncio
import time
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import json_answer, read_json
from gateway.api.settings import author_of
from gateway.bodies import read_body
from gateway.dialects.body import read_body as decode_body
from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.store import backup
from shared.store.archive import Archive, ArchiveBroken, pack, unpack

_ABSENT = msgspec.Raw(b"null")
_Password = Annotated[str, Meta(min_length=1, max_length=1_000)]


class _Export(msgspec.Struct):
    password: _Password

    def __repr__(self) -> str:
        return "_Export()"


class _Import(msgspec.Struct):
    """`archive`: as it was given, or as text; without it the body itself is the archive."""

    password: _Password | None = None
    archive: msgspec.Raw = _ABSENT

    def __repr__(self) -> str:
        return "_Import()"


_export = msgspec.json.Decoder(_Export)
_import = msgspec.json.Decoder(_Import)
_archive = msgspec.json.Decoder(Archive)


async def export(request: Request) -> Response:
    """`POST /api/export` `{password}` → the archive: accounts, created keys, stored settings."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = await read_json(request, _export)
    contents = await backup.collect(resources.store)
    now = int(time.time())
    answer = json_answer(await asyncio.to_thread(pack, contents, asked.password, created_at=now))
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    answer.headers["content-disposition"] = f'attachment; filename="qwen-gateway-{day}.json"'
    answer.headers["cache-control"] = "no-store"
    return answer


async def import_archive(request: Request) -> Response:
    """`POST /api/import` → `{"accounts": {"restored", "skipped"}, "keys": …, "settings": …}`.

    The body is `{"password", "archive"}`, or the archive with `password` among its fields, or as it
    is with the password in `x-archive-password`. What is there already stays as it is.
    """
    resources = resources_of(request)
    admin = await resources.gate.identify_admin(request)
    body = await read_body(
        request.scope, request.receive, max_bytes=resources.settings.max_body_bytes
    )
    asked = decode_body(body, _import)
    password = asked.password or request.headers.get("x-archive-password", "")
    if not password:
        raise BadRequest("password is missing", param="password")
    archive = decode_body(body if asked.archive == _ABSENT else _text(asked.archive), _archive)
    try:
        contents = await asyncio.to_thread(unpack, archive, password)
    except ArchiveBroken as error:
        raise BadRequest(str(error), param="password") from error
    done = await backup.restore(resources.store, contents, by=author_of(request, admin))
    return json_answer(done)


def _text(archive: msgspec.Raw) -> bytes:
    """The archive's JSON, which may have been put into a text."""
    found = bytes(archive)
    return msgspec.json.decode(found, type=str).encode() if found.startswith(b'"') else found
