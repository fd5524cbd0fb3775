"""One handler for every chat dialect: read → run → write. The route says which dialect."""

import secrets
import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.types import ASGIApp

from gateway.auth import check_model
from gateway.bodies import read_body
from gateway.dialects import DIALECTS, Rendering, Turn
from gateway.idempotency import once_of
from gateway.resources import Resources, resources_of
from gateway.responses import StreamAnswer, WholeAnswer
from shared.chat.models import Variant
from shared.chat.request import ChatRequest
from shared.errors import BadRequest
from shared.settings import Settings

Handler = Callable[[Request], Awaitable[ASGIApp]]


def chat_handler(dialect_name: str) -> Handler:
    """The endpoint of a chat route that speaks this dialect."""
    dialect = DIALECTS[dialect_name]

    async def handle(request: Request) -> ASGIApp:
        resources = resources_of(request)
        caller = await resources.gate.identify(request)
        await resources.gate.admit(caller, request.scope)
        body = await read_body(
            request.scope, request.receive, max_bytes=resources.settings.max_body_bytes
        )
        chat_request = dialect.read_request(body)
        _refuse_tools(chat_request)
        variant = await chat_variant(resources, chat_request.model)
        check_model(caller, variant)
        once = once_of(request, body, caller, resources.store.idempotency)
        turn = resources.turns.open(chat_request, variant)
        request.scope["turn"] = turn
        info = Turn(
            id=dialect.new_id(secrets.token_hex(12)),
            created=int(time.time()),
            model=chat_request.model,
            request_id=request.scope["request_id"],
            thinking=turn.thinking,
            include_usage=chat_request.include_usage,
            rendering=rendering_of(resources.settings),
            given=chat_request.given,
        )
        answer = StreamAnswer if chat_request.stream else WholeAnswer
        return answer(
            turn,
            dialect=dialect,
            info=info,
            headers=_headers(chat_request, variant),
            open_answers=resources.open_answers,
            once=once,
            keepalive_seconds=resources.settings.keepalive_seconds,
        )

    return handle


def _refuse_tools(request: ChatRequest) -> None:
    """Until a turn can carry them they are refused, never dropped."""
    if request.tools:
        raise BadRequest("tools: tools aren't supported yet", param="tools")
    if request.output_format:
        raise BadRequest(
            "response_format: only text is supported yet", param="response_format.type"
        )


async def chat_variant(resources: Resources, model: str) -> Variant:
    """The variant this name means, for a turn.

    Raises:
        UnknownModel: nobody has it.
        BadRequest: it makes pictures or videos.
    """
    catalogue = await resources.catalogues.current()
    variant = resources.catalogues.resolve(catalogue, model)
    if variant.capability != "chat":
        raise BadRequest(
            f"The model {model} makes {variant.capability}s; this gateway does not yet",
            param="model",
        )
    return variant


def rendering_of(settings: Settings) -> Rendering:
    return Rendering(
        output_think=settings.output_think,
        legacy_reasoning_in_content=settings.legacy_reasoning_in_content,
        search_info_mode=settings.search_info_mode,
    )


def _headers(request: ChatRequest, variant: Variant) -> dict[str, str]:
    headers = {"x-gateway-model": variant.model_id, "x-gateway-lane": "web"}
    if request.ignored:
        headers["x-gateway-ignored"] = ", ".join(request.ignored)
    return headers
