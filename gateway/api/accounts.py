"""`/api/accounts`: the pool as an operator sees it."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import json_answer, limit_of
from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.store.accounts import STATES, State


async def list_accounts(request: Request) -> Response:
    """`GET /api/accounts?state=&q=&cursor=&limit=` → `{"data", "next_cursor", "counts"}`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = request.query_params
    accounts = resources.store.accounts
    page = await accounts.page(
        state=state_of(asked.get("state")),
        search=asked.get("q", ""),
        cursor=asked.get("cursor", ""),
        limit=limit_of(asked),
    )
    return json_answer(
        {
            "data": page.accounts,
            "next_cursor": page.next_cursor,
            "counts": await accounts.counts(),
        }
    )


async def show_account(request: Request) -> Response:
    """`GET /api/accounts/{email}`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    return json_answer(await resources.store.accounts.get(request.path_params["email"]))


def state_of(text: str | None) -> State | None:
    """The query's `state`; None for all.

    Raises:
        BadRequest: no account is ever in that state.
    """
    if not text:
        return None
    for state in STATES:
        if state == text:
            return state
    raise BadRequest(f"state: expected one of {', '.join(STATES)}", param="state")
