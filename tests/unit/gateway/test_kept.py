"""Turns whose events are read from what was kept."""

from collections.abc import Awaitable, Callable

import pytest

from gateway.kept import KeptTurn, events_of
from shared.chat.collect import Collector, Reply, ReplyToolCall
from shared.chat.events import (
    Event,
    Source,
    SourcesFound,
    TextDelta,
    TurnEnd,
    TurnFailed,
    TurnStart,
    Usage,
)
from shared.errors import GatewayError, NotFound, StoreUnavailable, UpstreamProtocolError
from shared.store.responses import Result, Status, StoredResponse

REPLY = Reply(
    text="Sunny.",
    reasoning="hm",
    searches=[SourcesFound((Source("T", "https://a.b"),), ("q",)), SourcesFound(())],
    media=[("image", "https://c.d/e.png")],
    tool_calls=[ReplyToolCall("c1", "f", "{}"), ReplyToolCall("c2", "p", "text", custom=True)],
    reason="tool_calls",
    stop_sequence="END",
    usage=Usage(3, 4),
)


def stored(status: Status, result: Result | None = None) -> StoredResponse:
    return StoredResponse(
        id="resp_1", created=1, model="qwen", status=status, result=result or Result()
    )


def error_of(event: Event) -> GatewayError:
    assert isinstance(event, TurnFailed)
    return event.error


def test_the_events_of_a_reply_make_that_reply() -> None:
    collector = Collector()
    for event in events_of(stored("completed", Result(REPLY))):
        collector.feed(event)
    assert collector.reply == REPLY
    assert collector.error is None


@pytest.mark.parametrize("reply", [Reply(), Reply(text="x", reason="length")])
def test_however_little_was_said_it_ends_once_and_last(reply: Reply) -> None:
    events = events_of(stored("completed", Result(reply)))
    assert [type(event) for event in events].count(TurnEnd) == 1
    assert type(events[-1]) is TurnEnd


def test_what_failed_tells_what_there_was_without_its_calls_and_then_why() -> None:
    result = Result.failed(REPLY, UpstreamProtocolError("cut"))
    *said, last = events_of(stored("failed", result))
    assert TextDelta("Sunny.") in said
    assert all("ToolCall" not in type(event).__name__ for event in said)
    error = error_of(last)
    assert (error.status, error.code, error.message) == (502, "upstream_error", "cut")


def test_what_was_cancelled_is_no_fault_of_the_request() -> None:
    [last] = events_of(stored("cancelled"))
    assert (error_of(last).code, error_of(last).status) == ("cancelled", 500)


# -- waiting for the end


def looking(*found: StoredResponse | GatewayError) -> Callable[[], Awaitable[StoredResponse]]:
    """Gives or raises these, one a look."""
    left = list(found)

    async def look() -> StoredResponse:
        one = left.pop(0)
        if isinstance(one, GatewayError):
            raise one
        return one

    return look


async def run(turn: KeptTurn) -> list[list[Event]]:
    batches: list[list[Event]] = []

    async def emit(events: list[Event]) -> None:
        batches.append(events)

    await turn.run(emit)
    return batches


@pytest.mark.anyio
async def test_the_client_hears_of_the_start_at_once_and_of_the_end_when_it_has_come() -> None:
    looks = looking(
        stored("queued"),
        stored("in_progress"),
        StoreUnavailable(),
        stored("completed", Result(REPLY)),
    )
    begun: list[str] = []

    async def begin() -> None:
        begun.append("put down")

    first, rest = await run(KeptTurn(looks, begin=begin, look_seconds=0.001))
    assert begun == ["put down"]
    assert first == [TurnStart()]
    assert type(rest[-1]) is TurnEnd


@pytest.mark.anyio
async def test_one_that_was_deleted_meanwhile_fails() -> None:
    _, [last] = await run(KeptTurn(looking(stored("queued"), NotFound()), look_seconds=0.001))
    assert error_of(last).code == "deleted"


@pytest.mark.anyio
async def test_what_could_not_be_put_down_is_told_by_its_status() -> None:
    async def begin() -> None:
        raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        await run(KeptTurn(looking(), begin=begin))
