"""The promises of contract section 7, where the Responses API has its own part in them."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import openai
import pytest

from tests.fakes.background import job_processes, open_client
from tests.fakes.chat import MODEL, directive
from tests.fakes.stack import Stack, eventually

KEEPALIVE_SECONDS = 1.0


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(environment={"KEEPALIVE_SECONDS": "1"}) as stack:
        yield stack


@pytest.fixture
def stack(own_stack: Stack) -> Stack:
    own_stack.clear()
    return own_stack


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with open_client(stack) as client:
        yield client


def stored(stack: Stack) -> int:
    """How many responses are kept."""
    return stack.redis.command("KEYS", "gw:{responses}:record:*").count(b"record:resp_")


def test_a_client_that_leaves_closes_the_upstream_and_leaves_nothing_behind(
    stack: Stack, client: openai.OpenAI
) -> None:
    before = stored(stack)
    prompt = directive(say="x " * 100, frames=100, delay_ms=100)
    stream = client.responses.create(model=MODEL, input=prompt, stream=True)
    assert next(iter(stream)).type == "response.created"
    stream.close()
    eventually(lambda: stack.sim.open_streams() == 0, within_seconds=1)
    assert stored(stack) == before


def test_a_stream_goes_on_to_its_good_end_while_redis_is_away(
    stack: Stack, client: openai.OpenAI
) -> None:
    prompt = directive(say="Hello, world!", frames=8, delay_ms=300)
    stream = iter(client.responses.create(model=MODEL, input=prompt, stream=True))
    next(stream)
    stack.redis.freeze()
    try:
        last = list(stream)[-1]
    finally:
        stack.redis.thaw()
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello, world!"
    eventually(lambda: httpx.get(f"{stack.url}/readyz").status_code, until=lambda s: s == 200)


def test_what_is_kept_is_503_while_redis_is_away_and_there_again_afterwards(
    stack: Stack, client: openai.OpenAI
) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"))
    attempts: list[Callable[[], object]] = [
        lambda: client.responses.retrieve(response.id),
        lambda: client.responses.create(model=MODEL, input="x", previous_response_id=response.id),
        lambda: client.responses.create(model=MODEL, input="x", background=True),
    ]
    stack.redis.freeze()
    try:
        for attempt in attempts:
            began = time.monotonic()
            with pytest.raises(openai.InternalServerError) as caught:
                attempt()
            assert caught.value.status_code == 503
            assert caught.value.code == "store_unavailable"
            assert time.monotonic() - began < 2
    finally:
        stack.redis.thaw()

    def found() -> bool:
        try:
            return client.responses.retrieve(response.id).output_text == "x"
        except openai.InternalServerError:
            return False

    assert eventually(found, within_seconds=5)


def test_a_stream_that_waits_for_the_background_is_never_silent_for_long(stack: Stack) -> None:
    body = {
        "model": MODEL,
        "input": directive(say="x", first_ms=3500),
        "background": True,
        "stream": True,
    }
    arrivals = [time.monotonic()]
    received = b""
    with (
        job_processes(stack),
        httpx.stream(
            "POST", f"{stack.url}/v1/responses", json=body, headers=stack.headers, timeout=20
        ) as answer,
    ):
        arrivals.append(time.monotonic())
        for piece in answer.iter_raw():
            arrivals.append(time.monotonic())
            received += piece
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert max(gaps) <= KEEPALIVE_SECONDS
    assert received.count(b": keepalive") >= 3
    assert b"event: response.completed" in received


def test_a_request_too_large_to_be_kept_is_answered_and_says_so(stack: Stack) -> None:
    body: dict[str, Any] = {"model": MODEL, "input": directive(say="x")}
    body["client_metadata"] = {"padding": "x" * (4 * 1024**2)}
    answer = httpx.post(f"{stack.url}/v1/responses", json=body, headers=stack.headers, timeout=20)
    response = msgspec.json.decode(answer.content)
    assert response["status"] == "completed"
    assert response["store"] is False
    assert answer.headers["x-gateway-ignored"] == "store"
    url = f"{stack.url}/v1/responses/{response['id']}"
    assert httpx.get(url, headers=stack.headers).status_code == 404
    body["background"] = True
    refused = httpx.post(f"{stack.url}/v1/responses", json=body, headers=stack.headers, timeout=20)
    assert refused.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/responses/resp_x", 404),
        ("GET", "/v1/responses/..%2f", 404),
        ("DELETE", "/v1/responses/resp_x", 404),
        ("POST", "/v1/responses/resp_x/cancel", 404),
        ("GET", "/v1/responses/resp_x/input_items", 404),
        ("GET", "/v1/responses", 405),
        ("PUT", "/v1/responses/resp_x", 405),
        ("GET", "/v1/responses/resp_x/cancel", 405),
    ],
)
def test_what_is_not_there_is_said_in_openais_shape(
    stack: Stack, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, stack.url + path, headers=stack.headers)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    without_key = httpx.request(method, stack.url + path)
    assert without_key.status_code in (401, 404, 405)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=msg_x", "after"),
    ],
)
def test_a_wrong_page_is_a_bad_request(
    stack: Stack, client: openai.OpenAI, query: str, param: str
) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"))
    url = f"{stack.url}/v1/responses/{response.id}/input_items?{query}"
    answer = httpx.get(url, headers=stack.headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_admin_key_reads_everybodys(stack: Stack, client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=directive(say="x"))
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    answer = httpx.get(f"{stack.url}/v1/responses/{response.id}", headers=headers)
    assert answer.json()["id"] == response.id


def test_looking_after_a_response_costs_nothing_of_a_rate_limit(stack: Stack) -> None:
    made = httpx.post(
        f"{stack.url}/api/keys",
        json={"name": "slow", "rate_limit_per_minute": 1},
        headers={"authorization": f"Bearer {stack.admin_key}"},
    ).json()
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=made["key"], max_retries=0) as client:
        response = client.responses.create(model=MODEL, input=directive(say="x"))
        for _ in range(3):
            assert client.responses.retrieve(response.id).output_text == "x"
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model=MODEL, input="x")
