"""The portal's OpenAI-compatible routes: sections 11 and 15.6."""

from typing import Any

import pytest

from tests.integration.simulator.raw import Reply, ask
from tests.integration.simulator.test_device import EMAIL, logged_in
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


async def chat(sim: Simulator, text: str = "hi", token: str | None = None, **changes: Any) -> Reply:
    token = token or (await logged_in(sim))["access_token"]
    body = {"model": "coder-model", "messages": [{"role": "user", "content": text}]} | changes
    return await ask(sim, "POST", PATH, body, {"authorization": f"Bearer {token}"})


def chunks(reply: Reply) -> list[Any]:
    """The chunks of a stream that ends with [DONE]."""
    assert reply.body.endswith(b"data: [DONE]\n\n")
    reply.body = reply.body.removesuffix(b"data: [DONE]\n\n")
    return reply.frames


async def test_an_answer_is_in_openai_form(sim: Simulator) -> None:
    answer = (await chat(sim, '[[sim: say="Hello." think="Hm."]]')).json()
    choice = answer["choices"][0]
    assert answer["object"] == "chat.completion"
    assert choice["message"]["content"] == "Hello."
    assert choice["message"]["reasoning_content"] == "Hm."
    assert choice["finish_reason"] == "stop"
    assert set(answer["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


async def test_a_stream_has_null_fields_and_done(sim: Simulator) -> None:
    """Section 11: `usage`, `system_fingerprint`, `logprobs` null."""
    reply = await chat(sim, '[[sim: say="Hello." frames=2 think=1]]', stream=True)
    got = chunks(reply)
    assert got[0]["usage"] is None
    assert got[0]["system_fingerprint"] is None
    assert got[0]["choices"][0]["logprobs"] is None
    deltas = [one["choices"][0]["delta"] for one in got]
    assert deltas[1]["reasoning_content"]
    assert "".join(one.get("content") or "" for one in deltas) == "Hello."
    assert got[-1]["choices"][0]["finish_reason"] == "stop"


async def test_the_usage_chunk_comes_when_asked(sim: Simulator) -> None:
    """Section 11: empty `choices`, before [DONE]."""
    reply = await chat(sim, stream=True, stream_options={"include_usage": True})
    last = chunks(reply)[-1]
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_tool_call_is_native(sim: Simulator, stream: bool) -> None:
    """Section 11."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    text = '[[sim: {"call": "f", "args": {"city": "Oslo"}}]]'
    reply = await chat(sim, text, tools=tools, stream=stream)
    if not stream:
        choice = reply.json()["choices"][0]
        call = choice["message"]["tool_calls"][0]
        assert call["function"] == {"name": "f", "arguments": '{"city":"Oslo"}'}
        assert choice["finish_reason"] == "tool_calls"
        return
    got = chunks(reply)
    calls = [one["choices"][0]["delta"]["tool_calls"][0] for one in got[1:-1]]
    assert calls[0]["function"]["name"] == "f"
    assert "".join(one["function"]["arguments"] for one in calls) == '{"city":"Oslo"}'
    assert got[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_tool_loop_can_be_scripted_in_one_prompt(sim: Simulator) -> None:
    first = '[[sim: call=f]] [[sim: when="RESULT" say="Done."]]'
    token = (await logged_in(sim))["access_token"]
    one = (await chat(sim, first, token)).json()["choices"][0]
    assert one["finish_reason"] == "tool_calls"
    messages = [
        {"role": "user", "content": first},
        one["message"],
        {"role": "tool", "tool_call_id": "x", "content": "RESULT"},
    ]
    two = (await chat(sim, token=token, messages=messages)).json()["choices"][0]
    assert two["message"]["content"] == "Done."


async def test_models_are_listed(sim: Simulator) -> None:
    token = (await logged_in(sim))["access_token"]
    reply = await ask(sim, "GET", "/v1/models", headers={"authorization": f"Bearer {token}"})
    assert "coder-model" in [one["id"] for one in reply.json()["data"]]
    assert (await ask(sim, "GET", "/v1/models")).status == 401


@pytest.mark.parametrize("token", ["none", "web"])
async def test_another_token_is_refused(sim: Simulator, token: str) -> None:
    """Section 11: `invalid access token or token expired`."""
    from tests.integration.simulator.raw import sign_in

    if token == "web":
        token = (await sign_in(sim))["authorization"].split()[1]
    reply = await chat(sim, token=token)
    assert reply.status == 401
    assert reply.json()["error"]["message"] == "invalid access token or token expired"
    assert reply.json()["request_id"]


async def test_a_lapsed_or_revoked_token_is_refused(sim: Simulator) -> None:
    sim.configure(cli_token_seconds=-1)
    assert (await chat(sim)).status == 401
    sim.configure(cli_token_seconds=60)
    token = (await logged_in(sim))["access_token"]
    sim.state.devices.revoke(EMAIL)
    assert (await chat(sim, token=token)).status == 401


async def test_the_lane_can_be_closed(sim: Simulator) -> None:
    """Section 15.6: the flow completes, the portal answers 401."""
    sim.configure(portal_closed=True)
    assert (await chat(sim)).status == 401


async def test_an_api_key_works_where_configured(sim: Simulator) -> None:
    """Section 15.6."""
    sim.configure(portal_keys=["sk-official"])
    assert (await chat(sim, token="sk-official")).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"model": "unknown-model"},
        {"seed": 1},
        {"n": 1},
        {"user": "u"},
        {"logprobs": True},
        {"frequency_penalty": 0},
        {"temperature": None},
        {"messages": []},
        {
            "messages": [
                {"role": "system", "content": "a"},
                {"role": "system", "content": "b"},
                {"role": "user", "content": "c"},
            ]
        },
        {"messages": [{"role": "user", "content": "c"}, {"role": "system", "content": "a"}]},
    ],
)
async def test_an_unsupported_request_is_400(sim: Simulator, change: dict[str, Any]) -> None:
    """Sections 11 and 15.6: the first message must be the only system message."""
    reply = await chat(sim, **change)
    assert reply.status == 400
    assert set(reply.json()["error"]) == {"message", "type", "code"}


async def test_one_system_message_of_cached_parts_is_fine(sim: Simulator) -> None:
    """Section 11."""
    parts = [
        {"type": "text", "text": "", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "be brief"},
    ]
    system = {"role": "system", "content": parts}
    reply = await chat(sim, messages=[system, {"role": "user", "content": "hi"}])
    assert reply.status == 200


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("insufficient_quota", 429, "insufficient_quota"),
        ("rate_limit", 429, "rate_limit_exceeded"),
        ("Unauthorized", 401, "invalid_api_key"),
        ("model", 400, "invalid_parameter_error"),
    ],
)
async def test_errors_are_scripted(sim: Simulator, name: str, status: int, code: str) -> None:
    """Section 11."""
    sim.next(operation="portal_completions", fail=name)
    reply = await chat(sim)
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)


async def test_gateways_in_between_answer_html(sim: Simulator) -> None:
    """Section 11."""
    assert (await chat(sim, "[[sim: fail=html_504]]")).status == 504


async def test_an_error_can_come_mid_stream(sim: Simulator) -> None:
    reply = await chat(sim, "[[sim: frames=5 fail=internal_error after=3]]", stream=True)
    assert reply.frames[3]["error"]["code"] == "internal_error"
    assert b"[DONE]" not in reply.body


async def test_portal_streams_are_counted_apart(sim: Simulator) -> None:
    await chat(sim, stream=True)
    assert sim.stats.max_open[f"portal:{EMAIL}"] == 1
    assert sim.stats.of("portal_completions", EMAIL) == 1
