"""GET: who may see it, one page object gathered from what everybody reads, rendered."""

import urllib.parse
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.rendering import Page, csrf_token_of, lead_to, render
from gateway.api.accounts import state_of
from gateway.api.overview import Overview, gather
from gateway.resources import resources_of
from shared.log import Redactor
from shared.store.accounts import STATES, Account, State
from shared.store.api_keys import ApiKey

ACCOUNTS_PER_PAGE: Final = 50

DONE: Final = {
    "added": "The account was added and signed in.",
    "refreshed": "The account has a new access token.",
    "reset": "Its cooldowns and the rest of its egress address are over.",
    "enabled": "The account is lent again.",
    "disabled": "Nothing new begins on this account.",
    "deleted": "The account was deleted.",
}
"""What an action on an account has done, by the word its redirect carries."""

# What an upstream says of a failure is its own text: whatever looks like a secret is masked.
_redact: Final = Redactor()


class StateCount(msgspec.Struct, frozen=True):
    """How many accounts are in a state."""

    state: State
    number: int
    address: str


class OverviewPage(Page, frozen=True, kw_only=True):
    """The numbers of the first page.

    Args:
        base_url: where callers send their requests, as this browser sees us.
        example_model: a name callers may use at once.
    """

    numbers: Overview
    accounts: int
    states: list[StateCount]
    base_url: str
    example_model: str


class Tab(msgspec.Struct, frozen=True):
    """One filter of a list and how many it shows."""

    label: str
    number: int
    address: str
    chosen: bool


class AccountForm(msgspec.Struct, frozen=True):
    """The form for a new account as it was filled in, without passwords (a proxy may hold one)."""

    email: str = ""
    proxy: str = ""


class AccountsPage(Page, frozen=True, kw_only=True):
    """One page of the list of accounts; `total` is the whole pool, whatever is searched for.

    Args:
        message: why something was not done, or empty.
        done: what was done just now, or empty.
        given: what was typed into the form for a new account.
        address: of this page: where an action on it leads back to.
    """

    accounts: list[Account]
    total: int
    tabs: list[Tab]
    state: str
    search: str
    concurrency: int
    first_address: str
    next_address: str
    address: str
    message: str = ""
    done: str = ""
    given: AccountForm = AccountForm()


class KeyForm(msgspec.Struct, frozen=True):
    """The form for a new key as it was filled in; an empty field isn't given."""

    name: str = ""
    rate_limit_per_minute: str = ""
    max_streams: str = ""
    daily_token_budget: str = ""
    models: str = ""
    expires_in_days: str = ""


class KeysPage(Page, frozen=True, kw_only=True):
    """The list of keys and the form for a new one.

    Args:
        configured: how many keys `API_KEY` has.
        message: why the form's key was not created, or empty.
        given: what was typed into it.
        deleted: a key was deleted just now.
        default_rate_limit: per minute, of keys without a limit of their own; 0 = none.
    """

    keys: list[ApiKey]
    configured: int
    default_rate_limit: int
    message: str = ""
    given: KeyForm = KeyForm()
    deleted: bool = False


async def lead_in(request: Request) -> Response:
    """`GET /`, `GET /admin` → `/admin/`."""
    return lead_to("/admin/")


async def show_overview(request: Request) -> Response:
    """`GET /admin/`."""
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    numbers = await gather(resources)
    catalogue = resources.catalogues.known()
    variants = catalogue.listing() if catalogue is not None else []
    page = OverviewPage(
        csrf_token=csrf_token_of(request),
        numbers=numbers,
        accounts=sum(numbers.accounts.values()),
        states=[
            StateCount(state, number, _accounts_address(state=state))
            for state, number in numbers.accounts.items()
        ],
        base_url=f"{str(request.base_url).rstrip('/')}/v1",
        example_model=variants[0].id if variants else "qwen3-max",
    )
    return render("overview", page)


async def show_accounts(request: Request) -> Response:
    """`GET /admin/accounts?state=&q=&cursor=`."""
    await resources_of(request).gate.identify_admin(request)
    done = DONE.get(request.query_params.get("done", ""), "")
    return render("accounts", await gather_accounts(request, request.query_params, done=done))


async def gather_accounts(
    request: Request,
    asked: Mapping[str, str],
    *,
    message: str = "",
    done: str = "",
    given: AccountForm | None = None,
) -> AccountsPage:
    """The list that was asked for as it is now, and what became of an action on it."""
    resources = resources_of(request)
    state, search = asked.get("state", ""), asked.get("q", "").strip()
    cursor = asked.get("cursor", "")
    accounts = resources.store.accounts
    found = await accounts.page(
        state=state_of(state), search=search, cursor=cursor, limit=ACCOUNTS_PER_PAGE
    )
    counts = await accounts.counts()
    return AccountsPage(
        csrf_token=csrf_token_of(request),
        accounts=[shown(account) for account in found.accounts],
        total=sum(counts.values()),
        tabs=_tabs(counts, chosen=state, search=search),
        state=state,
        search=search,
        concurrency=resources.settings.account_concurrency,
        first_address=_accounts_address(state=state, q=search) if cursor else "",
        next_address=(
            _accounts_address(state=state, q=search, cursor=found.next_cursor)
            if found.next_cursor
            else ""
        ),
        address=_accounts_address(state=state, q=search, cursor=cursor),
        message=message,
        done=done,
        given=given or AccountForm(),
    )


async def show_keys(request: Request) -> Response:
    """`GET /admin/keys`."""
    await resources_of(request).gate.identify_admin(request)
    return render("keys", await gather_keys(request))


async def gather_keys(
    request: Request, *, message: str = "", given: KeyForm | None = None
) -> KeysPage:
    """The list as it is now, and what became of the form that was sent."""
    resources = resources_of(request)
    return KeysPage(
        csrf_token=csrf_token_of(request),
        keys=await resources.store.api_keys.created(),
        configured=len(resources.settings.api_keys),
        default_rate_limit=resources.settings.rate_limit_per_minute,
        message=message,
        given=given or KeyForm(),
        deleted="deleted" in request.query_params,
    )


def redacted(message: str) -> str:
    """What was said of an account, for a page."""
    return _redact(message)


def shown(account: Account) -> Account:
    """The account as the list shows it: no secret in what was said of it, nothing said twice."""
    error, reason = account.last_error, account.state_reason
    if error is not None:
        reason = "" if reason == error.message else reason
        error = msgspec.structs.replace(error, message=_redact(error.message))
    return msgspec.structs.replace(account, state_reason=_redact(reason), last_error=error)


def _tabs(counts: dict[State, int], *, chosen: str, search: str) -> list[Tab]:
    every = Tab("all", sum(counts.values()), _accounts_address(q=search), not chosen)
    return [every] + [
        Tab(state, counts[state], _accounts_address(state=state, q=search), state == chosen)
        for state in STATES
    ]


def _accounts_address(**query: str | None) -> str:
    given = {name: value for name, value in query.items() if value}
    return "/admin/accounts" + (f"?{urllib.parse.urlencode(given)}" if given else "")
