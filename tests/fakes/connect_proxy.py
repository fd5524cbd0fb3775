"""A forward proxy over TLS, for tests: tinyproxy and microsocks have none.

Tunnels (CONNECT) and forwards (absolute addresses), asks for credentials, leaves from an address of
its own so that the far side can tell it by that, and resolves names from a table.
"""

import asyncio
import base64
import contextlib
import ssl
import urllib.parse
from types import TracebackType
from typing import Self

from tests.fakes.raw_server import close_down


class ConnectProxy:
    """`https://user:password@localhost:port`, or `http://` without `tls`."""

    def __init__(
        self, *, tls: ssl.SSLContext | None, source: str, username: str, password: str
    ) -> None:
        self.names: dict[str, tuple[str, int]] = {}  # host:port as asked for → where it really is
        self.asked: list[str] = []  # every request line
        self.port = 0
        self._tls = tls
        self._source = source
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._expected = f"proxy-authorization: basic {pair}".lower()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
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
        outward: asyncio.StreamWriter | None = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.split("\r\n")
            self.asked.append(line)
            if self._expected not in (entry.lower() for entry in rest):
                writer.write(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
                return
            method, target, _ = line.split(" ")
            far, outward = await self._connect(target)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                outward.write(head.encode("latin-1"))  # servers must take absolute addresses
            await _pump_both(reader, writer, far, outward)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, outward):
                if end is not None:
                    end.close()
                    await close_down(end)
            self._tasks.discard(task)

    async def _connect(self, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host_port = urllib.parse.urlsplit(target).netloc if "://" in target else target
        host, port = self.names.get(host_port) or (
            host_port.rpartition(":")[0],
            int(host_port.rpartition(":")[2]),
        )
        host = "127.0.0.1" if host == "localhost" else host
        return await asyncio.open_connection(host, port, local_addr=(self._source, 0))


async def _pump_both(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far: asyncio.StreamReader,
    outward: asyncio.StreamWriter,
) -> None:
    """Until either side ends; then both do."""
    ways = [
        asyncio.create_task(_pump(reader, outward)),
        asyncio.create_task(_pump(far, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
