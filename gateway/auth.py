"""Who is asking, and whether work may start: API key → caller, its limits, model allow-list.

Knows: where keys stand in a request, the keys of `API_KEY`, what a session of the operator's pages
may do. Stored keys are the store's.
"""

import math
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from gateway.responses import Run
from gateway.session import Sessions
from shared import metrics
from shared.chat.models import Variant
from shared.chat.request import ChatRequest
from shared.errors import Forbidden, RateLimited, Unauthorized
from shared.store.api_keys import ApiKey
from shared.store.store import Store
from shared.turns.allowed import AllowedTurn, is_limited, require_budget
from shared.turns.run import ChatTurn, Turns

# Methods that change nothing: a session's cookie is enough for them.
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """Identifies callers and admits their requests. One per process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._admin_key = next(iter(store.settings.configured.api_keys), "")
        self.sessions = Sessions(store.sealer, admin_key=self._admin_key)

    async def identify(self, request: Request) -> ApiKey:
        """The caller behind the request's key.

        Raises:
            Unauthorized: no key, one that nobody has, or one that has expired.
            StoreUnavailable: a key that isn't known here while the store is away; never 401 then.
        """
        key = presented_key(request.scope)
        if not key:
            raise Unauthorized(
                "No API key was given: send `Authorization: Bearer <key>` or `x-api-key: <key>`"
            )
        caller = await self._store.api_keys.find(key)
        request.scope["story"]["key"] = caller.name
        request.scope["caller"] = caller
        return caller

    async def identify_admin(self, request: Request, *, csrf_token: str = "") -> ApiKey:
        """The admin, by the admin key or by a session of the operator's pages; a key comes first.

        Args:
            csrf_token: what a form says; otherwise the header `X-CSRF-Token` counts.

        Raises:
            Unauthorized: neither a key nor a session, or a wrong key.
            Forbidden: a regular key, or a session's cookie alone that wants to change something.
        """
        session = None if presented_key(request.scope) else self.sessions.of(request)
        if session is None:
            caller = await self.identify(request)
            if not caller.admin:
                raise Forbidden("Only the admin key may do that")
            return caller
        csrf_token = csrf_token or request.headers.get("x-csrf-token", "")
        if request.method not in _READING and not session.proves(csrf_token):
            raise Forbidden(
                "With the session cookie alone nothing can be changed: send the page's CSRF token "
                "as X-CSRF-Token, or load the page again"
            )
        caller = await self._store.api_keys.find(self._admin_key)
        request.scope["story"]["key"] = caller.name
        return caller

    async def admit(self, caller: ApiKey, scope: Scope) -> None:
        """Count one request of this caller and leave its `x-ratelimit-*` headers in the scope.

        Raises:
            RateLimited: over its limit per minute; `retry_after_seconds` says for how long.
        """
        limit = caller.rate_limit_per_minute
        if limit is None:
            limit = self._store.settings.current.rate_limit_per_minute
        if not limit:
            return
        admission = await self._store.limits.take(caller.id, limit)
        scope["answer_headers"] += [
            (b"x-ratelimit-limit-requests", b"%d" % admission.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % admission.remaining),
            (b"x-ratelimit-reset-requests", b"%ds" % math.ceil(admission.reset_seconds)),
        ]
        if not admission.allowed:
            metrics.RATE_LIMITED.of("key").inc()
            raise RateLimited(
                f"This API key may send {limit} requests a minute",
                retry_after_seconds=admission.retry_after_seconds,
            )

    def limit(self, turn: ChatTurn, caller: ApiKey, *, turns: Turns) -> Run:
        """The turn as it may run for this caller: within its turns at once, its tokens of the day.

        Its `run` raises RateLimited where it may not.
        """
        if not is_limited(caller):
            return turn
        return AllowedTurn(turn, caller, allowances=self._store.allowances, own=turns.own)

    async def require_budget(self, caller: ApiKey, request: ChatRequest) -> None:
        """Something of this caller may be put down that will run later.

        Raises:
            RateLimited: its tokens of the day are spent.
        """
        await require_budget(caller, request, allowances=self._store.allowances)


def check_model(caller: ApiKey, variant: Variant) -> None:
    """A key with an allow-list may use those models only.

    Raises:
        Forbidden: the model isn't on the caller's list.
    """
    if not may_use(caller, variant):
        raise Forbidden("This API key may not use that model")


def may_use(caller: ApiKey, variant: Variant) -> bool:
    if not caller.models:
        return True
    # A base model's name allows all its variants, a variant's name only that one.
    allowed = {name.strip().lower() for name in caller.models}
    bases = (variant.model_id.lower(), variant.display_name.lower())
    return any(base in allowed or base + variant.suffix in allowed for base in bases)


def presented_key(scope: Scope) -> str | None:
    """`Authorization: Bearer`, `x-api-key` or `api-key`; a value that is no text is no key."""
    for name, value in scope["headers"]:
        if name in (b"x-api-key", b"api-key") and value.strip():
            return _text(value)
    return bearer_of(scope)


def bearer_of(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and token.strip():
                return _text(token)
    return None


def _text(raw: bytes) -> str:
    return raw.strip().decode("utf-8", "replace")
