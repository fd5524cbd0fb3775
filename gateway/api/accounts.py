"""`/api/accounts`: the pool as an operator sees it, and what he does with one account.

The operator's pages do the same through `create`, `refresh` and the store.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.account_view import explained, views
from gateway.api.answers import json_answer, limit_of, read_json
from gateway.api.batches import begun
from gateway.resources import Resources, resources_of
from shared.errors import (
    BadRequest,
    GatewayError,
    LoginFailed,
    LoginRefused,
    LoginsCrowded,
    UpstreamBusy,
)
from shared.store.accounts import STATES, AccountChanges, State
from shared.upstream.dial import ProxyAddress

_Email = Annotated[str, Meta(max_length=320, pattern=r"^\s*[^\s@:|]+@[^\s@:|]+\s*$")]
_Password = Annotated[str, Meta(min_length=1, max_length=1_000)]
_Proxy = Annotated[str, Meta(max_length=2_000)]
_Cookies = Annotated[str, Meta(max_length=20_000, pattern=r"^[\x20-\x7e]*$")]
_Concurrency = Annotated[int, Meta(ge=1, le=1_000)]


class NewAccount(msgspec.Struct):
    """What a new account logs in with."""

    email: _Email
    password: _Password
    proxy: _Proxy | None = None

    def __repr__(self) -> str:
        return "NewAccount()"


class _Changes(msgspec.Struct):
    enabled: bool | UnsetType = UNSET
    concurrency: _Concurrency | UnsetType | None = UNSET
    proxy: _Proxy | UnsetType | None = UNSET
    cookies: _Cookies | UnsetType | None = UNSET
    password: _Password | UnsetType = UNSET


class _Threshold(msgspec.Struct):
    threshold_hours: Annotated[float, Meta(ge=0)] = 24.0


NEW_ACCOUNT = msgspec.json.Decoder(NewAccount)
_changes = msgspec.json.Decoder(_Changes)
_threshold = msgspec.json.Decoder(_Threshold)


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
            "data": await views(resources, page.accounts),
            "next_cursor": page.next_cursor,
            "counts": await accounts.counts(),
        }
    )


async def show_account(request: Request) -> Response:
    """`GET /api/accounts/{email}`: also why it is or isn't chosen now, its last uses and errors."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    return json_answer(await explained(resources, request.path_params["email"]))


async def create_account(request: Request) -> Response:
    """`POST /api/accounts` → 201 + Account, signed in; nothing is kept when the login fails."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = await read_json(request, NEW_ACCOUNT)
    await create(resources, asked)
    return await _show(resources, asked.email, status=201)


async def change_account(request: Request) -> Response:
    """`PATCH /api/accounts/{email}`: what isn't given stays; in force with the next turn."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = await read_json(request, _changes)
    _check_proxy(asked.proxy)
    changes = AccountChanges(
        enabled=asked.enabled,
        concurrency=asked.concurrency,
        proxy=asked.proxy,
        cookies=asked.cookies,
        password=asked.password,
    )
    email = request.path_params["email"]
    await resources.store.accounts.change(email, changes)
    return await _show(resources, email)


async def delete_account(request: Request) -> Response:
    """`DELETE /api/accounts/{email}` → 204."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    await resources.store.accounts.delete(request.path_params["email"])
    return Response(status_code=204)


async def refresh_accounts(request: Request) -> Response:
    """`POST /api/accounts/refresh` `{threshold_hours?}` → 202 `Batch` of the kind `refresh`.

    Of every account that isn't disabled or dead and whose token lapses within that time (24 h), or
    that has none.
    """
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    asked = await read_json(request, _threshold)
    due = await resources.store.accounts.due_for_refresh(
        within_seconds=asked.threshold_hours * 3600
    )
    batches = resources.store.batches
    batch_id = await batches.open("refresh")
    await batches.add_accounts(batch_id, due)
    await batches.start(batch_id)
    return await begun(resources, batch_id)


async def refresh_account(request: Request) -> Response:
    """`POST /api/accounts/{email}/refresh`: a new access token now."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    email = request.path_params["email"]
    await refresh(resources, email)
    return await _show(resources, email)


async def reset_account(request: Request) -> Response:
    """`POST /api/accounts/{email}/reset`: its cooldowns, its death, its egress's rest are over."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    email = request.path_params["email"]
    await resources.store.accounts.reset(email)
    return await _show(resources, email)


async def create(resources: Resources, asked: NewAccount) -> None:
    """There is this account, signed in.

    Raises:
        BadRequest: `proxy` is no address of a proxy.
        Conflict: there is one with this e-mail address.
        LoginRefused: the upstream's reason.
        UpstreamBlocked, UpstreamBusy: not through this egress address now.
    """
    _check_proxy(asked.proxy)
    try:
        await resources.accounts.add(asked.email, asked.password, proxy=asked.proxy or "")
    except LoginFailed as error:
        raise _told(error) from error


async def refresh(resources: Resources, email: str) -> None:
    """The account has a new access token.

    Raises:
        NotFound: there is none.
        LoginRefused, UpstreamBlocked: see `create`.
    """
    try:
        await resources.accounts.refresh(email)
    except LoginFailed as error:
        raise _told(error) from error


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


async def _show(resources: Resources, email: str, *, status: int = 200) -> Response:
    [view] = await views(resources, [await resources.store.accounts.get(email)])
    return json_answer(view, status=status)


def _told(error: LoginFailed) -> GatewayError:
    """What a turn would hide behind other accounts is an operator's very question."""
    if isinstance(error, LoginsCrowded):
        return UpstreamBusy(error.message, pause_seconds=error.retry_after_seconds or 1)
    return LoginRefused(error.message)


def _check_proxy(proxy: str | UnsetType | None) -> None:
    if proxy and not ProxyAddress.accepts(proxy):
        raise BadRequest(
            "proxy: expected http://, https:// or socks5:// and a host, credentials before an @",
            param="proxy",
        )
