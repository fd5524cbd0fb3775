"""One HTTP/1.1 connection to the upstream or its proxy: bytes in and out, one exchange at a time.

    idle ── send ──▶ waiting ── head ──▶ streaming ── end of message ──▶ idle, or closed
                        └──────── lost, nonsense, given up ──────────▶ closed

All pieces of a body that one read of the socket brought come out as one chunk: the reader's cost
follows the reads, not the pieces. A body that nobody reads stops the socket's reading (back
pressure); one that is given up closes the connection at once, so the upstream learns of it.

Knows: HTTP framing, by httptools. Does not know: pools, proxies, the upstream's meaning.
Errors are httpx's, because the seam above is.
"""

import asyncio
import select
from collections.abc import AsyncIterator, Callable

import httptools
import httpx

HIGH_WATER_BYTES = 256 * 1024
"""Unread bytes of a body at which the socket is left alone until they are taken."""
MAX_HEAD_BYTES = 256 * 1024

Header = tuple[bytes, bytes]


class Connection(asyncio.Protocol):
    """`send` a request, read the response's stream; `on_idle` says when the next may be sent.

    Attributes:
        answered: bytes of an answer to the last request have come.
        closed: nothing can be sent any more.
    """

    def __init__(
        self,
        on_idle: Callable[["Connection"], None],
        on_closed: Callable[["Connection"], None],
    ) -> None:
        self.answered = False
        self.closed = False
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[httpx.Response] | None = None
        self._head_bytes = 0
        self._headers: list[Header] = []
        self._body: _Body | None = None
        self._pieces: list[bytes] = []
        self._at_end = False
        self._may_stay = False
        self._surplus = False

    async def send(self, *parts: bytes) -> httpx.Response:
        """Send a whole request; the response has its head, its stream is open.

        Raises:
            httpx.TransportError: the connection broke before the head was there.
        """
        if self._transport is None or self.closed:
            raise httpx.WriteError("The connection is closed")
        self.answered = self._at_end = False
        self._head_bytes = 0
        self._head = asyncio.get_running_loop().create_future()
        for part in parts:
            self._transport.write(part)
        try:
            return await self._head
        except BaseException:
            self.abort()
            raise

    def is_stale(self) -> bool:
        """Whether an idle connection shows signs of its end (a byte now can only be one)."""
        if self.closed or self._transport is None or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Close at once; whoever reads hears of it."""
        if self._transport is not None:
            self._transport.abort()
        self._close(httpx.ReadError("The connection was closed"))

    def pause(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._head is None and self._body is None:
            self.abort()  # nobody asked
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._at_end:
                self._break(httpx.RemoteProtocolError("The answer is no HTTP"))
                return
            self._surplus = True  # more than was asked for, after an answer that was whole
        if self._head is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(httpx.RemoteProtocolError("The answer's head is too large"))
            return
        if self._body is not None and self._pieces:
            pieces, self._pieces = self._pieces, []
            self._body.push(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._at_end:
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        if self._body is not None and error is None and self._ends_with_connection():
            self._body.end()
            self._body = None
        if error is not None:
            self._close(httpx.ReadError("The connection was reset"))
        else:
            self._close(httpx.RemoteProtocolError("The connection ended in mid-answer"))

    # -- httptools

    def on_message_begin(self) -> None:
        if self._at_end:
            raise ValueError("nobody asked for a second answer")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._head is None:
            return  # an interim answer: the real one follows
        head, self._head = self._head, None
        self._body = _Body(self)
        if not head.done():
            head.set_result(httpx.Response(status, headers=self._headers, stream=self._body))

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._at_end = self._body is not None
        self._may_stay = self._parser.should_keep_alive()  # the parser forgets it afterwards

    # -- the end of an exchange

    def _finish(self) -> None:
        """The answer is whole. The connection is good for another unless either side says no."""
        assert self._body is not None  # noqa: S101 a message ends after its head
        assert self._transport is not None  # noqa: S101 data came from it
        body, self._body = self._body, None
        body.end()
        unsent = self._transport.get_write_buffer_size()
        if self._surplus or unsent or not self._may_stay or self._transport.is_closing():
            self._transport.close()
            self._close(None)
        else:
            self._on_idle(self)

    def _ends_with_connection(self) -> bool:
        """Whether the body's end is the connection's end: neither length nor chunks were told."""
        return not any(
            name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._headers
        )

    def _break(self, error: httpx.TransportError) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._close(error)

    def _close(self, error: httpx.TransportError | None) -> None:
        if self.closed:
            return
        self.closed = True
        head, self._head = self._head, None
        if head is not None and not head.done():
            head.set_exception(error or httpx.ReadError("The connection was closed"))
        body, self._body = self._body, None
        if body is not None:
            body.end(error)
        self._on_closed(self)


class _Body(httpx.AsyncByteStream):
    """The body of one response: chunks as they arrive."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection  # until the body has ended
        self._chunks: list[bytes] = []
        self._unread_bytes = 0
        self._paused = False
        self._error: httpx.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._connection is None:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunks, self._chunks = self._chunks, []
        self._unread_bytes = 0
        if self._paused and self._connection is not None:
            self._paused = False
            self._connection.resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def push(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._unread_bytes += len(chunk)
        if self._unread_bytes > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            if self._connection is not None:
                self._connection.pause()
        self._wake()

    def end(self, error: httpx.TransportError | None = None) -> None:
        """No more will come; what is unread can still be read."""
        if self._paused and self._connection is not None:
            self._connection.resume()
        self._connection = None
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
