"""`/admin/batches`: accounts by the thousand, put down in a form and watched; no script needed."""

from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.forms import read_form
from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.api.batches import begin_again, given_of, put_down
from gateway.api.settings import author_of
from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.log import Redactor
from shared.store.batches import Batch, LineResult

BATCHES_SHOWN: Final = 50
FAILURES_SHOWN: Final = 200
REFRESH_SECONDS: Final = 2

# What an upstream says of a failure is its own text.
_redact: Final = Redactor()


class BatchesPage(Page, frozen=True, kw_only=True):
    """The newest batches and the form for a new one.

    Args:
        message: why the form's batch was not put down, or empty.
    """

    batches: list[Batch]
    concurrency: int
    message: str = ""


class BatchPage(Page, frozen=True, kw_only=True):
    """One batch.

    Args:
        troubles: the first lines that are to be looked at: failed, invalid, skipped.
        more_troubles: there are more of them.
        refresh_seconds: the browser asks again after so long; 0 = it has ended.
    """

    batch: Batch
    troubles: list[LineResult]
    more_troubles: bool
    refresh_seconds: int


async def show_batches(request: Request) -> Response:
    """`GET /admin/batches`."""
    await resources_of(request).gate.identify_admin(request)
    return await _list(request)


async def create_batch(request: Request) -> Response:
    """`POST /admin/batches`: then the page of the batch, or 400 and the list."""
    resources = resources_of(request)
    form = await read_form(request, max_bytes=resources.settings.max_body_bytes)
    admin = await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    try:
        given = given_of(form.get("accounts", "").encode())
        batch = await put_down(resources, given, by=author_of(request, admin))
    except BadRequest as error:
        # What was typed is not shown again: passwords stand in no page.
        return await _list(request, message=error.message, status=400)
    return lead_to(f"/admin/batches/{batch.id}")


async def show_batch(request: Request) -> Response:
    """`GET /admin/batches/{id}`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    batch = await resources.store.batches.get(request.path_params["id"])
    troubles: list[LineResult] = []
    if batch.ended and batch.failed + batch.invalid + batch.skipped:
        async for result in resources.store.batches.results(batch.id):
            if result.status in ("failed", "invalid", "skipped"):
                troubles.append(_shown(result))
            if len(troubles) > FAILURES_SHOWN:
                break
    page = BatchPage(
        csrf_token=csrf_token_of(request),
        batch=msgspec.structs.replace(batch, recent=[_shown(result) for result in batch.recent]),
        troubles=troubles[:FAILURES_SHOWN],
        more_troubles=len(troubles) > FAILURES_SHOWN,
        refresh_seconds=0 if batch.ended else REFRESH_SECONDS,
    )
    return render("batch", page)


async def cancel(request: Request) -> Response:
    """`POST /admin/batches/{id}/cancel`."""
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    batch_id = request.path_params["id"]
    await resources.store.batches.cancel(batch_id)
    return lead_to(f"/admin/batches/{batch_id}")


async def retry(request: Request) -> Response:
    """`POST /admin/batches/{id}/retry`."""
    resources = resources_of(request)
    form = await read_form(request)
    await resources.gate.identify_admin(request, csrf_token=form.get("csrf_token", ""))
    batch = await begin_again(resources, request.path_params["id"])
    return lead_to(f"/admin/batches/{batch.id}")


async def _list(request: Request, *, message: str = "", status: int = 200) -> Response:
    resources = resources_of(request)
    page = BatchesPage(
        csrf_token=csrf_token_of(request),
        batches=await resources.store.batches.newest(BATCHES_SHOWN),
        concurrency=resources.settings.batch_login_concurrency,
        message=message,
    )
    return render("batches", page, status=status)


def _shown(result: LineResult) -> LineResult:
    return msgspec.structs.replace(result, message=_redact(result.message))
