"""Signing in: from an e-mail and a password to an access token and the moment it lapses.

Source: protocol sheet 1 and 15.1. The token is a JWT whose signature nobody but the upstream can
check; only `exp` is read. Renewing is signing in again.
"""

import base64
import hashlib

import msgspec

from shared.errors import AccountDead, LoginFailed
from shared.upstream import wire

SIGN_IN_TARGETS = ("/api/v1/auths/signin", "/api/v2/auths/signin")
"""In the order in which they are tried; newer deployments may lack the first (1, 15.1)."""


class AccessToken(msgspec.Struct, frozen=True):
    """`expires_at` in epoch seconds. Keep a margin of 5 minutes (15.1)."""

    token: str
    expires_at: float

    def __repr__(self) -> str:
        """A token ends up in no log line."""
        return f"AccessToken(token='***', expires_at={self.expires_at})"


def hash_password(password: str) -> str:
    """SHA-256 of the password's UTF-8, lower-case hex (1)."""
    return hashlib.sha256(password.encode()).hexdigest()


def read_sign_in(body: bytes, set_cookies: list[str]) -> AccessToken | None:
    """The token of a sign-in answer in any of its variants; None when it holds none.

    v1 `{"token"}` · v2 `{"data": {"token"}}` or `{"data": {"access_token"}}` · v2 with only the
    record in the body and the token in `Set-Cookie: token=` (15.1).

    Raises:
        AccountDead: the account is not activated.
        LoginFailed: there is a token, but nobody can say how long it lives.
    """
    try:
        answer = wire.decode_sign_in(body)
    except wire.UNREADABLE:
        answer = wire.SignInAnswer()
    data = answer.data or wire.TokenHolder()
    if "pending" in (answer.role, data.role):
        raise AccountDead("The account is pending activation at the upstream")
    token = answer.token or answer.access_token or data.token or data.access_token
    token = token or _token_cookie(set_cookies)
    if not token:
        return None
    expires_at = token_expiry(token)
    if expires_at is None:
        raise LoginFailed("The upstream gave a token without an expiry")
    return AccessToken(token, expires_at)


def token_expiry(token: str) -> float | None:
    """`exp` of a JWT in epoch seconds; None when it can't be read: the token is unusable (1)."""
    parts = token.split(".")
    if len(parts) < 2:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return wire.decode_token_payload(payload).exp
    except (*wire.UNREADABLE, ValueError):  # binascii's and str.encode's are ValueErrors
        return None


def _token_cookie(set_cookies: list[str]) -> str | None:
    """The value of `token=…; Path=/; …`."""
    for line in set_cookies:
        name, _, rest = line.partition("=")
        value = rest.partition(";")[0].strip().strip('"')
        if name.strip() == "token" and value:
            return value
    return None
