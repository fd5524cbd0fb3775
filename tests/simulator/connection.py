"""One HTTP/1.1 connection: bytes to requests, and an `Exchange` per request to answer through.

It knows HTTP and the transport (chunks, resets, half-sent bodies) and nothing of the upstream. Requests of one
connection are answered one after another; a peer that leaves cancels the exchange it was waiting for.
"""

import asyncio
import gzip
import os
import socket
import struct
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl, unquote

import httptools
import msgspec

REASONS = {
    200: b"OK",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

Headers = list[tuple[str, str]]


class Response(msgspec.Struct):
    """A whole answer, sent with its length."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Headers = []


def json_response(payload: Any, status: int = 200, headers: Headers | None = None) -> Response:
    """Any JSON value as an answer."""
    return Response(status, msgspec.json.encode(payload), headers=headers or [])


class Request:
    """What one peer sent; headers, query and JSON are decoded when asked for."""

    __slots__ = (
        "_header_map",
        "_json",
        "_query",
        "address",
        "at",
        "body",
        "keep_alive",
        "method",
        "path",
        "raw_headers",
        "raw_query",
        "size",
    )

    def __init__(self, address: str) -> None:
        self.address = address
        self.at = time.time()
        self.method = ""
        self.path = ""
        self.raw_query = b""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.size = 0
        self.keep_alive = True
        self._header_map: dict[str, str] | None = None
        self._query: dict[str, str] | None = None
        self._json: Any = None  # Any: decoded JSON

    @property
    def headers(self) -> dict[str, str]:
        if self._header_map is None:
            self._header_map = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in self.raw_headers
            }
        return self._header_map

    @property
    def query(self) -> dict[str, str]:
        if self._query is None:
            text = self.raw_query.decode("latin-1")
            self._query = dict(parse_qsl(text, keep_blank_values=True))
        return self._query

    @property
    def cookies(self) -> dict[str, str]:
        pairs = (part.partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def json(self) -> dict[str, Any]:
        """The body as an object; an empty one when it is not."""
        if self._json is None:
            try:
                decoded = msgspec.json.decode(self.body) if self.body else {}
            except (msgspec.DecodeError, UnicodeDecodeError):
                decoded = {}
            self._json = decoded if isinstance(decoded, dict) else {}
        return self._json  # type: ignore[no-any-return]  # decoded JSON

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("latin-1"), keep_blank_values=True))


class Exchange:
    """One request and the way to answer it. `start`/`send`/`end` stream; `respond` answers at once."""

    __slots__ = (
        "_connection",
        "action",
        "bytes_sent",
        "email",
        "ended",
        "gone",
        "gzip",
        "log",
        "on_gone",
        "operation",
        "params",
        "prefix",
        "request",
        "squeeze",
        "started",
        "status",
        "task",
    )

    def __init__(self, connection: "Connection", request: Request) -> None:
        self._connection = connection
        self.request = request
        self.operation = "unknown"
        self.email = ""
        self.params: tuple[str, ...] = ()
        self.prefix = ""
        self.action: Any = None  # Any: the scripted Action; this module does not know it
        self.log: Any = None  # Any: the record kept for the tests
        self.status = 0
        self.started = False
        self.ended = False
        self.gone = False
        self.bytes_sent = 0
        self.gzip = False  # whether whole answers are compressed; `start` is told by its caller
        self.squeeze: Any = None  # Any: zlib's compressor has no public type
        self.on_gone: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Answer in a task of this exchange; it is cancelled when the peer leaves."""
        self.task = asyncio.get_running_loop().create_task(coroutine)
        self.task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._connection.report(error, self)
            self.close()

    def respond(self, response: Response) -> None:
        if self.ended or self.started:
            return
        self.started = True
        self.status = response.status
        body, headers = response.body, response.headers
        if self.gzip and body:
            body, headers = gzip.compress(body, 1), [*headers, ("content-encoding", "gzip")]
        head = self._head(response.status, response.content_type, headers)
        head += b"content-length: %d\r\n\r\n" % len(body)
        self._write(head if self.request.method == "HEAD" else head + body)
        self._finish()

    def start(
        self,
        status: int,
        content_type: str,
        headers: Headers | None = None,
        *,
        compressed: bool = False,
    ) -> None:
        """Send the head of a chunked answer."""
        self.started = True
        self.status = status
        headers = list(headers or [])
        if compressed:
            self.squeeze = zlib.compressobj(wbits=31)
            headers.append(("content-encoding", "gzip"))
        head = self._head(status, content_type, headers)
        self._write(head + b"transfer-encoding: chunked\r\n\r\n")

    def send(self, data: bytes) -> None:
        """Send `data` as one chunk."""
        if self.squeeze is not None:
            data = self.squeeze.compress(data) + self.squeeze.flush(zlib.Z_SYNC_FLUSH)
        if data:
            self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """End the body properly; the connection lives on."""
        if self.squeeze is not None:
            tail, self.squeeze = self.squeeze.flush(), None
            self._write(b"%x\r\n%b\r\n" % (len(tail), tail))
        self._write(b"0\r\n\r\n")
        self._finish()

    def close(self) -> None:
        """Close the connection in good order (FIN) whatever has been promised."""
        self.ended = True
        self._connection.close()

    def reset(self) -> None:
        """End the connection by RST (SO_LINGER 0)."""
        self.ended = True
        self._connection.reset()

    def raw(self, data: bytes) -> None:
        """Send prepared bytes and call the exchange done."""
        self._connection.write(data)
        self._finish()

    def raw_part(self, data: bytes) -> None:
        """Send prepared bytes of an answer that goes on."""
        self._connection.write(data)

    async def drain(self) -> None:
        """Wait until the transport takes more; one turn of the loop at least, so that writes go out."""
        await asyncio.sleep(0)
        await self._connection.writable()

    def _head(self, status: int, content_type: str, headers: Headers) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"Status"))]
        if content_type:
            lines.append(b"content-type: " + content_type.encode())
        lines.append(f"x-request-id: {uuid.uuid4()}".encode())
        lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
        if not self.request.keep_alive:
            lines.append(b"connection: close")
        return b"\r\n".join(lines) + b"\r\n"

    def _write(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self._connection.write(data)

    def _finish(self) -> None:
        if not self.ended:
            self.ended = True
            if self.log is not None:
                self.log.status = self.status
            self.request.body = b""  # the record keeps what is worth keeping
            self._connection.exchange_done(self)


class Connection(asyncio.Protocol):
    """Parses requests and hands each to `accept(exchange)` once its body is complete."""

    def __init__(
        self,
        accept: Callable[[Exchange], None],
        connections: set["Connection"],
        report: Callable[[BaseException, Exchange], None],
    ) -> None:
        self._accept = accept
        self._connections = connections
        self.report = report
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._request: Request | None = None
        self._url = b""
        self._body: list[bytes] = []
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._transport: asyncio.Transport | None = None
        self._address = ""

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()
        except httptools.HttpParserError:
            self.write(
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._can_write.set()
        self._transport = None
        for exchange in [self._current, *self._waiting]:
            if exchange is not None and not exchange.ended:
                exchange.gone = True
                if exchange.on_gone is not None:
                    exchange.on_gone()
                if exchange.task is not None:
                    exchange.task.cancel()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    # -- httptools

    def on_message_begin(self) -> None:
        self._request = Request(self._address)
        self._url = b""
        self._body = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._request is not None
        self._request.raw_headers.append((name, value))
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        request.method = self._parser.get_method().decode()
        target = self._url
        if not target.startswith(b"/"):  # absolute form, as proxies forward it
            target = b"/" + target.split(b"://", 1)[-1].partition(b"/")[2]
        path, _, request.raw_query = target.partition(b"?")
        request.path = path.decode("latin-1")
        if "%" in request.path:
            request.path = unquote(request.path)
        request.keep_alive = self._parser.should_keep_alive()
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.size, self._body = len(request.body), []
        exchange = Exchange(self, request)
        if self._current is None:
            self._current = exchange
            self._accept(exchange)
        else:
            self._waiting.append(exchange)

    # -- for the exchange

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    async def writable(self) -> None:
        await self._can_write.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is None:
            return
        carrier = self._transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(carrier.fileno())) as twin:  # uvloop's is a stand-in
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def exchange_done(self, exchange: Exchange) -> None:
        if exchange is not self._current:
            return
        self._current = None
        if not exchange.request.keep_alive:
            self.close()
        elif self._waiting and self._transport is not None:
            self._current = self._waiting.popleft()
            self._accept(self._current)

    @property
    def busy(self) -> bool:
        return self._current is not None
