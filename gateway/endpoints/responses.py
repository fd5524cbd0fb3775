"""`/v1/responses`: what is more to it than to the other chat dialects.

A response may be kept, carried on by another one, fetched again, and run in the background by a job
process. The turn itself is everybody's: see `endpoints/chat.py`.
"""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gateway.dialects import Turn, openai_responses, responses_kept
from gateway.dialects.responses_object import error_of, response_of_item
from gateway.dialects.responses_request import Echo, Given, given_of, input_of, with_earlier
from gateway.endpoints.chat import Received, answer, common, open_turn, receive, rendering_of
from gateway.kept import Keeping, KeptTurn
from gateway.resources import Resources, resources_of
from gateway.responses import StreamAnswer, WrittenAnswer
from shared.chat.request import Message
from shared.errors import BadRequest, NotFound, PayloadTooLarge
from shared.jobs import answer_step
from shared.store.api_keys import ApiKey
from shared.store.responses import LARGEST_REQUEST_BYTES, Result, StoredResponse

_read_echo = msgspec.json.Decoder(Echo).decode

PAGE_MOST = 100


async def create(request: Request) -> ASGIApp:
    """`POST /v1/responses`."""
    received = await receive(request, openai_responses)
    received, response = await _carried_on(received)
    echo = given_of(received.chat_request.given).echo
    if received.body_bytes > LARGEST_REQUEST_BYTES and echo.store:
        received = _unkept(received)
        echo = given_of(received.chat_request.given).echo
    if echo.background:
        return _in_background(request, received, response)
    keep = Keeping(received.resources.store.responses, response) if echo.store else None
    return answer(request, received, openai_responses, keep=keep)


async def show(request: Request) -> ASGIApp:
    """`GET /v1/responses/{id}`; with `?stream=true` the events that make it, once it has ended."""
    resources, caller = await _identified(request)
    stored = await _look(resources, caller, request.path_params["id"])
    if request.query_params.get("stream") != "true":
        return _json(_written(resources, stored))
    turn = _turn_of(resources, stored, starting_after=_integer(request, "starting_after", -1))
    return StreamAnswer(
        KeptTurn(lambda: _look(resources, caller, stored.id)),
        dialect=openai_responses,
        info=turn,
        headers={},
        open_answers=resources.open_answers,
        once=None,
        keepalive_seconds=resources.settings.keepalive_seconds,
    )


async def delete(request: Request) -> ASGIApp:
    """`DELETE /v1/responses/{id}`; what runs is stopped."""
    resources, caller = await _identified(request)
    stored = await _find(resources, caller, request.path_params["id"])
    await resources.store.responses.delete(stored.id)
    await resources.store.due.done(answer_step(stored.id).id)
    return _json(responses_kept.write_deleted(stored.id))


async def cancel(request: Request) -> ASGIApp:
    """`POST /v1/responses/{id}/cancel`; one that has ended stays as it ended."""
    resources, caller = await _identified(request)
    stored = await _find(resources, caller, request.path_params["id"])
    if not _echo_of(stored).background:
        raise BadRequest("Only a response that runs in the background can be cancelled")
    await resources.store.responses.end(stored.id, "cancelled", Result())
    await resources.store.due.done(answer_step(stored.id).id)
    return _json(_written(resources, await _find(resources, caller, stored.id)))


async def list_input_items(request: Request) -> ASGIApp:
    """`GET /v1/responses/{id}/input_items`: everything it answers, what came before included."""
    resources, caller = await _identified(request)
    stored = await _find(resources, caller, request.path_params["id"])
    limit = _integer(request, "limit", 20)
    if not 1 <= limit <= PAGE_MOST:
        raise BadRequest(f"limit: expected 1 to {PAGE_MOST}", param="limit")
    items: list[responses_kept.InputItem] = []
    for one in await resources.store.responses.history_of(stored):
        turn = _turn_of(resources, one)
        items += responses_kept.input_items(turn, one.input)
        if one.id != stored.id:
            items += responses_kept.output_items(turn, one.result.reply)
    after = request.query_params.get("after")
    return _json(
        responses_kept.write_input_items(items, limit=limit, order=_order(request), after=after)
    )


# -- what came before


async def _carried_on(received: Received) -> tuple[Received, StoredResponse]:
    """The request with all it refers to, and the record of the response it will get."""
    given = given_of(received.chat_request.given)
    before = await _before(received, given.echo.previous_response_id)
    earlier = [
        message
        for one in before
        for message in (*one.input, *responses_kept.said(one.result.reply))
    ]
    referred = await _referred(received, given)
    record = StoredResponse(
        id=received.id,
        created=received.created,
        model=received.chat_request.model,
        history=tuple(one.id for one in before),
        input=input_of(received.chat_request, referred),
        echo=msgspec.Raw(msgspec.json.encode(given.echo)),
        owner=received.caller.id,
    )
    chat_request = with_earlier(received.chat_request, earlier, referred)
    return msgspec.structs.replace(received, chat_request=chat_request), record


async def _before(received: Received, previous_id: str | None) -> list[StoredResponse]:
    """What the request carries on, the oldest first."""
    if previous_id is None:
        return []
    resources, param = received.resources, "previous_response_id"
    try:
        previous = await _find(resources, received.caller, previous_id)
        if not previous.ended:
            raise BadRequest(f"{param}: that response hasn't ended yet", param=param)
        return await resources.store.responses.history_of(previous)
    except NotFound as error:
        raise NotFound(
            f"{param}: {error.message}", param=param, code="previous_response_not_found"
        ) from error


async def _referred(received: Received, given: Given) -> dict[str, Message]:
    """The items that stand in the input by their ids alone."""
    found: dict[str, Message] = {}
    for reference in given.references:
        item_id, path = reference.item_id, reference.path
        try:
            stored = await _find(received.resources, received.caller, _response_of(item_id))
            if (reply := stored.result.reply) is None:
                raise LookupError(item_id)  # noqa: TRY301 told below like the others
            item = responses_kept.item_of(_turn_of(received.resources, stored), reply, item_id)
        except (NotFound, LookupError) as error:
            raise NotFound(f"{path}: there is no item {item_id[:64]!r}", param=path) from error
        if item is not None:
            found[item_id] = item
    return found


def _response_of(item_id: str) -> str:
    response_id = response_of_item(item_id)
    if response_id is None:
        raise LookupError(item_id)
    return response_id


# -- in the background


def _in_background(request: Request, received: Received, record: StoredResponse) -> ASGIApp:
    """A job process runs the turn; the answer says at once that it will, or waits for it."""
    resources, turn = received.resources, open_turn(request, received)
    shared = common(request, received, openai_responses, thinking=turn.asked.thinking)
    queued = msgspec.structs.replace(record, status="queued")

    async def put_down() -> bytes:
        await resources.gate.require_budget(received.caller, received.chat_request)
        await resources.store.responses.put(queued, work=received.chat_request)
        await resources.store.due.add(answer_step(queued.id))
        return _written(resources, queued)

    if not received.chat_request.stream:
        return WrittenAnswer(turn, write=put_down, **shared)
    kept = KeptTurn(lambda: _look(resources, received.caller, queued.id), begin=put_down)
    return StreamAnswer(kept, **shared)


async def _look(resources: Resources, caller: ApiKey, response_id: str) -> StoredResponse:
    """Where it stands. One that has not ended has a step, or gets it again.

    A Redis that died may have lost its last second, and with it the step of a record it still has:
    without this it would be queued for ever.
    """
    stored = await _find(resources, caller, response_id)
    if not stored.ended:
        await resources.store.due.keep(answer_step(stored.id))
    return stored


def _unkept(received: Received) -> Received:
    """Too large to be kept: it is answered all the same, and says so.

    Raises:
        PayloadTooLarge: it would have to be kept to be answered at all.
    """
    chat_request = received.chat_request
    given = given_of(chat_request.given)
    if given.echo.background:
        raise PayloadTooLarge(
            f"A request in the background is at most {LARGEST_REQUEST_BYTES // 1024**2} MB"
        )
    echo = msgspec.structs.replace(given.echo, store=False)
    return msgspec.structs.replace(
        received,
        chat_request=msgspec.structs.replace(
            chat_request,
            given=msgspec.structs.replace(given, echo=echo),
            ignored=(*chat_request.ignored, "store"),
        ),
    )


# -- what is kept


async def _identified(request: Request) -> tuple[Resources, ApiKey]:
    """Who asks. It costs nothing of a rate limit: looking after what runs is no new work."""
    resources = resources_of(request)
    return resources, await resources.gate.identify(request)


async def _find(resources: Resources, caller: ApiKey, response_id: str) -> StoredResponse:
    """
    Raises:
        NotFound: there is none, or it is another key's; the admin key reads all.
    """
    reader = None if caller.admin else caller.id
    return await resources.store.responses.get(response_id, reader=reader)


def _echo_of(stored: StoredResponse) -> Echo:
    return _read_echo(bytes(stored.echo))


def _turn_of(resources: Resources, stored: StoredResponse, *, starting_after: int = -1) -> Turn:
    return Turn(
        id=stored.id,
        created=stored.created,
        model=stored.model,
        include_usage=True,
        rendering=rendering_of(resources.settings),
        given=Given(echo=_echo_of(stored), starting_after=starting_after),
    )


def _written(resources: Resources, stored: StoredResponse) -> bytes:
    failure = stored.result.failure
    return responses_kept.write_kept(
        _turn_of(resources, stored),
        stored.status,
        stored.result.reply,
        error_of(failure.status, failure.message) if failure else None,
    )


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _integer(request: Request, name: str, default: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        return int(given)
    except ValueError as error:
        raise BadRequest(f"{name}: expected an integer", param=name) from error


def _order(request: Request) -> Literal["asc", "desc"]:
    match request.query_params.get("order", "desc"):
        case "asc":
            return "asc"
        case "desc":
            return "desc"
        case _:
            raise BadRequest("order: expected asc or desc", param="order")
