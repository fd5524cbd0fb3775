"""Stored responses on a real Redis."""

import asyncio

import msgspec
import pytest

from shared.chat.collect import Reply, ReplyToolCall
from shared.chat.events import Source, SourcesFound, Usage
from shared.chat.request import (
    ChatRequest,
    MediaPart,
    Message,
    OutputFormat,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
    ToolChoice,
    ToolResultPart,
)
from shared.errors import NotFound
from shared.store import keys
from shared.store.responses import Failure, Responses, Result, StoredResponse
from shared.store.store import Store
from tests.integration.store.conftest import OpenStore

pytestmark = pytest.mark.anyio

ASKED = (
    Message("user", (TextPart("Where is Oslo? ☃"), MediaPart("image", "https://a.b/c.png"))),
    Message("assistant", (ReasoningPart("hm"), ToolCallPart("c1", "f", '{"a":1}', custom=True))),
    Message("tool", (ToolResultPart("c1", (TextPart("here"),), is_error=True),)),
)
REPLY = Reply(
    text="In Norway.",
    reasoning="Let me see.",
    searches=[SourcesFound((Source("T", "https://a.b"),), ("oslo",))],
    media=[("image", "https://c.d/e.png")],
    tool_calls=[ReplyToolCall("c2", "g", "{}")],
    reason="tool_calls",
    usage=Usage(3, 4),
)
WORK = ChatRequest(
    model="qwen",
    messages=ASKED,
    tools=(Tool("f", "does", msgspec.Raw(b'{"type":"object"}')), Tool("g", kind="custom")),
    tool_choice=ToolChoice("named", "f"),
    output_format=OutputFormat(b'{"type":"object"}', "A", True),
)


def response(number: int = 1, **fields: object) -> StoredResponse:
    given: dict[str, object] = {
        "id": f"resp_{number:024x}",
        "created": 1795400000,
        "model": "qwen",
        "owner": "me",
        "input": ASKED,
        "echo": msgspec.Raw(b'{"tools":[{"a": 1}]}'),
        "result": Result(REPLY),
    }
    return StoredResponse(**given | fields)  # type: ignore[arg-type]  # fields of any type


def background(number: int = 1) -> StoredResponse:
    return response(number, status="queued", result=Result())


async def test_another_process_reads_what_was_stored(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    await one.responses.put(response())
    found = await other.responses.get(response().id, reader="me")
    assert found == response()
    assert found.ended


async def test_a_response_is_its_owners_alone(store: Store) -> None:
    await store.responses.put(response())
    with pytest.raises(NotFound):
        await store.responses.get(response().id, reader="somebody else")
    assert (await store.responses.get(response().id, reader=None)).owner == "me"


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="resp_x"):
        await store.responses.get("resp_x", reader="me")


async def test_nothing_of_a_conversation_can_be_read_in_redis(store: Store) -> None:
    await store.responses.put(background(), work=WORK)
    await store.responses.end(background().id, "completed", Result(REPLY))
    raw = await store.connection.read_bytes("test", "HGETALL", keys.response(background().id))
    assert raw.keys() == {b"owner", b"status", b"request", b"result"}
    assert raw[b"request"].startswith(b"v1:")
    assert b"Oslo" not in b"".join(raw.values())
    assert b"Norway" not in b"".join(raw.values())


async def test_without_the_key_it_was_sealed_with_there_is_none(open_store: OpenStore) -> None:
    await open_store().responses.put(response())
    with pytest.raises(NotFound):
        await open_store(secret_key="x" * 32).responses.get(response().id, reader="me")


async def test_it_is_kept_for_thirty_days(store: Store) -> None:
    await store.responses.put(response())
    for name in (keys.response(response().id), keys.responses_owned("me")):
        ttl = await store.connection.ask("test", "TTL", name)
        assert 30 * 86_400 - 5 <= ttl <= 30 * 86_400


async def test_a_large_one_comes_back_whole(store: Store) -> None:
    text = "".join(chr(0x4E00 + n % 5000) for n in range(300_000))
    await store.responses.put(response(input=(Message("user", (TextPart(text),)),)))
    found = await store.responses.get(response().id, reader="me")
    assert found.input[0].parts == (TextPart(text),)


async def test_a_deleted_one_is_gone_and_its_bytes_are_free_again(store: Store) -> None:
    await store.responses.put(response())
    assert await store.responses.delete(response().id)
    assert not await store.responses.delete(response().id)
    with pytest.raises(NotFound):
        await store.responses.get(response().id, reader="me")
    assert await total_bytes(store, "me") == 0


async def total_bytes(store: Store, owner: str) -> int:
    return int(
        await store.connection.ask("test", "HGET", keys.responses_sizes(owner), "total") or 0
    )


# -- histories


async def test_a_history_is_read_in_its_order(store: Store) -> None:
    ids = [response(number).id for number in range(40)]
    for number in range(40):
        await store.responses.put(response(number, history=tuple(ids[:number])))
    last = await store.responses.get(ids[-1], reader="me")
    assert [found.id for found in await store.responses.history_of(last)] == ids


async def test_a_history_with_a_hole_is_not_carried_on(store: Store) -> None:
    """Without what was said there the model would answer something else, and nobody would know."""
    await store.responses.put(response(1))
    await store.responses.put(response(3, history=(response(1).id, response(2).id)))
    last = await store.responses.get(response(3).id, reader="me")
    with pytest.raises(NotFound, match=response(2).id):
        await store.responses.history_of(last)


# -- in the background


async def test_a_response_moves_on_from_queued_to_its_end(store: Store) -> None:
    await store.responses.put(background(), work=WORK)
    assert (await store.responses.get(background().id, reader="me")).status == "queued"
    assert await store.responses.work_of(background().id) == WORK
    moved = await store.responses.begin(background().id)
    assert moved is not None
    assert (moved.status, moved.by_us) == ("in_progress", True)
    await store.responses.end(background().id, "completed", Result(REPLY))
    found = await store.responses.get(background().id, reader="me")
    assert (found.status, found.result) == ("completed", Result(REPLY))
    assert await store.responses.work_of(background().id) is None


async def test_what_has_ended_stays_as_it_ended(store: Store) -> None:
    await store.responses.put(background(), work=WORK)
    ends = await asyncio.gather(
        *(
            store.responses.end(
                background().id,
                "failed" if number % 2 else "completed",
                Result(failure=Failure(502, "upstream_error", str(number))),
            )
            for number in range(50)
        )
    )
    assert [moved is not None and moved.by_us for moved in ends].count(True) == 1
    before = await store.responses.get(background().id, reader="me")
    moved = await store.responses.end(background().id, "cancelled", Result())
    assert moved is not None
    assert (moved.by_us, moved.status) == (False, before.status)
    assert await store.responses.get(background().id, reader="me") == before
    again = await store.responses.begin(background().id)
    assert again is not None
    assert not again.by_us


async def test_what_was_deleted_meanwhile_neither_begins_nor_ends(store: Store) -> None:
    await store.responses.put(background(), work=WORK)
    await store.responses.delete(background().id)
    assert await store.responses.begin(background().id) is None
    assert await store.responses.end(background().id, "completed", Result(REPLY)) is None
    assert await store.responses.work_of(background().id) is None


async def test_the_bytes_of_an_owner_are_those_of_his_records(store: Store) -> None:
    await store.responses.put(background(1), work=WORK)
    await store.responses.put(response(2))
    await store.responses.end(background(1).id, "completed", Result(REPLY))
    stored = 0
    for number in (1, 2):
        values = await store.connection.read_bytes(
            "test", "HMGET", keys.response(response(number).id), "request", "result"
        )
        stored += sum(map(len, values))
    assert await total_bytes(store, "me") == stored


# -- bounds


async def test_an_owners_oldest_give_way_and_nobody_elses(store: Store) -> None:
    few = Responses(store.connection, store.sealer, owner_bytes=20_000)
    noise = [Message("user", (TextPart(random_text(number)),)) for number in range(8)]
    await few.put(response(100, owner="neighbour"))
    for number in range(8):
        await few.put(response(number, input=(noise[number],)))
    kept = [number for number in range(8) if await is_there(few, number)]
    assert kept == list(range(kept[0], 8))
    assert 1 <= len(kept) < 8
    assert await total_bytes(store, "me") <= 20_000
    assert (await few.get(response(100).id, reader="neighbour")).owner == "neighbour"


async def test_one_that_is_larger_than_all_there_may_be_is_kept_alone(store: Store) -> None:
    few = Responses(store.connection, store.sealer, owner_bytes=100)
    await few.put(response(1))
    await few.put(response(2))
    assert [await is_there(few, number) for number in (1, 2)] == [False, True]


def random_text(seed: int) -> str:
    """5 kB that don't compress to nothing."""
    import random

    return random.Random(seed).randbytes(2_500).hex()


async def is_there(responses: Responses, number: int) -> bool:
    try:
        await responses.get(response(number).id, reader="me")
    except NotFound:
        return False
    return True


async def test_one_stored_twice_stays_the_first(store: Store) -> None:
    await store.responses.put(response())
    await store.responses.put(response(owner="thief", model="other"))
    assert (await store.responses.get(response().id, reader=None)).owner == "me"
