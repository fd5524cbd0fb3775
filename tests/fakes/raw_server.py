"""An HTTP server that says exactly the bytes a test wants, when it wants, and sees what it is sent.

async with RawServer() as server:
    server.answers(lambda peer: peer.send(b"HTTP/1.1 200 OK\\r\\n..."))
"""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self


class Peer:
    """One connection, as the server's handler sees it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # 1 for the server's first connection

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Returns when the peer has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        carrier = self.writer.get_extra_info("socket")
        with socket.socket(fileno=os.dup(carrier.fileno())) as twin:  # uvloop's is a stand-in
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Received:
    """One request: its head as it came, its body."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


Handler = Callable[[Peer, Received], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def _say_ok(peer: Peer, request: Received) -> None:
    await peer.send(OK)


async def close_down(writer: asyncio.StreamWriter) -> None:
    """Wait until a closing connection is closed; TLS may wait for a peer that is gone.

    A transport that outlives its test keeps uvloop's loop from closing (EBUSY).
    """
    try:
        async with asyncio.timeout(0.5):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
        await asyncio.sleep(0)


class RawServer:
    """Reads one request after another on each connection and lets `handler` answer."""

    def __init__(self, handler: Handler = _say_ok, *, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.requests: list[Received] = []
        self.connections = 0
        self.open_connections = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "localhost", 0, ssl=self._tls, family=socket.AF_INET
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        peer = Peer(reader, writer, self.connections)
        try:
            while True:
                request = await self.read_request(peer)
                self.requests.append(request)
                await self.handler(peer, request)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass  # the server is being closed
        finally:
            self.open_connections -= 1
            writer.close()
            await close_down(writer)
            self._tasks.discard(task)

    async def read_request(self, peer: Peer) -> Received:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        request = Received(head[:-4], b"")
        length = int(request.header("content-length") or 0)
        if request.header("transfer-encoding"):
            while size := int(await peer.reader.readline(), 16):
                request.body += (await peer.reader.readexactly(size + 2))[:-2]
            await peer.reader.readline()
        elif length:
            request.body = await peer.reader.readexactly(length)
        return request
