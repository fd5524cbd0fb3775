"""The load client reads answers however they are cut, and says when each frame came."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.bench.client import Answer, Client
from tests.bench.targets import Direct, read_turn
from tests.simulator.server import Simulator, demo_account

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = b"9\r\ndata: a\n\n\r\n6;x=y\r\ndata: \r\n3\r\nb\n\n\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Peer:
    """What it says to each request, and how many bytes at a time."""

    says: bytes
    cut: int = 100_000
    closes: bool = False
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY: pieces stay pieces
        while await reader.readline():
            while await reader.readline() not in (b"\r\n", b""):
                pass
            for start in range(0, len(self.says), self.cut):
                writer.write(self.says[start : start + self.cut])
                await writer.drain()
                await asyncio.sleep(0)
            if self.closes:
                break
        self.left.set()
        writer.close()


@asynccontextmanager
async def talking_to(peer: Peer) -> AsyncIterator[Client]:
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


@pytest.mark.anyio
@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 11, 100_000])
async def test_an_answer_is_the_same_however_it_is_cut(cut: int) -> None:
    async with talking_to(Peer(HEAD + CHUNKS, cut=cut)) as client:
        answer = await client.ask(client.request("GET", "/"))
    assert (answer.error, answer.status) == ("", 200)
    assert answer.frames == [b"data: a", b"data: b"]
    assert len(answer.frame_times) == 2
    assert answer.sent_at <= answer.frame_times[0] <= answer.frame_times[1] <= answer.ended_at


@pytest.mark.anyio
async def test_two_answers_come_over_one_connection() -> None:
    peer = Peer(SIZED, cut=1)
    async with talking_to(peer) as client:
        answers = [await client.ask(client.request("GET", "/")) for _ in range(2)]
    assert [answer.body for answer in answers] == [b"ok", b"ok"]
    assert peer.connections == 1


@pytest.mark.anyio
@pytest.mark.parametrize("length", [0, 10, len(HEAD) + 12, len(HEAD + CHUNKS) - 1])
async def test_an_answer_that_was_cut_short_is_an_error(length: int) -> None:
    async with talking_to(Peer((HEAD + CHUNKS)[:length], closes=True)) as client:
        answer = await client.ask(client.request("GET", "/"))
    assert answer.error.startswith("connection lost")


@pytest.mark.anyio
async def test_bytes_that_are_no_answer_are_an_error() -> None:
    async with talking_to(Peer(b"SSH-2.0-nobody\r\n\r\n\r\n")) as client:
        answer = await client.ask(client.request("GET", "/"))
    assert answer.error.startswith("bad answer")


@pytest.mark.anyio
async def test_nobody_there_is_an_error_and_no_exception() -> None:
    async with talking_to(Peer(SIZED)) as client:
        request = client.request("GET", "/")
    assert (await client.ask(request)).error == "connection refused"


@pytest.mark.anyio
async def test_a_cancelled_request_leaves_as_a_client_does() -> None:
    peer = Peer(HEAD + CHUNKS[:12])
    async with talking_to(peer) as client:
        asking = asyncio.create_task(client.ask(client.request("GET", "/")))
        while not peer.connections:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        peer.says = SIZED
        assert (await client.ask(client.request("GET", "/"))).body == b"ok", "not the one it left"
        assert peer.connections == 2
        async with asyncio.timeout(2):
            await peer.left.wait()


def test_a_frame_has_come_when_its_last_byte_has() -> None:
    answer = Answer(0.0)
    answer.is_stream = True
    answer.feed(b"data: a\n", 1.0)
    answer.feed(b"\ndata: b\n\nda", 2.0)
    answer.feed(b"ta: c", 3.0)
    answer.finish(4.0)
    assert answer.frames == [b"data: a", b"data: b", b"data: c"]
    assert answer.frame_times == [2.0, 2.0, 4.0]


def test_comments_are_no_frames_and_line_ends_may_be_crlf() -> None:
    answer = Answer(0.0)
    answer.is_stream = True
    for piece in (b": keepalive\r\n\r", b"\ndata: a\r", b"\n\r\n"):
        answer.feed(piece, 1.0)
    assert answer.frames == [b"data: a"]


def test_the_first_token_is_the_first_frame_with_text() -> None:
    answer = Answer(1.0)
    answer.is_stream = True
    answer.feed(b'data: {"delta":{"role":"assistant","content":""}}\n\n', 2.0)
    answer.feed(b'data: {"delta":{"content": "x"}}\n\n', 5.0)
    answer.finish(6.0)
    turn = read_turn(answer, error="")
    assert (turn.first_token_at, turn.gap_seconds, turn.frames) == (5.0, 3.0, 2)


@pytest.mark.anyio
async def test_a_turn_straight_to_the_simulator_tells_when_each_frame_was_sent() -> None:
    async with Simulator(
        accounts=1, canned=True, canned_frames=6, canned_delay_ms=5, canned_stamped=True
    ) as simulator:
        direct = Direct(simulator.url)
        await direct.sign_in(*demo_account(1))
        turn = await direct.turn("streamed")
        await direct.client.close()
        assert simulator.stats.total("chats_new") == 1
    assert (turn.error, turn.frames) == ("", 6)
    assert len(turn.lateness) == 4, "all but the first and the last frame have text"
    assert all(0 <= lateness < turn.seconds for lateness in turn.lateness)
    assert turn.started_at <= (turn.first_token_at or 0) <= turn.ended_at <= time.monotonic()


@pytest.mark.anyio
async def test_a_refused_turn_says_why() -> None:
    async with Simulator(accounts=1) as simulator:
        direct = Direct(simulator.url)
        await direct.sign_in(*demo_account(1))
        simulator.next("chats_new", status=503, body="busy")
        turn = await direct.turn("plain")
        await direct.client.close()
    assert turn.error.startswith("status 503")
