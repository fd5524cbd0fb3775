"""`POST /v1/messages` as plain HTTP: keys and headers, every error's shape, repeats, silence,
clients that leave."""

import asyncio
import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.caller import leases, soon
from tests.fakes.chat import MODEL, call, directive
from tests.fakes.messages import (
    PATH,
    PING,
    ask,
    asking,
    assert_error,
    blocks_of,
    body_of,
    frames_of,
    text_of,
)
from tests.fakes.stack import Stack

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
INVALID = "invalid_request_error"


# -- what is accepted


@pytest.mark.parametrize("scheme", ["x-api-key", "authorization", "api-key"])
def test_a_key_is_welcome_in_every_place(stack: Stack, scheme: str) -> None:
    key = f"Bearer {stack.key}" if scheme == "authorization" else stack.key
    headers = {"x-api-key": "", "authorization": "", scheme: key}
    assert text_of(ask(stack, headers=headers)).startswith("Hello!")


@BOTH
def test_what_claude_code_adds_is_tolerated(stack: Stack, stream: bool) -> None:
    answer = ask(
        stack,
        [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {}}]}],
        path=f"{PATH}?beta=true",
        headers={
            "anthropic-version": "",
            "anthropic-beta": "claude-code-20250219,unheard-of-2030-01-01",
            "anthropic-dangerous-direct-browser-access": "true",
        },
        stream=stream,
        metadata={"user_id": "user_1"},
        context_management={"edits": []},
        a_field_of_tomorrow=True,
    )
    assert text_of(answer).startswith("Hello!")
    assert answer.headers["x-gateway-ignored"] == "metadata, context_management"


def test_sampling_is_named_as_ignored(stack: Stack) -> None:
    answer = ask(stack, temperature=0.1, top_p=0.2, top_k=3)
    assert answer.headers["x-gateway-ignored"] == "temperature, top_p, top_k"
    assert answer.headers["x-gateway-lane"] == "web"
    assert float(answer.headers["x-gateway-overhead-ms"]) >= 0


def test_usage_is_told_at_the_start_and_at_the_end(stack: Stack) -> None:
    first, *_, last, _ = frames_of(ask(stack, directive(say="one two", frames=2), stream=True))
    told, final = first["message"]["usage"], last["usage"]
    assert told["input_tokens"] == final["input_tokens"] > 0
    assert final["output_tokens"] > 0


def test_a_search_that_nobody_offered_follows_the_text(stack: Stack) -> None:
    [text] = blocks_of(ask(stack, directive(say="So.", search=2), model=f"{MODEL}-search"))
    assert text["text"].startswith("So.\n\n| # | Source | Site |")


# -- errors


@BOTH
def test_every_refusal_of_a_request_has_anthropics_shape(stack: Stack, stream: bool) -> None:
    def refused(status: int, type_: str, **request: object) -> str:
        return assert_error(ask(stack, stream=stream, **request), status, type_)  # type: ignore[arg-type]

    refused(401, "authentication_error", headers={"x-api-key": "sk-wrong"})
    refused(401, "authentication_error", headers={"x-api-key": ""})
    assert "no-such-model" in refused(404, "not_found_error", model="no-such-model")
    assert "max_tokens" in refused(400, INVALID, max_tokens=None)
    assert "model" in refused(400, INVALID, model=None)
    assert "messages[0].content[1].type" in refused(
        400,
        INVALID,
        prompt=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image", "source": {"type": "base64", "data": ""}},
                ],
            }
        ],
    )
    assert "web_fetch" in refused(400, INVALID, tools=[{"type": "web_fetch_20250910"}])
    assert stack.sim.recorded("completions") == []


def test_what_is_no_json_and_what_is_no_route_have_it_too(stack: Stack) -> None:
    headers = {"authorization": "", "x-api-key": stack.key}
    assert_error(call(stack, "POST", PATH, headers=headers, content=b"{"), 400, INVALID)
    assert_error(call(stack, "GET", PATH, headers=headers), 405, INVALID)
    missing = call(stack, "POST", f"{PATH}/batches", headers=headers, content=b"{}")
    assert_error(missing, 404, "not_found_error")


@BOTH
@pytest.mark.parametrize(
    ("action", "status", "type_"),
    [
        ({"fail": "data_inspection_failed"}, 400, INVALID),
        ({"fail": "RateLimited", "num": 4}, 429, "rate_limit_error"),
        ({"fail": "waf_page"}, 503, "overloaded_error"),
        ({"fail": "nonsense"}, 502, "api_error"),
        ({"fail": "empty"}, 502, "api_error"),
    ],
    ids=lambda value: value.get("fail") if isinstance(value, dict) else None,
)
def test_what_the_upstream_refuses_has_its_status(
    stack: Stack, stream: bool, action: dict[str, object], status: int, type_: str
) -> None:
    stack.sim.next(operation="completions", times=0, **action)
    answer = ask(stack, stream=stream)
    assert_error(answer, status, type_)
    assert ("retry-after" in answer.headers) == (status in (429, 503))


def test_a_prompt_that_is_too_long_says_so_in_the_words_agents_look_for(stack: Stack) -> None:
    message = assert_error(ask(stack, "word " * 40_000), 400, INVALID)
    assert message.startswith("prompt is too long")


@BOTH
def test_what_takes_too_long_or_is_too_large_has_its_status(adjusted: Stack, stream: bool) -> None:
    large = ask(adjusted, "word " * 300_000, stream=stream)
    assert_error(large, 413, "request_too_large")
    aliased = ask(adjusted, model="gpt-5", stream=stream)
    assert text_of(aliased).startswith("Hello!")
    slow = ask(adjusted, directive(latency_ms=3000), stream=stream)
    assert_error(slow, 504, "timeout_error")


def test_an_operator_can_hide_all_thinking(adjusted: Stack) -> None:
    prompt = directive(think="Hm.", say="So.")
    answer = ask(adjusted, prompt, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block["type"] for block in blocks_of(answer)] == ["text"]


def test_a_full_pool_is_overloaded(adjusted: Stack) -> None:
    with asking(adjusted, directive(frames=40, delay_ms=100)) as first:
        pieces = first.iter_bytes()  # kept: forgetting it closes the answer
        next(pieces)
        answer = ask(adjusted)
    assert_error(answer, 503, "overloaded_error")
    assert int(answer.headers["retry-after"]) > 0


def test_a_stream_that_breaks_says_it_once_and_last(stack: Stack) -> None:
    answer = ask(stack, directive(say="one two three", frames=3, cut_after=3), stream=True)
    *_, closed, last = frames_of(answer)
    assert closed["type"] == "content_block_stop"
    assert last["type"] == "error"
    assert last["error"]["type"] == "api_error"
    assert last["request_id"] == answer.headers["x-request-id"]
    whole = ask(stack, directive(say="one two three", frames=3, cut_after=3))
    assert_error(whole, 502, "api_error")


# -- what the handler keeps for every dialect


@BOTH
def test_a_repeat_gets_the_same_answer_from_one_upstream_call(stack: Stack, stream: bool) -> None:
    once = {"idempotency-key": f"key {secrets.token_hex(8)}"}
    first, again = (ask(stack, headers=once, stream=stream) for _ in range(2))
    assert (again.status_code, again.content) == (200, first.content)
    assert len(stack.sim.recorded("completions")) == 1
    assert_error(ask(stack, "other", headers=once, stream=stream), 409, INVALID)


@pytest.fixture(scope="module")
def impatient_stack() -> Iterator[Stack]:
    with Stack(environment={"KEEPALIVE_SECONDS": "1"}, accounts=1) as stack:
        yield stack


@pytest.fixture
def impatient(impatient_stack: Stack) -> Stack:
    impatient_stack.clear()
    return impatient_stack


@pytest.mark.parametrize("action", [{"first_ms": 2500}, {"stall_after": 2, "stall_ms": 2500}])
def test_a_silent_stream_is_pinged(impatient: Stack, action: dict[str, int]) -> None:
    answer = ask(impatient, directive(say="one two", frames=2, **action), stream=True)
    assert answer.content.count(PING) >= 2
    assert text_of(answer) == "one two"


@pytest.mark.anyio
async def test_a_client_that_leaves_closes_its_upstream_stream(impatient: Stack) -> None:
    def leave() -> None:
        with asking(impatient, directive(say="one two", frames=2, stall_after=2)) as answer:
            pieces = answer.iter_bytes()  # kept: forgetting it closes the answer
            next(pieces)
            assert impatient.sim.open_streams() == 1

    await asyncio.to_thread(leave)
    await soon(
        lambda: leases(impatient.url) == 0 and impatient.sim.open_streams() == 0,
        within_seconds=1,
    )


def test_two_dialects_share_one_middle(stack: Stack) -> None:
    """The same prompt, asked either way, reaches the upstream as the same text."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    messages.append({"role": "user", "content": "c"})
    ask(stack, messages, system="s")
    body = {"model": MODEL, "messages": [{"role": "system", "content": "s"}, *messages]}
    answer: httpx.Response = call(stack, "POST", "/v1/chat/completions", json=body)
    assert answer.status_code == 200
    one, other = stack.sim.prompts()
    assert one == other
    assert body_of(messages)["messages"] == messages
