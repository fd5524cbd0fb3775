"""Sign-in, tokens, and who is let in: sections 1, 2, 7, 15.1."""

import base64
import time
from typing import Any

import msgspec
import pytest

from tests.integration.simulator.raw import (
    ask,
    chat_body,
    credentials,
    new_chat,
    sha256,
    sign_in,
)
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

V1 = "/api/v1/auths/signin"
V2 = "/api/v2/auths/signin"
EMAIL = "demo1@example.com"


def payload_of(token: str) -> Any:
    middle = token.split(".")[1]
    return msgspec.json.decode(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


async def test_v1_answers_a_flat_body_with_a_token(sim: Simulator) -> None:
    """Section 1."""
    answer = (await ask(sim, "POST", V1, credentials())).json()
    payload = payload_of(answer["token"])
    assert {"id", "last_password_change", "exp"} == set(payload)
    assert answer["email"] == EMAIL
    assert answer["role"] == "user"
    assert payload["exp"] == pytest.approx(time.time() + 30 * 86400, abs=60)
    assert sim.stats.logins[EMAIL] == 1


async def test_two_logins_never_give_the_same_token(sim: Simulator) -> None:
    first = (await ask(sim, "POST", V1, credentials())).json()["token"]
    second = (await ask(sim, "POST", V1, credentials())).json()["token"]
    assert first != second
    assert sim.stats.logins[EMAIL] == 2


@pytest.mark.parametrize("variant", ["token", "access_token"])
async def test_v2_answers_the_token_inside_data(sim: Simulator, variant: str) -> None:
    """Section 15.1: `data.token`, `data.access_token`."""
    sim.configure(signin_v2=variant)
    answer = (await ask(sim, "POST", V2, credentials())).json()
    assert payload_of(answer["data"][variant])["id"]
    assert "token" not in answer


async def test_v2_can_deliver_the_token_as_cookie_only(sim: Simulator) -> None:
    """Sections 1 and 15.1."""
    sim.configure(signin_v2="cookie")
    reply = await ask(sim, "POST", V2, credentials())
    assert reply.json()["data"]["email"] == EMAIL
    assert b"ey" not in reply.body
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("token=ey")
    token = cookie.split(";")[0].removeprefix("token=")
    assert payload_of(token)["exp"]


async def test_a_version_that_is_gone_is_404(sim: Simulator) -> None:
    sim.configure(signin_v1="gone")
    assert (await ask(sim, "POST", V1, credentials())).status == 404


async def test_the_pair_gives_a_short_access_token_and_a_refresh_token_that_rotates(
    sim: Simulator,
) -> None:
    """Section 15.1: auth.qwen.ai, 900 s."""
    sim.configure(signin_v2="pair")
    first = (await ask(sim, "POST", V2, credentials())).json()["data"]
    assert payload_of(first["access_token"])["exp"] == pytest.approx(time.time() + 900, abs=60)
    bearer = {"authorization": f"Bearer {first['refresh_token']}"}
    second = (await ask(sim, "GET", "/api/v2/auths/refresh", headers=bearer)).json()["data"]
    assert second["refresh_token"] != first["refresh_token"]
    again = await ask(sim, "GET", "/api/v2/auths/refresh", headers=bearer)
    assert again.status == 401
    assert sim.stats.refreshes[EMAIL] == 1


@pytest.mark.parametrize(
    "password",
    ["demo-password-1", sha256("demo-password-1").upper(), sha256("other"), ""],
)
async def test_only_the_lower_case_hash_of_the_password_is_taken(
    sim: Simulator, password: str
) -> None:
    """Section 1: SHA-256, lower-case hex."""
    reply = await ask(sim, "POST", V1, credentials() | {"password": password})
    assert reply.status == 400
    assert set(reply.json()) == {"detail"}
    assert sim.stats.logins[EMAIL] == 0


async def test_a_wrong_password_can_be_an_envelope(sim: Simulator) -> None:
    """Section 15.1: `InvalidPassword`."""
    sim.configure(wrong_password="envelope")
    reply = await ask(sim, "POST", V2, credentials() | {"password": sha256("x")})
    assert (reply.status, reply.code) == (200, "InvalidPassword")


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_the_status_of_a_wrong_password_varies(sim: Simulator, status: int) -> None:
    """Section 15.1."""
    sim.configure(wrong_password_status=status)
    assert (await ask(sim, "POST", V1, credentials() | {"email": "no@x"})).status == status


async def test_a_pending_account_gets_no_token(sim: Simulator) -> None:
    """Section 15.1; a 200 without token is a failed login (1)."""
    sim.accounts.change({"email": EMAIL, "state": "pending"})
    reply = await ask(sim, "POST", V1, credentials())
    assert reply.status == 200
    assert reply.json()["role"] == "pending"
    assert "token" not in reply.json()
    assert "set-cookie" not in reply.headers


async def test_too_many_logins_from_one_address_are_429(sim: Simulator) -> None:
    """Section 1: about a dozen in six minutes."""
    sim.configure(login_limit=2)
    replies = [(await ask(sim, "POST", V1, credentials(n))).status for n in (1, 2, 3)]
    assert replies == [200, 200, 429]


async def test_logins_in_quick_succession_can_bring_up_the_firewall(sim: Simulator) -> None:
    """Section 15.1."""
    sim.configure(login_min_interval_ms=60000, login_limit_form="waf")
    assert (await ask(sim, "POST", V1, credentials(1))).status == 200
    reply = await ask(sim, "POST", V1, credentials(2))
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_a_login_can_be_slow(sim: Simulator) -> None:
    sim.configure(latency_ms={"signin": 80})
    before = time.monotonic()
    assert (await ask(sim, "POST", V1, credentials())).status == 200
    assert time.monotonic() - before >= 0.08


async def test_a_token_may_lack_exp(sim: Simulator) -> None:
    """Section 1: such a token is unusable for a client."""
    sim.configure(token_form="no_exp")
    token = (await ask(sim, "POST", V1, credentials())).json()["token"]
    assert set(payload_of(token)) == {"id", "last_password_change"}


async def test_a_token_may_be_undecodable(sim: Simulator) -> None:
    """Section 1."""
    sim.configure(token_form="undecodable")
    token = (await ask(sim, "POST", V1, credentials())).json()["token"]
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        payload_of(token)


async def test_the_profile_tells_a_good_token(sim: Simulator) -> None:
    """Section 15.1: `GET /api/v1/auths/`, `role: user`."""
    headers = await sign_in(sim)
    assert (await ask(sim, "GET", "/api/v1/auths/", headers=headers)).json()["role"] == "user"
    assert (await ask(sim, "GET", "/api/v1/auths/")).status == 401


# -- refusals


async def refused(sim: Simulator, headers: dict[str, str]) -> Any:
    return await ask(sim, "POST", "/api/v2/chats/new", chat_body(), headers)


async def test_a_lapsed_token_is_unauthorized(sim: Simulator) -> None:
    """Sections 1 and 7."""
    sim.configure(token_lifetime_seconds=-1)
    reply = await refused(sim, await sign_in(sim))
    assert (reply.status, reply.code) == (401, "Unauthorized")


async def test_a_revoked_token_is_unauthorized_before_exp(sim: Simulator) -> None:
    """Section 1: the server can drop a token before `exp`."""
    headers = await sign_in(sim)
    assert sim.accounts.revoke(EMAIL) == 1
    assert (await refused(sim, headers)).status == 401


async def test_a_new_password_ends_the_tokens(sim: Simulator) -> None:
    """Section 1."""
    headers = await sign_in(sim)
    sim.accounts.change({"email": EMAIL, "password": "new"})
    assert (await refused(sim, headers)).status == 401


async def test_unauthorized_can_hide_behind_200(sim: Simulator) -> None:
    """Section 7: 200 with `x-actual-status-code: 401`."""
    sim.configure(unauthorized="blanket")
    reply = await refused(sim, {"version": "1"})
    assert (reply.status, reply.code) == (200, "Unauthorized")
    assert reply.headers["x-actual-status-code"] == "401"


@pytest.mark.parametrize("cookie", [None, "token=other", "acw_tc=1"])
async def test_a_write_needs_the_same_token_as_cookie(sim: Simulator, cookie: str | None) -> None:
    """Section 1: bearer and cookie, the same value."""
    headers = await sign_in(sim)
    del headers["cookie"]
    if cookie is not None:
        headers["cookie"] = cookie
    assert (await refused(sim, headers)).status == 401


async def test_site_cookies_after_the_token_are_fine(sim: Simulator) -> None:
    """Section 12: operator-supplied cookies follow `token=…`."""
    headers = await sign_in(sim)
    headers["cookie"] += "; ssxmod_itna=abc; acw_tc=def"
    assert (await refused(sim, headers)).json()["success"] is True


async def test_a_cookie_alone_is_not_enough(sim: Simulator) -> None:
    """Section 1."""
    headers = await sign_in(sim)
    del headers["authorization"]
    assert (await refused(sim, headers)).status == 401


async def test_a_write_without_version_gets_a_misleading_bad_request(sim: Simulator) -> None:
    """Section 2."""
    headers = await sign_in(sim)
    del headers["version"]
    reply = await refused(sim, headers)
    assert (reply.status, reply.code) == (200, "Bad_Request")
    assert "version" not in reply.json()["data"]["details"]


async def test_a_read_needs_neither_cookie_nor_version(sim: Simulator) -> None:
    """Section 2: chat detail and task status are called with far fewer headers."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    bare = {"authorization": headers["authorization"]}
    reply = await ask(sim, "GET", f"/api/v2/chats/{chat_id}", headers=bare)
    assert reply.json()["data"]["id"] == chat_id
