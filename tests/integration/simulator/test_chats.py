"""Chats, their owner, their lock, the stop call: sections 4, 15.2, 15.4."""

from typing import Any

import pytest

from tests.integration.simulator.raw import (
    ask,
    chat_body,
    completions_path,
    connected,
    new_chat,
    sign_in,
    turn,
    turn_body,
)
from tests.simulator.chats import KEPT_TEMPORARY, Chats
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

EMAIL = "demo1@example.com"
STOP = "/api/v2/chat/completions/stop"


async def test_a_new_chat_has_an_id(sim: Simulator) -> None:
    answer = (await ask(sim, "POST", "/api/v2/chats/new", chat_body(), await sign_in(sim))).json()
    assert answer["success"] is True
    assert answer["request_id"]
    assert answer["data"]["id"]


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": 1795400000},
        {"timestamp": None},
        {"chat_mode": "other"},
        {"chat_type": "other"},
        {"models": []},
        {"title": None},
    ],
)
async def test_a_wrong_field_of_a_new_chat_is_refused(
    sim: Simulator, change: dict[str, Any]
) -> None:
    """Section 4: milliseconds here."""
    reply = await ask(sim, "POST", "/api/v2/chats/new", chat_body(**change), await sign_in(sim))
    assert reply.code == "Bad_Request"


async def test_a_local_chat_is_not_in_the_list(sim: Simulator) -> None:
    """Section 15.2."""
    headers = await sign_in(sim)
    kept = await new_chat(sim, headers)
    local = await new_chat(sim, headers, chat_mode="local")
    rows = (await ask(sim, "GET", "/api/v2/chats/?page=1", headers=headers)).json()["data"]
    assert [row["id"] for row in rows] == [kept]
    assert sim.chats(EMAIL) == {"kept": 1, "temporary": 1}
    assert (await turn(sim, headers=headers, chat_id=local)).text()


async def test_the_list_comes_in_pages(sim: Simulator) -> None:
    headers = await sign_in(sim)
    for _ in range(51):
        await new_chat(sim, headers)
    second = await ask(sim, "GET", "/api/v2/chats/?page=2", headers=headers)
    assert len(second.json()["data"]) == 1


async def test_a_deleted_chat_is_gone(sim: Simulator) -> None:
    """Section 4."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    path = f"/api/v2/chats/{chat_id}"
    assert (await ask(sim, "DELETE", path, headers=headers)).json()["success"] is True
    assert (await ask(sim, "DELETE", path, headers=headers)).code == "CHAT_NOT_FOUND"
    assert (await ask(sim, "GET", path, headers=headers)).code == "CHAT_NOT_FOUND"
    assert (await turn(sim, headers=headers, chat_id=chat_id)).code == "CHAT_NOT_FOUND"


async def test_a_chat_of_another_account_is_not_found(sim: Simulator) -> None:
    """Section 4."""
    chat_id = await new_chat(sim, await sign_in(sim, 1))
    other = await sign_in(sim, 2)
    assert (await turn(sim, headers=other, chat_id=chat_id)).code == "CHAT_NOT_FOUND"
    path = f"/api/v2/chats/{chat_id}"
    assert (await ask(sim, "GET", path, headers=other)).code == "CHAT_NOT_FOUND"
    assert (await ask(sim, "DELETE", path, headers=other)).code == "CHAT_NOT_FOUND"


async def test_several_and_all_chats_can_be_deleted(sim: Simulator) -> None:
    """Section 15.2."""
    headers, foreign = await sign_in(sim), await new_chat(sim, await sign_in(sim, 2))
    ids = [await new_chat(sim, headers) for _ in range(3)]
    body = {"ids": [*ids[:2], foreign]}
    reply = await ask(sim, "POST", "/api/v2/chats/batch_delete", body, headers)
    assert reply.json()["data"]["deleted"] == 2
    assert (await ask(sim, "DELETE", "/api/v2/chats/", headers=headers)).json()["success"] is True
    assert sim.chats(EMAIL) == {"kept": 0, "temporary": 0}
    assert sim.chats("demo2@example.com") == {"kept": 1, "temporary": 0}


async def test_the_detail_holds_question_and_answer(sim: Simulator) -> None:
    """Section 4: `history.messages` by id, `messages` in order."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    reply = await turn(sim, '[[sim: say="Yes." think=1]]', headers=headers, chat_id=chat_id)
    response_id = reply.frames[0]["response.created"]["response_id"]
    detail = (await ask(sim, "GET", f"/api/v2/chats/{chat_id}", headers=headers)).json()["data"]
    message = detail["chat"]["history"]["messages"][response_id]
    assert message in detail["chat"]["messages"]
    assert (message["role"], message["content"], message["done"]) == ("assistant", "Yes.", True)
    assert [one["phase"] for one in message["content_list"]] == ["think", "answer"]
    assert message["parentId"] == "aaaaaaaa-0000-4000-8000-000000000001"


async def test_the_next_turn_names_its_parent(sim: Simulator) -> None:
    """Sections 4 and 15.4."""
    sim.configure(lock_after_end_ms=0)
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    first = await turn(sim, headers=headers, chat_id=chat_id)
    parent = first.frames[0]["response.created"]["response_id"]
    again = await turn(sim, headers=headers, chat_id=chat_id, parent_id=parent)
    assert again.text()
    lost = await turn(sim, headers=headers, chat_id=chat_id, parent_id="unknown")
    assert lost.code == "PARENT_NOT_FOUND"


async def test_a_chat_carries_one_generation_and_stays_locked_after_it(sim: Simulator) -> None:
    """Section 15.4: "The chat is in progress!", 2 to 6 s after its end."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    async with connected(sim) as peer:
        body = turn_body(chat_id, "[[sim: stall_after=1 stall_ms=300]]")
        await peer.send("POST", completions_path(chat_id), body, headers)
        await peer.head()
        busy = await turn(sim, headers=headers, chat_id=chat_id)
        assert busy.code == "Bad_Request"
        assert busy.json()["data"]["details"] == "The chat is in progress!"
    assert "in progress" in (await turn(sim, headers=headers, chat_id=chat_id)).body.decode()
    sim.state.chats.unlock()
    assert (await turn(sim, headers=headers, chat_id=chat_id)).text()


async def test_a_stop_ends_the_generation_and_unlocks_the_chat(sim: Simulator) -> None:
    """Section 15.2."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    async with connected(sim) as peer:
        body = turn_body(chat_id, "[[sim: frames=9 stall_after=2]]")
        await peer.send("POST", completions_path(chat_id), body, headers)
        await peer.head()
        created = await peer.chunk()
        response_id = created.split(b'"response_id":"')[1].split(b'"')[0].decode()
        stop = {"chat_id": chat_id, "response_id": response_id}
        reply = await ask(sim, "POST", f"{STOP}?chat_id={chat_id}", stop, headers)
        assert reply.json()["success"] is True
        rest = [piece async for piece in _rest(peer)]
        assert b'"finished"' not in b"".join(rest)
    assert (await turn(sim, headers=headers, chat_id=chat_id)).text()
    assert sim.stats.ended["stopped"] == 1
    assert sim.stats.stops[0]["response_id"] == response_id


async def _rest(peer: Any) -> Any:
    while piece := await peer.chunk():
        yield piece


async def test_a_stop_for_another_accounts_chat_is_not_found(sim: Simulator) -> None:
    chat_id = await new_chat(sim, await sign_in(sim, 1))
    body = {"chat_id": chat_id, "response_id": "r"}
    reply = await ask(sim, "POST", f"{STOP}?chat_id={chat_id}", body, await sign_in(sim, 2))
    assert reply.code == "CHAT_NOT_FOUND"


async def test_settings_are_updated_in_part(sim: Simulator) -> None:
    """Section 15.2."""
    headers = await sign_in(sim)
    body = {"memory": {"enable_memory": False}, "tools_enabled": {"web_search": False}}
    await ask(sim, "POST", "/api/v2/users/user/settings/update", body, headers)
    reply = await ask(sim, "GET", "/api/v2/users/user/settings", headers=headers)
    settings = reply.json()["data"]
    assert settings["memory"] == {"enable_memory": False, "enable_history_memory": True}
    assert settings["tools_enabled"]["web_search"] is False
    assert settings["tools_enabled"]["image_gen_tool"] is True


async def test_the_quota_hint_says_what_is_left(sim: Simulator) -> None:
    """Section 15.2."""
    sim.accounts.change({"email": EMAIL, "quota": {"t2v": 3}})
    path = "/api/v2/users/user/entitlement_quota"
    reply = await ask(sim, "POST", path, {}, await sign_in(sim))
    assert reply.json()["data"]["t2v"]["times_left"] == 3


async def test_the_oldest_temporary_chats_are_forgotten() -> None:
    """So that an hour of load needs no more memory than a minute."""
    chats = Chats()
    new = [chats.new(EMAIL, mode="local", chat_type="t2t", models=[]) for _ in range(3)]
    new[0].running = "r"
    for _ in range(KEPT_TEMPORARY):
        chats.new(EMAIL, mode="local", chat_type="t2t", models=[])
    assert chats.of(EMAIL, new[0].id) is new[0], "it is still running"
    assert chats.of(EMAIL, new[1].id) is None
    assert chats.counts()[EMAIL]["temporary"] <= KEPT_TEMPORARY + 1
