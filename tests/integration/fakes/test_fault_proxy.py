"""The fault proxy does what it says: a test that trusts it must not be fooled by it."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.fakes.fault_proxy import FaultProxy

pytestmark = pytest.mark.anyio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def way() -> AsyncIterator[FaultProxy]:
    """Before a server that says everything back and closes when it has heard `bye`."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
                if chunk == b"bye":
                    break
        except OSError:
            pass  # it was reset
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as way:
        yield way


async def connect(way: FaultProxy) -> Streams:
    return await asyncio.open_connection("127.0.0.1", way.port)


async def test_bytes_go_both_ways_and_an_end_is_passed_on(way: FaultProxy) -> None:
    reader, writer = await connect(way)
    writer.write(b"bye")
    assert await asyncio.wait_for(reader.read(), 2) == b"bye"
    assert (way.accepted, way.answered_bytes) == (1, 3)
    writer.close()


async def test_paused_bytes_are_kept_and_come_later(way: FaultProxy) -> None:
    reader, writer = await connect(way)
    way.pause()
    writer.write(b"held")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(4), 0.1)
    way.resume()
    assert await asyncio.wait_for(reader.readexactly(4), 2) == b"held"
    writer.close()


async def test_a_cut_resets_what_is_open_and_takes_what_comes_next(way: FaultProxy) -> None:
    reader, writer = await connect(way)
    writer.write(b"once")
    await asyncio.wait_for(reader.readexactly(4), 2)
    way.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 2)
    writer.close()
    _, writer = await connect(way)
    writer.close()


async def test_refusing_ends_with_accepting_on_the_same_port(way: FaultProxy) -> None:
    port = way.port
    await way.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(way)
    await way.accept()
    assert way.port == port
    reader, writer = await connect(way)
    writer.write(b"back")
    assert await asyncio.wait_for(reader.readexactly(4), 2) == b"back"
    writer.close()


async def test_a_delay_is_waited_in_each_direction(way: FaultProxy) -> None:
    way.delay_seconds = 0.1
    reader, writer = await connect(way)
    began = time.monotonic()
    writer.write(b"slow")
    await asyncio.wait_for(reader.readexactly(4), 2)
    assert time.monotonic() - began >= 0.2
    writer.close()


async def test_answers_come_in_pieces_and_are_whole(way: FaultProxy) -> None:
    way.piece_bytes = 1
    reader, writer = await connect(way)
    writer.write(b"x" * 1000 + b"y")
    first = await asyncio.wait_for(reader.read(65536), 2)
    rest = await asyncio.wait_for(reader.readexactly(1001 - len(first)), 2)
    assert len(first) < 1001
    assert first + rest == b"x" * 1000 + b"y"
    writer.close()


async def test_connecting_where_nobody_listens_is_a_reset() -> None:
    async with FaultProxy("127.0.0.1", 1) as way:
        reader, writer = await connect(way)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 2)
        writer.close()
