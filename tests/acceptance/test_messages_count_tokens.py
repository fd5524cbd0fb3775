"""`POST /v1/messages/count_tokens` against what the turn itself then reports: within 3 %."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from shared.turns import tokens
from tests.fakes.chat import call
from tests.fakes.messages import PATH, ask, assert_error, count
from tests.fakes.stack import Stack

TOOLS = [
    {
        "name": f"tool_{number}",
        "description": f"Does the thing number {number}, with care.",
        "input_schema": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": "Where it is done."},
                "mode": {"type": "string", "enum": ["fast", "slow"]},
                "lines": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["path"],
        },
    }
    for number in range(30)
]
HISTORY = [
    {"role": "user", "content": "Read it."},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "I think a lot. " * 50, "signature": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "tool_1", "input": {"path": "a.txt"}},
        ],
    },
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "line\n" * 80}],
    },
]
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}}
REQUESTS: dict[str, dict[str, Any]] = {
    "a word": {"prompt": "hi"},
    "many scripts": {"prompt": "Blåbær, 漢字かな交じり文, العربية, 🙂🙂 — \t x\u0301 " * 40},
    "system": {"prompt": "hi", "system": "You are terse. " * 60},
    "tools": {"prompt": "hi", "tools": TOOLS},
    "tools and history": {"prompt": HISTORY, "tools": TOOLS, "system": "Be exact."},
    "a chosen tool": {
        "prompt": "hi",
        "tools": TOOLS,
        "tool_choice": {"type": "tool", "name": "tool_7"},
    },
    "no tool now": {"prompt": HISTORY, "tools": TOOLS, "tool_choice": {"type": "none"}},
    "a format": {
        "prompt": "hi",
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "a long one": {"prompt": "The quick brown fox, number 17, jumps over it. " * 1500},
}
requests = pytest.mark.parametrize("name", REQUESTS)


def reported(answer: Any) -> int:
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    return int(usage["input_tokens"] + usage["cache_read_input_tokens"])


def answered(request: dict[str, Any]) -> str:
    """What the upstream says: what the request asks for, so that nothing is asked twice."""
    if "output_config" in request:
        return '{"sum": 3}'
    if request.get("tool_choice", {}).get("type") == "tool":
        return '<tool_call>\n{"name": "tool_7", "arguments": {"path": "x"}}\n</tool_call>'
    return "So."


@requests
def test_a_count_is_what_the_turn_reports_where_we_count_it(stack: Stack, name: str) -> None:
    request = REQUESTS[name]
    stack.sim.next(operation="completions", say=answered(request), usage="none")
    assert count(stack, **request) == pytest.approx(reported(ask(stack, **request)), rel=0.03)


@requests
def test_a_count_is_what_an_upstream_of_that_vocabulary_tells(stack: Stack, name: str) -> None:
    """The prompt that was really sent, counted by the model's own vocabulary, is what it says."""
    request = REQUESTS[name]
    stack.sim.next(operation="completions", say=answered(request), usage="none")
    ask(stack, **request)
    [prompt] = stack.sim.prompts()
    told = tokens.load("qwen3-max-2026-01-23").count(prompt)
    assert count(stack, **request) == pytest.approx(told, rel=0.03)


def test_no_account_and_no_upstream_is_needed(stack: Stack) -> None:
    before = stack.sim.stats()["requests"]
    assert count(stack, "hi", tools=TOOLS) > 300
    assert stack.sim.stats()["requests"] == before


def test_a_count_is_refused_where_the_turn_would_be(stack: Stack) -> None:
    path = f"{PATH}/count_tokens"
    image = [{"role": "user", "content": [{"type": "image", "source": {}}]}]
    assert_error(ask(stack, image, path=path), 400, "invalid_request_error")
    assert_error(ask(stack, [], path=path), 400, "invalid_request_error")
    assert_error(ask(stack, path=path, model="no-such-model"), 404, "not_found_error")
    wrong = {"x-api-key": "sk-wrong"}
    assert_error(ask(stack, path=path, headers=wrong), 401, "authentication_error")
    assert count(stack, model="claude-opus-5") == 1


def test_a_count_counts_against_the_callers_rate_and_models(stack: Stack) -> None:
    limited = {"name": "c", "rate_limit_per_minute": 2, "models": ["qwen3-coder-plus"]}
    admin = {"authorization": f"Bearer {stack.admin_key}"}
    key = call(stack, "POST", "/api/keys", headers=admin, json=limited).json()["key"]
    path, headers = f"{PATH}/count_tokens", {"x-api-key": key}
    answer = ask(stack, path=path, headers=headers, model="claude-opus-5")
    assert answer.headers["x-ratelimit-remaining-requests"] == "1"
    assert_error(ask(stack, path=path, headers=headers), 403, "permission_error")
    answer = ask(stack, path=path, headers=headers)
    assert_error(answer, 429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) > 0


def test_counting_a_long_text_does_not_hold_up_others() -> None:
    """30 MB take seconds; nobody else waits for most of them."""
    longest: float = 0
    with Stack(environment={"WORKERS": "1"}) as one, ThreadPoolExecutor() as threads:
        count(one, "hi")  # the vocabulary is there
        counted = threads.submit(count, one, "Lorem ipsum dolor sit amet 12345. " * 900_000)
        began_counting = time.monotonic()
        while not counted.done():
            began = time.monotonic()
            assert call(one, "GET", "/healthz").status_code == 200
            longest = max(longest, time.monotonic() - began)
        assert counted.result() > 9_000_000
        assert longest < (time.monotonic() - began_counting) / 2
