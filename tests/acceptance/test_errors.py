"""Every row of contract.md section 4 that the chat route and the model list can meet, over HTTP.

Per row: the status, the shape, the code, `Retry-After`; streamed and not; before the headers, and
in band after the first event. What the upstream's failures do to accounts: test_chat_failover.py.
"""

import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fakes.chat import (
    ask,
    asking,
    assert_error,
    assert_in_band_error,
    body_of,
    call,
    directive,
    finish_of,
    get,
    text_of,
)
from tests.fakes.stack import Stack, eventually

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

INVALID = "invalid_request_error"
SERVER = "server_error"


# -- the caller's fault


@BOTH
@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic abc"},
        {"authorization": "Bearer sk-nobody-has-this-one"},
        {"authorization": "Bearer \u00e4\u00f6"},
        {"authorization": "", "x-api-key": "sk-nobody-has-this-one"},
        {"authorization": "", "api-key": "sk-nobody-has-this-one"},
    ],
    ids=[
        "none",
        "empty",
        "another scheme",
        "wrong",
        "not ascii",
        "wrong x-api-key",
        "wrong api-key",
    ],
)
def test_no_or_a_wrong_key_is_a_401(stack: Stack, headers: dict[str, str], stream: bool) -> None:
    encoded = {name: value.encode("utf-8") for name, value in headers.items()}
    answer = ask(stack, headers=encoded, stream=stream)  # type: ignore[arg-type]
    assert_error(answer, 401, INVALID, "invalid_api_key")
    assert stack.sim.recorded("completions") == []


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/Qwen3-Max", "/api/keys", "/api/accounts"]
)
def test_every_route_with_a_key_has_the_401(stack: Stack, path: str) -> None:
    assert_error(get(stack, path, headers={"authorization": ""}), 401, INVALID, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/accounts"),
        ("GET", "/api/accounts/demo1@example.com"),
        ("GET", "/api/keys"),
        ("POST", "/api/keys"),
        ("PATCH", "/api/keys/some"),
        ("DELETE", "/api/keys/some"),
    ],
)
def test_a_regular_key_on_the_admin_api_is_a_403(stack: Stack, method: str, path: str) -> None:
    answer = call(stack, method, path)
    assert_error(answer, 403, "permission_error", "forbidden")


MALFORMED: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b'"text"', None),
    (b"null", None),
    (b'{"model":"Qwen3-Max","messages":[{"role":"user","content":"\xff"}]}', None),
    (b"[" * 100_000, None),
    (b'{"messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":null,"messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":" ","messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":7,"messages":[{"role":"user","content":"hi"}]}', "model"),
    (b'{"model":"Qwen3-Max"}', "messages"),
    (b'{"model":"Qwen3-Max","messages":[]}', "messages"),
    (b'{"model":"Qwen3-Max","messages":"hi"}', "messages"),
    (b'{"model":"Qwen3-Max","messages":[{"content":"hi"}]}', "messages[0].role"),
    (b'{"model":"Qwen3-Max","messages":[{"role":"wizard","content":"hi"}]}', "messages[0].role"),
    (b'{"model":"Qwen3-Max","messages":[{"role":"user"}]}', "messages[0].content"),
    (b'{"model":"Qwen3-Max","messages":[{"role":"user","content":7}]}', "messages[0].content"),
    (b'{"model":"Qwen3-Max","messages":[{"role":"user","content":"  "}]}', "messages"),
    (
        b'{"model":"Qwen3-Max","messages":[{"role":"user","content":[{"type":"text"}]}]}',
        "messages[0].content[0].text",
    ),
    (
        b'{"model":"Qwen3-Max","messages":[{"role":"user","content":[{"text":"hi"}]}]}',
        "messages[0].content[0].type",
    ),
]


@pytest.mark.parametrize(("body", "param"), MALFORMED, ids=[str(b[:60]) for b, _ in MALFORMED])
def test_a_malformed_body_is_a_400_that_names_the_field(
    stack: Stack, body: bytes, param: str | None
) -> None:
    answer = call(stack, "POST", "/v1/chat/completions", content=body)
    assert_error(answer, 400, INVALID, "invalid_value", param=param)


@BOTH
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("n", 0),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", "many"),
        ("max_completion_tokens", 0),
        ("stop", 7),
        ("stop", ["x"] * 100),
        ("thinking_budget", 0),
        ("reasoning_effort", "enormous"),
        ("stream", "yes"),
        ("stream_options", "usage"),
        ("tools", "f"),
        ("tool_choice", "required"),
    ],
)
def test_a_wrong_field_is_a_400_with_its_path(
    stack: Stack, field: str, value: object, stream: bool
) -> None:
    fields: dict[str, Any] = {"stream": stream} | {field: value}
    answer = ask(stack, **fields)
    assert_error(answer, 400, INVALID, "invalid_value", param=field)
    assert stack.sim.recorded("completions") == []


@BOTH
def test_a_prompt_longer_than_the_model_takes_is_a_400(stack: Stack, stream: bool) -> None:
    told = "Range of input length should be [1, 131072]"
    stack.sim.next(operation="completions", fail="Bad_Request", details=told)
    answer = ask(stack, stream=stream)
    assert_error(answer, 400, INVALID, "context_length_exceeded")
    assert len(stack.sim.recorded("completions")) == 1


@BOTH
def test_what_moderation_refuses_is_a_400(stack: Stack, stream: bool) -> None:
    stack.sim.next(operation="completions", fail="data_inspection_failed")
    assert_error(ask(stack, stream=stream), 400, INVALID, "content_filter")
    assert len(stack.sim.recorded("completions")) == 1


@BOTH
@pytest.mark.parametrize("fail", ["invalid_input", "InvalidAttachment"])
def test_what_the_upstream_does_not_take_as_input_is_a_400(
    stack: Stack, fail: str, stream: bool
) -> None:
    stack.sim.next(operation="completions", fail=fail)
    assert_error(ask(stack, stream=stream), 400, INVALID, "invalid_value")
    assert len(stack.sim.recorded("completions")) == 1


@BOTH
@pytest.mark.parametrize(
    "model", ["gpt-4o", "Qwen3-Max-thinking", "qwen3-max-2026-01-23-image", "x" * 5000, "\u200b"]
)
def test_an_unknown_model_is_a_404(stack: Stack, model: str, stream: bool) -> None:
    answer = ask(stack, model=model, stream=stream)
    error = assert_error(answer, 404, INVALID, "model_not_found")
    assert len(error["message"]) < 1000


def test_a_model_the_upstream_took_away_is_a_404(stack: Stack) -> None:
    stack.sim.next(operation="completions", fail="ModelNotFound")
    assert_error(ask(stack), 404, INVALID, "model_not_found")
    assert len(stack.sim.recorded("completions")) == 1


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v1/chat/completions/", "/%2e%2e/etc"])
def test_an_unknown_route_is_a_404(stack: Stack, path: str) -> None:
    assert_error(get(stack, path), 404, INVALID, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
        ("POST", "/healthz"),
        ("PUT", "/verify"),
    ],
)
def test_a_wrong_method_is_a_405(stack: Stack, method: str, path: str) -> None:
    answer = call(stack, method, path)
    assert_error(answer, 405, INVALID, "method_not_allowed")
    assert answer.headers["allow"]


def test_a_body_that_says_it_is_too_large_is_a_413_before_it_has_come(adjusted: Stack) -> None:
    answer = _send_raw(adjusted, f"content-length: {2 * 1024**2}\r\n", [b"{"])
    assert_413(answer)


def test_a_chunked_body_that_grows_too_large_is_a_413_before_its_end(adjusted: Stack) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = _send_raw(adjusted, "transfer-encoding: chunked\r\n", [chunk] * 20)
    assert_413(answer)


def test_a_body_sent_whole_is_a_413_that_its_sender_can_read(adjusted: Stack) -> None:
    answer = ask(adjusted, "x" * (1024**2 + 1))
    assert_error(answer, 413, INVALID, "body_too_large")


def test_a_small_routes_own_limit_is_told_as_what_it_is(stack: Stack) -> None:
    answer = call(stack, "POST", "/verify", content=b" " * 20_000)
    error = assert_error(answer, 413, INVALID, "body_too_large")
    assert "10000 bytes" in error["message"]


def test_a_body_of_just_the_limit_is_none(adjusted: Stack) -> None:
    adjusted.sim.config(prompt_limit_bytes=2 * 1024**2)
    without = len(httpx.Request("POST", "http://x", json=body_of("")).content)
    answer = ask(adjusted, "x" * (1024**2 - without))
    assert text_of(answer)


def assert_413(raw: bytes) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"content-type: application/json" in head.lower()
    assert b"x-request-id: " in head.lower()
    assert b'"code":"body_too_large"' in body


def _send_raw(stack: Stack, header: str, pieces: list[bytes]) -> bytes:
    """Sends head and pieces, never an end of the body; what comes back until the answer is whole."""
    with socket.create_connection(("127.0.0.1", stack.gateway.port), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.key}\r\n"
            f"content-type: application/json\r\n{header}\r\n".encode()
        )
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while b"}}" not in received:
            more = connection.recv(65536)
            assert more, received
            received += more
        return received


@BOTH
def test_a_caller_over_its_limit_is_a_429_that_says_when(stack: Stack, stream: bool) -> None:
    key = _new_key(stack, rate_limit_per_minute=1)
    headers = {"authorization": f"Bearer {key}"}
    assert ask(stack, headers=headers, stream=stream).status_code == 200
    answer = ask(stack, headers=headers, stream=stream)
    assert_error(answer, 429, "rate_limit_error", "rate_limit_exceeded", retry_after=True)
    assert 50 <= int(answer.headers["retry-after"]) <= 60


def _new_key(stack: Stack, **fields: object) -> str:
    admin = {"authorization": f"Bearer {stack.admin_key}"}
    answer = call(stack, "POST", "/api/keys", headers=admin, json={"name": "a test"} | fields)
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


# -- the far side's fault, before the first event


@BOTH
def test_every_account_spent_is_a_429_that_says_when(stack: Stack, stream: bool) -> None:
    stack.sim.next(operation="completions", fail="RateLimited", times=0)
    answer = ask(stack, stream=stream)
    assert_error(answer, 429, "rate_limit_error", "accounts_exhausted", retry_after=True)
    asked = len(stack.sim.recorded("completions"))
    again = ask(stack, stream=stream)
    assert_error(again, 429, "rate_limit_error", "accounts_exhausted", retry_after=True)
    assert len(stack.sim.recorded("completions")) == asked, "a spent account was asked again"


@BOTH
def test_a_firewall_is_a_503_that_says_when_and_is_not_hammered(stack: Stack, stream: bool) -> None:
    stack.sim.next(operation="completions", fail="waf_page", times=0)
    answer = ask(stack, stream=stream)
    assert_error(answer, 503, SERVER, "upstream_blocked", retry_after=True)
    again = ask(stack, stream=stream)
    assert_error(again, 503, SERVER, "upstream_blocked", retry_after=True)
    assert len(stack.sim.recorded("completions")) == 1


@BOTH
def test_all_accounts_busy_for_too_long_is_a_503(adjusted: Stack, stream: bool) -> None:
    with asking(adjusted, directive(frames=3, delay_ms=800)) as first:
        lines = first.iter_lines()
        next(lines)
        answer = ask(adjusted, stream=stream)
        assert_error(answer, 503, SERVER, "no_account", retry_after=True)
        assert any("[DONE]" in line for line in lines)


@BOTH
@pytest.mark.parametrize("fail", ["TooQuickly", "ParallelLimited", "http_429", "ChatInProgress"])
def test_a_pace_no_account_can_keep_is_a_503_that_says_when(
    stack: Stack, fail: str, stream: bool
) -> None:
    stack.sim.next(operation="completions", fail=fail, times=0)
    answer = ask(stack, stream=stream)
    assert_error(answer, 503, SERVER, "no_account", retry_after=True)
    assert int(answer.headers["retry-after"]) <= 5
    assert len(stack.sim.recorded("completions")) == 3


@BOTH
@pytest.mark.parametrize(
    ("action", "code"),
    [
        ({"fail": "html_500"}, "upstream_error"),
        ({"fail": "html_502"}, "upstream_error"),
        ({"fail": "http_500"}, "upstream_error"),
        ({"fail": "server_busy"}, "upstream_error"),
        ({"fail": "internal_error", "form": "frame"}, "upstream_error"),
        ({"fail": "ErrorFrame"}, "upstream_error"),
        ({"fail": "ErrorText"}, "upstream_error"),
        ({"fail": "nonsense"}, "upstream_error"),
        ({"fail": "text"}, "upstream_error"),
        ({"fail": "json_answer"}, "upstream_error"),
        ({"fail": "some_code_nobody_has_seen"}, "upstream_error"),
        ({"status": 302, "headers": {"location": "/elsewhere"}}, "upstream_error"),
        ({"reset": "before"}, "upstream_error"),
        ({"reset_after": 1}, "upstream_error"),
        ({"close_after": 1}, "upstream_error"),
        ({"cut_after": 1}, "upstream_error"),
        ({"raw64": "ZGF0YTogeyJjaG9pY2VzIjpbCgo="}, "upstream_error"),
        ({"fail": "empty"}, "upstream_empty"),
        ({"empty": True}, "upstream_empty"),
        ({"say": ""}, "upstream_empty"),
    ],
    ids=str,
)
def test_a_broken_upstream_is_a_502(
    stack: Stack, action: dict[str, object], code: str, stream: bool
) -> None:
    stack.sim.next(operation="completions", times=0, **action)
    assert_error(ask(stack, stream=stream), 502, SERVER, code)


@BOTH
@pytest.mark.parametrize("operation", ["chats_new", "signin"])
@pytest.mark.parametrize("fail", ["html_502", "empty", "nonsense"])
def test_an_upstream_that_breaks_before_the_completion_is_a_502(
    stack: Stack, operation: str, fail: str, stream: bool
) -> None:
    if operation == "signin":
        stack.sim.revoke()
    stack.sim.next(operation=operation, fail=fail, times=0)
    answer = ask(stack, stream=stream)
    assert_error(answer, 502, SERVER, answer.json()["error"]["code"])
    assert answer.json()["error"]["code"] in ("upstream_error", "upstream_empty")


@BOTH
@pytest.mark.parametrize("hang", ["before", "after"])
def test_no_first_token_in_time_is_a_504(adjusted: Stack, hang: str, stream: bool) -> None:
    adjusted.sim.next(operation="completions", hang=hang, times=0)
    assert_error(ask(adjusted, stream=stream), 504, SERVER, "upstream_timeout")


# -- the far side's fault, after the first event

BROKEN_MIDWAY: list[tuple[dict[str, object], str, str, int]] = [
    ({"fail": "internal_error"}, SERVER, "upstream_error", 502),
    ({"fail": "ErrorFrame"}, SERVER, "upstream_error", 502),
    ({"fail": "ErrorText"}, SERVER, "upstream_error", 502),
    ({"fail": "data_inspection_failed"}, INVALID, "content_filter", 400),
    ({"fail": "RateLimited"}, "rate_limit_error", "accounts_exhausted", 429),
    ({"fail": "punish"}, SERVER, "upstream_blocked", 503),
    ({"fail": "Unauthorized"}, SERVER, "upstream_error", 502),
    ({"fail": "TooQuickly"}, SERVER, "no_account", 503),
    ({"fail": "invalid_input"}, INVALID, "invalid_value", 400),
    ({"reset_after": 4}, SERVER, "upstream_error", 502),
    ({"close_after": 4}, SERVER, "upstream_error", 502),
    ({"cut_after": 4}, SERVER, "upstream_error", 502),
    ({"finish": False}, SERVER, "upstream_error", 502),
]


@pytest.mark.parametrize(
    ("action", "type_", "code", "status"), BROKEN_MIDWAY, ids=[str(row[0]) for row in BROKEN_MIDWAY]
)
def test_a_failure_after_the_first_event_is_told_in_band(
    stack: Stack, action: dict[str, object], type_: str, code: str, status: int
) -> None:
    after = {"after": 4} if "fail" in action else {}
    stack.sim.next(operation="completions", frames=8, times=0, **after, **action)
    answer = ask(stack, stream=True)
    assert_in_band_error(answer, type_, code)
    assert text_of(answer).startswith("the quick ")
    assert len(stack.sim.recorded("completions")) == 1, "it was silently restarted"


@pytest.mark.parametrize(
    ("action", "type_", "code", "status"), BROKEN_MIDWAY, ids=[str(row[0]) for row in BROKEN_MIDWAY]
)
def test_half_an_answer_is_never_a_whole_one(
    stack: Stack, action: dict[str, object], type_: str, code: str, status: int
) -> None:
    after = {"after": 4} if "fail" in action else {}
    stack.sim.next(operation="completions", frames=8, times=0, **after, **action)
    answer = ask(stack)
    assert answer.status_code == status
    assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == (type_, code)
    assert len(stack.sim.recorded("completions")) == 1, "it was silently restarted"


def test_an_upstream_that_falls_silent_is_told_in_band(adjusted: Stack) -> None:
    adjusted.sim.next(operation="completions", frames=8, stall_after=4)
    assert_in_band_error(ask(adjusted, stream=True), SERVER, "upstream_timeout")


def test_an_upstream_that_falls_silent_is_a_504_when_nothing_went_out(adjusted: Stack) -> None:
    adjusted.sim.next(operation="completions", frames=8, stall_after=4)
    assert_error(ask(adjusted), 504, SERVER, "upstream_timeout")


def test_keep_alive_frames_of_the_upstream_are_no_first_token(adjusted: Stack) -> None:
    adjusted.sim.next(operation="completions", silence_ms=10_000, keep_alive_ms=100)
    assert_error(ask(adjusted, stream=True), 504, SERVER, "upstream_timeout")


# -- a product in need


@pytest.fixture(scope="module")
def bare() -> Iterator[Stack]:
    """A product without accounts whose upstream shows its models to nobody else."""
    environment, options = {"ACCOUNT_WAIT_SECONDS": "1"}, ("--set", "models_need_login=true")
    with Stack(accounts=0, environment=environment, simulator=options) as stack:
        yield stack


def test_a_catalogue_never_read_is_a_503_and_comes_by_itself(bare: Stack) -> None:
    asks: list[Callable[[], httpx.Response]] = [
        lambda: ask(bare),
        lambda: ask(bare, stream=True),
        lambda: get(bare, "/v1/models"),
        lambda: get(bare, "/v1/models/Qwen3-Max"),
        lambda: get(bare, "/models"),
    ]
    with ThreadPoolExecutor(len(asks)) as threads:
        for answer in threads.map(lambda one: one(), asks):
            assert_error(answer, 503, SERVER, "no_catalogue", retry_after=True)
    for look in asks:  # one of the fleet was refused a moment ago: nobody waits to hear it again
        answer = look()
        assert_error(answer, 503, SERVER, "no_catalogue", retry_after=True)
        assert answer.elapsed.total_seconds() < 2
    bare.sim.config(models_need_login=False)
    eventually(
        lambda: get(bare, "/models").status_code,
        until=lambda status: status == 200,
        within_seconds=15,
    )


@BOTH
def test_no_account_at_all_is_a_503(bare: Stack, stream: bool) -> None:
    bare.sim.config(models_need_login=False)
    answer = ask(bare, stream=stream)
    assert_error(answer, 503, SERVER, "no_account", retry_after=True)


def test_a_store_that_is_away_is_a_503_and_comes_back_by_itself() -> None:
    with Stack(accounts=1) as stack:
        assert ask(stack).status_code == 200
        eventually(lambda: served_the_list(stack) == set(stack.gateway_pids()), within_seconds=10)
        stack.redis.stop()
        for stream in (False, True):
            answer = ask(stack, stream=stream)
            assert_error(answer, 503, SERVER, "store_unavailable", retry_after=True)
            assert answer.elapsed.total_seconds() < 2
        ready = get(stack, "/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "store_unavailable")
        assert get(stack, "/v1/models").status_code == 200
        stranger = {"authorization": "Bearer sk-perhaps-a-stored-one"}
        answer = ask(stack, headers=stranger)
        assert_error(answer, 503, SERVER, "store_unavailable", retry_after=True)
        stack.redis.start()
        eventually(
            lambda: get(stack, "/readyz").status_code,
            until=lambda status: status == 200,
            within_seconds=10,
        )


def served_the_list(stack: Stack) -> set[int]:
    """The processes that have had the model list: only those can serve their last one."""
    assert get(stack, "/v1/models").status_code == 200
    lines = [line for line in stack.logs().splitlines() if "route=/v1/models " in line]
    return {int(found[1]) for line in lines if (found := re.search(r" pid=(\d+) ", line))}


def test_a_good_end_is_told_as_one(stack: Stack) -> None:
    """The counterpart of all the above: what none of them may look like."""
    answer = ask(stack, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert finish_of(answer) == "stop"
