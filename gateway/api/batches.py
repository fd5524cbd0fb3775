"""`/api/batches`: put one down, watch it, steer it, read what became of each line."""

import asyncio
import codecs
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api.answers import json_answer, limit_of
from gateway.api.settings import author_of
from gateway.bodies import read_body
from gateway.dialects.body import read_body as decode_body
from gateway.resources import Resources, resources_of
from gateway.responses import EARLY
from shared import imports, jobs, takeover
from shared.errors import BadRequest, NotFound, StoreUnavailable
from shared.intake.formats import Form, Intake, form_of
from shared.intake.lines import Line
from shared.store.batches import Batch
from shared.store.settings import Author

# How often somebody who watches is told what has changed.
LOOK_SECONDS: Final = 0.5


class _Body(msgspec.Struct):
    accounts: msgspec.Raw
    dry_run: bool = False


_body = msgspec.json.Decoder(_Body)
# Its items are read one by one: here it is only found to be JSON.
_any_list = msgspec.json.Decoder(msgspec.Raw)


async def create_batch(request: Request) -> Response:
    """`POST /api/batches` → 202 `Batch`; with `dry_run` 200 and what would become of each line.

    The settings and API keys of a Qwen2API data.json are taken over, too; the log says which.
    """
    resources = resources_of(request)
    admin = await resources.gate.identify_admin(request)
    body = await read_body(
        request.scope, request.receive, max_bytes=resources.settings.max_body_bytes
    )
    given = given_of(body, content_type=request.headers.get("content-type", ""))
    if given.dry_run or request.query_params.get("dry_run", "").lower() in ("1", "true"):
        return json_answer(await _dry_run(resources, given.lines()))
    batch = await put_down(resources, given, by=author_of(request, admin))
    return json_answer(batch, status=202)


async def list_batches(request: Request) -> Response:
    """`GET /api/batches?limit=` → `{"data": [Batch]}`, the newest first."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    batches = await resources.store.batches.newest(limit_of(request.query_params))
    return json_answer({"data": batches})


async def show_batch(request: Request) -> Response:
    """`GET /api/batches/{id}` → `Batch`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    return json_answer(await resources.store.batches.get(request.path_params["id"]))


async def list_results(request: Request) -> Response:
    """`GET /api/batches/{id}/results`: NDJSON, one line per line of the input."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    batch_id = request.path_params["id"]
    await resources.store.batches.get(batch_id)  # a 404 is told before the answer begins

    async def results() -> AsyncIterator[bytes]:
        piece: list[bytes] = []
        async for result in resources.store.batches.results(batch_id):
            piece += (msgspec.json.encode(result), b"\n")
            if len(piece) >= _LINES_PER_SEND:
                yield b"".join(piece)
                piece = []
        yield b"".join(piece)

    return StreamingResponse(results(), media_type="application/x-ndjson")


_LINES_PER_SEND: Final = 1_000


async def watch(request: Request) -> Response:
    """`GET /api/batches/{id}/events`: `data: Batch` whenever it has changed, until it has ended."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    batch_id = request.path_params["id"]
    await resources.store.batches.get(batch_id)
    return StreamingResponse(
        _events(resources, batch_id),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


async def cancel(request: Request) -> Response:
    """`POST /api/batches/{id}/cancel` → `Batch`: no further line is begun."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    batches, batch_id = resources.store.batches, request.path_params["id"]
    await batches.cancel(batch_id)
    return json_answer(await batches.get(batch_id))


async def retry(request: Request) -> Response:
    """`POST /api/batches/{id}/retry` → 202 `Batch`: its failed lines wait again.

    One that was cancelled goes on where it was.
    """
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    return json_answer(await begin_again(resources, request.path_params["id"]), status=202)


async def put_down(resources: Resources, given: "Given", *, by: Author) -> Batch:
    """A batch of these lines; settings and keys that came with them are taken over.

    Raises:
        BadRequest: there are no lines.
    """
    batch_id = await imports.put_down(resources.store.batches, given.lines())
    if given.settings:
        await takeover.take_over(resources.store, given.settings, by=by)
    return await begin(resources, batch_id)


async def begin_again(resources: Resources, batch_id: str) -> Batch:
    """The batch, with its failed lines waiting again.

    Raises:
        NotFound: there is none.
    """
    await resources.store.batches.retry(batch_id)
    return await begin(resources, batch_id)


async def begun(resources: Resources, batch_id: str) -> Response:
    """202 with the batch; somebody does its lines from now on."""
    return json_answer(await begin(resources, batch_id), status=202)


async def begin(resources: Resources, batch_id: str) -> Batch:
    """The batch; somebody does its lines from now on."""
    for step in jobs.pump_steps(resources.settings.worker_processes):
        await resources.store.due.add(step)
    return await resources.store.batches.get(batch_id)


async def _dry_run(resources: Resources, lines: AsyncIterator[Line]) -> dict[str, object]:
    found = [line async for line in imports.dry_run(resources.store.batches, lines)]
    counts = {
        status: sum(line.status == status for line in found)
        for status in ("valid", "invalid", "skipped")
    }
    return {"total": len(found), **counts, "lines": found}


class Given:
    """What was sent: lines of any form, and whether they are only looked at."""

    def __init__(self, body: bytes, *, form: Form | None, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._body = body
        self._intake = Intake(form)

    @property
    def settings(self) -> bytes:
        """Those of a data.json, once all lines were read."""
        return self._intake.settings

    async def lines(self) -> AsyncIterator[Line]:
        """Read from the body as they are asked for, once; others have their turn in between."""
        for start in range(0, len(self._body), _CHUNK_BYTES):
            for line in self._intake.feed(self._body[start : start + _CHUNK_BYTES]):
                yield line
            await asyncio.sleep(0)
        for line in self._intake.close():
            yield line


def given_of(body: bytes, *, content_type: str = "") -> Given:
    """The lines of a body in any form.

    Raises:
        BadRequest: no JSON although it says so.
    """
    dry_run = False
    kind = content_type.partition(";")[0].strip().lower()
    body = body.removeprefix(codecs.BOM_UTF8)
    form = _FORMS.get(kind) or form_of(body[:_CHUNK_BYTES], ended=len(body) <= _CHUNK_BYTES)
    if form == "json" and body:
        if not body.lstrip().startswith(b"["):
            dry_run = _read_object(body).dry_run
        else:
            decode_body(body, _any_list)
    return Given(body, form=None if form == "lines" else form, dry_run=dry_run)


def _read_object(body: bytes) -> _Body:
    read = decode_body(body, _body)
    if bytes(read.accounts)[:1] not in (b'"', b"["):
        raise BadRequest("accounts: expected string or array", param="accounts")
    return read


# What else is sent is looked at: `curl -d` calls everything a form.
_FORMS: Final[dict[str, Form]] = {"application/json": "json", "text/csv": "csv"}
_CHUNK_BYTES: Final = 64 * 1024


async def _events(resources: Resources, batch_id: str) -> AsyncIterator[bytes]:
    last, told_at = b"", time.monotonic()
    keepalive_seconds = EARLY * resources.settings.keepalive_seconds
    # A drain ends it: whoever watches asks again, somewhere else.
    while not resources.drain.began:
        try:
            batch = await resources.store.batches.get(batch_id)
        except NotFound:
            return
        except StoreUnavailable:
            batch = None
        text = msgspec.json.encode(batch) if batch is not None else last
        if text != last:
            yield b"data: " + text + b"\n\n"
            last, told_at = text, time.monotonic()
        elif time.monotonic() - told_at >= keepalive_seconds:
            yield b": keepalive\n\n"
            told_at = time.monotonic()
        if batch is not None and batch.ended:
            return
        silent_seconds = time.monotonic() - told_at
        await asyncio.sleep(min(LOOK_SECONDS, max(0.01, keepalive_seconds - silent_seconds)))
