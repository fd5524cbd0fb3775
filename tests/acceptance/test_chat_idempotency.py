"""`Idempotency-Key`: one upstream call for one key, the same answer for every repeat."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.chat import ask, asking, assert_error, body_of, directive, ended_well, text_of
from tests.fakes.stack import ADMIN_KEY, OTHER_KEY, Stack, eventually

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def once() -> dict[str, str]:
    """A key that no other test uses."""
    return {"idempotency-key": f"key {secrets.token_hex(8)}"}


def completions(stack: Stack) -> int:
    return len(stack.sim.recorded("completions"))


@BOTH
def test_a_repeat_gets_the_same_answer_from_one_upstream_call(
    stack: Stack, once: dict[str, str], stream: bool
) -> None:
    first = ask(stack, headers=once, stream=stream)
    again = [ask(stack, headers=once, stream=stream) for _ in range(4)]
    assert first.status_code == 200
    for answer in again:
        assert (answer.status_code, answer.text) == (first.status_code, first.text)
        for name in ("content-type", "x-gateway-model", "x-gateway-lane"):
            assert answer.headers[name] == first.headers[name]
    assert completions(stack) == 1
    assert len({answer.headers["x-request-id"] for answer in [first, *again]}) == 5


@BOTH
def test_repeats_while_the_first_still_runs_wait_for_its_answer(
    stack: Stack, once: dict[str, str], stream: bool
) -> None:
    prompt = directive(frames=20, delay_ms=30)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, stack, prompt, headers=once, stream=stream) for _ in range(8)]
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers if not answer.text.startswith(":")}) == 1
    assert completions(stack) == 1
    if stream:
        assert all(ended_well(answer) for answer in answers)


@BOTH
def test_the_same_key_with_another_body_is_a_409(
    stack: Stack, once: dict[str, str], stream: bool
) -> None:
    assert text_of(ask(stack, "one", headers=once, stream=stream))
    answer = ask(stack, "two", headers=once, stream=stream)
    assert_error(answer, 409, "invalid_request_error", "conflict")
    other_way = ask(stack, "one", headers=once, stream=not stream)
    assert_error(other_way, 409, "invalid_request_error", "conflict")
    assert completions(stack) == 1


def test_another_body_is_a_409_also_while_the_first_runs(
    stack: Stack, once: dict[str, str]
) -> None:
    with asking(stack, directive(frames=10, delay_ms=50), headers=once) as first:
        lines = first.iter_lines()
        next(lines)
        answer = ask(stack, "two", headers=once)
        assert_error(answer, 409, "invalid_request_error", "conflict")
        assert "data: [DONE]" in list(lines)


def test_two_callers_keys_never_meet(stack: Stack, once: dict[str, str]) -> None:
    answers = [
        ask(stack, f"I am {number}", headers=once | {"authorization": f"Bearer {key}"})
        for number, key in enumerate((stack.key, OTHER_KEY, ADMIN_KEY))
    ]
    assert [f"I am {number}" in text_of(a) for number, a in enumerate(answers)] == [True] * 3
    assert completions(stack) == 3


@BOTH
def test_a_5xx_is_not_kept(stack: Stack, once: dict[str, str], stream: bool) -> None:
    stack.sim.next(operation="completions", fail="internal_error", times=3)
    assert ask(stack, headers=once, stream=stream).status_code == 502
    assert text_of(ask(stack, headers=once, stream=stream))


@BOTH
def test_a_429_is_not_kept(stack: Stack, once: dict[str, str], stream: bool) -> None:
    stack.sim.next(operation="completions", fail="RateLimited", times=0)
    assert ask(stack, headers=once, stream=stream).status_code == 429
    stack.clear()
    assert text_of(ask(stack, headers=once, stream=stream))


@BOTH
def test_a_refusal_that_would_come_again_is_kept(
    stack: Stack, once: dict[str, str], stream: bool
) -> None:
    stack.sim.next(operation="completions", fail="data_inspection_failed", times=1)
    first = ask(stack, headers=once, stream=stream)
    again = ask(stack, headers=once, stream=stream)
    assert_error(first, 400, "invalid_request_error", "content_filter")
    assert (again.status_code, again.text) == (400, first.text)
    assert completions(stack) == 1


def test_an_answer_that_failed_in_band_is_not_kept(stack: Stack, once: dict[str, str]) -> None:
    """It has status 200 on the wire, and is a failure of the upstream all the same."""
    prompt = directive(script="first fails")
    stack.sim.script(
        "first fails", {"frames": 8, "fail": "internal_error", "after": 4}, {"say": "Now."}
    )
    failed = ask(stack, prompt, headers=once, stream=True)
    assert failed.status_code == 200
    assert not ended_well(failed)
    again = ask(stack, prompt, headers=once, stream=True)
    assert (text_of(again), ended_well(again)) == ("Now.", True)


def test_a_first_whose_client_left_does_not_hold_up_the_repeat(
    stack: Stack, once: dict[str, str]
) -> None:
    prompt = directive(script="first hangs")
    stack.sim.script("first hangs", {"frames": 8, "stall_after": 3}, {"say": "Now."})
    with asking(stack, prompt, headers=once) as first:
        next(first.iter_lines())
    begun = time.monotonic()
    assert text_of(ask(stack, prompt, headers=once, stream=True)) == "Now."
    assert time.monotonic() - begun < 5


def test_a_repeat_whose_client_leaves_while_waiting_takes_nothing_along(
    stack: Stack, once: dict[str, str]
) -> None:
    prompt = directive(frames=20, delay_ms=50)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, stack, prompt, headers=once, stream=True)
        eventually(lambda: completions(stack) == 1)
        with pytest.raises(httpx.ReadTimeout):
            ask(stack, prompt, headers=once, stream=True, timeout_seconds=0.3)
        answer = first.result()
    assert ended_well(answer)
    assert completions(stack) == 1
    assert ask(stack, prompt, headers=once, stream=True).text == answer.text


@BOTH
def test_without_a_key_every_request_runs(stack: Stack, stream: bool) -> None:
    assert text_of(ask(stack, "same", stream=stream)) == text_of(ask(stack, "same", stream=stream))
    assert completions(stack) == 2


@pytest.mark.parametrize("key", ["x" * 300, ""])
def test_an_unusable_key_is_a_400(stack: Stack, key: str) -> None:
    headers = stack.headers | {"idempotency-key": key}
    body = body_of("hi")
    answer = httpx.post(f"{stack.url}/v1/chat/completions", headers=headers, json=body)
    assert_error(answer, 400, "invalid_request_error", "invalid_value", param="Idempotency-Key")
