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
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
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
            port = parts.port or _DEFAULT_PORTS[parts.scheme]
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
    loop = asyncio.get_running_loop()
    try:
        if proxy is None:
            context = tls() if origin.scheme == "https" else None
            _, connection = await loop.create_connection(
                make, origin.host, origin.port, ssl=context
            )
            return connection
        if proxy.scheme == "socks5":
            return await _through_socks(origin, proxy, make, tls)
        context = tls() if proxy.scheme == "https" else None
        if origin.scheme == "http":
            _, connection = await loop.create_connection(make, proxy.host, proxy.port, ssl=context)
            return connection
        return await _through_tunnel(origin, proxy, context, make, tls)
    except (OSError, ssl.SSLError) as error:
        raise httpx.ConnectError("The connection can't be opened") from error


async def _through_socks(
    origin: Origin,
    proxy: ProxyAddress,
    make: Callable[[], Connection],
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    socks = SocksProxy(
        ProxyType.SOCKS5, proxy.host, proxy.port, proxy.username, proxy.password, rdns=True
    )
    try:
        carrier = await socks.connect(origin.host, origin.port)
    except ProxyConnectionError as error:
        raise httpx.ConnectError("The egress proxy can't be reached") from error
    except (ProxyError, ProxyTimeoutError) as error:
        raise httpx.ProxyError("The egress proxy refuses") from error
    try:
        context = tls() if origin.scheme == "https" else None
        name = origin.host if context else None
        _, connection = await asyncio.get_running_loop().create_connection(
            make, sock=carrier, ssl=context, server_hostname=name
        )
    except BaseException:
        carrier.close()
        raise
    return connection


async def _through_tunnel(
    origin: Origin,
    proxy: ProxyAddress,
    proxy_context: ssl.SSLContext | None,
    make: Callable[[], Connection],
    tls: Callable[[], ssl.SSLContext],
) -> Connection:
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(
        _Tunnel, proxy.host, proxy.port, ssl=proxy_context
    )
    try:
        await tunnel.open(origin, proxy)
        connection = make()
        inner = await loop.start_tls(transport, connection, tls(), server_hostname=origin.host)
    except BaseException:
        transport.abort()
        raise
    if inner is None:
        raise httpx.ConnectError("The connection was lost while TLS began")
    connection.connection_made(inner)
    return connection


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel and reads its answer (RFC 9110, 9.3.6)."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reply = b""
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, origin: Origin, proxy: ProxyAddress) -> None:
        """Raises httpx.ProxyError when it is refused."""
        assert self._transport is not None  # noqa: S101 create_connection returned
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}".encode()
        lines = [b"CONNECT " + target + b" HTTP/1.1", b"Host: " + target]
        if proxy.authorization:
            lines.append(b"Proxy-Authorization: " + proxy.authorization)
        self._transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        await self._done
        status = self._reply.split(b" ", 2)[1:2]
        if not status or not status[0].startswith(b"2"):
            raise httpx.ProxyError("The egress proxy refuses")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if self._done.done():
            return
        if b"\r\n\r\n" in self._reply:
            self._done.set_result(None)
        elif len(self._reply) > _MAX_REPLY_BYTES:
            self._done.set_exception(httpx.ProxyError("The egress proxy speaks no HTTP"))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(httpx.ProxyError("The egress proxy hung up"))
