"""One handler for every chat dialect: read → run → write. The route says which dialect."""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from gateway.auth import check_model
from gateway.bodies import read_body
from gateway.dialects import DIALECTS, Dialect, Rendering, Turn
from gateway.idempotency import Once, once_of
from gateway.resources import Resources, resources_of
from gateway.responses import Keep, StreamAnswer, WholeAnswer
from shared.chat.models import Variant
from shared.chat.request import ChatRequest
from shared.errors import BadRequest
from shared.settings import Settings
from shared.store.api_keys import ApiKey
from shared.turns.run import ChatTurn

Handler = Callable[[Request], Awaitable[ASGIApp]]


def chat_handler(dialect_name: str) -> Handler:
    """The endpoint of a chat route that speaks this dialect."""
    dialect = DIALECTS[dialect_name]

    async def handle(request: Request) -> ASGIApp:
        return answer(request, await receive(request, dialect), dialect)

    return handle


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may run: who asks for what, of which model.

    `id` and `created` are its reply's; `body_bytes` = how long its body was.
    """

    resources: Resources
    caller: ApiKey
    chat_request: ChatRequest
    variant: Variant
    once: Once | None
    body_bytes: int
    id: str
    created: int


async def receive(request: Request, dialect: Dialect) -> Received:
    """Identify, admit, read.

    Raises:
        ClientError: it may not run, or makes no sense.
        StoreUnavailable: it can't be told now.
    """
    resources = resources_of(request)
    caller = await resources.gate.identify(request)
    await resources.gate.admit(caller, request.scope)
    body = await read_body(
        request.scope, request.receive, max_bytes=resources.settings.max_body_bytes
    )
    chat_request = dialect.read_request(body)
    request.scope["asked_model"] = chat_request.model
    variant = await variant_of(resources, chat_request)
    check_model(caller, variant)
    return Received(
        resources=resources,
        caller=caller,
        chat_request=_within(chat_request, variant),
        variant=variant,
        once=once_of(request, body, caller, resources.store.idempotency),
        body_bytes=len(body),
        id=dialect.new_id(secrets.token_hex(12)),
        created=int(time.time()),
    )


def answer(
    request: Request, received: Received, dialect: Dialect, *, keep: Keep | None = None
) -> ASGIApp:
    """Run the turn and answer it, streamed or whole; `keep` gets what it says."""
    turn = open_turn(request, received)
    kind = StreamAnswer if received.chat_request.stream else WholeAnswer
    shared = common(request, received, dialect, thinking=turn.asked.thinking)
    resources = received.resources
    allowed = resources.gate.limit(turn, received.caller, turns=resources.turns)
    return kind(allowed, keep=keep, **shared)


def open_turn(request: Request, received: Received) -> ChatTurn:
    """The turn of this request; the log line and the metrics will tell of it."""
    turn = received.resources.turns.open(received.chat_request, received.variant)
    request.scope["turn"] = turn
    return turn


def common(
    request: Request, received: Received, dialect: Dialect, *, thinking: bool | None
) -> dict[str, Any]:  # Any: arguments of `TurnAnswer`
    """What every kind of answer to this request is made with."""
    resources, chat_request = received.resources, received.chat_request
    return {
        "dialect": dialect,
        "info": Turn(
            id=received.id,
            created=received.created,
            model=chat_request.model,
            request_id=request.scope["request_id"],
            thinking=thinking,
            include_usage=chat_request.include_usage,
            rendering=rendering_of(resources.settings),
            given=chat_request.given,
        ),
        "headers": _headers(chat_request, received.variant),
        "open_answers": resources.open_answers,
        "once": received.once,
        "keepalive_seconds": resources.settings.keepalive_seconds,
    }


async def variant_of(resources: Resources, request: ChatRequest) -> Variant:
    """The variant that answers this request.

    Who names a model by an alias and wants nothing but a web search gets a model that can search:
    Claude Code searches that way, and the model that stands for `claude-*` has no search.

    Raises:
        UnknownModel: nobody has it.
        BadRequest: it makes pictures or videos.
    """
    model = request.model
    catalogue = await resources.catalogues.current()
    variant = resources.catalogues.resolve(catalogue, model)
    if _only_searches(request) and not variant.can_search and not catalogue.knows(model):
        variant = catalogue.first("search") or variant
    if variant.capability != "chat":
        raise BadRequest(
            f"The model {model} makes {variant.capability}s; this gateway does not yet",
            param="model",
        )
    return variant


def _within(request: ChatRequest, variant: Variant) -> ChatRequest:
    """The request as far as the model can serve it: agents offer every model a web search.

    Raises:
        BadRequest: a search is all that was offered, and the model has none.
    """
    if not request.search or variant.can_search:
        return request
    if _only_searches(request):
        raise BadRequest(f"The model {request.model} can't search the web", param="model")
    ignored = (*request.ignored, "web_search")
    return msgspec.structs.replace(request, search=False, ignored=ignored)


def _only_searches(request: ChatRequest) -> bool:
    return request.search and (not request.tools or request.tool_choice.mode == "none")


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
