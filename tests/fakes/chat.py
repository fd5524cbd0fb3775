"""Asks a stack as plain HTTP clients do, and reads what comes back without any leniency."""

import contextlib
import re
import ssl
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec

from tests.fakes.stack import Stack

MODEL = "Qwen3-Max"  # neither thinks nor searches by itself
Frame = dict[str, Any]

# Made once: it reads the machine's certificates, which takes longer than most requests here.
_TLS = ssl.create_default_context()


def call(
    stack: Stack,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 20,
    **more: Any,  # Any: httpx's own arguments
) -> httpx.Response:
    """One request with a regular key, on a connection of its own; a header of `""` is left out."""
    given = {n: v for n, v in (stack.headers | (headers or {})).items() if v}
    with httpx.Client(timeout=timeout_seconds, verify=_TLS) as client:
        return client.request(method, stack.url + path, headers=given, **more)


def get(stack: Stack, path: str, **more: Any) -> httpx.Response:
    return call(stack, "GET", path, **more)


def body_of(prompt: str | list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A chat request; `prompt` = one user text, or the messages. A field given as None is left out."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    given = {"model": MODEL, "messages": messages, **fields}
    return {name: value for name, value in given.items() if value is not None}


def ask(
    stack: Stack,
    prompt: str | list[dict[str, Any]] = "hi",
    *,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 20,
    **fields: Any,
) -> httpx.Response:
    """The whole answer, streamed or not."""
    path, body = "/v1/chat/completions", body_of(prompt, **fields)
    return call(stack, "POST", path, headers=headers, timeout_seconds=timeout_seconds, json=body)


@contextlib.contextmanager
def asking(
    stack: Stack,
    prompt: str = "hi",
    *,
    headers: dict[str, str] | None = None,
    timeout_seconds: float = 20,
    **fields: Any,
) -> Iterator[httpx.Response]:
    """A streamed answer that is still coming."""
    with (
        httpx.Client(timeout=timeout_seconds, verify=_TLS) as client,
        client.stream(
            "POST",
            f"{stack.url}/v1/chat/completions",
            headers=stack.headers | (headers or {}),
            json=body_of(prompt, stream=True, **fields),
        ) as answer,
    ):
        yield answer


def directive(**action: Any) -> str:
    """`[[sim: {…}]]`: says inside a prompt how the simulator answers it."""
    inside = msgspec.json.encode(action).decode()
    assert "]]" not in inside, "the simulator ends a directive there"
    return f"[[sim: {inside}]]"


def answer_with(stack: Stack, *actions: dict[str, Any], **action: Any) -> None:
    """The next completions are answered like this, in order."""
    stack.sim.next(*({"operation": "completions"} | one for one in actions or (action,)))


def data_of(text: str) -> list[str]:
    """The data of each event of an SSE body; comments are left out, anything else is refused."""
    found = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        if event.startswith(":"):
            assert "\n" not in event
            continue
        assert re.fullmatch(r"data: [^\n]+", event), event
        found.append(event.removeprefix("data: "))
    return found


def frames_of(answer: httpx.Response) -> list[Frame]:
    """The JSON of each event, without the final `[DONE]`, which must be last if it is there."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    data = data_of(answer.text)
    assert "[DONE]" not in data[:-1]
    return [msgspec.json.decode(one) for one in data if one != "[DONE]"]


def ended_well(answer: httpx.Response) -> bool:
    return answer.text.endswith("data: [DONE]\n\n")


def text_of(answer: httpx.Response) -> str:
    """The `content` of an answer of either kind."""
    return _joined(answer, "content")


def reasoning_of(answer: httpx.Response) -> str:
    return _joined(answer, "reasoning_content")


def _joined(answer: httpx.Response, field: str) -> str:
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == "application/json":
        return answer.json()["choices"][0]["message"].get(field) or ""
    return "".join(
        choice["delta"].get(field) or ""
        for frame in frames_of(answer)
        for choice in frame.get("choices", ())
    )


def finish_of(answer: httpx.Response) -> str | None:
    """The one `finish_reason` of an answer; None when it never got one."""
    if answer.headers["content-type"] == "application/json":
        reason: str = answer.json()["choices"][0]["finish_reason"]
        return reason
    told = [
        choice["finish_reason"]
        for frame in frames_of(answer)
        for choice in frame.get("choices", ())
        if choice["finish_reason"] is not None
    ]
    assert len(told) <= 1
    return told[0] if told else None


def usage_of(answer: httpx.Response) -> dict[str, Any] | None:
    if answer.headers["content-type"] == "application/json":
        found: dict[str, Any] = answer.json()["usage"]
        return found
    told = [frame["usage"] for frame in frames_of(answer) if frame.get("usage")]
    assert len(told) <= 1
    return told[0] if told else None


def assert_error(
    answer: httpx.Response,
    status: int,
    type_: str,
    code: str,
    *,
    param: str | None = None,
    retry_after: bool = False,
) -> dict[str, Any]:
    """A failure before the first byte, as contract.md 4 has it; its `error` object."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert_error_object(error, type_, code, param=param)
    if retry_after:
        assert re.fullmatch(r"[1-9][0-9]*", answer.headers["retry-after"])
    else:
        assert "retry-after" not in answer.headers
    return error


def assert_in_band_error(answer: httpx.Response, type_: str, code: str) -> dict[str, Any]:
    """A failure after the first event: told once, last; no `[DONE]`, no finish reason."""
    assert answer.status_code == 200
    frames = frames_of(answer)
    assert not ended_well(answer)
    assert finish_of(answer) is None
    assert [index for index, frame in enumerate(frames) if "error" in frame] == [len(frames) - 1]
    assert set(frames[-1]) == {"error"}
    error: dict[str, Any] = frames[-1]["error"]
    assert_error_object(error, type_, code)
    return error


def assert_error_object(
    error: dict[str, Any], type_: str, code: str, *, param: str | None = None
) -> None:
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (type_, code, param), error
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "</" not in error["message"]
    assert "<!" not in error["message"]
    assert "Traceback" not in error["message"]
    assert "example.com" not in error["message"]
