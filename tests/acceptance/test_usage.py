"""Usage and the request log: every dialect, refused and failed requests, callers that leave."""

import datetime
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fakes import messages
from tests.fakes.background import ended, job_processes, open_client
from tests.fakes.chat import MODEL, answer_with, ask, asking, call, directive, usage_of
from tests.fakes.ledger import admin_of, ask_admin, growing, record_of, records, used_by
from tests.fakes.stack import Stack, eventually

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
KEY_NAME = "API_KEY 3"
"""Of the regular key, as the stack gives them."""


def fresh_id() -> str:
    return f"test-{uuid.uuid4().hex}"


def tokens_of(told: dict[str, int]) -> dict[str, int]:
    """OpenAI's names in ours."""
    return {"input_tokens": told["prompt_tokens"], "output_tokens": told["completion_tokens"]}


@BOTH
def test_a_turn_is_counted_once_its_answer_is_whole(stack: Stack, stream: bool) -> None:
    """Its client asks at once, on whatever process: there is no second to wait for."""
    with growing(stack) as grown:
        options = {"include_usage": True} if stream else None
        answer = ask(stack, "hi", stream=stream, stream_options=options)
        told = usage_of(answer)
        assert told is not None
        for by in ("account", "key", "model"):
            assert grown.now(by) == {"requests": 1, "failures": 0, **tokens_of(told)}


def test_usage_is_told_by_day_key_and_model(stack: Stack) -> None:
    model_id = ask(stack, "hi").headers["x-gateway-model"]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    by_key = ask_admin(stack, f"usage?by=key&from={today}&to={today}")["data"]
    mine = next(row for row in by_key if row["key"] == KEY_NAME)
    assert set(mine) == {
        "date", "key", "key_id", "requests", "input_tokens", "output_tokens", "failures",
    }  # fmt: skip
    assert mine["date"] == today
    assert model_id in used_by(stack, "model")
    assert set(used_by(stack, "account")) & set(stack.emails)


@BOTH
def test_messages_are_counted(stack: Stack, stream: bool) -> None:
    with growing(stack) as grown:
        assert messages.ask(stack, "hi", stream=stream).status_code == 200
        assert grown.now("key")["requests"] == 1
        assert grown.now("key")["output_tokens"] > 0
        assert grown.now("account") == grown.now("key") == grown.now("model")


@BOTH
def test_responses_are_counted(stack: Stack, stream: bool) -> None:
    with growing(stack) as grown:
        body = {"model": MODEL, "input": "hi", "stream": stream}
        assert call(stack, "POST", "/v1/responses", json=body).status_code == 200
        assert grown.now("key")["requests"] == 1
        assert grown.now("account") == grown.now("key") == grown.now("model")


def test_a_response_in_the_background_is_one_request_with_the_tokens_of_its_job(
    stack: Stack,
) -> None:
    with job_processes(stack), open_client(stack) as client, growing(stack) as grown:
        made = client.responses.create(model=MODEL, input="hi", background=True)
        final = ended(client, made.id)
        assert final.usage is not None
        used = {
            "input_tokens": final.usage.input_tokens,
            "output_tokens": final.usage.output_tokens,
        }
        for by in ("account", "key", "model"):
            grown.becomes(by, requests=1, **used)
        record = record_of(stack, made.id)
    assert (record["route"], record["status"], record["key"]) == ("/v1/responses", 200, KEY_NAME)
    assert record["output_tokens"] == used["output_tokens"]
    assert record["account"] in stack.emails


def test_a_background_response_that_is_cancelled_counts_what_it_used(stack: Stack) -> None:
    prompt = directive(say="x " * 200, frames=200, delay_ms=50)
    with job_processes(stack), open_client(stack) as client, growing(stack) as grown:
        made = client.responses.create(model=MODEL, input=prompt, background=True)
        eventually(stack.sim.open_streams)
        client.responses.cancel(made.id)
        record = record_of_soon(stack, made.id)
        grown.becomes(
            "key",
            requests=1,
            input_tokens=record["input_tokens"],
            output_tokens=record["output_tokens"],
        )
    assert (record["status"], record["error"]) == (499, None)
    assert record["input_tokens"] > 0


def record_of_soon(stack: Stack, request_id: str) -> dict[str, Any]:
    """A cancelled job stops within two seconds."""
    [found] = eventually(
        lambda: records(stack, request_id=request_id), within_seconds=4, until=lambda one: bool(one)
    )
    return found


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        ({"model": "no-such-model"}, 404, "model_not_found"),
        ({"messages": "nonsense"}, 400, "invalid_value"),
        ({"model": None}, 400, "invalid_value"),
    ],
)
def test_the_id_of_a_refused_request_leads_to_its_record(
    stack: Stack, refusal: dict[str, Any], status: int, code: str
) -> None:
    with growing(stack) as grown:
        answer = ask(stack, "hi", **refusal)
        assert answer.status_code == status
        record = record_of(stack, answer.headers["x-request-id"])
        assert (record["status"], record["error"]) == (status, code)
        assert (record["key"], record["attempts"]) == (KEY_NAME, 0)
        assert grown.now("key") == grown.now("model")
        assert grown.now("key") == {
            "requests": 1, "input_tokens": 0, "output_tokens": 0, "failures": 1,
        }  # fmt: skip
    if refusal.get("model"):
        assert record["model"] == "no-such-model"


def test_a_request_without_a_key_is_in_the_log_and_in_no_sum(stack: Stack) -> None:
    with growing(stack) as grown:
        answer = ask(stack, headers={"authorization": "Bearer sk-wrong"})
        assert answer.status_code == 401
        record = record_of(stack, answer.headers["x-request-id"])
        assert (record["status"], record["error"]) == (401, "invalid_api_key")
        assert record["key"] is None
        assert grown.now("key") == grown.now("model")
        assert grown.now("key")["requests"] == 0


def test_an_unknown_route_and_a_wrong_method_are_in_the_log(stack: Stack) -> None:
    for method, path, status in (("POST", "/v1/nothing", 404), ("GET", "/v1/messages", 405)):
        answer = call(stack, method, path)
        assert answer.status_code == status
        assert record_of(stack, answer.headers["x-request-id"])["status"] == status


def test_reading_the_model_list_and_counting_tokens_are_no_requests(stack: Stack) -> None:
    with growing(stack) as grown:
        assert call(stack, "GET", "/v1/models").status_code == 200
        assert messages.count(stack, "hi") > 0
        assert grown.now("key")["requests"] == 0
    read = call(stack, "GET", "/v1/models").headers["x-request-id"]
    ask(stack)  # what is written later is there, so what was written before is, too
    assert records(stack, request_id=read) == []


@BOTH
def test_a_turn_that_failed_before_its_first_event_used_nothing(stack: Stack, stream: bool) -> None:
    answer_with(stack, fail="nonsense", times=0)
    with growing(stack) as grown:
        answer = ask(stack, stream=stream)
        assert answer.status_code == 502
        record = record_of(stack, answer.headers["x-request-id"])
        assert record["error"] == answer.json()["error"]["code"]
        assert record["attempts"] == 3
        assert grown.now("key") == {
            "requests": 1, "input_tokens": 0, "output_tokens": 0, "failures": 1,
        }  # fmt: skip
        assert grown.now("account")["requests"] == grown.now("account")["failures"] == 3


def test_a_turn_that_failed_over_counts_for_both_accounts(stack: Stack) -> None:
    answer_with(stack, fail="nonsense")
    with growing(stack) as grown:
        answer = ask(stack)
        assert answer.status_code == 200
        assert (grown.now("account")["requests"], grown.now("account")["failures"]) == (2, 1)
        assert (grown.now("key")["requests"], grown.now("key")["failures"]) == (1, 0)
        assert grown.now("account")["output_tokens"] == grown.now("key")["output_tokens"] > 0


def test_a_turn_that_broke_in_the_middle_counts_what_it_used_as_a_failure(stack: Stack) -> None:
    answer_with(stack, say="one two three four", cut_after=2, frames=4)
    with growing(stack) as grown:
        answer = ask(stack, stream=True)
        record = record_of(stack, answer.headers["x-request-id"])
        assert (record["status"], record["error"]) == (200, "upstream_error")
        assert record["first_token_ms"] <= record["total_ms"]
        used = {name: record[name] for name in ("input_tokens", "output_tokens")}
        assert min(used.values()) > 0
        for by in ("key", "model", "account"):
            assert grown.now(by) == {"requests": 1, "failures": 1, **used}


@BOTH
def test_a_client_that_leaves_is_counted_with_what_it_used(stack: Stack, stream: bool) -> None:
    request_id = fresh_id()
    prompt = directive(say="x " * 100, frames=100, delay_ms=50)
    with growing(stack) as grown:
        headers = {"x-request-id": request_id, "connection": "close"}
        if stream:
            with asking(stack, prompt, headers=headers) as answer:
                next(answer.iter_bytes())
        else:
            with pytest.raises(Exception, match="timed out"):
                ask(stack, prompt, headers=headers, timeout_seconds=1)
        record = record_of(stack, request_id)
        assert (record["status"], record["error"]) == (499, None)
        used = {name: record[name] for name in ("input_tokens", "output_tokens")}
        assert used["input_tokens"] > 0
        for by in ("key", "model", "account"):
            grown.becomes(by, requests=1, **used)


def test_a_client_that_leaves_before_the_first_token_has_used_its_prompt(stack: Stack) -> None:
    request_id = fresh_id()
    answer_with(stack, latency_ms=5_000, say="never seen")
    with growing(stack) as grown, pytest.raises(Exception, match="timed out"):
        ask(stack, "hi", headers={"x-request-id": request_id}, timeout_seconds=0.7)
    record = record_of(stack, request_id)
    assert record["input_tokens"] > 0
    assert record["output_tokens"] == 0
    assert grown.now("key")["requests"] == 1


def test_many_turns_at_once_on_all_processes_give_exact_sums(stack: Stack) -> None:
    with growing(stack) as grown, ThreadPoolExecutor(8) as callers:
        told = [usage_of(one) for one in callers.map(lambda n: ask(stack, f"hi {n}"), range(60))]
        used = [tokens_of(one) for one in told if one is not None]
        assert len(used) == 60
        for by in ("account", "key", "model"):
            assert grown.now(by) == {
                "requests": 60,
                "failures": 0,
                "input_tokens": sum(one["input_tokens"] for one in used),
                "output_tokens": sum(one["output_tokens"] for one in used),
            }


def test_a_repeat_under_one_idempotency_key_is_a_request_that_uses_nothing(stack: Stack) -> None:
    headers = {"idempotency-key": fresh_id()}
    with growing(stack) as grown:
        first = ask(stack, headers=headers)
        ask(stack, headers=headers)
        told = usage_of(first)
        assert told is not None
        assert grown.now("key") == {"requests": 2, "failures": 0, **tokens_of(told)}
        assert grown.now("account")["requests"] == 1


def test_the_log_is_newest_first_and_filtered(stack: Stack) -> None:
    first, second = fresh_id(), fresh_id()
    model_id = ask(stack, headers={"x-request-id": first}).headers["x-gateway-model"]
    ask(stack, model="no-such-model", headers={"x-request-id": second})
    newest = records(stack, limit=2)
    assert [one["request_id"] for one in newest] == [second, first]
    assert [one["at"] for one in newest] == sorted((one["at"] for one in newest), reverse=True)
    assert set(newest[1]) == {
        "at", "request_id", "route", "key", "key_id", "model", "account", "lane", "attempts",
        "status", "first_token_ms", "total_ms", "input_tokens", "output_tokens", "error",
    }  # fmt: skip
    assert (newest[1]["route"], newest[1]["lane"]) == ("/v1/chat/completions", "web")
    assert all(one["status"] == 404 for one in records(stack, status=404))
    assert records(stack, limit=1, model=model_id)[0]["request_id"] == first
    assert records(stack, limit=1, key=KEY_NAME)[0]["request_id"] == second
    assert records(stack, limit=1, key=newest[0]["key_id"])[0]["request_id"] == second
    assert records(stack, key="nobody") == []


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("usage?by=day", "by"),
        ("usage?from=yesterday", "from"),
        ("requests?status=ok", "status"),
        ("requests?limit=501", "limit"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(stack: Stack, path: str, param: str) -> None:
    answer = call(stack, "GET", f"/api/{path}", headers=admin_of(stack))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_days_that_are_not_kept_are_empty(stack: Stack) -> None:
    assert ask_admin(stack, "usage?from=2020-01-01&to=2020-12-31") == {"data": []}
    assert ask_admin(stack, "usage?from=2030-01-01") == {"data": []}


@pytest.mark.parametrize("path", ["usage", "requests"])
def test_regular_keys_may_not_read_it(stack: Stack, path: str) -> None:
    assert call(stack, "GET", f"/api/{path}").status_code == 403
