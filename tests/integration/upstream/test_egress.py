"""Every request of an account leaves through its proxy, shown with real proxy servers.

Each proxy leaves from a loopback address of its own, so the far side sees whose way it came.
"""

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from shared import errors
from shared.settings import Settings
from shared.upstream import wire
from shared.upstream.client import Session, Upstream
from shared.upstream.dial import ProxyAddress
from shared.upstream.egress import Egresses
from shared.upstream.stream import UpstreamDecoder
from shared.upstream.transport import KeepingTransport
from tests.fakes.certificates import TLS
from tests.fakes.components import check_component
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.raw_server import Peer, RawServer, Received
from tests.integration.upstream.conftest import MODEL, until
from tests.simulator.server import Simulator, demo_account

pytestmark = pytest.mark.anyio

DIRECT = "127.0.0.1"
USER, PASSWORD = "egress", "p@ss:w/rd#1"  # every character that a URL would misread
CREDENTIALS = "egress:p%40ss%3Aw%2Frd%231"
PLAIN_PASSWORD = "plain-password"  # tinyproxy's configuration file takes no quotes


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class RealProxy(NamedTuple):
    """`url` with credentials; requests through it come from `source`."""

    url: str
    source: str
    wrong_url: str


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    import socket

    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        assert process.poll() is None, "the proxy server ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the proxy server does not listen")


def run_tinyproxy(directory: Path) -> Iterator[RealProxy]:
    check_component("tinyproxy")
    port, source = free_port(), "127.0.0.3"
    configuration = directory / "tinyproxy.conf"
    configuration.write_text(
        f"Port {port}\nListen 127.0.0.1\nBind {source}\nTimeout 60\nMaxClients 100\n"
        f"BasicAuth {USER} {PLAIN_PASSWORD}\nLogLevel Critical\nDisableViaHeader Yes\n"
    )
    process = subprocess.Popen(
        ["tinyproxy", "-d", "-c", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield RealProxy(
            f"http://{USER}:{PLAIN_PASSWORD}@127.0.0.1:{port}",
            source,
            f"http://{USER}:wrong@127.0.0.1:{port}",
        )
    finally:
        process.kill()
        process.wait()


def run_microsocks() -> Iterator[RealProxy]:
    check_component("microsocks")
    port, source = free_port(), "127.0.0.2"
    process = subprocess.Popen(
        [
            *("microsocks", "-i", "127.0.0.1", "-p", str(port), "-b", source),
            *("-u", USER, "-P", PASSWORD),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(port, process)
        yield RealProxy(
            f"socks5://{CREDENTIALS}@127.0.0.1:{port}",
            source,
            f"socks5://{USER}:wrong@127.0.0.1:{port}",
        )
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProxy]:
    yield from run_tinyproxy(tmp_path_factory.mktemp("tinyproxy"))


@pytest.fixture(scope="module")
def microsocks() -> Iterator[RealProxy]:
    yield from run_microsocks()


@pytest.fixture
async def https_server(tls: TLS, anyio_backend: object) -> AsyncIterator[ConnectProxy]:
    source = "127.0.0.4"
    async with ConnectProxy(
        tls=tls.server, source=source, username=USER, password=PASSWORD
    ) as proxy:
        yield proxy


@pytest.fixture
def https_proxy(https_server: ConnectProxy) -> RealProxy:
    port = https_server.port
    return RealProxy(
        f"https://{CREDENTIALS}@localhost:{port}",
        "127.0.0.4",
        f"https://{USER}:wrong@localhost:{port}",
    )


@pytest.fixture(params=["tinyproxy", "microsocks", "https_proxy"])
def proxy(request: pytest.FixtureRequest) -> RealProxy:
    """http, socks5 and https, each with credentials."""
    found: RealProxy = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxies(tinyproxy: RealProxy, microsocks: RealProxy) -> list[RealProxy]:
    return [tinyproxy, microsocks]


@pytest.fixture
async def open_upstream(sim: Simulator, tls: TLS) -> AsyncIterator[Callable[[str], Upstream]]:
    opened: list[Upstream] = []

    def open_one(proxy_url: str = "") -> Upstream:
        upstream = Upstream(
            Settings(qwen_chat_proxy_url=sim.url, proxy_url=proxy_url),
            open_transport=lambda proxy: KeepingTransport(proxy, tls=lambda: tls.client),
        )
        opened.append(upstream)
        return upstream

    yield open_one
    for upstream in opened:
        await upstream.close()


async def every_call(upstream: Upstream, number: int, proxy: str) -> None:
    """Whatever the client can ask for an account."""
    email, password = demo_account(number)
    token = await upstream.sign_in(email, password, proxy=proxy)
    session = Session(email, token.token, proxy)
    await upstream.profile(session)
    await upstream.models(session)
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    decoder = UpstreamDecoder()
    async with upstream.stream_completion(session, chat_id, body_for(chat_id)) as chunks:
        async for chunk in chunks:
            decoder.feed(chunk)
    assert decoder.done
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    await upstream.stop(session, chat_id, decoder.response_id)
    await upstream.delete_chat(session, chat_id)


def body_for(chat_id: str, content: str = "hello") -> bytes:
    return wire.completion_body(
        chat_id=chat_id,
        model=MODEL,
        content=content,
        chat_type="t2t",
        thinking_enabled=None,
        thinking_budget=None,
        now=int(time.time()),
        fid="0b7a1f6e-5a0f-4c39-9d55-6f8f8a0f7c11",
    )


def addresses(sim: Simulator) -> dict[str, set[str]]:
    """E-mail → the addresses its requests came from."""
    seen: dict[str, set[str]] = {}
    for record in sim.stats.log:
        seen.setdefault(record.email, set()).add(record.request.address)
    return seen


ALL_CALLS = {
    "signin",
    "profile",
    "models",
    "chats_new",
    "completions",
    "stop",
    "chat_delete",
}


async def test_every_request_of_an_account_leaves_through_its_proxy(
    open_upstream: Callable[[], Upstream], sim: Simulator, proxy: RealProxy
) -> None:
    upstream = open_upstream()
    await every_call(upstream, 1, proxy.url)
    await every_call(upstream, 2, "")
    assert {record.operation for record in sim.stats.log} == ALL_CALLS
    assert addresses(sim) == {demo_account(1)[0]: {proxy.source}, demo_account(2)[0]: {DIRECT}}


async def test_accounts_with_different_proxies_do_not_mix(
    open_upstream: Callable[[], Upstream], sim: Simulator, proxies: list[RealProxy]
) -> None:
    upstream = open_upstream()
    await asyncio.gather(
        *(
            every_call(upstream, number, proxy)
            for number, proxy in enumerate([proxies[0].url, proxies[1].url, ""], start=1)
        )
    )
    assert addresses(sim) == {
        demo_account(1)[0]: {proxies[0].source},
        demo_account(2)[0]: {proxies[1].source},
        demo_account(3)[0]: {DIRECT},
    }


async def test_the_proxy_of_all_is_used_by_accounts_without_one(
    open_upstream: Callable[[str], Upstream], sim: Simulator, proxies: list[RealProxy]
) -> None:
    of_all, own = proxies
    upstream = open_upstream(of_all.url)
    await every_call(upstream, 1, "")
    await every_call(upstream, 2, own.url)
    await upstream.models()
    assert addresses(sim) == {
        demo_account(1)[0]: {of_all.source},
        demo_account(2)[0]: {own.source},
        "": {of_all.source},
    }


async def test_a_proxy_that_refuses_is_no_answer_of_the_upstream(
    open_upstream: Callable[[], Upstream], sim: Simulator, proxy: RealProxy
) -> None:
    with pytest.raises(errors.UpstreamUnavailable, match="proxy refuses") as told:
        await open_upstream().models(Session("a@example.com", "t", proxy.wrong_url))
    assert "wrong" not in str(told.value)
    assert not sim.stats.log


async def test_a_proxy_that_is_away_is_never_gone_round(
    open_upstream: Callable[[], Upstream], sim: Simulator
) -> None:
    for scheme in ("http", "https", "socks5"):
        session = Session("a@example.com", "t", f"{scheme}://user:secret@127.0.0.1:{free_port()}")
        with pytest.raises(errors.UpstreamUnavailable) as told:
            await open_upstream().models(session)
        assert "secret" not in str(told.value)
    assert not sim.stats.log


async def test_a_turn_cancelled_behind_a_proxy_closes_the_far_connection_within_a_second(
    open_upstream: Callable[[], Upstream], sim: Simulator, proxy: RealProxy
) -> None:
    upstream = open_upstream()
    email, password = demo_account(1)
    token = await upstream.sign_in(email, password, proxy=proxy.url)
    session = Session(email, token.token, proxy.url)
    chat_id = await upstream.open_chat(session, model=MODEL, chat_type="t2t")
    body = body_for(chat_id, "[[sim: frames=5000 delay_ms=20]]")

    async def read() -> None:
        async with upstream.stream_completion(session, chat_id, body) as chunks:
            async for _ in chunks:
                pass

    task = asyncio.create_task(read())
    await until(lambda: bool(sim.stats.open))
    task.cancel()
    await until(lambda: bool(sim.stats.ended["aborted"]))


# -- the transport through a proxy, to an upstream with TLS


async def say_who(peer: Peer, request: Received) -> None:
    body = peer.writer.get_extra_info("peername")[0].encode()
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def test_tls_goes_through_every_kind_of_proxy(proxy: RealProxy, tls: TLS) -> None:
    async with (
        RawServer(say_who, tls=tls.server) as server,
        KeepingTransport(proxy.url, tls=lambda: tls.client) as transport,
    ):
        for _ in range(3):
            request = httpx.Request("POST", server.url + "/x", content=b"y" * 100_000)
            response = await transport.handle_async_request(request)
            assert await response.aread() == proxy.source.encode()
        assert server.connections == 1
        assert server.requests[0].line == "POST /x HTTP/1.1"
        assert server.requests[0].header("proxy-authorization") is None


async def test_a_proxy_that_refuses_a_tunnel_is_a_proxy_error(proxy: RealProxy, tls: TLS) -> None:
    async with (
        RawServer(say_who, tls=tls.server) as server,
        KeepingTransport(proxy.wrong_url, tls=lambda: tls.client) as transport,
    ):
        with pytest.raises(httpx.ProxyError):
            await transport.handle_async_request(httpx.Request("GET", server.url))
        assert server.connections == 0


def bear_tls_in_tls_of_asyncio() -> None:
    """CPython 3.11 also reports its own failure of dial.py's `except TypeError` to the loop."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


def is_about_the_certificate(error: BaseException | None) -> bool:
    """Whether a refused certificate is what it all began with."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


async def test_a_tunnel_does_not_excuse_a_certificate_nobody_knows(
    proxy: RealProxy, tls: TLS
) -> None:
    trusting = iter([tls.client] if proxy.url.startswith("https") else [])  # for the proxy itself
    strict = ssl.create_default_context()
    async with (
        RawServer(say_who, tls=tls.server) as server,
        KeepingTransport(proxy.url, tls=lambda: next(trusting, strict)) as transport,
    ):
        bear_tls_in_tls_of_asyncio()
        with pytest.raises(httpx.ConnectError) as told:
            await transport.handle_async_request(httpx.Request("GET", server.url))
        assert is_about_the_certificate(told.value)
        assert server.requests == []


async def test_a_tunnel_does_not_excuse_a_certificate_of_another_name(
    https_server: ConnectProxy, https_proxy: RealProxy, tls: TLS
) -> None:
    async with RawServer(say_who, tls=tls.server) as server:
        https_server.names["other.invalid:443"] = ("127.0.0.1", server.port)
        async with KeepingTransport(https_proxy.url, tls=lambda: tls.client) as transport:
            bear_tls_in_tls_of_asyncio()
            with pytest.raises(httpx.ConnectError) as told:
                await transport.handle_async_request(httpx.Request("GET", "https://other.invalid"))
        assert is_about_the_certificate(told.value)
        assert server.requests == []


async def test_names_are_resolved_by_the_proxy(
    https_server: ConnectProxy, https_proxy: RealProxy, microsocks: RealProxy, tls: TLS
) -> None:
    """`.invalid` has no address here (RFC 2606): whoever asks for one fails."""
    async with RawServer(say_who) as server:
        https_server.names["upstream.invalid:8080"] = ("127.0.0.1", server.port)
        request = httpx.Request("GET", "http://upstream.invalid:8080/a?b=1")
        async with KeepingTransport(https_proxy.url, tls=lambda: tls.client) as transport:
            response = await transport.handle_async_request(request)
            assert await response.aread() == https_proxy.source.encode()
        assert https_server.asked == ["GET http://upstream.invalid:8080/a?b=1 HTTP/1.1"]
        async with KeepingTransport(microsocks.url) as transport:
            with pytest.raises(httpx.ProxyError):
                await transport.handle_async_request(request)


async def test_a_proxy_that_says_nothing_is_a_connect_timeout() -> None:
    async with RawServer(lambda peer, request: peer.gone()) as silent:
        for scheme in ("http", "https", "socks5"):
            async with KeepingTransport(f"{scheme}://127.0.0.1:{silent.port}") as transport:
                request = httpx.Request(
                    "GET", "https://localhost:1/", extensions={"timeout": {"connect": 0.1}}
                )
                with pytest.raises(httpx.ConnectTimeout):
                    await transport.handle_async_request(request)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_a_request_cancelled_while_its_proxy_is_silent_closes_the_connection_at_once(
    scheme: str,
) -> None:
    async with RawServer(lambda peer, request: peer.gone()) as silent:
        transport = KeepingTransport(f"{scheme}://127.0.0.1:{silent.port}")
        request = httpx.Request("GET", "https://localhost:1/")
        task = asyncio.create_task(transport.handle_async_request(request))
        await until(lambda: silent.open_connections == 1)
        await asyncio.sleep(0.02)
        task.cancel()
        await until(lambda: silent.open_connections == 0)
        assert task.cancelled()
        await transport.aclose()


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.1 503 No\r\n\r\n", b"", b"HTTP/1.1\r\n\r\n", b"x" * 70_000],
    ids=["refusal", "hangs up", "no status", "endless"],
)
async def test_a_proxy_that_speaks_nonsense_is_a_proxy_error(reply: bytes) -> None:
    async def handler(peer: Peer, request: Received) -> None:
        await peer.send(reply)
        peer.writer.close()

    async with RawServer(handler) as odd, KeepingTransport(odd.url) as transport:
        with pytest.raises(httpx.ProxyError):
            await transport.handle_async_request(httpx.Request("GET", "https://localhost:1/"))


# -- addresses of proxies


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h", ("http", "h", 80, "", "")),
        ("https://h/", ("https", "h", 443, "", "")),
        ("socks5://h", ("socks5", "h", 1080, "", "")),
        ("socks5h://u:p@h:99", ("socks5", "h", 99, "u", "p")),
        ("http://u@h:1", ("http", "h", 1, "u", "")),
        (f"http://{CREDENTIALS}@h:1", ("http", "h", 1, USER, PASSWORD)),
        ("http://[::1]:8", ("http", "::1", 8, "", "")),
    ],
)
async def test_an_address_is_read(url: str, address: tuple[object, ...]) -> None:
    assert ProxyAddress.parse(url) == address


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://h:x", "http://h:99999"])
async def test_an_address_that_is_none_is_a_proxy_error_and_not_repeated(url: str) -> None:
    with pytest.raises(httpx.ProxyError) as told:
        ProxyAddress.parse(url)
    assert not url or url not in str(told.value)


# -- many egresses


class Counted(httpx.AsyncBaseTransport):
    def __init__(self, proxy: str, closed: list[str]) -> None:
        self._proxy, self._closed = proxy, closed

    async def aclose(self) -> None:
        self._closed.append(self._proxy)


async def test_five_thousand_proxies_keep_a_bounded_number_of_transports() -> None:
    closed: list[str] = []
    egresses = Egresses(lambda proxy: Counted(proxy, closed), limit=100)
    for number in range(5000):
        egresses.give_back(egresses.take(f"http://p{number}"))
    assert len(egresses) == 100
    await egresses.close()
    assert sorted(closed) == sorted(f"http://p{number}" for number in range(5000))


async def test_a_transport_in_use_is_not_closed() -> None:
    closed: list[str] = []
    egresses = Egresses(lambda proxy: Counted(proxy, closed), limit=1)
    busy = egresses.take("http://busy")
    egresses.give_back(egresses.take("http://other"))
    egresses.give_back(egresses.take("http://third"))
    await asyncio.sleep(0)
    assert closed == ["http://other"]
    assert egresses.take("http://busy") is busy
    await egresses.close()
