"""The model list, in the shape the client expects."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.auth import may_use
from gateway.resources import resources_of
from shared.chat.models import anthropic_list, anthropic_model, openai_list, openai_model
from shared.errors import UnknownModel
from shared.store.api_keys import ApiKey


async def list_models(request: Request) -> Response:
    """`GET /v1/models`: what this caller may use."""
    caller = await resources_of(request).gate.identify(request)
    return await _list(request, caller)


async def list_models_openly(request: Request) -> Response:
    """`GET /models`: without a key, as the reference has it."""
    return await _list(request, None)


async def show_model(request: Request) -> Response:
    """`GET /v1/models/{id}`: any of a model's four names."""
    resources = resources_of(request)
    caller = await resources.gate.identify(request)
    catalogue = await resources.catalogues.current()
    entry = catalogue.entry(request.path_params["id"])
    if not may_use(caller, catalogue.resolve(entry.id)):
        raise UnknownModel(f"There is no model {entry.id} for this API key")
    write = anthropic_model if _wants_anthropic(request) else openai_model
    return _json(write(entry))


async def _list(request: Request, caller: ApiKey | None) -> Response:
    resources = resources_of(request)
    catalogue = await resources.catalogues.current()
    entries = catalogue.listing(simple=resources.settings.simple_model_map)
    if caller is not None and caller.models:
        entries = [e for e in entries if may_use(caller, catalogue.resolve(e.id))]
    write = anthropic_list if _wants_anthropic(request) else openai_list
    return _json(write(entries))


def _wants_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
