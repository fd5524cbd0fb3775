"""Promise 9: any split of the upstream's bytes gives the same result, through the whole gateway:
every oddity of the simulator's golden streams, cut anywhere, several events in a segment, and with
HTTP's own framing cut as well."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.fakes.caller import Call, ask
from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.stack import ROOT, Stack

GOLDEN = sorted(path.stem for path in (ROOT / "tests/golden/upstream").glob("*.sse"))
# The last two: several events in a segment, everything in one.
CUTS: tuple[dict[str, int], ...] = (
    *({"cut": size} for size in (1, 7)),
    {"burst": 3},
    {"burst": 10_000},
)


class Result(msgspec.Struct, frozen=True):
    """What a client makes of an answer, whichever way it came."""

    text: str
    reasoning: str
    annotations: list[Any]
    finish_reason: str | None
    usage: Any
    error: str | None


def result_of(call: Call) -> Result:
    if call.is_stream:
        return _result_of_chunks(call.chunks)
    if call.error is not None:
        return Result("", "", [], None, None, call.code)
    [choice] = call.json["choices"]
    message = choice["message"]
    return Result(
        message["content"] or "",
        message.get("reasoning_content") or "",
        message.get("annotations") or [],
        choice["finish_reason"],
        call.json["usage"],
        None,
    )


def _result_of_chunks(chunks: list[dict[str, Any]]) -> Result:
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    deltas = [choice["delta"] for choice in choices]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    return Result(
        "".join(delta.get("content") or "" for delta in deltas),
        "".join(delta.get("reasoning_content") or "" for delta in deltas),
        [note for delta in deltas for note in delta.get("annotations") or []],
        ends[-1] if ends else None,
        usages[-1] if usages else None,
        next((chunk["error"]["code"] for chunk in chunks if "error" in chunk), None),
    )


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Nothing is tried again: a failing stream is read once."""
    environment = {"CHAT_RETRY_COUNT": "0", "ACCOUNT_CONCURRENCY": "20"}
    with Stack(environment=environment) as stack:
        yield stack


@pytest.fixture
def stack(own_stack: Stack) -> Stack:
    own_stack.clear()
    return own_stack


async def both(stack: Stack, url: str, situation: str, **how: Any) -> tuple[Result, Result]:
    """Streamed and plain; no account still rests because of the one before."""
    results: list[Result] = []
    for stream in (True, False):
        if not results or results[-1].error:
            # Not in the prompt: its length is counted where the upstream tells no usage.
            stack.sim.clear()
            stack.sim.next(operation="completions", situation=situation, times=0, **how)
        options = {"stream_options": {"include_usage": True}} if stream else {}
        call = await ask(url, stack.key, "the same prompt", stream=stream, **options)
        results.append(result_of(call))
        if results[-1].error:
            await asyncio.to_thread(stack.clear)
    return results[0], results[1]


@pytest.mark.parametrize("situation", GOLDEN)
@pytest.mark.anyio
async def test_a_client_reads_the_same_however_the_upstream_cuts(
    stack: Stack, situation: str
) -> None:
    whole = await both(stack, stack.url, situation)
    for cut in CUTS:
        assert await both(stack, stack.url, situation, **cut) == whole, cut
    assert_both_readings_agree(*whole)


def assert_both_readings_agree(streamed: Result, plain: Result) -> None:
    """A failure in the middle apart: a plain answer has then nothing but the error."""
    if plain.error is None:
        assert streamed == plain
    else:
        assert streamed.error == plain.error
        assert streamed.finish_reason is None


@pytest.mark.anyio
async def test_a_client_reads_the_same_when_every_segment_has_one_byte(stack: Stack) -> None:
    """Status line, headers and chunk sizes included; once packed with gzip."""
    async with FaultProxy("127.0.0.1", int(stack.sim.url.rpartition(":")[2])) as way:
        gateway = stack.add_gateway({"QWEN_CHAT_PROXY_URL": way.url})
        for situation in GOLDEN:
            whole = await both(stack, gateway.url, situation)
            way.piece_bytes = 1
            assert await both(stack, gateway.url, situation) == whole, situation
            if situation == "everything":
                assert await both(stack, gateway.url, situation, gzip=True) == whole
            way.piece_bytes = 0
        gateway.stop()
