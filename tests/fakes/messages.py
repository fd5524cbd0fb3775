"""Asks a stack as Anthropic's plain HTTP clients do, and reads what comes back without leniency."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from tests.fakes.chat import MODEL, call, directive
from tests.fakes.frames import Json, assert_message_grammar, chunks
from tests.fakes.stack import Stack

__all__ = [
    "ask",
    "asking",
    "assert_error",
    "blocks_of",
    "body_of",
    "count",
    "directive",
    "frames_of",
    "text_of",
]

PATH = "/v1/messages"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def body_of(prompt: str | list[Json] = "hi", **fields: Any) -> Json:
    """A request; `prompt` = one user text, or the messages. A field given as None is left out."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    given = {"model": MODEL, "max_tokens": 1000, "messages": messages, **fields}
    return {name: value for name, value in given.items() if value is not None}


def headers_of(stack: Stack) -> dict[str, str]:
    """Those of the official SDK; the Bearer of other tests is left out."""
    return {"authorization": "", "x-api-key": stack.key, "anthropic-version": "2023-06-01"}


def ask(
    stack: Stack,
    prompt: str | list[Json] = "hi",
    *,
    headers: dict[str, str] | None = None,
    path: str = PATH,
    **fields: Any,
) -> httpx.Response:
    """The whole answer, streamed or not."""
    given = headers_of(stack) | (headers or {})
    return call(stack, "POST", path, headers=given, json=body_of(prompt, **fields))


@contextlib.contextmanager
def asking(stack: Stack, prompt: str = "hi", **fields: Any) -> Iterator[httpx.Response]:
    """A streamed answer that is still coming; leaving the block closes its connection."""
    headers = {"x-api-key": stack.key, "connection": "close"}
    body = body_of(prompt, stream=True, **fields)
    with (
        httpx.Client(timeout=20) as client,
        client.stream("POST", stack.url + PATH, headers=headers, json=body) as answer,
    ):
        yield answer


def count(stack: Stack, prompt: str | list[Json] = "hi", **fields: Any) -> int:
    """What `count_tokens` says of the same request."""
    answer = ask(stack, prompt, path=f"{PATH}/count_tokens", max_tokens=None, **fields)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"input_tokens"}
    return int(body["input_tokens"])


def frames_of(answer: httpx.Response) -> list[Json]:
    """The JSON of each event, pings left out; their order is the API's."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    written = answer.content.replace(PING, b"")
    assert_message_grammar(written)
    return chunks(written)


def blocks_of(answer: httpx.Response) -> list[Json]:
    """The content blocks of a whole message."""
    assert answer.status_code == 200, answer.text
    content: list[Json] = answer.json()["content"]
    return content


def text_of(answer: httpx.Response) -> str:
    """The text of an answer of either kind."""
    if answer.headers["content-type"] == "application/json":
        return "".join(block["text"] for block in blocks_of(answer) if block["type"] == "text")
    deltas = [frame.get("delta", {}) for frame in frames_of(answer)]
    return "".join(delta["text"] for delta in deltas if delta.get("type") == "text_delta")


def assert_error(answer: httpx.Response, status: int, type_: str) -> str:
    """A failure before the first event, as contract.md 4 has it; its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = msgspec.json.decode(answer.content)
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"]) == ("error", type_)
    assert set(body["error"]) == {"type", "message"}
    assert body["request_id"] == answer.headers["x-request-id"]
    message: str = body["error"]["message"]
    assert message
    assert "Traceback" not in message
    assert "</" not in message
    return message
