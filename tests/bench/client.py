"""The load client: HTTP/1.1 over bare protocols, one clock reading per segment that arrives.

    ask(request bytes) ── idle or new Connection ── data_received ── Answer (frames, arrival times)

It keeps connections alive, reads chunked and sized bodies however they are cut, and splits
server-sent events as they come. It validates nothing of their content: `targets.py` does.

What it costs is the floor of every figure, so it is measured beside them (CPU of the client).
"""

import asyncio
import time
from typing import Literal
from urllib.parse import urlsplit

# Longest silence of an answer, keep-alive comments aside, before the client gives up.
SILENCE_SECONDS = 60.0
# `Answer.error` when nobody listens.
REFUSED = "connection refused"

State = Literal["head", "sized", "chunk_head", "chunk", "chunk_end", "trailer", "until_close"]


class BadAnswer(Exception):
    """Bytes that are no HTTP/1.1 answer."""


class Answer:
    """One answer as it arrived. Times are `time.monotonic()` seconds.

    Attributes:
        frames: server-sent events without their blank line; empty for other bodies.
        frame_times: one per frame: when its last byte was read.
        body: of an answer that is no event stream.
        error: why there is no whole answer; empty when there is.
    """

    __slots__ = (
        "_rest",
        "body",
        "ended_at",
        "error",
        "frame_times",
        "frames",
        "head",
        "is_stream",
        "sent_at",
        "status",
    )

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.ended_at = 0.0
        self.status = 0
        self.head = b""
        self.is_stream = False
        self.frames: list[bytes] = []
        self.frame_times: list[float] = []
        self.body = b""
        self.error = ""
        self._rest = b""

    def feed(self, piece: bytes, now: float) -> None:
        """Take decoded body bytes, cut anywhere."""
        if not self.is_stream:
            self.body += piece
            return
        text = self._rest + piece if self._rest else piece
        if b"\r\n" in text:
            text = text.replace(b"\r\n", b"\n")
        *frames, self._rest = text.split(b"\n\n")
        for frame in frames:
            if frame and frame[:1] != b":":
                self.frames.append(frame)
                self.frame_times.append(now)

    def finish(self, now: float, error: str = "") -> None:
        if self._rest.strip():  # the last event may lack its blank line
            self.frames.append(self._rest)
            self.frame_times.append(now)
            self._rest = b""
        self.ended_at = now
        self.error = error


class Connection(asyncio.Protocol):
    """One connection; at most one answer under way."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._done: asyncio.Future[Answer] | None = None
        self._state: State = "head"
        self._buffer = b""
        self._left = 0  # bytes of the body or the chunk that are still to come
        self._close_after = False
        self.heard_at = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None

    @property
    def busy(self) -> bool:
        return self._answer is not None

    def answers(self, done: "asyncio.Future[Answer]") -> bool:
        """Whether the answer that `done` waits for is still under way here."""
        return self._done is done

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a request; the future is resolved with its answer, whole or not."""
        assert self._transport is not None
        assert self._answer is None, "one answer at a time"
        self.heard_at = now = time.monotonic()
        self._answer = Answer(now)
        self._state = "head"
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def abort(self, reason: str) -> None:
        """Leave: the peer sees the connection end."""
        transport, self._transport = self._transport, None  # so that nobody takes it as idle
        if transport is not None:
            transport.abort()
        self._end(time.monotonic(), reason)

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass
        self._client.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._client.connections.discard(self)
        now = time.monotonic()
        if self._state == "until_close":
            self._end(now, "")
        else:
            self._end(now, f"connection lost: {error or 'closed by the peer'}")

    def data_received(self, data: bytes) -> None:
        self.heard_at = now = time.monotonic()
        answer = self._answer
        if answer is None:
            self.abort("bytes nobody asked for")
            return
        self._buffer = self._buffer + data if self._buffer else data
        try:
            while self._advance(answer, now):
                pass
        except (BadAnswer, ValueError) as error:
            self.abort(f"bad answer: {error}")

    # -- the answer, state by state

    def _advance(self, answer: Answer, now: float) -> bool:
        """Use up what the buffer holds for this state; False when more bytes are needed."""
        match self._state:
            case "chunk":
                return self._take(answer, now, then="chunk_end")
            case "chunk_head":
                return self._read_chunk_head()
            case "chunk_end":
                if len(self._buffer) < 2:
                    return False
                self._buffer = self._buffer[2:]
                self._state = "chunk_head"
                return True
            case "head":
                return self._read_head(answer, now)
            case "sized":
                return self._take(answer, now, then=None)
            case "trailer":
                return self._read_trailer(now)
            case "until_close":
                answer.feed(self._buffer, now)
                self._buffer = b""
                return False

    def _take(self, answer: Answer, now: float, *, then: State | None) -> bool:
        """Pass on body bytes; at their end go to `then`, or end the answer."""
        buffer = self._buffer
        if not buffer and self._left:
            return False
        if len(buffer) <= self._left:
            self._left -= len(buffer)
            self._buffer = b""
            answer.feed(buffer, now)
        else:
            answer.feed(buffer[: self._left], now)
            self._buffer = buffer[self._left :]
            self._left = 0
        if self._left:
            return False
        if then is None:
            self._end(now, "")
            return False
        self._state = then
        return True

    def _read_chunk_head(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        self._buffer = rest
        self._left = int(line.partition(b";")[0], 16)
        self._state = "chunk" if self._left else "trailer"
        return True

    def _read_trailer(self, now: float) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        self._buffer = rest
        if line:
            return True
        self._end(now, "")
        return False

    def _read_head(self, answer: Answer, now: float) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        self._buffer = rest
        if not head.startswith(b"HTTP/1.1 "):
            raise BadAnswer(repr(head[:40]))
        answer.status = int(head[9:12])
        if answer.status == 100:
            return True
        answer.head = head
        fields = _fields(head)
        answer.is_stream = fields.get(b"content-type", b"").startswith(b"text/event-stream")
        self._close_after = fields.get(b"connection", b"").lower() == b"close"
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._state = "chunk_head"
        elif b"content-length" in fields:
            self._left = int(fields[b"content-length"])
            self._state = "sized"
        elif answer.status == 204:
            self._end(now, "")
            return False
        else:
            self._close_after = True
            self._state = "until_close"
        return True

    def _end(self, now: float, error: str) -> None:
        answer, self._answer = self._answer, None
        done, self._done = self._done, None
        if answer is None or done is None:
            return
        self._state = "head"
        answer.finish(now, error)
        if self._close_after and self._transport is not None:
            self._transport.close()
            self._transport = None
        self._client.take_back(self)
        if not done.done():
            done.set_result(answer)


class Client:
    """Connections to one address; the one used last is used next."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "http", "the rig speaks plain HTTP"
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 80
        self.prefix = parts.path.rstrip("/")
        self.connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._watch: asyncio.TimerHandle | None = None

    def request(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> bytes:
        """The bytes of a request, to be prepared once and sent often."""
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", f"host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    async def ask(self, request: bytes) -> Answer:
        """One request and its answer; failures are in `Answer.error`, never raised.

        Cancelling it closes the connection, as a client that leaves does.
        """
        connection = await self._connected()
        if connection is None:
            answer = Answer(time.monotonic())
            answer.finish(time.monotonic(), REFUSED)
            return answer
        if self._watch is None:
            self._look()
        done = connection.ask(request)
        try:
            return await done
        except asyncio.CancelledError:
            if connection.answers(done):  # else its answer came just now, and another may ask
                connection.abort("left")
            raise

    def take_back(self, connection: Connection) -> None:
        if connection.open:
            self._idle.append(connection)

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for connection in list(self.connections):
            connection.abort("the rig ends")
        self._idle.clear()
        await asyncio.sleep(0)

    async def _connected(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(self), self.host, self.port)
        except OSError:
            return None
        return made

    def _look(self) -> None:
        """Every second: give up on answers that fell silent. One timer, none per request."""
        silent_since = time.monotonic() - SILENCE_SECONDS
        for connection in list(self.connections):
            if connection.busy and connection.heard_at < silent_since:
                connection.abort(f"nothing came for {SILENCE_SECONDS:g} s")
        self._watch = asyncio.get_running_loop().call_later(1, self._look)


def _fields(head: bytes) -> dict[bytes, bytes]:
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return fields
