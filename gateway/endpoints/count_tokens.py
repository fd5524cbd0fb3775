"""`POST /v1/messages/count_tokens`: how long a turn's prompt would be. It lends no account."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.auth import check_model
from gateway.bodies import read_body
from gateway.dialects.anthropic_messages import read_countable, write_count
from gateway.endpoints.chat import variant_of
from gateway.resources import resources_of
from shared.turns.prompt import write_prompt
from shared.turns.usage import count


async def count_tokens(request: Request) -> Response:
    """Everything the model would read, as it would be written: system, tools, history, format.

    What the upstream puts before it, nobody but the upstream can count.
    """
    resources = resources_of(request)
    caller = await resources.gate.identify(request)
    await resources.gate.admit(caller, request.scope)
    body = await read_body(
        request.scope, request.receive, max_bytes=resources.settings.max_body_bytes
    )
    chat_request = read_countable(body)
    variant = await variant_of(resources, chat_request)
    check_model(caller, variant)
    input_tokens = await count(write_prompt(chat_request), model=variant.model_id)
    return Response(write_count(input_tokens), media_type="application/json")
