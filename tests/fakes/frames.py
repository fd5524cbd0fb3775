"""Reading what a dialect wrote: its frames, any cut of its bytes, and the official SDKs' own readers."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx2
import msgspec
import openai
from openai.types.chat import ChatCompletion

Json = dict[str, Any]  # Any: a JSON object of a shape the test knows


def payloads(stream: bytes) -> list[str]:
    """What stands behind `data: ` in each frame; comments are left out, anything else is refused.

    A frame with a name (`event: `) says the same name as its JSON's `type`.
    """
    assert stream.endswith(b"\n\n") or not stream
    frames = [frame for frame in stream.decode().split("\n\n") if not frame.startswith(":")]
    assert frames.pop() == ""
    return [_payload(frame) for frame in frames]


def _payload(frame: str) -> str:
    *named, data = frame.split("\n")
    assert data.startswith("data: ")
    payload = data.removeprefix("data: ")
    if named:
        assert named == [f"event: {msgspec.json.decode(payload)['type']}"]
    return payload


def chunks(stream: bytes) -> list[Json]:
    """The JSON frames of a stream; `[DONE]` is left out."""
    return [msgspec.json.decode(data) for data in payloads(stream) if data != "[DONE]"]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """`data` cut at these places, counted modulo its length."""
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(borders)]


class Read(msgspec.Struct):
    """What a client understood, in neutral words. `tool_calls` = (id, name, arguments)."""

    text: str = ""
    reasoning: str = ""
    citations: list[Json] = []
    tool_calls: list[tuple[str, str, str]] = []
    finish: str | None = None
    usage: Json | None = None
    failure: Json | None = None


def read_openai_chat_stream(stream: bytes) -> Read:
    """Through the official SDK, strictly: its SSE reader, its types, its accumulator."""
    client = _openai_client(stream, "text/event-stream")
    request: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    with client.chat.completions.stream(**request) as events:
        try:
            events.until_done()
        except openai.APIError as error:
            return Read(failure={"body": error.body})
        # Not get_final_completion(): the SDK raises for finish reasons it could not parse further.
        return _read(events.current_completion_snapshot)


def read_openai_chat_reply(body: bytes) -> Read:
    """Through the official SDK, strictly."""
    client = _openai_client(body, "application/json")
    completion = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}]
    )
    ChatCompletion.model_validate_json(body, strict=True)
    return _read(completion)


def _read(completion: ChatCompletion) -> Read:
    choice = completion.choices[0]
    message: Json = choice.message.model_dump()
    return Read(
        text=message["content"] or "",
        reasoning=message.get("reasoning_content") or "",
        citations=[cited["url_citation"] for cited in message.get("annotations") or ()],
        tool_calls=[
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in message.get("tool_calls") or ()
        ],
        finish=choice.finish_reason,
        usage=completion.usage.model_dump() if completion.usage else None,
    )


def _openai_client(body: bytes, media_type: str) -> openai.OpenAI:
    """The SDK, answered from memory."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        pieces: Iterator[bytes] = iter([body])
        return httpx2.Response(200, headers={"content-type": media_type}, content=pieces)

    http_client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(
        api_key="sk-test",
        base_url="http://gateway.test/v1",
        http_client=http_client,
        max_retries=0,
        _strict_response_validation=True,
    )


STREAM_READERS: dict[str, Callable[[bytes], Read]] = {"openai_chat": read_openai_chat_stream}
REPLY_READERS: dict[str, Callable[[bytes], Read]] = {"openai_chat": read_openai_chat_reply}
