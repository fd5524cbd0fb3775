"""The device flow and its tokens: section 10."""

import base64
import hashlib
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.integration.simulator.raw import Reply, ask, sign_in
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

CLIENT = "f0304373b74a44d2b584a3fb70ca9e56"
SCOPE = "openid profile email model.completion"
VERIFIER = "v" * 43
FORM = {"content-type": "application/x-www-form-urlencoded"}
EMAIL = "demo1@example.com"


def challenge(verifier: str = VERIFIER) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


async def post(sim: Simulator, path: str, fields: dict[str, str]) -> Reply:
    return await ask(sim, "POST", path, urlencode(fields).encode(), FORM)


async def code(sim: Simulator, **changes: str) -> Reply:
    fields = {
        "client_id": CLIENT,
        "scope": SCOPE,
        "code_challenge": challenge(),
        "code_challenge_method": "S256",
    }
    return await post(sim, "/api/v1/oauth2/device/code", fields | changes)


async def approve(sim: Simulator, user_code: str, *, approved: bool = True) -> Reply:
    body = {"approved": approved, "user_code": user_code}
    return await ask(sim, "POST", "/api/v2/oauth2/authorize", body, await sign_in(sim))


async def token(sim: Simulator, device_code: str, **changes: str) -> Reply:
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": CLIENT,
        "device_code": device_code,
        "code_verifier": VERIFIER,
    }
    return await post(sim, "/api/v1/oauth2/token", fields | changes)


async def refresh(sim: Simulator, refresh_token: str) -> Reply:
    fields = {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": CLIENT}
    return await post(sim, "/api/v1/oauth2/token", fields)


async def logged_in(sim: Simulator) -> Any:
    """The token answer of a whole device flow of account 1."""
    started = (await code(sim)).json()
    await approve(sim, started["user_code"])
    return (await token(sim, started["device_code"])).json()


async def test_the_whole_flow_ends_with_tokens(sim: Simulator) -> None:
    started = (await code(sim)).json()
    names = {"device_code", "user_code", "verification_uri", "verification_uri_complete"}
    assert names | {"expires_in"} == set(started)
    waiting = await token(sim, started["device_code"])
    assert (waiting.status, waiting.json()["error"]) == (400, "authorization_pending")
    assert (await approve(sim, started["user_code"])).status == 200
    answer = (await token(sim, started["device_code"])).json()
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 21600
    assert answer["resource_url"] == "portal.qwen.ai"
    assert answer["access_token"] != answer["refresh_token"]


async def test_a_device_code_works_once(sim: Simulator) -> None:
    started = (await code(sim)).json()
    await approve(sim, started["user_code"])
    assert (await token(sim, started["device_code"])).status == 200
    again = await token(sim, started["device_code"])
    assert (again.status, again.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("verifier", ["w" * 43, "v" * 42, "v" * 129, ""])
async def test_the_verifier_must_match_the_challenge(sim: Simulator, verifier: str) -> None:
    started = (await code(sim)).json()
    await approve(sim, started["user_code"])
    refused = await token(sim, started["device_code"], code_verifier=verifier)
    assert (refused.status, refused.json()["error"]) == (400, "invalid_grant")
    assert (await token(sim, started["device_code"])).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": "other"},
        {"scope": "openid"},
        {"code_challenge": "short"},
        {"code_challenge": challenge() + "="},
        {"code_challenge_method": "plain"},
    ],
)
async def test_a_wrong_request_for_a_code_is_refused(
    sim: Simulator, change: dict[str, str]
) -> None:
    assert (await code(sim, **change)).status in (400, 401)


async def test_json_in_place_of_a_form_is_refused(sim: Simulator) -> None:
    body = {"client_id": CLIENT, "scope": SCOPE, "code_challenge": challenge()}
    for path in ("/api/v1/oauth2/device/code", "/api/v1/oauth2/token"):
        reply = await ask(sim, "POST", path, body, {"content-type": "application/json"})
        assert (reply.status, reply.json()["error"]) == (400, "invalid_request")


async def test_approval_may_take_effect_late(sim: Simulator) -> None:
    sim.configure(device_pending_polls=2)
    started = (await code(sim)).json()
    await approve(sim, started["user_code"])
    answers = [(await token(sim, started["device_code"])).status for _ in range(3)]
    assert answers == [400, 400, 200]


async def test_polling_too_often_is_slowed_down(sim: Simulator) -> None:
    sim.configure(device_interval_ms=60000)
    started = (await code(sim)).json()
    assert (await token(sim, started["device_code"])).json()["error"] == "authorization_pending"
    slow = await token(sim, started["device_code"])
    assert (slow.status, slow.json()["error"]) == (429, "slow_down")


async def test_a_code_lapses(sim: Simulator) -> None:
    sim.configure(device_code_seconds=-1)
    started = (await code(sim)).json()
    assert (await token(sim, started["device_code"])).json()["error"] == "expired_token"


async def test_a_denied_code_says_so(sim: Simulator) -> None:
    started = (await code(sim)).json()
    await approve(sim, started["user_code"], approved=False)
    assert (await token(sim, started["device_code"])).json()["error"] == "access_denied"


async def test_an_account_without_the_service_cannot_approve(sim: Simulator) -> None:
    """Section 10.2: not 2xx."""
    sim.accounts.change({"email": EMAIL, "cli": False})
    started = (await code(sim)).json()
    assert (await approve(sim, started["user_code"])).status == 403


async def test_approval_needs_a_web_token_and_a_known_code(sim: Simulator) -> None:
    body = {"approved": True, "user_code": "unknown"}
    assert (await ask(sim, "POST", "/api/v2/oauth2/authorize", body)).status == 401
    assert (await approve(sim, "unknown")).status == 400


async def test_gateway_timeouts_in_between_are_html(sim: Simulator) -> None:
    """Section 10.3: 504 and HTML are to be retried."""
    sim.next(operation="device_token", fail="html_504")
    started = (await code(sim)).json()
    assert (await token(sim, started["device_code"])).status == 504
    sim.next(operation="device_token", fail="slow_down")
    assert (await token(sim, started["device_code"])).status == 429


async def test_a_refresh_token_rotates_and_the_old_one_is_dead(sim: Simulator) -> None:
    """Section 10.4."""
    first = await logged_in(sim)
    second = (await refresh(sim, first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert (await refresh(sim, first["refresh_token"])).status == 400
    assert (await refresh(sim, second["refresh_token"])).status == 200
    assert sim.stats.refreshes[EMAIL] == 2


async def test_a_refresh_may_bring_no_new_refresh_token(sim: Simulator) -> None:
    """Section 10.4: then the old one is kept."""
    sim.configure(refresh_rotates=False)
    first = await logged_in(sim)
    assert "refresh_token" not in (await refresh(sim, first["refresh_token"])).json()
    assert (await refresh(sim, first["refresh_token"])).status == 200
