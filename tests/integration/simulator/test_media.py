"""Pictures, edits and videos in every shape: section 8."""

import re
import struct
import zlib
from typing import Any

import pytest

from tests.integration.simulator.raw import (
    NOW_SECONDS,
    Reply,
    ask,
    completions_path,
    media_body,
    media_turn,
    new_chat,
    sign_in,
)
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

EMAIL = "demo1@example.com"


async def fetched(sim: Simulator, url: str) -> Reply:
    assert url.startswith(sim.url)
    return await ask(sim, "GET", url.removeprefix(sim.url))


async def detail(sim: Simulator, chat_id: str, headers: dict[str, str]) -> Any:
    reply = await ask(sim, "GET", f"/api/v2/chats/{chat_id}", headers=headers)
    return reply.json()["data"]["chat"]["messages"]


async def status(sim: Simulator, task_id: str, headers: dict[str, str], version: int = 1) -> Reply:
    path = {1: "/api/v1/tasks/status/", 2: "/api/v2/task/status/"}[version]
    return await ask(sim, "GET", path + task_id, headers=headers)


# -- pictures


@pytest.mark.parametrize("kind", ["t2i", "image_edit"])
async def test_a_picture_normally_comes_as_sse(sim: Simulator, kind: str) -> None:
    """Section 8.1: created, keep_alive, one content frame per picture, finished."""
    reply, _, _ = await media_turn(sim, kind, "[[sim: images=2]] a red fox")
    assert list(reply.frames[0]["response.created"]) == ["chat_id", "parent_id", "response_id"]
    assert reply.frames[1]["response.info"]["action"] == "keep_alive"
    shown = reply.deltas
    assert {one["phase"] for one in shown} == {"image_gen"}
    assert [one["status"] for one in shown] == ["typing", "typing", "finished"]
    assert shown[0]["extra"]["output_image_hw"] == [[928, 1664]]
    assert reply.frames[2]["usage"] == {"width": 1664, "height": 928, "image_count": 1}
    assert (await fetched(sim, shown[1]["content"])).headers["content-type"] == "image/png"


async def test_the_picture_is_a_valid_png(sim: Simulator) -> None:
    reply, _, _ = await media_turn(sim, "t2i")
    data = (await fetched(sim, reply.deltas[0]["content"])).body
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds = 8, []
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        kinds.append(kind)
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


async def test_the_key_is_needed_to_download(sim: Simulator) -> None:
    """Section 8.1."""
    reply, _, _ = await media_turn(sim, "t2i")
    url = reply.deltas[0]["content"]
    assert (await fetched(sim, url.split("?")[0])).status == 403
    assert (await fetched(sim, url.split("?")[0] + "?key=other")).status == 403


@pytest.mark.parametrize("shape", ["json", "fields", "markdown"])
async def test_a_picture_comes_in_other_shapes(sim: Simulator, shape: str) -> None:
    """Section 8.1: a JSON document, a field somewhere inside, Markdown in text."""
    reply, _, _ = await media_turn(sim, "t2i", f"[[sim: shape={shape}]] a fox")
    if shape == "json":
        url = reply.json()["data"]["messages"][0]["content"]
    elif shape == "fields":
        url = reply.json()["data"]["result"]["items"][0]["resource_url"]
    else:
        found = re.search(r"!\[image\]\((\S+)\)", reply.text())
        assert found
        url = found.group(1)
    assert (await fetched(sim, url)).status == 200


async def test_a_picture_can_appear_only_in_the_chat_detail_and_late(sim: Simulator) -> None:
    """Section 8.1."""
    reply, chat_id, headers = await media_turn(sim, "t2i", "[[sim: shape=detail]] a fox")
    assert b"http" not in reply.body
    assert [one["content"] for one in await detail(sim, chat_id, headers)][1] == ""
    messages = await detail(sim, chat_id, headers)
    assert (await fetched(sim, messages[1]["content"])).status == 200
    assert "_late" not in messages[1]


async def test_a_picture_can_be_nowhere(sim: Simulator) -> None:
    reply, chat_id, headers = await media_turn(sim, "t2i", "[[sim: shape=none]] a fox")
    assert b"http" not in reply.body
    for _ in range(3):
        assert all("http" not in str(one) for one in await detail(sim, chat_id, headers))


@pytest.mark.parametrize("size", ["1:1", "4:3", "3:4", "16:9", "9:16", None])
async def test_five_ratios_are_known(sim: Simulator, size: str | None) -> None:
    """Section 8."""
    reply, _, _ = await media_turn(sim, "t2i", size=size)
    assert reply.deltas


async def test_another_ratio_is_refused(sim: Simulator) -> None:
    """Section 8: only these."""
    reply, _, _ = await media_turn(sim, "t2i", size="1024x1024")
    assert reply.code == "invalid_input"


async def test_a_model_without_the_ability_refuses(sim: Simulator) -> None:
    """Section 3."""
    reply, _, _ = await media_turn(sim, "t2i", model="qwen3.6-plus")
    assert reply.code == "Bad_Request"


async def test_a_transient_failure_can_be_told_from_a_text_turn(sim: Simulator) -> None:
    """Section 7: one repeat often succeeds."""
    sim.next(operation="completions", chat_type="t2i", fail="InternalError")
    reply, _, _ = await media_turn(sim, "t2i")
    assert "internal error" in reply.json()["data"]["details"].lower()
    reply, _, _ = await media_turn(sim, "t2i")
    assert reply.deltas


async def test_files_in_milliseconds_are_refused_for_media_too(sim: Simulator) -> None:
    """Section 5: seconds, when a timestamp is sent at all."""
    reply, _, _ = await media_turn(sim, "t2i", timestamp=NOW_SECONDS * 1000)
    assert reply.code == "Bad_Request"


# -- videos


async def test_a_video_is_one_json_with_a_task(sim: Simulator) -> None:
    """Section 8.2."""
    reply, _, headers = await media_turn(sim, "t2v")
    assert reply.headers["content-type"] == "application/json"
    message = reply.json()["data"]["messages"][0]
    task_id = message["extra"]["wanx"]["task_id"]
    assert message["done"] is False
    assert task_id != reply.json()["data"]["message_id"]
    running = (await status(sim, task_id, headers)).json()
    assert (running["task_status"], running["content"]) == ("running", "")
    done = (await status(sim, task_id, headers)).json()
    assert set(done) == {"chat_type", "task_status", "message", "content", "remaining_time"}
    assert done["task_status"] == "success"
    assert ".mp4?key=" in done["content"]
    assert (await fetched(sim, done["content"])).body[4:8] == b"ftyp"


async def test_a_video_must_not_ask_for_a_stream(sim: Simulator) -> None:
    """Section 8: stream false."""
    reply, _, _ = await media_turn(sim, "t2v", stream=True)
    assert reply.code == "Bad_Request"


async def test_the_second_status_route_wraps_the_answer(sim: Simulator) -> None:
    """Section 8.2."""
    reply, _, headers = await media_turn(sim, "t2v", "[[sim: polls=0]] waves")
    task_id = reply.json()["data"]["messages"][0]["extra"]["wanx"]["task_id"]
    answer = (await status(sim, task_id, headers, version=2)).json()
    assert answer["success"] is True
    assert answer["data"]["task_status"] == "success"


async def test_a_task_belongs_to_its_account(sim: Simulator) -> None:
    """Section 8.2: the token of the same account; unknown is 404, or 200 with `Not_Found`."""
    reply, _, _ = await media_turn(sim, "t2v")
    task_id = reply.json()["data"]["messages"][0]["extra"]["wanx"]["task_id"]
    other = await sign_in(sim, 2)
    assert (await status(sim, task_id, other)).status == 404
    wrapped = await status(sim, task_id, other, version=2)
    assert (wrapped.status, wrapped.code) == (200, "Not_Found")
    assert (await status(sim, task_id, {})).status == 401


@pytest.mark.parametrize("shape", ["sse", "url", "fields", "markdown", "detail"])
async def test_a_video_comes_in_other_shapes(sim: Simulator, shape: str) -> None:
    """Section 8.2: SSE frames, the address directly, the chat detail."""
    prompt = f"[[sim: shape={shape} polls=0]] waves"
    reply, chat_id, headers = await media_turn(sim, "t2v", prompt)
    if shape == "url":
        assert ".mp4?key=" in reply.json()["data"]["messages"][0]["content"]
    elif shape == "fields":
        assert ".mp4?key=" in reply.json()["data"]["result"]["items"][0]["video_url"]
    elif shape == "markdown":
        assert re.search(r"\[Download video\]\(\S+\.mp4\?key=", reply.text())
    else:
        if shape == "sse":
            task_id = reply.deltas[0]["extra"]["wanx"]["task_id"]
        else:
            assert "wanx" not in str(reply.json())
            assert "wanx" not in str(await detail(sim, chat_id, headers))
            messages = await detail(sim, chat_id, headers)
            task_id = messages[1]["extra"]["wanx"]["task_id"]
        assert (await status(sim, task_id, headers)).json()["task_status"] == "success"


async def test_a_video_can_fail_and_be_pending(sim: Simulator) -> None:
    """Section 8.2: any other value is a failure."""
    reply, _, headers = await media_turn(sim, "t2v", "[[sim: polls=1 task_status=failed]] waves")
    task_id = reply.json()["data"]["messages"][0]["extra"]["wanx"]["task_id"]
    sim.next(operation="task_status", set={"task_status": "pending"})
    assert (await status(sim, task_id, headers)).json()["task_status"] == "pending"
    failed = (await status(sim, task_id, headers)).json()
    assert (failed["task_status"], failed["content"]) == ("failed", "")
    assert failed["message"]


async def test_a_video_from_a_first_frame_is_i2v(sim: Simulator) -> None:
    """Section 8."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    body = media_body(chat_id, "i2v")
    body["messages"][0]["files"] = [{"type": "image", "url": "https://e.org/first.png"}]
    reply = await ask(sim, "POST", completions_path(chat_id), body, headers)
    assert reply.json()["data"]["messages"][0]["extra"]["wanx"]["task_id"]


async def test_a_daily_video_quota_runs_out(sim: Simulator) -> None:
    """Section 15.4: about three a day, shared by t2v and i2v."""
    sim.accounts.change({"email": EMAIL, "quota": {"t2v": 2}})
    for kind in ("t2v", "i2v"):
        assert (await media_turn(sim, kind))[0].json()["success"] is True
    assert (await media_turn(sim, "t2v"))[0].code == "RateLimited"
