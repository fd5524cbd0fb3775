"""Every failure of sections 7 and 15.4 can be scripted, on any operation, in every form."""

import asyncio

import pytest

from tests.integration.simulator.raw import ask, chat_body, connected, sign_in, turn
from tests.simulator.failures import FAILURES, NAMES, PAGES
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", NAMES)
async def test_every_failure_answers_a_completion_without_an_answer(
    sim: Simulator, name: str
) -> None:
    sim.next(operation="completions", fail=name)
    reply = await turn(sim)
    assert b'"finished"' not in reply.body
    assert sim.stats.ended["broken"] == 1
    assert (await turn(sim)).text(), "it was for one request"


@pytest.mark.parametrize("name", [name for name in FAILURES if not name.startswith("Error")])
async def test_an_envelope_says_the_real_status_in_a_header(sim: Simulator, name: str) -> None:
    """Sections 2 and 7."""
    sim.next(operation="completions", fail=name)
    reply = await turn(sim)
    assert (reply.status, reply.code) == (200, FAILURES[name].code)
    assert reply.headers["x-actual-status-code"] == str(FAILURES[name].actual)


async def test_the_hours_to_wait_can_be_given_or_missing(sim: Simulator) -> None:
    """Section 7: `num` may be missing."""
    assert (await turn(sim, "[[sim: fail=RateLimited num=4]]")).json()["data"]["num"] == 4
    assert "num" not in (await turn(sim, "[[sim: fail=RateLimited num=-1]]")).json()["data"]


async def test_an_unknown_name_is_a_code(sim: Simulator) -> None:
    """Section 14: the list of codes is not known."""
    assert (await turn(sim, "[[sim: fail=Brand_New_Code]]")).code == "Brand_New_Code"


async def test_an_envelope_may_carry_its_status(sim: Simulator) -> None:
    reply = await turn(sim, "[[sim: fail=Unauthorized status=401]]")
    assert (reply.status, reply.code) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("form", "sign"),
    [
        ("frame", {"success", "request_id", "data"}),
        ("error", {"error"}),
        ("error_text", {"error"}),
    ],
)
async def test_an_error_can_be_a_frame_first_or_after_content(
    sim: Simulator, form: str, sign: set[str]
) -> None:
    """Section 7."""
    first = await turn(sim, f"[[sim: fail=internal_error form={form}]]")
    assert set(first.frames[0]) == sign
    later = await turn(sim, f"[[sim: frames=9 fail=internal_error form={form} after=4]]")
    assert len(later.frames) == 5
    assert set(later.frames[4]) == sign
    text = later.frames[4].get("error")
    assert isinstance(text, {"error": dict, "error_text": str}.get(form, type(None)))


async def test_a_failure_after_content_is_an_envelope_frame(sim: Simulator) -> None:
    """Section 7."""
    reply = await turn(sim, "[[sim: frames=9 fail=RateLimited after=3]]")
    assert reply.frames[3]["data"]["code"] == "RateLimited"


@pytest.mark.parametrize("name", [name for name in PAGES if name != "waf_page"])
async def test_pages_of_gateways_in_between_are_html(sim: Simulator, name: str) -> None:
    """Section 7."""
    sim.next(operation="completions", fail=name)
    reply = await turn(sim)
    assert reply.status == int(name[5:])
    assert reply.headers["content-type"] == "text/html"


async def test_the_firewall_answers_a_page_or_json_with_status_200(sim: Simulator) -> None:
    """Sections 7 and 12."""
    page = await turn(sim, "[[sim: fail=waf_page]]")
    assert (page.status, page.body[:15]) == (200, b"<!doctype html>")
    punished = await turn(sim, "[[sim: fail=punish]]")
    assert punished.status == 200
    assert punished.json()["ret"][0] == "FAIL_SYS_USER_VALIDATE"
    assert "punish" in punished.json()["data"]["url"]


async def test_an_answer_can_be_empty(sim: Simulator) -> None:
    """Section 7: nothing recognisable is a failure."""
    reply = await turn(sim, "[[sim: empty]]")
    assert (reply.status, reply.body) == (200, b"")


async def test_an_answer_can_be_json_in_place_of_a_stream(sim: Simulator) -> None:
    reply = await turn(sim, "[[sim: fail=json_answer]]")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json()["choices"][0]["message"]["content"]


async def test_any_answer_can_be_spelled_out(sim: Simulator) -> None:
    sim.next(operation="models", status=418, body='{"a": 1}', headers={"retry-after": "7"})
    reply = await ask(sim, "GET", "/api/models")
    assert (reply.status, reply.json(), reply.headers["retry-after"]) == (418, {"a": 1}, "7")


async def test_members_of_an_answer_can_be_replaced_and_removed(sim: Simulator) -> None:
    """Section 4: no `data.id` means failure, whatever the HTTP status."""
    sim.next(operation="chats_new", set={"data": {}, "request_id": None})
    reply = await ask(sim, "POST", "/api/v2/chats/new", chat_body(), await sign_in(sim))
    assert reply.json() == {"success": True, "data": {}}


@pytest.mark.parametrize("operation", ["models", "chats_new", "signin"])
async def test_any_operation_can_be_reset_or_hang(sim: Simulator, operation: str) -> None:
    paths = {
        "models": ("GET", "/api/models"),
        "chats_new": ("POST", "/api/v2/chats/new"),
        "signin": ("POST", "/api/v1/auths/signin"),
    }
    sim.next(operation=operation, reset="before")
    async with connected(sim) as peer:
        await peer.send(*paths[operation])
        with pytest.raises((ConnectionResetError, EOFError)):
            await peer.head()
    sim.next(operation=operation, hang="before")
    async with connected(sim) as peer:
        await peer.send(*paths[operation])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.head(), 0.1)


async def test_a_failure_can_be_for_one_account_and_several_times(sim: Simulator) -> None:
    sim.next(operation="completions", email="demo2@example.com", fail="RateLimited", times=2)
    one, two = await sign_in(sim, 1), await sign_in(sim, 2)
    assert (await turn(sim, headers=one)).text()
    assert (await turn(sim, headers=two)).code == "RateLimited"
    assert (await turn(sim, headers=two)).code == "RateLimited"
    assert (await turn(sim, headers=two)).text()
