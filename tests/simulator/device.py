"""The device flow of the CLI login: codes, PKCE, and rotating refresh tokens (section 10)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulator.connection import Exchange, Response, json_response
from tests.simulator.failures import Failure as Envelope
from tests.simulator.failures import envelope_response, html_page, refuse

if TYPE_CHECKING:
    from tests.simulator.script import Action
    from tests.simulator.state import State

CLIENT_ID = "f0304373b74a44d2b584a3fb70ca9e56"
SCOPE = "openid profile email model.completion"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
FORM = "application/x-www-form-urlencoded"
TOO_SOON = ("slow_down", 429)


class Device(msgspec.Struct):
    """One device code on its way to a token; it works once."""

    device_code: str
    user_code: str
    challenge: str
    expires_at: float
    email: str = ""  # who approved it
    denied: bool = False
    used: bool = False
    asked_after_approval: int = 0
    last_asked: float = 0.0


class CliToken(msgspec.Struct, frozen=True):
    email: str
    expires_at: float


class Devices:
    """Device codes, access tokens and refresh tokens of the CLI lane."""

    def __init__(self) -> None:
        self.by_device_code: dict[str, Device] = {}
        self.by_user_code: dict[str, Device] = {}
        self._access: dict[str, CliToken] = {}
        self._refresh: dict[str, str] = {}

    def new(self, challenge: str, *, lifetime_seconds: float) -> Device:
        user_code = secrets.token_hex(4).upper()
        device = Device(
            secrets.token_urlsafe(32), user_code, challenge, time.time() + lifetime_seconds
        )
        self.by_device_code[device.device_code] = self.by_user_code[user_code] = device
        return device

    def issue(self, email: str, *, lifetime_seconds: float) -> tuple[str, str]:
        """A new access token and a new refresh token."""
        access, refresh = "cli-" + secrets.token_urlsafe(32), "clir-" + secrets.token_urlsafe(32)
        self._access[access] = CliToken(email, time.time() + lifetime_seconds)
        self._refresh[refresh] = email
        return access, refresh

    def spend_refresh(self, token: str) -> str:
        """The owner of a refresh token, which is dead from now on; empty when it is unknown."""
        return self._refresh.pop(token, "")

    def keep_refresh(self, token: str, owner: str) -> None:
        self._refresh[token] = owner

    def owner(self, access_token: str) -> str:
        """Who holds an access token that is in force; empty when nobody does."""
        known = self._access.get(access_token)
        return known.email if known is not None and known.expires_at > time.time() else ""

    def revoke(self, email: str, *, refresh_too: bool = False) -> None:
        self._access = {key: one for key, one in self._access.items() if one.email != email}
        if refresh_too:
            self._refresh = {key: one for key, one in self._refresh.items() if one != email}


# -- endpoints


def device_code(state: State, exchange: Exchange) -> Response:
    """`POST /api/v1/oauth2/device/code`, form-encoded (10.1)."""
    fields = _form(exchange)
    if isinstance(fields, Response):
        return fields
    if fields.get("client_id") != CLIENT_ID:
        return oauth_error("invalid_client", 401)
    if fields.get("scope") != SCOPE:
        return oauth_error("invalid_scope")
    challenge = fields.get("code_challenge", "")
    if fields.get("code_challenge_method") != "S256" or not re.fullmatch(r"[\w-]{43}", challenge):
        return oauth_error("invalid_request", details="code_challenge must be S256, 43 characters")
    device = state.devices.new(challenge, lifetime_seconds=state.config.device_code_seconds)
    page = f"http://{exchange.request.headers.get('host', '')}{exchange.prefix}/authorize"
    return json_response(
        {
            "device_code": device.device_code,
            "user_code": device.user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={device.user_code}&client=qwen-code",
            "expires_in": int(state.config.device_code_seconds),
        }
    )


def device_authorize(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/oauth2/authorize` `{"approved", "user_code"}` with the web token as Bearer (10.2)."""
    account = state.account_of(exchange)
    body = exchange.request.json()
    device = state.devices.by_user_code.get(str(body.get("user_code", "")))
    if not account.cli:
        missing = Envelope("Forbidden", "This account cannot use the CLI service.", 403)
        return envelope_response(missing, 403)
    if device is None or device.expires_at < time.time() or device.used:
        return envelope_response(Envelope("Bad_Request", "user_code is invalid", 400), 400)
    device.email = account.email
    device.denied = body.get("approved") is not True
    return json_response({"success": True, "data": {"approved": not device.denied}})


def device_token(state: State, exchange: Exchange) -> Response:
    """`POST /api/v1/oauth2/token`, form-encoded: a device code or a refresh token for tokens (10.3, 10.4)."""
    fields = _form(exchange)
    if isinstance(fields, Response):
        return fields
    if fields.get("client_id") != CLIENT_ID:
        return oauth_error("invalid_client", 401)
    if fields.get("grant_type") == DEVICE_GRANT:
        return _from_device_code(state, exchange, fields)
    if fields.get("grant_type") == "refresh_token":
        return _from_refresh_token(state, exchange, fields)
    return oauth_error("unsupported_grant_type")


def _from_device_code(state: State, exchange: Exchange, fields: dict[str, str]) -> Response:
    device = state.devices.by_device_code.get(fields.get("device_code", ""))
    if device is None or device.used:
        return oauth_error("invalid_grant")
    exchange.email = device.email
    now = time.monotonic()
    soon = device.last_asked and (now - device.last_asked) * 1000 < state.config.device_interval_ms
    device.last_asked = now
    if soon:
        return oauth_error(*TOO_SOON)
    if device.expires_at < time.time():
        return oauth_error("expired_token")
    if device.denied:
        return oauth_error("access_denied")
    verifier = fields.get("code_verifier", "")
    if not 43 <= len(verifier) <= 128 or challenge_of(verifier) != device.challenge:
        return oauth_error("invalid_grant", details="code_verifier does not match")
    if not device.email:
        return oauth_error("authorization_pending")
    device.asked_after_approval += 1
    if device.asked_after_approval <= state.config.device_pending_polls:
        return oauth_error("authorization_pending")
    device.used = True
    return _tokens(state, device.email)


def _from_refresh_token(state: State, exchange: Exchange, fields: dict[str, str]) -> Response:
    owner = state.devices.spend_refresh(fields.get("refresh_token", ""))
    if not owner:
        return oauth_error("invalid_request", details="Invalid refresh token or client_id")
    exchange.email = owner
    state.stats.refreshes[owner] += 1
    if state.config.refresh_rotates:
        return _tokens(state, owner)
    state.devices.keep_refresh(fields["refresh_token"], owner)
    return _tokens(state, owner, with_refresh=False)


def _tokens(state: State, owner: str, *, with_refresh: bool = True) -> Response:
    """`{"access_token", "refresh_token", "token_type", "expires_in", "resource_url"}` (10.3)."""
    seconds = state.config.cli_token_seconds
    access, refresh = state.devices.issue(owner, lifetime_seconds=seconds)
    answer: dict[str, Any] = {
        "status": "success",
        "access_token": access,
        "token_type": "Bearer",
        "expires_in": int(seconds),
        "resource_url": state.config.resource_url,
    }
    if with_refresh:
        answer["refresh_token"] = refresh
    return json_response(answer)


def challenge_of(verifier: str) -> str:
    """base64url without padding of the verifier's SHA-256 (10.1)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _form(exchange: Exchange) -> dict[str, str] | Response:
    if not exchange.request.headers.get("content-type", "").startswith(FORM):
        return oauth_error("invalid_request", details="the body must be form-encoded")
    return exchange.request.form()


def oauth_error(code: str, status: int = 400, *, details: str = "") -> Response:
    return json_response({"error": code, "error_description": details or code}, status)


def failure(action: Action) -> Response:
    """A scripted OAuth error (`fail=slow_down`), or a page of failures.PAGES (`fail=html_504`)."""
    name = action.fail or "authorization_pending"
    if name.startswith("html_"):
        return html_page(int(name[5:]))
    if name == "waf_page":
        return refuse(name)
    status = action.status or (429 if name == "slow_down" else 400)
    return oauth_error(name, status, details=action.details or "")
