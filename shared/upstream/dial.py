"""Opens connections: directly, through an HTTP or HTTPS proxy, through a SOCKS5 proxy.

    upstream   proxy         way
    any        none          straight
    http       http, https   the proxy is asked with the whole address in the request line
    https      http, https   CONNECT, then TLS inside the tunnel
    any        socks5        the proxy resolves the name, then TLS if the upstream wants it

Names are resolved by the proxy, never here: nothing of a request leaves beside its egress.
"""

import asyncio
import base64
import ssl
import urllib.parse
from collections.abc import Callable
from typing import NamedTuple

import httpx
from python_socks import ProxyError as SocksProxyError
from python_socks import ProxyType
from python_socks.async_.asyncio import Proxy as SocksProxy

from shared.upstream.connection import Connection

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_REPLY_BYTES = 64 * 1024


class Origin(NamedTuple):
    """Whom to reach."""

    scheme: str
    host: str
    port: int


class ProxyAddress(NamedTuple):
    """An egress proxy: scheme `http`, `https` or `socks5`."""

    scheme: str
    host: str
    port: int
    username: str
    password: str

    @classmethod
    def parse(cls, url: str) -> "ProxyAddress":
        """From `scheme://[user:password@]host[:port]`, credentials percent-encoded.

        Raises:
            httpx.ProxyError: it is none; the address is not repeated, it may hold a password.
        """
        try:
            parts = urllib.parse.urlsplit(url)
            default_port = _DEFAULT_PORTS[parts.scheme]
            port = parts.port or default_port
        except (ValueError, KeyError) as error:
            raise httpx.ProxyError("The egress proxy's address can't be read") from error
        if not parts.hostname:
            raise httpx.ProxyError("The egress proxy's address has no host")
        return cls(
            "socks5" if parts.scheme == "socks5h" else parts.scheme,
            parts.hostname,
            port,
            urllib.parse.unquote(parts.username or ""),
            urllib.parse.unquote(parts.password or ""),
        )

    @classmethod
    def accepts(cls, url: str) -> bool:
        """Whether `parse` can read it."""
        try:
            cls.parse(url)
        except httpx.ProxyError:
            return False
        return True

    @property
    def authorization(self) -> bytes | None:
        """The value of `Proxy-Authorization`."""
        if not self.username and not self.password:
            return None
        pair = f"{self.username}:{self.password}".encode()
        return b"Basic " + base64.b64encode(pair)


async def dial(
    origin: Origin,
    proxy: ProxyAddress | None,
    *,
    make: Callable[[], Connection],
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    """An open connection on which requests for `origin` may be sent.

    Raises:
        httpx.ConnectError: nobody there, or no TLS.
        httpx.ProxyError: the proxy refuses.
    """
    try:
        if proxy is None:
            return await _straight(origin.host, origin.port, origin.scheme, make, tls)
        if origin.scheme == "http" and proxy.scheme != "socks5":
            return await _straight(proxy.host, proxy.port, proxy.scheme, make, tls)
        if proxy.scheme == "socks5":
            return await _through_socks(origin, proxy, make, tls)
        return await _through_tunnel(origin, proxy, make, tls)
    except OSError as error:  # ssl's errors are among them
        raise httpx.ConnectError("The connection can't be opened") from error


async def _straight(
    host: str,
    port: int,
    scheme: str,
    make: Callable[[], Connection],
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    context = tls() if scheme == "https" else None
    _, connection = await asyncio.get_running_loop().create_connection(
        make, host, port, ssl=context
    )
    return connection


async def _through_socks(
    origin: Origin,
    proxy: ProxyAddress,
    make: Callable[[], Connection],
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    way = SocksProxy(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=proxy.username or None,
        password=proxy.password or None,
        rdns=True,
    )
    try:
        socket = await way.connect(origin.host, origin.port)
    except SocksProxyError as error:
        raise httpx.ProxyError("The egress proxy refuses") from error
    https = origin.scheme == "https"
    _, connection = await asyncio.get_running_loop().create_connection(
        make,
        sock=socket,
        ssl=tls() if https else None,
        server_hostname=origin.host if https else None,
    )
    return connection


async def _through_tunnel(
    origin: Origin,
    proxy: ProxyAddress,
    make: Callable[[], Connection],
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    loop = asyncio.get_running_loop()
    context = tls() if proxy.scheme == "https" else None
    transport, handshake = await loop.create_connection(
        _Handshake, proxy.host, proxy.port, ssl=context
    )
    connection = make()
    try:
        await _ask_tunnel(handshake, origin, proxy)
        inner = await loop.start_tls(transport, connection, tls(), server_hostname=origin.host)
    except TypeError as error:
        # asyncio of CPython 3.11 fails so when it aborts TLS inside TLS: sslproto's _force_close
        # hands _abort an argument too many (seen on 3.11.7; uvloop is not concerned).
        transport.abort()
        raise httpx.ConnectError("TLS inside the egress proxy's TLS failed") from error
    except BaseException:
        transport.abort()
        raise
    if inner is None:
        raise httpx.ConnectError("The connection was lost while TLS began")
    connection.connection_made(inner)
    return connection


async def _ask_tunnel(handshake: "_Handshake", origin: Origin, proxy: ProxyAddress) -> None:
    """RFC 9110, 9.3.6."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}".encode()
    lines = [b"CONNECT " + target + b" HTTP/1.1", b"Host: " + target]
    if proxy.authorization:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    handshake.write(b"\r\n".join(lines) + b"\r\n\r\n")
    reply = await handshake.until(b"\r\n\r\n")
    status = reply.split(b" ", 2)[1:2]
    if not status or not status[0].startswith(b"2"):
        raise httpx.ProxyError("The egress proxy refuses")


class _Handshake(asyncio.Protocol):
    """What is said to a proxy before the connection is the upstream's."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None

    def write(self, data: bytes) -> None:
        assert self._transport is not None  # noqa: S101 create_connection returned
        self._transport.write(data)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            if len(self._received) > _MAX_REPLY_BYTES:
                raise httpx.ProxyError("The egress proxy speaks no HTTP")
            await self._more()
        taken, _, self._received = self._received.partition(mark)
        return taken

    async def _more(self) -> None:
        if self._lost:
            raise httpx.ProxyError("The egress proxy hung up")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
