"""The transport behind httpx's seam: requests of one egress over connections that are kept.

Why not httpx's own: its pool looks at every connection on every request. Here an idle connection
is taken from the end of a list and put back there, whatever the number of open streams; the stock
transport is the oracle of the tests.

A request that dies on a kept connection before a byte of answer came may have met a server that
was just closing it. It is sent again on a fresh connection if it says it is `repeatable`; a
generation is not: the upstream may have begun it.

Extensions of a request: `target` (bytes, instead of the URL's path), `timeout` (`connect` only;
all other deadlines belong to the caller), `repeatable` (bool).
"""

import asyncio
import functools
import ssl
from collections.abc import Callable

import httpx

from shared.upstream.connection import Connection
from shared.upstream.dial import Origin, ProxyAddress, dial

IDLE_SECONDS = 30.0
"""Shorter than the 60–75 s after which servers of this kind hang up."""
MAX_IDLE = 512
ONE_WRITE_BYTES = 64 * 1024

_PORTS = {"http": 80, "https": 443}


@functools.cache
def shared_ssl_context() -> ssl.SSLContext:
    """One for the process, made when first needed: it costs 44 ms and 0.8 MB (2026-11)."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class KeepingTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 through one egress. `proxy` = its URL, or empty."""

    def __init__(
        self,
        proxy: str = "",
        *,
        tls: Callable[[], ssl.SSLContext] = shared_ssl_context,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._proxy_url = proxy
        self._tls = tls
        self._idle_seconds = idle_seconds
        self._proxy: ProxyAddress | None = None  # read from its URL when first needed
        self._idle: dict[Origin, dict[Connection, float]] = {}  # → idle since, oldest first
        self._origins: dict[Connection, Origin] = {}  # every open connection
        self._sweep: asyncio.TimerHandle | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        origin = Origin(url.scheme, url.raw_host.decode(), url.port or _PORTS[url.scheme])
        if self._proxy_url and self._proxy is None:
            self._proxy = ProxyAddress.parse(self._proxy_url)
        parts = self._parts(origin, request, b"".join([part async for part in request.stream]))  # type: ignore[union-attr]  # it is async
        response = await self._send(origin, request, parts)
        if self._forwards(origin) and _is_from_proxy(response):
            await response.aclose()
            raise httpx.ProxyError("The egress proxy refuses")
        return response

    async def aclose(self) -> None:
        """Close every connection; what still runs on them breaks."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._origins):
            connection.abort()

    async def _send(
        self, origin: Origin, request: httpx.Request, parts: tuple[bytes, ...]
    ) -> httpx.Response:
        connection = self._take_idle(origin)
        if connection is not None:
            try:
                return await connection.send(*parts)
            except httpx.TransportError:
                if connection.answered or not request.extensions.get("repeatable"):
                    raise
        connection = await self._open(origin, request)
        return await connection.send(*parts)

    def _forwards(self, origin: Origin) -> bool:
        """Whether the proxy itself reads our requests and may answer in the upstream's place."""
        proxy = self._proxy
        return proxy is not None and proxy.scheme != "socks5" and origin.scheme == "http"

    # -- connections

    def _take_idle(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            if not connection.is_stale():
                return connection
            connection.abort()
        return None

    async def _open(self, origin: Origin, request: httpx.Request) -> Connection:
        seconds = request.extensions.get("timeout", {}).get("connect")
        try:
            async with asyncio.timeout(seconds):
                connection = await dial(
                    origin,
                    self._proxy,
                    make=lambda: Connection(self._on_idle, self._on_closed),
                    tls=self._tls,
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout("The connection can't be opened in time") from error
        self._origins[connection] = origin
        return connection

    def _on_idle(self, connection: Connection) -> None:
        origin = self._origins[connection]
        idle = self._idle.setdefault(origin, {})
        loop = asyncio.get_running_loop()
        idle[connection] = loop.time()
        if len(idle) > MAX_IDLE:
            next(iter(idle)).abort()
        if self._sweep is None:
            self._sweep = loop.call_later(self._idle_seconds, self._close_old)

    def _on_closed(self, connection: Connection) -> None:
        origin = self._origins.pop(connection, None)
        if origin is not None and origin in self._idle:
            self._idle[origin].pop(connection, None)

    def _close_old(self) -> None:
        """Close what was idle for long; come back when the next will have been."""
        loop = asyncio.get_running_loop()
        oldest = loop.time()
        for idle in self._idle.values():
            for connection, since in list(idle.items()):
                if since > loop.time() - self._idle_seconds:
                    oldest = min(oldest, since)
                    break
                connection.abort()
        self._sweep = None
        if any(self._idle.values()):
            self._sweep = loop.call_at(oldest + self._idle_seconds, self._close_old)

    # -- the request on the wire

    def _parts(self, origin: Origin, request: httpx.Request, body: bytes) -> tuple[bytes, ...]:
        """Head and body, in one piece unless the body is large."""
        url = request.url
        target: bytes = request.extensions.get("target") or url.raw_path
        headers = request.headers.raw
        if body and "content-length" not in request.headers:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)  # httpx said it comes in chunks
        if self._proxy is not None and self._forwards(origin):
            target = b"http://" + url.netloc + target
            if self._proxy.authorization:
                headers.append((b"Proxy-Authorization", self._proxy.authorization))
        lines = [request.method.encode() + b" " + target + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in headers]
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1:
            raise httpx.LocalProtocolError("A header holds a line end")
        if len(body) > ONE_WRITE_BYTES:
            return head, body
        return (head + body,)


def _is_from_proxy(response: httpx.Response) -> bool:
    """A refusal of our credentials by the proxy: 407, or 401 as tinyproxy has it for wrong ones.

    The upstream knows bearer tokens only and asks nobody for Basic credentials.
    """
    if response.status_code == 401:
        challenge: str = response.headers.get("www-authenticate", "")
        return challenge.lower().startswith("basic")
    return response.status_code == 407
