"""Reading what a dialect wrote: its frames, any cut of its bytes, and the official SDKs' own readers."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
from anthropic.types import Message as AnthropicMessage
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

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


def read_openai_responses_stream(stream: bytes) -> Read:
    """Through the official SDK, strictly: its SSE reader, its types, its accumulator.

    What it accumulates from the deltas is what the last event says; events are numbered without a
    gap; every item that is added is done once.
    """
    _assert_items_are_balanced(chunks(stream))
    client = _openai_client(stream, "text/event-stream")
    with client.responses.stream(model="m", input="hi") as events:
        last = list(events)[-1]
    assert last.type in ("response.completed", "response.incomplete", "response.failed")
    return _read_response(last.response)


def _assert_items_are_balanced(frames: list[Json]) -> None:
    """Every item that is added is done once; its deltas, joined, are what it says in the end."""
    assert [frame["sequence_number"] for frame in frames] == list(range(len(frames)))
    said: dict[int, str] = {}
    done: dict[int, Json] = {}
    for frame in frames[2:-1]:
        index = frame["output_index"]
        match frame["type"].rpartition(".")[::2]:
            case ("response.output_item", "added"):
                assert index == len(said)
                said[index] = ""
            case ("response.output_item", "done"):
                assert index not in done
                done[index] = frame["item"]
            case (_, "delta"):
                assert index not in done
                said[index] += frame["delta"]
    assert said.keys() == done.keys()
    output = frames[-1]["response"]["output"]
    assert [done[index] for index in sorted(done)] == output
    for index, item in enumerate(output):
        texts = item.get("content") or item.get("summary") or []
        whole = "".join(text["text"] for text in texts)
        whole += item.get("arguments") or item.get("input") or ""
        taken_back = item["type"] == "custom_tool_call" and item["status"] == "incomplete"
        assert taken_back or said[index] == whole


def read_openai_responses_reply(body: bytes) -> Read:
    """Through the official SDK, strictly."""
    client = _openai_client(body, "application/json")
    response = client.responses.create(model="m", input="hi")
    Response.model_validate_json(body, strict=True)
    return _read_response(response)


def _read_response(response: Response) -> Read:
    read = Read(usage=response.usage.model_dump() if response.usage else None)
    if response.status == "failed":
        assert response.error is not None
        return Read(failure={"body": response.error.model_dump()})
    read.finish = response.status
    if response.incomplete_details:
        read.finish = response.incomplete_details.reason
    for item in response.output:
        given: Json = item.model_dump()
        match given["type"]:
            case "message":
                for part in given["content"]:
                    before = len(read.text)
                    read.text += part["text"]
                    read.citations += [_moved(cited, before) for cited in part["annotations"]]
            case "reasoning":
                read.reasoning += "".join(part["text"] for part in given["summary"])
            case "function_call":
                read.tool_calls.append((given["call_id"], given["name"], given["arguments"]))
    return read


def _moved(citation: Json, by: int) -> Json:
    start, end = citation["start_index"] + by, citation["end_index"] + by
    return {**citation, "start_index": start, "end_index": end}


def read_anthropic_stream(stream: bytes) -> Read:
    """Through the official SDK, strictly: its SSE reader, its types, its accumulator."""
    assert_message_grammar(stream)
    client = _anthropic_client(stream, "text/event-stream")
    with client.messages.stream(**_ANTHROPIC_REQUEST) as events:
        try:
            return _read_message(events.get_final_message())
        except anthropic.APIStatusError as error:
            return Read(failure={"body": error.body})


def read_anthropic_reply(body: bytes) -> Read:
    """Through the official SDK, strictly."""
    message = _anthropic_client(body, "application/json").messages.create(**_ANTHROPIC_REQUEST)
    AnthropicMessage.model_validate_json(body, strict=True)
    return _read_message(message)


# Which deltas a block may have.
_DELTAS_OF = {
    "text": {"text_delta", "citations_delta"},
    "thinking": {"thinking_delta", "signature_delta"},
    "tool_use": {"input_json_delta"},
    "server_tool_use": {"input_json_delta"},
    "web_search_tool_result": set[str](),
}


def assert_message_grammar(stream: bytes) -> None:
    """message_start (block_start delta* block_stop)* (message_delta message_stop | error)."""
    assert all(frame.startswith(b"event: ") for frame in stream.split(b"\n\n")[:-1])
    start, *frames = [frame for frame in chunks(stream) if frame["type"] != "ping"]
    assert start["type"] == "message_start"
    assert start["message"]["content"] == []
    last = frames.pop()
    if last["type"] != "error":
        assert last["type"] == "message_stop"
        assert frames.pop()["type"] == "message_delta"
    blocks, opened = 0, False
    kind, deltas = "", list[str]()
    for frame in frames:
        if frame["type"] == "content_block_start":
            assert not opened
            assert frame["index"] == blocks
            kind, deltas, opened = frame["content_block"]["type"], [], True
            continue
        assert opened
        assert frame["index"] == blocks
        if frame["type"] == "content_block_delta":
            deltas.append(frame["delta"]["type"])
            continue
        assert frame["type"] == "content_block_stop"
        assert set(deltas) <= _DELTAS_OF[kind]
        if kind == "thinking":
            assert deltas.index("signature_delta") == len(deltas) - 1
        blocks, opened = blocks + 1, False
    assert not opened


def _read_message(message: AnthropicMessage) -> Read:
    given: Json = message.model_dump(exclude_none=True)
    read = Read(finish=given["stop_reason"], usage=given["usage"])
    for block in given["content"]:
        match block["type"]:
            case "text":
                read.text += block["text"]
                read.citations += block.get("citations") or ()
            case "thinking":
                assert block["signature"]
                read.reasoning += block["thinking"]
            case "tool_use":
                arguments = msgspec.json.encode(block["input"]).decode()
                read.tool_calls.append((block["id"], block["name"], arguments))
    return read


_ANTHROPIC_REQUEST: Json = {
    "model": "m",
    "max_tokens": 9,
    "messages": [{"role": "user", "content": "hi"}],
}


def _anthropic_client(body: bytes, media_type: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="sk-test",
        base_url="http://gateway.test",
        http_client=_from_memory(body, media_type),
        max_retries=0,
        _strict_response_validation=True,
    )


def _openai_client(body: bytes, media_type: str) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="sk-test",
        base_url="http://gateway.test/v1",
        http_client=_from_memory(body, media_type),
        max_retries=0,
        _strict_response_validation=True,
    )


def _from_memory(body: bytes, media_type: str) -> httpx2.Client:
    """Every request of the SDK has this answer."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        pieces: Iterator[bytes] = iter([body])
        return httpx2.Response(200, headers={"content-type": media_type}, content=pieces)

    return httpx2.Client(transport=httpx2.MockTransport(answer))


STREAM_READERS: dict[str, Callable[[bytes], Read]] = {
    "openai_chat": read_openai_chat_stream,
    "openai_responses": read_openai_responses_stream,
    "anthropic_messages": read_anthropic_stream,
}
REPLY_READERS: dict[str, Callable[[bytes], Read]] = {
    "openai_chat": read_openai_chat_reply,
    "openai_responses": read_openai_responses_reply,
    "anthropic_messages": read_anthropic_reply,
}
