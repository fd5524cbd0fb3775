"""How a stream travels: spelling (6, 15.3), pacing, cuts, resets and silences (7)."""

import asyncio
import time
import zlib

import pytest

from tests.integration.simulator.raw import (
    Peer,
    ask,
    completions_path,
    connected,
    new_chat,
    sign_in,
    turn,
    turn_body,
)
from tests.simulator.frames import SITUATIONS
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

EMAIL = "demo1@example.com"
STREAMS = sorted(name for name in SITUATIONS if name.endswith(".sse"))


async def begun(sim: Simulator, peer: Peer, directive: str) -> dict[str, str]:
    """Send a turn on `peer` and leave the answer unread."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    body = turn_body(chat_id, f"[[sim: {directive}]]")
    await peer.send("POST", completions_path(chat_id), body, headers)
    return headers


async def nothing_comes(peer: Peer, seconds: float = 0.1) -> bool:
    try:
        await asyncio.wait_for(peer.reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("name", STREAMS)
async def test_every_golden_stream_can_be_played_byte_for_byte(sim: Simulator, name: str) -> None:
    reply = await turn(sim, f"[[sim: situation={name}]]")
    assert reply.complete
    assert reply.body == SITUATIONS[name]()


@pytest.mark.parametrize(
    ("style", "sign"),
    [
        ("crlf", b"}\r\n\r\ndata: {"),
        ("cr", b"}\r\rdata: {"),
        ("bom", b"\xef\xbb\xbfdata: "),
        ("no_blank", b"data:{"),
        ("multi_data", b"data: {\ndata: "),
        ("comments", b": keep-alive\nevent: message\nid: 7\nretry: 3000\ndata: {"),
        ("blank_before_eol", b"} \n\ndata: {"),
        ("crlf,no_blank", b"}\r\n\r\ndata:{"),
    ],
)
async def test_a_stream_can_be_spelled_oddly(sim: Simulator, style: str, sign: bytes) -> None:
    """Sections 6 and 15.3."""
    assert sign in (await turn(sim, f"[[sim: frames=2 style={style}]]")).body


async def test_exact_text_may_hold_separators_and_lone_surrogates(sim: Simulator) -> None:
    """Section 15.3: U+2028 and U+0085 raw in JSON; an astral character as two lone escapes."""
    reply = await turn(sim, '[[sim: say="a\\u2028b\\u0085c ‹HIGH›‹LOW›" frames=7]]')
    assert "\u2028".encode() in reply.body
    assert "\u0085".encode() in reply.body
    high, low = (
        next(n for n, piece in enumerate(reply.chunks) if half in piece)
        for half in (b"\\uD83D", b"\\uDE42")
    )
    assert low == high + 1


async def test_done_is_sent_when_asked(sim: Simulator) -> None:
    """Section 6.1."""
    assert (await turn(sim, "[[sim: frames=1 done]]")).body.endswith(b"data: [DONE]\n\n")


async def test_a_stream_may_be_compressed(sim: Simulator) -> None:
    """Section 2."""
    headers = await sign_in(sim) | {"accept-encoding": "gzip, br"}
    reply = await turn(sim, '[[sim: say="packed" gzip]]', headers=headers)
    assert reply.headers["content-encoding"] == "gzip"
    assert b"packed" not in reply.body
    assert b'"finished"' in zlib.decompress(reply.body, wbits=31)
    first = zlib.decompressobj(wbits=31).decompress(reply.chunks[0])
    assert first.endswith(b"\n\n"), "every frame is flushed"


async def test_it_is_not_compressed_for_a_peer_that_does_not_ask(sim: Simulator) -> None:
    reply = await turn(sim, "[[sim: frames=1 gzip]]")
    assert "content-encoding" not in reply.headers


async def test_whole_answers_may_be_compressed_too(sim: Simulator) -> None:
    """Section 2."""
    sim.configure(gzip=True)
    reply = await ask(sim, "GET", "/api/models", headers={"accept-encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert b"qwen3.6-plus" in zlib.decompress(reply.body, wbits=31)
    assert "content-encoding" not in (await ask(sim, "GET", "/api/models")).headers


async def test_pieces_can_be_one_byte(sim: Simulator) -> None:
    reply = await turn(sim, '[[sim: say="世界" frames=2 cut=1]]')
    assert {len(piece) for piece in reply.chunks} == {1}
    assert reply.text() == "世界"


async def test_many_events_can_travel_in_one_piece(sim: Simulator) -> None:
    reply = await turn(sim, "[[sim: frames=10 burst=6]]")
    assert [piece.count(b"data: ") for piece in reply.chunks] == [6, 6]


async def test_frames_are_paced(sim: Simulator) -> None:
    before = time.monotonic()
    await turn(sim, "[[sim: frames=5 delay_ms=20]]")
    assert time.monotonic() - before >= 0.12


async def test_silence_is_filled_with_keep_alive_frames(sim: Simulator) -> None:
    """Section 6.1."""
    reply = await turn(sim, "[[sim: frames=1 silence_ms=100 keep_alive_ms=30]]")
    beats = [frame for frame in reply.frames if "response.info" in frame]
    assert len(beats) >= 3
    assert beats[0]["response.info"]["action"] == "keep_alive"
    assert "response.info" in reply.frames[1]


async def test_it_can_hang_before_the_headers(sim: Simulator) -> None:
    async with connected(sim) as peer:
        await begun(sim, peer, "hang=before")
        assert await nothing_comes(peer)


async def test_it_can_hang_after_the_headers(sim: Simulator) -> None:
    async with connected(sim) as peer:
        await begun(sim, peer, "hang=after")
        assert (await peer.head()).status == 200
        assert await nothing_comes(peer)


async def test_it_can_stall_mid_stream(sim: Simulator) -> None:
    async with connected(sim) as peer:
        await begun(sim, peer, "frames=9 stall_after=3")
        await peer.head()
        for _ in range(3):
            assert await peer.chunk()
        assert await nothing_comes(peer)


async def test_the_connection_can_stay_open_after_the_finished_frame(sim: Simulator) -> None:
    """Section 15.3."""
    async with connected(sim) as peer:
        await begun(sim, peer, "frames=1 keep_open_ms=-1")
        await peer.head()
        pieces = [await peer.chunk() for _ in range(3)]
        assert b'"finished"' in pieces[-1]
        assert await nothing_comes(peer)


async def test_it_can_reset_before_the_headers(sim: Simulator) -> None:
    """Section 7."""
    with pytest.raises(ConnectionResetError):
        await turn(sim, "[[sim: reset=before]]")


async def test_it_can_reset_after_some_frames(sim: Simulator) -> None:
    """Section 7: a real RST, by SO_LINGER 0."""
    async with connected(sim) as peer:
        await begun(sim, peer, "frames=9 reset_after=3")
        await peer.head()
        got = [await peer.chunk() for _ in range(3)]
        assert b"response.created" in got[0]
        with pytest.raises(ConnectionResetError):
            await peer.chunk()


async def test_it_can_close_inside_the_chunked_body(sim: Simulator) -> None:
    """Section 7."""
    reply = await turn(sim, "[[sim: frames=9 close_after=3]]")
    assert not reply.complete
    assert len(reply.chunks) == 3


async def test_it_can_end_properly_without_the_finished_frame(sim: Simulator) -> None:
    """Section 6.1: such a body was cut."""
    reply = await turn(sim, "[[sim: frames=9 cut_after=3]]")
    assert reply.complete
    assert len(reply.chunks) == 3
    assert b'"finished"' not in reply.body
    missing = await turn(sim, "[[sim: frames=2 finish=false]]")
    assert missing.complete
    assert b'"finished"' not in missing.body


async def test_a_peer_that_leaves_is_counted_and_its_chat_stays_locked(sim: Simulator) -> None:
    """Section 15.2: without a stop an abandoned chat stays locked."""
    for directive in ("hang=before", "hang=after", "frames=9 stall_after=3", "first_ms=5000"):
        async with connected(sim) as peer:
            await begun(sim, peer, directive)
            while not sim.stats.open[EMAIL]:
                await asyncio.sleep(0.005)
        for _ in range(200):
            if not sim.stats.open[EMAIL]:
                break
            await asyncio.sleep(0.005)
        assert sim.stats.open[EMAIL] == 0
    assert [one.email for one in sim.stats.aborted] == [EMAIL] * 4
    assert all(one.ended_at for one in sim.stats.aborted)
    chat_id = sim.stats.aborted[-1].chat_id
    locked = await turn(sim, headers=await sign_in(sim), chat_id=chat_id)
    assert "in progress" in locked.json()["data"]["details"]


async def test_open_streams_are_counted_per_account(sim: Simulator) -> None:
    headers = await sign_in(sim)
    other = await sign_in(sim, 2)
    slow = "[[sim: frames=2 first_ms=100]]"
    await asyncio.gather(*(turn(sim, slow, headers=h) for h in (headers, headers, other)))
    assert sim.stats.max_open[EMAIL] == 2
    assert sim.stats.max_open["demo2@example.com"] == 1
    assert sim.stats.max_open_total == 3
    assert sim.stats.ended["complete"] == 3


async def test_requests_on_one_connection_are_answered_in_order(sim: Simulator) -> None:
    headers = await sign_in(sim)
    async with connected(sim) as peer:
        for text in ("one", "two"):
            chat_id = await new_chat(sim, headers)
            body = turn_body(chat_id, f"[[sim: say={text} first_ms=20]]")
            await peer.send("POST", completions_path(chat_id), body, headers)
        assert (await peer.reply()).text() == "one"
        assert (await peer.reply()).text() == "two"
