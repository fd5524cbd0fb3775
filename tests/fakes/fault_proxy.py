"""A TCP proxy with faults, between any two of our processes: what a network does on a bad day.

    async with FaultProxy("127.0.0.1", 8700) as way:
        ...                        # clients use way.url instead
        way.pause()                # bytes are taken and kept; connections stay open
        way.resume()               # everything that was kept goes on
        way.cut()                  # every open connection is reset (RST)
        await way.refuse()         # new connections are refused, open ones are reset
        await way.accept()         # as before, on the same port
        way.delay_seconds = 0.2    # each piece comes so much later
        way.piece_bytes = 1        # answers come in segments of at most so many bytes

Runs in the event loop of the test. Does not know what the bytes mean.
"""

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

_READ_BYTES = 65536
# More bytes than this wait for a peer that doesn't read: then we don't read either.
_HELD_BYTES = 65536


class FaultProxy:
    """Forwards each connection to one address; its faults are attributes and methods.

    Attributes:
        port: where it listens, the same from `start` to `stop`.
        accepted: connections taken so far.
        answered_bytes: forwarded so far towards those who connected.
        delay_seconds: how much later each piece comes, in both directions.
        piece_bytes: largest segment of an answer; 0 = as it comes.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted = 0
        self.answered_bytes = 0
        self.delay_seconds = 0.0
        self.piece_bytes = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._links)

    async def start(self) -> None:
        await self.accept()

    async def stop(self) -> None:
        await self.refuse()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def pause(self) -> None:
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Both ends of every open connection get a reset."""
        for writer in list(self._writers):
            _reset(writer)
        for link in list(self._links):
            link.cancel()

    async def refuse(self) -> None:
        """Nobody listens here any more; what was open is reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        self._writers.add(writer)
        try:
            await self._link(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # a connection that ends badly is what this proxy is for
        finally:
            self._links.discard(link)
            self._writers.discard(writer)
            writer.close()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions of one connection, until either side has closed."""
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            raise
        self._writers.add(far_writer)
        for each in (writer, far_writer):
            each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.transport.set_write_buffer_limits(high=_HELD_BYTES)
        directions = [
            asyncio.create_task(self._pump(reader, far_writer, answers=False)),
            asyncio.create_task(self._pump(far_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if not directions[0].done():
                # The far side has said its last: what it said arrives before the connection ends.
                await directions[1]
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._writers.discard(far_writer)
            far_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while chunk := await reader.read(_READ_BYTES):
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            size = self.piece_bytes if answers and self.piece_bytes else len(chunk)
            for start in range(0, len(chunk), size):
                await self._flowing.wait()
                writer.write(chunk[start : start + size])
                await writer.drain()
                self.answered_bytes += size if answers else 0
                if size < len(chunk):
                    await asyncio.sleep(0)  # a segment of its own, as far as the kernel goes


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
