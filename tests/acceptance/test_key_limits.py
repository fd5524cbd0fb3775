"""What a key may run at once and use in a day: in every dialect, over both processes."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.acceptance.test_keys_and_limits import Keys, with_key
from tests.fakes.background import job_processes
from tests.fakes.chat import MODEL, ask, asking, assert_error, call, directive, get
from tests.fakes.stack import Stack, eventually

Ask = Callable[..., httpx.Response]

HANGS = directive(say="hello", frames=2, stall_after=3)
SECONDS_A_DAY = 86_400
RESPONSES = "/v1/responses"


@pytest.fixture
def keys(stack: Stack) -> Iterator[Keys]:
    keys = Keys(stack, {"authorization": f"Bearer {stack.admin_key}"})
    yield keys
    for made in keys.made:
        keys("DELETE", f"/{made}")


def body_of(path: str, prompt: str, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    asked = {"input": prompt} if path == RESPONSES else {"messages": messages}
    more = {"max_tokens": 1000} if path == "/v1/messages" else {}
    return {"model": MODEL, "stream": stream, **asked, **more}


@pytest.fixture(params=["/v1/chat/completions", "/v1/messages", RESPONSES])
def path(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def assert_refused(answer: httpx.Response, *, because: str) -> None:
    """429 in the dialect's own shape, with the reason and when to come again."""
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert error["type"] == "rate_limit_error"
    assert error.get("code", "rate_limit_exceeded") == "rate_limit_exceeded"
    assert because in error["message"]
    assert int(answer.headers["retry-after"]) >= 1


# -- turns at once


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_key_runs_no_more_turns_at_once_than_it_may(
    stack: Stack, keys: Keys, path: str, stream: bool
) -> None:
    headers = with_key(keys.create(max_streams=2)["key"])
    body = body_of(path, "hi", stream=stream)
    with ExitStack() as open_ones:
        for _ in range(2):
            open_ones.enter_context(asking(stack, HANGS, headers=headers))
        for _ in range(6):  # whichever process is asked
            refused = call(stack, "POST", path, headers=headers, json=body)
            assert_refused(refused, because="may run 2 requests at once")
        assert call(stack, "POST", path, json=body).status_code == 200  # others may
    eventually(
        lambda: call(stack, "POST", path, headers=headers, json=body).status_code == 200,
        within_seconds=2,
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_who_asks_one_after_the_other_is_never_refused(
    stack: Stack, keys: Keys, path: str, stream: bool
) -> None:
    headers = with_key(keys.create(max_streams=1)["key"])
    for _ in range(12):
        body = body_of(path, "hi", stream=stream)
        assert call(stack, "POST", path, headers=headers, json=body).status_code == 200


def test_a_turn_that_failed_is_under_way_no_longer_when_its_caller_hears_of_it(
    stack: Stack, keys: Keys
) -> None:
    headers = with_key(keys.create(max_streams=1)["key"])
    for _ in range(4):
        refused = ask(stack, directive(fail="data_inspection_failed"), headers=headers)
        assert refused.status_code == 400
    broken = ask(
        stack, directive(say="a b c d", frames=4, close_after=3), headers=headers, stream=True
    )
    assert broken.status_code == 200
    assert ask(stack, headers=headers).status_code == 200


def test_a_changed_number_of_turns_at_once_holds_within_2_s(stack: Stack, keys: Keys) -> None:
    made = keys.create(max_streams=1)
    headers = with_key(made["key"])
    with asking(stack, HANGS, headers=headers):
        assert ask(stack, headers=headers).status_code == 429
        keys("PATCH", f"/{made['id']}", json={"max_streams": None})
        eventually(lambda: ask(stack, headers=headers).status_code == 200, within_seconds=2)


# -- tokens of the day


def test_a_spent_budget_is_a_429_until_the_utc_day_ends(
    stack: Stack, keys: Keys, path: str
) -> None:
    headers = with_key(keys.create(daily_token_budget=40)["key"])
    body = body_of(path, directive(say="one two three four five six seven eight"), stream=False)

    def refused() -> httpx.Response | None:
        answer = call(stack, "POST", path, headers=headers, json=body)
        return answer if answer.status_code != 200 else None

    answer = eventually(refused, within_seconds=20)
    assert answer is not None
    assert_refused(answer, because="has used its 40 tokens of this UTC day")
    until_midnight = SECONDS_A_DAY - time.time() % SECONDS_A_DAY
    assert abs(int(answer.headers["retry-after"]) - until_midnight) < 60
    assert ask(stack).status_code == 200


def test_turns_at_once_overshoot_a_budget_by_no_more_than_one_turn_per_process(
    stack: Stack, keys: Keys
) -> None:
    """Forty ask at once for what only a few can have; without setting aside all would get it."""
    made = keys.create(daily_token_budget=150)
    headers = with_key(made["key"])
    prompt = directive(say="one two three four five six seven eight", delay_ms=20)
    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(lambda _: ask(stack, prompt, headers=headers), range(40)))
    used = [one.json()["usage"]["total_tokens"] for one in answers if one.status_code == 200]
    assert used
    assert sum(used) <= 150 + 2 * max(used)
    assert {one.status_code for one in answers} <= {200, 429}


def test_what_a_turn_under_way_has_set_aside_is_waited_for(stack: Stack, keys: Keys) -> None:
    """All of a small budget is set aside by the first; it uses little, so all of them get through."""
    headers = with_key(keys.create(daily_token_budget=1_000)["key"])
    prompt = directive(say="one two", frames=2, delay_ms=200)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: ask(stack, prompt, headers=headers), range(4)))
    assert [one.status_code for one in answers] == [200] * 4


def test_who_waits_in_vain_for_what_is_set_aside_is_told_so(stack: Stack, keys: Keys) -> None:
    headers = with_key(keys.create(daily_token_budget=1_000)["key"])
    with asking(stack, HANGS, headers=headers):
        refused = ask(stack, headers=headers)
        assert_refused(refused, because="is set aside by requests under way")
        assert refused.headers["retry-after"] == "1"


def test_who_leaves_has_used_what_was_said_to_him(stack: Stack, keys: Keys) -> None:
    headers = with_key(keys.create(daily_token_budget=10)["key"])
    many_words = directive(say=" ".join(["word"] * 60), frames=60, stall_after=50)
    with asking(stack, many_words, headers=headers) as answer:
        for line in answer.iter_lines():
            if line.count("word") and "[DONE]" not in line:
                break
    eventually(
        lambda: "has used its 10 tokens" in ask(stack, headers=headers).text, within_seconds=15
    )


def test_a_raised_budget_lets_work_begin_again_within_2_s(stack: Stack, keys: Keys) -> None:
    made = keys.create(daily_token_budget=1)
    headers = with_key(made["key"])
    assert ask(stack, headers=headers).status_code == 200
    assert_error(
        ask(stack, headers=headers),
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
        retry_after=True,
    )
    keys("PATCH", f"/{made['id']}", json={"daily_token_budget": 1_000_000})
    eventually(lambda: ask(stack, headers=headers).status_code == 200, within_seconds=2)


# -- in the background


def test_responses_in_the_background_run_within_the_limits_of_their_key(
    stack: Stack, keys: Keys
) -> None:
    headers = with_key(keys.create(max_streams=1)["key"])
    slow = directive(say="one two three", frames=3, delay_ms=150)
    with job_processes(stack):
        asked = [
            call(stack, "POST", RESPONSES, headers=headers, json=in_background(slow))
            for _ in range(3)
        ]
        assert [one.status_code for one in asked] == [200, 200, 200]  # put down, whatever runs
        for one in asked:
            path = f"{RESPONSES}/{one.json()['id']}"
            eventually(
                lambda path=path: get(stack, path, headers=headers).json()["status"] == "completed",
                within_seconds=30,
            )
    begun = sorted(one["at"] for one in stack.sim.recorded("completions"))
    pauses = [later - earlier for earlier, later in pairwise(begun)]
    assert len(pauses) == 2
    assert min(pauses) > 0.3  # one began when the one before had ended


def test_a_response_in_the_background_is_refused_when_the_budget_is_spent(
    stack: Stack, keys: Keys
) -> None:
    headers = with_key(keys.create(daily_token_budget=1)["key"])
    assert ask(stack, headers=headers).status_code == 200
    for stream in (False, True):
        body = in_background("hi", stream=stream)
        refused = call(stack, "POST", RESPONSES, headers=headers, json=body)
        assert_refused(refused, because="has used its 1 tokens of this UTC day")


def in_background(prompt: str, *, stream: bool = False) -> dict[str, Any]:
    return {"background": True} | body_of(RESPONSES, prompt, stream=stream)


# -- models, expiry


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_model_that_is_not_on_the_keys_list_is_a_403_with_the_reason(
    stack: Stack, keys: Keys, path: str, stream: bool
) -> None:
    headers = with_key(keys.create(models=["Qwen3-Coder"])["key"])
    body = body_of(path, "hi", stream=stream)
    refused = call(stack, "POST", path, headers=headers, json=body)
    assert refused.status_code == 403
    assert refused.json()["error"]["type"] == "permission_error"
    assert "may not use that model" in refused.json()["error"]["message"]
    allowed = call(stack, "POST", path, headers=headers, json=body | {"model": "Qwen3-Coder"})
    assert allowed.status_code == 200


def test_a_key_that_expires_while_it_is_used_is_refused_from_then_on(
    stack: Stack, keys: Keys, path: str
) -> None:
    headers = with_key(keys.create(expires_at=time.time() + 1)["key"])
    body = body_of(path, "hi", stream=False)

    def expired() -> bool:
        answer = call(stack, "POST", path, headers=headers, json=body)
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 401

    eventually(expired, within_seconds=3)
