"""The session of the operator's pages: one sealed cookie and nothing else, anywhere.

    Set-Cookie: gateway_session=v1:<key id>:<nonce>:<ciphertext>; HttpOnly; SameSite=Lax

Every host of the fleet reads it, because all share `SECRET_KEY` and the admin key; another admin
key, another `SECRET_KEY` or the end of its life makes it void. As there is no record of it, signing
out takes the cookie from the browser and does not touch a copy of it.

The cookie alone may read. Who wants to change something also shows the CSRF token that lies inside
it and that only our own pages can read.

SameSite=Lax and not Strict: with Strict, whoever follows a link from a dashboard or a chat to
`/admin/…` would be asked to sign in again. No GET changes anything, so Lax opens nothing.

Knows: the cookie, its life, the CSRF token. Does not know: pages, who may sign in.
"""

import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from shared.sealing import SealBroken, Sealer

COOKIE: Final = "gateway_session"
LIFE_SECONDS: Final = 12 * 3600

_PLACE: Final = "admin session"


class Session(msgspec.Struct, frozen=True):
    """What the cookie holds. `admin`: fingerprint of the admin key that opened it."""

    admin: str
    csrf_token: str
    expires_at: float

    def proves(self, csrf_token: str) -> bool:
        """Whether this is the token of the session's own pages."""
        return hmac.compare_digest(csrf_token.encode(), self.csrf_token.encode())


class Sessions:
    """Opens, reads and ends sessions. One per process; they hold nothing.

    Args:
        clock: seconds since the epoch; the hosts of a fleet agree on it well enough for hours.
    """

    def __init__(
        self, sealer: Sealer, *, admin_key: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._sealer = sealer
        self._clock = clock
        self._admin_key = admin_key.encode()

    def is_admin_key(self, key: str) -> bool:
        return bool(key) and hmac.compare_digest(key.encode(), self._admin_key)

    def open(self, request: HTTPConnection, response: Response) -> None:
        """The browser that gets `response` is signed in."""
        session = Session(
            admin=self._admins()[0],
            csrf_token=secrets.token_urlsafe(24),
            expires_at=self._clock() + LIFE_SECONDS,
        )
        sealed = self._sealer.seal(msgspec.json.encode(session).decode(), place=_PLACE)
        _set_cookie(request, response, sealed, life_seconds=LIFE_SECONDS)

    def end(self, request: HTTPConnection, response: Response) -> None:
        """The browser that gets `response` is signed out."""
        _set_cookie(request, response, "", life_seconds=0)

    def of(self, request: HTTPConnection) -> Session | None:
        """The request's session; None without a cookie, or when it is void."""
        sealed = request.cookies.get(COOKIE, "")
        try:
            session = msgspec.json.decode(self._sealer.unseal(sealed, place=_PLACE), type=Session)
        except (SealBroken, msgspec.DecodeError):
            return None
        if session.admin not in self._admins() or session.expires_at <= self._clock():
            return None
        return session

    def _admins(self) -> list[str]:
        """More than one after SECRET_KEY was changed: a session opened before goes on."""
        return self._sealer.fingerprints(self._admin_key.decode(), purpose=_PLACE)


def _set_cookie(
    request: HTTPConnection, response: Response, value: str, *, life_seconds: int
) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=life_seconds,
        path="/",  # the admin API reads it, too
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
