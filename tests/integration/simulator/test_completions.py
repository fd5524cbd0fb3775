"""Text generation: what is refused (5, 15.4) and the shapes of the answer (6)."""

from typing import Any

import pytest

from tests.integration.simulator.raw import (
    NOW_SECONDS,
    Reply,
    ask,
    completions_path,
    message,
    new_chat,
    sign_in,
    turn,
    turn_body,
)
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

EMAIL = "demo1@example.com"


# -- refusals


async def test_the_body_must_name_the_chat_too(sim: Simulator) -> None:
    """Section 5: without the body field a 400 envelope."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    body = turn_body(chat_id)
    del body["chat_id"]
    reply = await ask(sim, "POST", completions_path(chat_id), body, headers)
    assert (reply.status, reply.code) == (400, "Bad_Request")


async def test_query_and_body_must_agree_on_the_chat(sim: Simulator) -> None:
    """Section 5."""
    headers = await sign_in(sim)
    one, two = await new_chat(sim, headers), await new_chat(sim, headers)
    reply = await ask(sim, "POST", completions_path(one), turn_body(two), headers)
    assert (reply.status, reply.code) == (400, "Bad_Request")
    reply = await ask(sim, "POST", "/api/v2/chat/completions", turn_body(two), headers)
    assert reply.status == 400


async def test_a_chat_that_never_was_is_not_found(sim: Simulator) -> None:
    """Section 4."""
    reply = await turn(sim, chat_id="cccccccc-0000-4000-8000-000000000000")
    assert (reply.status, reply.code) == (200, "CHAT_NOT_FOUND")
    assert reply.headers["x-actual-status-code"] == "404"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"stream": False}, "Bad_Request"),
        ({"timestamp": NOW_SECONDS * 1000}, "Bad_Request"),
        ({"timestamp": None}, "Bad_Request"),
        ({"model": "unknown-model"}, "Not_Found"),
        ({"model": ""}, "Not_Found"),
        ({"messages": []}, "Bad_Request"),
        ({"messages": None}, "Bad_Request"),
        ({"messages": [{"role": "system", "content": "be brief"}]}, "Bad_Request"),
        ({"messages": [message("   ")]}, "invalid_input"),
        ({"messages": [message("x") | {"timestamp": NOW_SECONDS * 1000}]}, "Bad_Request"),
        ({"messages": [message("x", "search")], "model": "qwen3-coder-plus"}, "Bad_Request"),
        ({"messages": [message(None)]}, "invalid_input"),
    ],
)
async def test_a_wrong_field_is_refused(sim: Simulator, change: dict[str, Any], code: str) -> None:
    """Section 5: stream true, seconds, a known model, a user message."""
    reply = await turn(sim, **change)
    assert (reply.status, reply.code) == (200, code)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "http://e/x"}}],
        [{"type": "image", "image": {"url": "http://e.org/x.png"}}],
        [{"type": "text", "text": "x"}, {"type": "image", "image": "data:image/png;base64,AA=="}],
        [{"type": "image", "image": "file:///etc/passwd"}],
    ],
)
async def test_media_parts_must_be_plain_addresses(sim: Simulator, content: Any) -> None:
    """Sections 5 and 5.1: `{"type":"image","image":<url>}`, no data URIs."""
    assert (await turn(sim, content)).code in ("invalid_input", "Bad_Request")


async def test_an_attachment_needs_type_and_address(sim: Simulator) -> None:
    """Section 5."""
    bad = message("x") | {"files": [{"name": "a.png"}]}
    assert (await turn(sim, messages=[bad])).json()["data"]["details"] == "invalid attachment"
    good = message("x") | {"files": [{"type": "image", "url": "https://e.org/a.png"}]}
    assert "1 attachment" in (await turn(sim, messages=[good])).text()


async def test_a_huge_prompt_meets_the_firewall(sim: Simulator) -> None:
    """Section 5: beyond roughly 60,000 Chinese characters."""
    reply = await turn(sim, "字" * 60_001)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await turn(sim, "字" * 50_000)).text()


async def test_more_streams_than_the_limit_are_refused(sim: Simulator) -> None:
    """Section 15.4: `ParallelLimited`."""
    import asyncio

    sim.configure(concurrency_limit=1)
    headers = await sign_in(sim)
    slow = asyncio.create_task(turn(sim, "[[sim: first_ms=200]]", headers=headers))
    while not sim.stats.open[EMAIL]:
        await asyncio.sleep(0.005)
    assert (await turn(sim, headers=headers)).code == "ParallelLimited"
    assert (await slow).text()
    assert sim.stats.max_open[EMAIL] == 1


async def test_a_spent_quota_is_rate_limited_with_hours(sim: Simulator) -> None:
    """Sections 7 and 15.4."""
    sim.accounts.change({"email": EMAIL, "quota": {"t2t": 0}})
    reply = await turn(sim)
    assert reply.code == "RateLimited"
    assert 1 <= reply.json()["data"]["num"] <= 24


# -- shapes


def created(reply: Reply) -> dict[str, str]:
    return reply.frames[0]["response.created"]  # type: ignore[no-any-return]  # decoded JSON


async def test_a_plain_answer_is_created_typed_and_finished(sim: Simulator) -> None:
    """Section 6.1."""
    reply = await turn(sim, '[[sim: say="Hello, world!" frames=5]]')
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert created(reply)["response_index"] == "0"
    assert reply.text() == "Hello, world!"
    assert len(reply.deltas) == 6
    assert reply.deltas[-1]["status"] == "finished"
    assert {one["status"] for one in reply.deltas[:-1]} == {"typing"}
    assert b"[DONE]" not in reply.body
    assert {frame["response_id"] for frame in reply.frames[1:]} == {created(reply)["response_id"]}


async def test_usage_is_cumulative(sim: Simulator) -> None:
    """Section 6.1."""
    frames = (await turn(sim, "[[sim: frames=3]]")).frames
    counts = [frame["usage"]["output_tokens"] for frame in frames if "usage" in frame]
    assert counts == [1, 2, 3]


@pytest.mark.parametrize(
    ("family", "field"), [("prompt", "completion_tokens"), ("details", "output_tokens_details")]
)
async def test_usage_has_two_families(sim: Simulator, family: str, field: str) -> None:
    """Section 6.1."""
    reply = await turn(sim, f"[[sim: frames=2 usage={family}]]")
    assert field in reply.frames[1]["usage"]


async def test_usage_may_be_missing(sim: Simulator) -> None:
    """Section 6.1."""
    assert b"usage" not in (await turn(sim, "[[sim: frames=2 usage=none]]")).body


async def test_without_output_schema_frames_carry_no_phase(sim: Simulator) -> None:
    """Section 5."""
    reply = await turn(sim, messages=[message("[[sim: say=hi]]", output_schema=None)])
    assert b"phase" not in reply.body
    assert reply.text(None) == "hi"


async def test_without_incremental_output_every_frame_repeats_the_text(sim: Simulator) -> None:
    """Section 5."""
    reply = await turn(sim, '[[sim: say="abcd" frames=2]]', incremental_output=False)
    assert [one["content"] for one in reply.deltas] == ["ab", "abcd", ""]


async def test_thinking_comes_first_and_is_closed_by_its_own_frame(sim: Simulator) -> None:
    """Section 6.2, detail."""
    reply = await turn(sim, messages=[message("why?", thinking_enabled=True)])
    phases = [(one["phase"], one["status"]) for one in reply.deltas]
    assert phases[0] == ("think", "typing")
    last = max(index for index, (phase, _) in enumerate(phases) if phase == "think")
    assert phases[last] == ("think", "finished")
    assert all(phase == "answer" for phase, _ in phases[last + 1 :])


async def test_a_summary_of_thoughts_grows_beside_empty_content(sim: Simulator) -> None:
    """Section 6.2, summary."""
    asked = message("why?", thinking_enabled=True, thinking_format="summary")
    reply = await turn(sim, messages=[asked])
    shown = [one for one in reply.deltas if one["phase"] == "thinking_summary"]
    sizes = [len(one["extra"]["summary_thought"]["content"]) for one in shown]
    assert sizes == list(range(1, len(shown) + 1))
    assert {one["content"] for one in shown} == {""}


async def test_a_newer_model_summarises_whatever_was_asked(sim: Simulator) -> None:
    """Section 6.2."""
    asked = message("why?", thinking_enabled=True, thinking_format="detail")
    reply = await turn(sim, messages=[asked], model="qwen3.5-omni-plus")
    assert reply.deltas[0]["phase"] == "thinking_summary"


async def test_a_model_that_cannot_think_does_not(sim: Simulator) -> None:
    """Section 3."""
    asked = message("why?", thinking_enabled=True)
    reply = await turn(sim, messages=[asked], model="qwen3-coder-plus")
    assert {one["phase"] for one in reply.deltas} == {"answer"}


async def test_a_search_shows_call_and_results_before_the_answer(sim: Simulator) -> None:
    """Section 6.3."""
    reply = await turn(sim, messages=[message("fjords", "search")])
    call, result = reply.deltas[:2]
    assert call["function_call"]["name"] == "web_search"
    assert (result["name"], result["role"]) == ("web_search", "function")
    assert len(result["extra"]["web_search_info"]) == 3
    assert "[[1]]" in reply.text()


async def test_pictures_in_a_chat_are_an_image_list_that_can_be_fetched(sim: Simulator) -> None:
    """Section 6.3."""
    reply = await turn(sim, '[[sim: images=2 say="Two foxes."]]')
    lists = [one["extra"]["image_list"] for one in reply.deltas if "extra" in one]
    assert len(lists[0]) == 2
    path = lists[0][0]["image"].removeprefix(sim.url)
    assert (await ask(sim, "GET", path)).body.startswith(b"\x89PNG")


async def test_two_candidates_are_interleaved(sim: Simulator) -> None:
    """Section 6.1: told apart by response_id, index 0 is the answer."""
    reply = await turn(sim, '[[sim: say="the first" frames=4 candidates=2]]')
    first, second = (frame["response.created"] for frame in reply.frames[:2])
    assert (first["response_index"], second["response_index"]) == ("0", "1")
    ids = [frame["response_id"] for frame in reply.frames[2:]]
    assert ids[:4] == [second["response_id"], first["response_id"]] * 2
    mine = [f["choices"][0]["delta"] for f in reply.frames[2:] if f["response_id"] == ids[1]]
    assert "".join(one["content"] for one in mine) == "the first"


async def test_deep_research_has_phases_of_its_own(sim: Simulator) -> None:
    """Section 15.3."""
    reply = await turn(sim, messages=[message("fjords", "deep_research")])
    phases = list(dict.fromkeys(one["phase"] for one in reply.deltas))
    assert phases[0] == "ResearchNotice"
    assert phases[-2:] == ["Writing", "answer"]


async def test_system_messages_are_ignored(sim: Simulator) -> None:
    """Section 15.2."""
    system = {"role": "system", "content": "[[sim: say=never]]"}
    reply = await turn(sim, messages=[system, message("hello")])
    assert "never" not in reply.text()
    assert "5 characters" in reply.text()


async def test_tools_are_silently_ignored(sim: Simulator) -> None:
    """Section 5."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert (await turn(sim, "hi", tools=tools, tool_choice="required")).text().startswith("Hello!")


async def test_without_a_directive_the_answer_says_what_was_understood(sim: Simulator) -> None:
    reply = await turn(sim, "What is the tallest mountain?")
    assert "What is the tallest mountain?" in reply.text()
    assert "Qwen3.6-Plus" in reply.text()


async def test_content_may_be_an_array_of_parts(sim: Simulator) -> None:
    """Section 5."""
    parts = [{"type": "text", "text": "see"}, {"type": "image", "image": "https://e.org/a.png"}]
    assert "1 attachment" in (await turn(sim, parts)).text()
