"""The own transport against real sockets, with httpx's stock one as its oracle.

What both must do runs on both; what only ours promises runs on ours alone.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from shared.upstream.connection import HIGH_WATER_BYTES, MAX_HEAD_BYTES
from shared.upstream.transport import KeepingTransport
from tests.fakes.certificates import TLS
from tests.fakes.raw_server import OK, Peer, RawServer, Received
from tests.integration.upstream.conftest import until

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"

Transport = httpx.AsyncBaseTransport


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
async def own(tls: TLS) -> AsyncIterator[KeepingTransport]:
    async with KeepingTransport(tls=lambda: tls.client) as transport:
        yield transport


@pytest.fixture(params=["own", "stock"])
async def transport(request: pytest.FixtureRequest, tls: TLS) -> AsyncIterator[Transport]:
    made: Transport = (
        KeepingTransport(tls=lambda: tls.client)
        if request.param == "own"
        else httpx.AsyncHTTPTransport(verify=tls.client)
    )
    async with made:
        yield made


def a_request(url: str, *, body: bytes = b"", **extensions: object) -> httpx.Request:
    method = "POST" if body else "GET"
    return httpx.Request(method, url, content=body or None, extensions=dict(extensions))


async def fetch(transport: Transport, url: str, body: bytes = b"", **extensions: object) -> bytes:
    response = await transport.handle_async_request(a_request(url, body=body, **extensions))
    try:
        return await whole(response)
    finally:
        await response.aclose()


async def whole(response: httpx.Response) -> bytes:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return b"".join([chunk async for chunk in response.stream])


def saying(*pieces: bytes, then: str = "wait") -> Callable[[Peer, Received], object]:
    """A handler that sends the pieces and then waits for the next request, closes or resets."""

    async def handler(peer: Peer, request: Received) -> None:
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(0)
        if then == "close":
            peer.writer.close()
            await peer.gone()
        elif then == "reset":
            peer.reset()
            await peer.gone()

    return handler


# -- framing


@pytest.mark.parametrize(
    ("answer", "then", "body"),
    [
        ([HEAD + b"content-length: 5\r\n\r\nhello"], "wait", b"hello"),
        ([HEAD + b"content-length: 0\r\n\r\n"], "wait", b""),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], "wait", b""),
        ([CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"], "wait", b"hello world"),
        ([CHUNKED + b"5;a=b\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n"], "wait", b"hello"),
        ([HEAD + b"\r\nuntil the end"], "close", b"until the end"),
        ([b"HTTP/1.0 200 OK\r\n\r\nold"], "close", b"old"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], "wait", b"ok"),
        ([b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK], "wait", b"ok"),
        ([bytes([byte]) for byte in CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], "wait", b"ok"),
    ],
)
async def test_a_body_is_read_in_every_framing(
    transport: Transport, answer: list[bytes], then: str, body: bytes
) -> None:
    async with RawServer(saying(*answer, then=then)) as server:  # type: ignore[arg-type]  # awaits
        assert await fetch(transport, server.url) == body


async def test_the_head_is_told(transport: Transport) -> None:
    answer = b"HTTP/1.1 418 Odd\r\nX-One: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"
    async with RawServer(saying(answer + b"content-length: 0\r\n\r\n")) as server:  # type: ignore[arg-type]  # awaits
        response = await transport.handle_async_request(a_request(server.url))
        assert response.status_code == 418
        assert response.headers["x-one"] == "1"
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        await response.aclose()


async def test_a_request_goes_out_as_it_was_given(transport: Transport) -> None:
    async with RawServer() as server:
        await fetch(transport, server.url + "/path?x=%20y", b'{"a": 1}')
        await fetch(transport, server.url, target=b"/else?where=1")
    posted, got = server.requests
    assert posted.line == "POST /path?x=%20y HTTP/1.1"
    assert posted.header("host") == f"localhost:{server.port}"
    assert posted.body == b'{"a": 1}'
    assert got.line == "GET /else?where=1 HTTP/1.1"


async def test_a_body_of_unknown_length_goes_in_chunks(transport: Transport) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with RawServer() as server:
        request = httpx.Request("POST", server.url, content=parts())
        response = await transport.handle_async_request(request)
        assert await whole(response) == b"ok"
        await response.aclose()
    assert server.requests[0].body == b"one two"


async def test_a_large_body_reaches_a_slow_reader_whole(transport: Transport) -> None:
    body = bytes(range(256)) * 20_000  # 5 MB
    async with RawServer() as server:
        assert await fetch(transport, server.url, body) == b"ok"
    assert server.requests[0].body == body


# -- keeping connections


async def test_connections_are_kept_and_used_again(transport: Transport) -> None:
    async with RawServer() as server:
        for _ in range(5):
            assert await fetch(transport, server.url) == b"ok"
        assert server.connections == 1


async def test_a_chunked_answer_leaves_its_connection_for_the_next(transport: Transport) -> None:
    async with RawServer(saying(CHUNKED + b"2\r\nok\r\n0\r\n\r\n")) as server:  # type: ignore[arg-type]  # awaits
        for _ in range(5):
            assert await fetch(transport, server.url) == b"ok"
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
)
async def test_a_server_that_closes_is_believed(transport: Transport, answer: bytes) -> None:
    async with RawServer(saying(answer)) as server:  # type: ignore[arg-type]  # awaits
        for _ in range(3):
            assert await fetch(transport, server.url) == b"ok"
        assert server.connections == 3


async def test_open_streams_have_connections_of_their_own(transport: Transport) -> None:
    release = asyncio.Event()

    async def handler(peer: Peer, request: Received) -> None:
        await peer.send(CHUNKED + b"2\r\nhi\r\n")
        await release.wait()
        await peer.send(b"0\r\n\r\n")

    async with RawServer(handler) as server:
        running = [asyncio.create_task(fetch(transport, server.url)) for _ in range(5)]
        await until(lambda: server.connections == 5)
        release.set()
        assert await asyncio.gather(*running) == [b"hi"] * 5


async def test_an_idle_connection_that_the_server_closed_is_not_used(
    transport: Transport,
) -> None:
    async def handler(peer: Peer, request: Received) -> None:
        await peer.send(OK)
        peer.writer.close()  # without having said so

    async with RawServer(handler) as server:
        for number in range(1, 4):
            assert await fetch(transport, server.url, b"x") == b"ok"
            await until(lambda: server.open_connections == 0)
            assert server.connections == number


# -- failures


@pytest.mark.parametrize(
    ("pieces", "then"),
    [
        ([HEAD + b"content-length: 9\r\n\r\nhel"], "close"),
        ([CHUNKED + b"5\r\nhello\r\n"], "close"),
        ([CHUNKED + b"5\r\nhel"], "close"),
        ([CHUNKED + b"5\r\nhello\r\n"], "reset"),
        ([CHUNKED + b"5\r\nhello\r\nnonsense\r\n"], "wait"),
    ],
)
async def test_a_body_that_breaks_off_is_an_error_after_its_pieces(
    transport: Transport, pieces: list[bytes], then: str
) -> None:
    async with RawServer(saying(*pieces, then=then)) as server:  # type: ignore[arg-type]  # awaits
        response = await transport.handle_async_request(a_request(server.url))
        with pytest.raises(httpx.TransportError):
            await whole(response)
        await response.aclose()


@pytest.mark.parametrize(
    ("pieces", "then"),
    [
        ([], "close"),
        ([], "reset"),
        ([b"HTTP/1.1 200 OK\r\ncontent-le"], "close"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], "close"),
        ([b"220 smtp.example ESMTP\r\n\r\n"], "wait"),
    ],
)
async def test_without_a_head_the_request_fails(
    transport: Transport, pieces: list[bytes], then: str
) -> None:
    async with RawServer(saying(*pieces, then=then)) as server:  # type: ignore[arg-type]  # awaits
        with pytest.raises(httpx.TransportError):
            await transport.handle_async_request(a_request(server.url))


async def test_nobody_there_is_a_connect_error(transport: Transport) -> None:
    async with RawServer() as server:
        url = server.url
    with pytest.raises(httpx.ConnectError):
        await transport.handle_async_request(a_request(url))


async def test_a_certificate_nobody_knows_is_a_connect_error(tls: TLS) -> None:
    async with RawServer(tls=tls.server) as server:
        for transport in (KeepingTransport(), httpx.AsyncHTTPTransport()):
            async with transport:
                with pytest.raises(httpx.ConnectError):
                    await transport.handle_async_request(a_request(server.url))


async def test_tls_works(transport: Transport, tls: TLS) -> None:
    async with RawServer(tls=tls.server) as server:
        assert await fetch(transport, server.url, b"x" * 200_000) == b"ok"
        assert await fetch(transport, server.url) == b"ok"
        assert server.connections == 1


async def test_a_silent_tls_server_is_a_connect_timeout(transport: Transport) -> None:
    async with RawServer() as server:  # it waits for a request, we for its handshake
        url = server.url.replace("http:", "https:")
        with pytest.raises(httpx.ConnectTimeout):
            await transport.handle_async_request(a_request(url, timeout={"connect": 0.05}))


async def test_a_head_without_end_is_refused(own: KeepingTransport) -> None:
    line = b"x-filler: " + b"x" * 8000 + b"\r\n"
    lines = [line] * (MAX_HEAD_BYTES // len(line) + 3)
    async with RawServer(saying(HEAD, *lines)) as server:  # type: ignore[arg-type]  # awaits
        with pytest.raises(httpx.RemoteProtocolError):
            await own.handle_async_request(a_request(server.url))


@pytest.mark.parametrize("value", [b"a\r\nx-injected: 1", b"a\nx-injected: 1", b"a\rb"])
async def test_a_header_can_not_smuggle_another(own: KeepingTransport, value: bytes) -> None:
    async with RawServer() as server:
        request = httpx.Request("GET", server.url, headers=[(b"x-one", value)])
        with pytest.raises(httpx.LocalProtocolError):
            await own.handle_async_request(request)
        assert server.requests == []


# -- sending again


def dying_kept_connection(tries: list[int]) -> Callable[[Peer, Received], object]:
    """Answers the first request of a connection, takes the second and dies without a byte."""

    async def handler(peer: Peer, request: Received) -> None:
        tries.append(peer.number)
        if tries.count(peer.number) > 1:
            peer.reset()
            await peer.gone()
        else:
            await peer.send(OK)

    return handler


async def test_a_repeatable_request_survives_a_kept_connection_that_dies(
    own: KeepingTransport,
) -> None:
    tries: list[int] = []
    async with RawServer(dying_kept_connection(tries)) as server:  # type: ignore[arg-type]  # awaits
        await fetch(own, server.url)
        assert await fetch(own, server.url, b"again", repeatable=True) == b"ok"
    assert tries == [1, 1, 2]


async def test_a_generation_is_never_sent_twice(own: KeepingTransport) -> None:
    """The server took it: it may have begun."""
    tries: list[int] = []
    async with RawServer(dying_kept_connection(tries)) as server:  # type: ignore[arg-type]  # awaits
        await fetch(own, server.url)
        with pytest.raises(httpx.TransportError):
            await fetch(own, server.url, b"generate", repeatable=False)
    assert tries == [1, 1]


async def test_a_request_whose_answer_began_is_never_sent_twice(own: KeepingTransport) -> None:
    tries: list[int] = []

    async def handler(peer: Peer, request: Received) -> None:
        tries.append(peer.number)
        if len(tries) == 1:
            await peer.send(OK)
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\n")
            peer.reset()
            await peer.gone()

    async with RawServer(handler) as server:
        await fetch(own, server.url)
        with pytest.raises(httpx.TransportError):
            await fetch(own, server.url, repeatable=True)
    assert tries == [1, 1]


# -- giving up (contract.md 7.3)


async def test_giving_up_in_mid_body_closes_the_connection_at_once(transport: Transport) -> None:
    async with RawServer(saying(CHUNKED + b"5\r\nhello\r\n")) as server:  # type: ignore[arg-type]  # awaits
        response = await transport.handle_async_request(a_request(server.url))
        await response.aclose()
        await until(lambda: server.open_connections == 0)


async def test_a_cancelled_reader_closes_the_connection_at_once(transport: Transport) -> None:
    async with RawServer(saying(CHUNKED + b"5\r\nhello\r\n")) as server:  # type: ignore[arg-type]  # awaits
        task = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: bool(server.requests))
        await asyncio.sleep(0.02)
        task.cancel()
        await until(lambda: server.open_connections == 0)
        assert task.cancelled()


async def test_a_request_cancelled_before_its_head_closes_the_connection_at_once(
    transport: Transport,
) -> None:
    async with RawServer(saying()) as server:  # type: ignore[arg-type]  # awaits
        task = asyncio.create_task(fetch(transport, server.url))
        await until(lambda: bool(server.requests))
        task.cancel()
        await until(lambda: server.open_connections == 0)
        assert task.cancelled()


async def test_a_request_cancelled_while_it_connects_closes_the_connection_at_once(
    own: KeepingTransport,
) -> None:
    """TCP is there, TLS never comes. (The stock transport leaves the socket open: seen 2026-11.)"""
    async with RawServer() as server:
        url = server.url.replace("http:", "https:")
        task = asyncio.create_task(fetch(own, url))
        await until(lambda: server.open_connections == 1)
        task.cancel()
        await until(lambda: server.open_connections == 0)
        assert task.cancelled()


async def test_a_request_cancelled_while_its_body_goes_out_closes_the_connection_at_once(
    own: KeepingTransport,
) -> None:
    stuck = asyncio.Event()

    class NeverReads(RawServer):
        async def read_request(self, peer: Peer) -> Received:
            stuck.set()
            await asyncio.sleep(0.2)
            return await super().read_request(peer)

    async with NeverReads() as server:
        task = asyncio.create_task(fetch(own, server.url, b"x" * 20_000_000))
        await stuck.wait()
        task.cancel()
        await until(lambda: server.open_connections == 0)
        assert server.requests == []


async def test_closing_the_transport_closes_every_connection(own: KeepingTransport) -> None:
    async with RawServer(saying(CHUNKED + b"5\r\nhello\r\n")) as server:  # type: ignore[arg-type]  # awaits
        streaming = await own.handle_async_request(a_request(server.url))
        server.handler = saying(OK)  # type: ignore[assignment]  # awaits
        await fetch(own, server.url)
        assert server.open_connections == 2
        await own.aclose()
        await until(lambda: server.open_connections == 0)
        with pytest.raises(httpx.TransportError):
            await whole(streaming)


async def test_idle_connections_are_closed_after_their_time(tls: TLS) -> None:
    async with RawServer() as server, KeepingTransport(idle_seconds=0.05) as transport:
        await asyncio.gather(*(fetch(transport, server.url) for _ in range(4)))
        await until(lambda: server.open_connections == 0)
        assert await fetch(transport, server.url) == b"ok"
        await until(lambda: server.open_connections == 0)


# -- back pressure and bytes


async def test_a_body_that_nobody_reads_stops_the_server(own: KeepingTransport) -> None:
    """Bounded by our mark and the kernel's buffers, whatever the server would like to send."""
    total = 64 * 1024 * 1024
    sent = 0

    async def handler(peer: Peer, request: Received) -> None:
        nonlocal sent
        await peer.send(HEAD + b"content-length: %d\r\n\r\n" % total)
        piece = b"x" * 65536
        while sent < total:
            await peer.send(piece)
            sent += len(piece)

    async with RawServer(handler) as server:
        response = await own.handle_async_request(a_request(server.url))
        last = -1
        while sent != last:  # until nothing moves any more
            last = sent
            await asyncio.sleep(0.1)
        assert sent < 24 * 1024 * 1024
        body = response.stream
        assert isinstance(body, httpx.AsyncByteStream)
        read = largest = 0
        async for chunk in body:
            read += len(chunk)
            largest = max(largest, len(chunk))
        assert read == total
        assert largest <= HIGH_WATER_BYTES + 1024 * 1024
        assert await asyncio.wait_for(fetch_ok(own, server), 5) == b"ok"


async def fetch_ok(transport: Transport, server: RawServer) -> bytes:
    server.handler = saying(OK)  # type: ignore[assignment]  # awaits
    return await fetch(transport, server.url)


async def test_pieces_of_one_segment_come_as_one_chunk(own: KeepingTransport) -> None:
    pieces = b"".join(b"2\r\n%02d\r\n" % number for number in range(64))
    async with RawServer(saying(CHUNKED + pieces + b"0\r\n\r\n")) as server:  # type: ignore[arg-type]  # awaits
        response = await own.handle_async_request(a_request(server.url))
        body = response.stream
        assert isinstance(body, httpx.AsyncByteStream)
        assert len([chunk async for chunk in body]) == 1


async def test_bytes_after_a_whole_answer_cost_the_connection_and_not_the_answer(
    own: KeepingTransport,
) -> None:
    async with RawServer(saying(OK + OK)) as server:  # type: ignore[arg-type]  # awaits
        assert await fetch(own, server.url) == b"ok"
        await until(lambda: server.open_connections == 0)
        assert await fetch(own, server.url) == b"ok"
        assert server.connections == 2


async def test_bytes_that_nobody_asked_for_cost_the_connection(own: KeepingTransport) -> None:
    async def handler(peer: Peer, request: Received) -> None:
        await peer.send(OK)
        await asyncio.sleep(0.02)
        await peer.send(b"surprise")

    async with RawServer(handler) as server:
        assert await fetch(own, server.url) == b"ok"
        await until(lambda: server.open_connections == 0)


async def test_one_ssl_context_serves_everybody() -> None:
    from shared.upstream.transport import shared_ssl_context

    context: ssl.SSLContext = shared_ssl_context()
    assert shared_ssl_context() is context
