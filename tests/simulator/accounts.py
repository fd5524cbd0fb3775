"""Accounts, their tokens, and the sign-in endpoints (sections 1, 15.1).

A token is a JWT whose payload is `{"id", "last_password_change", "exp"}`; its signature is random, so two
logins never get the same one, and the simulator knows its tokens by heart.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tests.simulator.config import Config
from tests.simulator.connection import Exchange, Headers, Request, Response, json_response
from tests.simulator.failures import FAILURES, envelope_response, html_page, refuse
from tests.simulator.frames import encode

if TYPE_CHECKING:
    from tests.simulator.state import State

AccountState = Literal["active", "pending"]
TOKEN_SECONDS = 900  # of the access token that auth.qwen.ai gives (15.1)
REFRESH_SECONDS = 30 * 86400


class Account(msgspec.Struct):
    """One login. `cli` tells whether the device flow and the portal accept it (10)."""

    email: str
    password: str
    id: str = ""
    name: str = ""
    state: AccountState = "active"
    cli: bool = True
    password_changed_at: int = 1712000000
    settings: dict[str, Any] = {}
    quota: dict[str, int] = {}  # what is left today per chat type: `{"t2v": 3}`; missing = no end

    def __post_init__(self) -> None:
        self.id = self.id or str(uuid.uuid5(uuid.NAMESPACE_URL, self.email))
        self.name = self.name or self.email.partition("@")[0]
        if not self.settings:
            self.settings = {
                "memory": {"enable_memory": True, "enable_history_memory": True},
                "tools_enabled": {
                    "web_search": True,
                    "image_gen_tool": True,
                    "code_interpreter": True,
                },
            }

    @property
    def password_hash(self) -> str:
        return hashlib.sha256(self.password.encode()).hexdigest()


class Token(msgspec.Struct, frozen=True):
    email: str
    expires_at: float


class Accounts:
    """All accounts by e-mail, and every token that is in force."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[str, Token] = {}
        self._refresh_tokens: dict[str, Token] = {}

    def __iter__(self) -> Any:
        return iter(self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    def add(self, email: str, password: str, **more: Any) -> Account:
        """Add or replace an account; its tokens of before stay in force."""
        account = Account(email, password, **more)
        self._accounts[email.lower()] = account
        return account

    def change(self, fields: dict[str, Any]) -> Account:
        """Add an account or change the named fields of one; a new password ends its tokens (1)."""
        email = fields["email"]
        present = self.get(email)
        if present is None:
            return self.add(**fields)
        for name, value in fields.items():
            setattr(present, name, value)
        if "password" in fields:
            present.password_changed_at = int(time.time())
            self.revoke(email)
        return present

    def get(self, email: str) -> Account | None:
        return self._accounts.get(email.lower())

    def remove(self, email: str) -> None:
        self._accounts.pop(email.lower(), None)
        self.revoke(email)

    def by_token(self, token: str) -> Account | None:
        """The account of a web token that is in force."""
        known = self._tokens.get(token)
        if known is None or known.expires_at < time.time():
            return None
        return self._accounts.get(known.email)

    def by_refresh_token(self, token: str) -> Account | None:
        """The account of a refresh token, which is dead from now on: it rotates (15.1)."""
        known = self._refresh_tokens.pop(token, None)
        if known is None or known.expires_at < time.time():
            return None
        return self._accounts.get(known.email)

    def issue(self, account: Account, config: Config, *, lifetime: float | None = None) -> str:
        """A new token in the form the configuration asks for."""
        seconds = config.token_lifetime_seconds if lifetime is None else lifetime
        expires_at = time.time() + seconds
        payload: dict[str, Any] = {
            "id": account.id,
            "last_password_change": account.password_changed_at,
            "exp": int(expires_at),
        }
        if config.token_form == "no_exp":
            del payload["exp"]
        middle = b"\xff\xfe not json" if config.token_form == "undecodable" else encode(payload)
        head = _base64url(encode({"alg": "HS256", "typ": "JWT"}))
        token = f"{head}.{_base64url(middle)}.{secrets.token_urlsafe(32)}"
        self._tokens[token] = Token(account.email.lower(), expires_at)
        return token

    def issue_refresh(self, account: Account) -> str:
        token = "rt-" + secrets.token_urlsafe(32)
        self._refresh_tokens[token] = Token(account.email.lower(), time.time() + REFRESH_SECONDS)
        return token

    def revoke(self, email: str) -> int:
        """Drop the account's tokens before their time (1); returns how many there were."""
        dead = [token for token, known in self._tokens.items() if known.email == email.lower()]
        for token in dead:
            del self._tokens[token]
        return len(dead)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# -- who is asking


def authorize(
    state: State, request: Request, access: Literal["token", "cookie", "write"]
) -> Account | Response:
    """The account of a request, or why it is refused (1, 2, 7).

    `token`: the bearer token alone. `cookie`: the cookie must hold the same token. `write`: and the header
    `version` must be there, else the misleading `Bad_Request`.
    """
    account = state.accounts.by_token(request.bearer)
    config = state.config
    if account is None:
        return unauthorized(config)
    if account.state == "pending":
        return refuse("pending")
    if access != "token" and config.check_cookie and request.cookies.get("token") != request.bearer:
        return unauthorized(config, "The cookie's token is not accepted.")
    if access == "write" and config.check_version and not request.headers.get("version"):
        return refuse("MissingVersion")
    return account


def unauthorized(config: Config, details: str = "Token has expired.") -> Response:
    """401, or a blanket 200 with `x-actual-status-code: 401`; the envelope is the same (7)."""
    failure = msgspec.structs.replace(FAILURES["Unauthorized"], details=details)
    return envelope_response(failure, 200 if config.unauthorized == "blanket" else 401)


# -- endpoints


def signin(state: State, exchange: Exchange) -> Response:
    """`POST /api/v1/auths/signin` and v2: `{"email", "password": sha256 hex}` (1, 15.1)."""
    version = "v2" if "/v2/" in exchange.request.path else "v1"
    config = state.config
    variant = config.signin_v2 if version == "v2" else config.signin_v1
    if variant == "gone":
        return json_response({"detail": "Not Found"}, 404)
    fields = exchange.request.json()
    email, password = str(fields.get("email", "")), str(fields.get("password", ""))
    exchange.email = email
    address = exchange.request.address
    if not _admit(state, address):
        state.stats.login(email, address, "too_fast")
        return refuse("waf_page") if config.login_limit_form == "waf" else _too_fast()
    account = state.accounts.get(email)
    if account is None or password != account.password_hash:
        state.stats.login(email, address, "wrong_password")
        return _wrong_password(config)
    if account.state == "pending":
        state.stats.login(email, address, "pending")
        return _pending(account)
    state.stats.login(account.email, address, "ok")
    return _signed_in(state, account, variant)


def _admit(state: State, address: str) -> bool:
    """Whether one more login from `address` is within the limit (1; the limit per address is a report)."""
    config = state.config
    now = time.monotonic()
    recent = state.login_times.setdefault(address, [])
    recent[:] = [at for at in recent if now - at < config.login_window_seconds]
    if recent and (now - recent[-1]) * 1000 < config.login_min_interval_ms:
        return False
    if config.login_limit and len(recent) >= config.login_limit:
        return False
    recent.append(now)
    return True


def _too_fast() -> Response:
    return json_response({"detail": "Too many login attempts, please try again later."}, 429)


def _wrong_password(config: Config) -> Response:
    """400 with `detail`, or the envelope `InvalidPassword` (15.1)."""
    if config.wrong_password == "envelope":
        return refuse("InvalidPassword")
    detail = "The email or password provided is incorrect."
    return json_response({"detail": detail}, config.wrong_password_status)


def _pending(account: Account) -> Response:
    """A 200 with the account's record, role `pending`, and no token: a failed login (1, 15.1)."""
    record = {"id": account.id, "email": account.email, "role": "pending"}
    return json_response(record | {"detail": "Your account is pending activation."})


def _signed_in(state: State, account: Account, variant: str) -> Response:
    config = state.config
    pair = variant == "pair"
    token = state.accounts.issue(account, config, lifetime=TOKEN_SECONDS if pair else None)
    record = profile_of(account)
    until = int(time.time() + (TOKEN_SECONDS if pair else config.token_lifetime_seconds))
    cookie: Headers = [("set-cookie", f"token={token}; Path=/; HttpOnly; Secure; SameSite=Lax")]
    match variant:
        case "flat":
            flat = record | {"token": token, "token_type": "Bearer", "expires_at": until}
            return json_response(flat, headers=cookie)
        case "token":
            return json_response({"success": True, "data": record | {"token": token}})
        case "access_token":
            return json_response({"success": True, "data": record | {"access_token": token}})
        case "pair":
            data = {"access_token": token, "refresh_token": state.accounts.issue_refresh(account)}
            return json_response({"success": True, "data": data | {"expires_in": TOKEN_SECONDS}})
        case "cookie":
            return json_response({"success": True, "data": record}, headers=cookie)
        case _:
            return html_page(404)


def refresh(state: State, exchange: Exchange) -> Response:
    """`GET /api/v2/auths/refresh` of auth.qwen.ai: a 900 s access token, the refresh token rotates (15.1).

    How the refresh token is presented is not known: Bearer and cookie `refresh_token` are taken.
    """
    request = exchange.request
    presented = request.bearer or request.cookies.get("refresh_token", "")
    account = state.accounts.by_refresh_token(presented)
    if account is None:
        return unauthorized(state.config, "Refresh token has expired.")
    exchange.email = account.email
    state.stats.refreshes[account.email] += 1
    return _signed_in(state, account, "pair")


def profile(state: State, exchange: Exchange) -> Response:
    """`GET /api/v1/auths/`: the account's record, `role: user` (15.1)."""
    account = state.accounts.by_token(exchange.request.bearer)
    if account is None:
        return unauthorized(state.config)
    exchange.email = account.email
    return json_response(profile_of(account))


def profile_of(account: Account) -> dict[str, Any]:
    role = "user" if account.state == "active" else "pending"
    return {"id": account.id, "email": account.email, "name": account.name, "role": role}


def settings(state: State, exchange: Exchange) -> Response:
    """`GET /api/v2/users/user/settings` (15.2)."""
    account = state.account_of(exchange)
    return json_response({"success": True, "data": account.settings})


def settings_update(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/users/user/settings/update`: a partial update, merged (15.2)."""
    account = state.account_of(exchange)
    _merge(account.settings, exchange.request.json())
    return json_response({"success": True, "data": account.settings})


def quota(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/users/user/entitlement_quota`: `data.t2v.times_left` (15.2)."""
    account = state.account_of(exchange)
    data = {kind: {"times_left": account.quota.get(kind, 99)} for kind in ("t2t", "t2i", "t2v")}
    return json_response({"success": True, "data": data})


def _merge(into: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
