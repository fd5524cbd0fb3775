"""Promise 5: no gap over KEEPALIVE_SECONDS on an open stream, whatever the turn is waiting for."""

import asyncio
from collections.abc import Iterator

import openai
import pytest

from tests.fakes.caller import KEEPALIVE, MODEL, Call, ask, calling, leases, soon
from tests.fakes.stack import Stack

KEEPALIVE_SECONDS = 1.0


@pytest.fixture(scope="module")
def impatient() -> Iterator[Stack]:
    """Many slots, so that a test's streams don't wait for each other."""
    environment = {"KEEPALIVE_SECONDS": "1", "ACCOUNT_CONCURRENCY": "20"}
    with Stack(environment=environment) as stack:
        yield stack


@pytest.fixture
def stack(impatient: Stack) -> Stack:
    impatient.clear()
    return impatient


def assert_never_silent(call: Call) -> None:
    assert call.whole, (call.status, call.body[-300:])
    assert call.headers_at is not None
    assert call.longest_gap <= KEEPALIVE_SECONDS
    assert set(call.comments) <= {KEEPALIVE}


def waited_for_headers(call: Call) -> float:
    assert call.headers_at is not None
    return call.headers_at - call.began_at


# What the upstream does, and what the caller hears in the end.
SILENCES = {
    "no headers": "[[sim: latency_ms=3500 say=done]]",
    "no frame after the headers": "[[sim: first_ms=3500 say=done]]",
    "keep_alive frames of its own only": "[[sim: silence_ms=3500 keep_alive_ms=300 say=done]]",
    "in the middle": '[[sim: say="one two done" frames=3 stall_after=3 stall_ms=3500]]',
    "during the reasoning": "[[sim: think=5 stall_after=3 stall_ms=3500 say=done]]",
}


@pytest.mark.anyio
async def test_a_stream_is_never_silent_for_longer_while_the_upstream_is(stack: Stack) -> None:
    """All silences at once: each lasts three and a half times as long as a stream may be silent."""
    prompts = SILENCES.values()
    calls = await asyncio.gather(*[ask(stack.url, stack.key, prompt) for prompt in prompts])

    for silence, call in zip(SILENCES, calls, strict=True):
        assert_never_silent(call)
        assert call.text.endswith("done"), silence
        assert len(call.comments) >= 3, silence


@pytest.mark.anyio
async def test_headers_wait_for_the_first_event_or_for_the_first_comment(stack: Stack) -> None:
    async with calling(stack.url, stack.key, "[[sim: first_ms=3000]]") as call:
        await call.until(lambda: bool(call.pieces))
        assert call.pieces[0][1] == KEEPALIVE
        assert KEEPALIVE_SECONDS <= waited_for_headers(call) <= 2 * KEEPALIVE_SECONDS
    quick = await ask(stack.url, stack.key, "[[sim: frames=3]]")
    assert quick.comments == []
    assert waited_for_headers(quick) < KEEPALIVE_SECONDS


@pytest.mark.anyio
async def test_a_stream_whose_frames_come_often_enough_has_no_comments(stack: Stack) -> None:
    call = await ask(stack.url, stack.key, "[[sim: frames=5 delay_ms=600]]")
    assert_never_silent(call)
    assert call.comments == []


@pytest.mark.anyio
async def test_a_stream_is_never_silent_while_its_account_logs_in_and_its_chat_is_opened(
    stack: Stack,
) -> None:
    stack.sim.revoke()
    stack.sim.next(operation="signin", latency_ms=1600)
    stack.sim.next(operation="chats_new", latency_ms=1)  # the one whose token is refused
    stack.sim.next(operation="chats_new", latency_ms=1600)
    call = await ask(stack.url, stack.key, "slow beginnings")
    assert_never_silent(call)
    assert len(call.comments) >= 2


@pytest.mark.anyio
async def test_failing_over_goes_on_after_comments_until_the_first_event(stack: Stack) -> None:
    stack.sim.next(operation="completions", latency_ms=1100, fail="http_500", times=2)
    call = await ask(stack.url, stack.key, "third time lucky [[sim: say=lucky]]")
    assert_never_silent(call)
    assert call.text == "lucky"
    tries = stack.sim.recorded("completions")
    assert len(tries) == 3
    assert len({one["email"] for one in tries}) == 3
    assert call.frames[0] == KEEPALIVE  # headers had gone out before the second attempt began


@pytest.mark.anyio
async def test_a_failure_after_comments_is_told_in_band_and_last(stack: Stack) -> None:
    stack.sim.next(operation="completions", latency_ms=1100, fail="http_500", times=0)
    call = await ask(stack.url, stack.key, "never lucky")
    assert call.status == 200
    assert call.longest_gap <= KEEPALIVE_SECONDS
    assert call.code == "upstream_error"
    assert b"error" in call.frames[-1]
    assert b"[DONE]" not in call.body
    assert b"finish_reason" not in call.body


@pytest.mark.anyio
async def test_a_stream_is_never_silent_while_it_waits_in_line() -> None:
    environment = {"KEEPALIVE_SECONDS": "1", "ACCOUNT_CONCURRENCY": "1"}
    with Stack(environment=environment, accounts=1) as stack:
        async with calling(stack.url, stack.key, "[[sim: frames=25 delay_ms=100]]") as holder:
            await holder.until(lambda: holder.text != "")
            call = await ask(stack.url, stack.key, "in line [[sim: say=served]]")
        assert_never_silent(call)
        assert call.text == "served"
        assert len(call.comments) >= 2
        await soon(lambda: leases(stack.url) == 0, within_seconds=1)


@pytest.mark.anyio
async def test_the_official_sdk_is_not_disturbed_by_comments(stack: Stack) -> None:
    prompt = '[[sim: latency_ms=1300 say="one two done" frames=3 stall_after=3 stall_ms=1300]]'
    async with openai.AsyncOpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        pieces = []
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], stream=True
        )
        async for chunk in stream:
            pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == "one two done"
