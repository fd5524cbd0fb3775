"""`Upstream`: every call a chat turn makes to the web upstream, as a method.

Statuses, headers and bodies stay in here: a call returns what it is for or raises from the error
tree (failures.py says which). Nothing here tries again or waits; deadlines of a stream belong to
its reader.

Source: protocol sheet 1–7, 12, 15.
"""

import asyncio
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx
import msgspec

from shared.errors import (
    ClientError,
    GatewayError,
    LoginFailed,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamSilent,
    UpstreamUnavailable,
)
from shared.settings import Settings
from shared.upstream import failures, login, wire
from shared.upstream.decoding import open_decoding
from shared.upstream.egress import Egresses, OpenTransport
from shared.upstream.failures import Operation
from shared.upstream.headers import SiteHeaders
from shared.upstream.stream import begins_like_sse
from shared.upstream.transport import KeepingTransport

CONNECT_SECONDS = 10.0
SIGN_IN_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""Longest wait for an answer that isn't a stream."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024

T = TypeVar("T")

Observe = Callable[[str, str, float], None]
"""(operation, outcome, seconds to the answer's head or to the failure); outcome `ok`, `cancelled`
or the error's class."""


class Session(msgspec.Struct, frozen=True):
    """What the upstream needs to know about an account. `proxy` and `cookies` may be empty."""

    email: str
    token: str
    proxy: str = ""
    cookies: str = ""

    def __repr__(self) -> str:
        """Tokens and proxy passwords end up in no log line."""
        return "Session(***)"

    def conceal(self, error: GatewayError, *, site_cookies: str = "") -> None:
        """Whatever secret of ours the upstream says back stands in its message no longer."""
        text = error.message
        secrets = {self.token, *_values_of(self.cookies), *_values_of(site_cookies)}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _SHORTEST_SECRET:
                text = _without(secret, text)
        error.args = (text, *error.args[1:])


class Upstream:
    """The web upstream. One per process; needs a running loop from its first call to `close`."""

    def __init__(
        self,
        settings: Settings,
        *,
        current: Callable[[], Settings] | None = None,
        observe: Observe | None = None,
        open_transport: OpenTransport | None = None,
    ) -> None:
        """`current`: the settings in force, whose headers and cookies may change meanwhile."""
        self._current = current or (lambda: settings)
        self._site = _Site(settings)
        self._observe = observe or (lambda operation, outcome, seconds: None)
        self._egresses = Egresses(
            open_transport or KeepingTransport, default_proxy=settings.proxy_url
        )

    async def close(self) -> None:
        await self._egresses.close()

    async def sign_in(
        self, email: str, password: str, *, proxy: str = "", cookies: str = ""
    ) -> login.AccessToken:
        """A new access token.

        Raises:
            AccountDead: wrong password, or the account isn't activated.
            LoginFailed: not now; `retry_after_seconds` when the upstream said so.
            UpstreamBlocked: the firewall refuses this egress.
        """
        session = Session(email, "", proxy, cookies)
        body = wire.sign_in_body(email, login.hash_password(password))
        try:
            async with asyncio.timeout(SIGN_IN_SECONDS):
                for target in login.SIGN_IN_TARGETS:
                    ask = self._ask("sign_in", "POST", target, session, body, _read_sign_in)
                    if (token := await ask) is not None:
                        return token
        except TimeoutError as error:
            raise LoginFailed("The upstream did not answer the login in time") from error
        except UpstreamUnavailable as error:
            raise LoginFailed(error.message) from error
        raise LoginFailed("The upstream gave no token")

    async def models(self, session: Session | None = None) -> list[wire.Model]:
        """The upstream's model list; works without a session (3)."""
        return await self._answer("models", "GET", "/api/models", session or _NOBODY, _read_models)

    async def open_chat(self, session: Session, *, model: str, chat_type: str) -> str:
        """The id of a new temporary chat: it never shows in the account's list (4, 15.2)."""
        body = wire.new_chat_body(
            model=model, chat_type=chat_type, now_ms=time.time_ns() // 1_000_000
        )
        return await self._answer(
            "open_chat", "POST", "/api/v2/chats/new", session, _read_chat_id, body
        )

    @asynccontextmanager
    async def stream_completion(
        self, session: Session, chat_id: str, body: bytes
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of the answer to `wire.completion_body(...)`, as they arrive.

        Entered once the first bytes are there and look like events. The iterator ends when the
        connection does, however that comes about: `UpstreamDecoder.close` knows whether the answer
        was whole. Leaving early closes the connection at once.

        Raises:
            UpstreamError, ClientError: the answer is none (7).
        """
        target = f"/api/v2/chat/completions?chat_id={urllib.parse.quote(chat_id, safe='')}"
        async with self._exchange("completion", "POST", target, session, body) as exchange:
            head = b""
            chunks = exchange.chunks()
            if exchange.status < 400:
                async for chunk in chunks:
                    head += chunk
                    if begins_like_sse(head) is not None:
                        break
                if begins_like_sse(head):
                    yield _chain(head, chunks)
                    return
            raise (await exchange.read(head, chunks)).failure()

    async def stop(self, session: Session, chat_id: str, response_id: str | None) -> None:
        """End a generation that nobody reads any more (15.2)."""
        target = f"/api/v2/chat/completions/stop?chat_id={urllib.parse.quote(chat_id, safe='')}"
        body = wire.stop_body(chat_id, response_id)
        await self._answer("stop", "POST", target, session, _read_yes, body)

    async def delete_chat(self, session: Session, chat_id: str) -> None:
        """Remove a chat from the account's history (4)."""
        target = f"/api/v2/chats/{urllib.parse.quote(chat_id, safe='')}"
        await self._answer("delete_chat", "DELETE", target, session, _read_yes)

    async def profile(self, session: Session) -> wire.Profile:
        """The account's record: a cheap check that its token is alive (15.1)."""
        return await self._answer("profile", "GET", "/api/v1/auths/", session, _read_profile)

    def conceal(self, error: GatewayError, session: Session) -> None:
        """As `Session.conceal`; for failures that a stream tells of, which its reader decodes."""
        session.conceal(error, site_cookies=self._current().site_cookies)

    # -- one exchange

    async def _answer(
        self,
        operation: Operation,
        method: str,
        target: str,
        session: Session,
        read: Callable[["_Answer"], T],
        body: bytes = b"",
    ) -> T:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._ask(operation, method, target, session, body, read)
        except TimeoutError as error:
            raise UpstreamSilent("The upstream did not answer in time") from error

    async def _ask(
        self,
        operation: Operation,
        method: str,
        target: str,
        session: Session,
        body: bytes,
        read: Callable[["_Answer"], T],
    ) -> T:
        """`read` makes of the answer what was asked for, or raises what it means instead."""
        async with self._exchange(operation, method, target, session, body) as exchange:
            return read(await exchange.read())

    @asynccontextmanager
    async def _exchange(
        self, operation: Operation, method: str, target: str, session: Session, body: bytes
    ) -> AsyncIterator["_Exchange"]:
        """Send a request; the exchange has its head. Leaving it closes what was not read."""
        request = self._request(operation, method, target, session, body)
        egress = self._egresses.take(session.proxy)
        began = time.perf_counter()
        outcome = "cancelled"
        response: httpx.Response | None = None
        try:
            response = await egress.transport.handle_async_request(request)
            exchange = _Exchange(operation, response)
            seconds = time.perf_counter() - began
            outcome = "ok"
            yield exchange
        except (UpstreamError, ClientError) as error:
            outcome = type(error).__name__
            self.conceal(error, session)
            raise
        except httpx.TransportError as error:
            outcome = "UpstreamUnavailable"
            raise _unreachable(error) from error
        finally:
            if response is None:
                seconds = time.perf_counter() - began
            else:
                await response.stream.aclose()  # type: ignore[union-attr]  # a transport's is async
            self._egresses.give_back(egress)
            self._observe(operation, outcome, seconds)

    def _request(
        self, operation: Operation, method: str, target: str, session: Session, body: bytes
    ) -> httpx.Request:
        current = self._current()
        site_headers = self._site.headers_by(current)
        build = site_headers.plain
        if operation == "completion":
            build = site_headers.stream
        elif operation in ("sign_in", "profile"):
            build = site_headers.few
        headers = build(token=session.token, cookies=session.cookies or current.site_cookies)
        if body:
            headers["content-length"] = str(len(body))
        extensions = {
            "target": self._site.prefix + target.encode(),
            "timeout": {"connect": CONNECT_SECONDS},
            # A request that reached nobody may be sent again; a generation must not run twice.
            "repeatable": operation != "completion",
        }
        return httpx.Request(
            method,
            self._site.url,
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions=extensions,
        )


_NOBODY = Session(email="", token="")

# Anything shorter may be a part of an ordinary word.
_SHORTEST_SECRET = 6


def _without(secret: str, text: str) -> str:
    """Also where the text ends in the middle of it: what the upstream says is shortened."""
    text = text.replace(secret, "…")
    for length in range(len(secret) - 1, _SHORTEST_SECRET - 1, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + "…"
    return text


def _values_of(cookies: str) -> list[str]:
    """Each cookie's value, and the whole string."""
    pairs = (pair.partition("=")[2].strip() for pair in cookies.split(";"))
    return [cookies, *pairs]


class _Site:
    """The base URL, taken apart once. `prefix` is its path without a trailing slash."""

    def __init__(self, settings: Settings) -> None:
        base_url = settings.qwen_chat_proxy_url.rstrip("/")
        self.url = httpx.URL(base_url)
        self.prefix = self.url.raw_path.rstrip(b"/")
        self._changed: str | None = None
        self._headers = self.headers_by(settings)

    def headers_by(self, settings: Settings) -> SiteHeaders:
        """The headers as these settings have them; put together once per change."""
        if settings.site_headers != self._changed:
            self._changed = settings.site_headers
            host = self.url.netloc.decode()
            self._headers = SiteHeaders(
                f"{self.url.scheme}://{host}", host=host, changed=settings.changed_site_headers
            )
        return self._headers


class _Answer(msgspec.Struct):
    """A whole answer that isn't a stream."""

    operation: Operation
    status: int
    headers: Mapping[str, str]
    body: bytes
    set_cookies: list[str]

    def failure(self) -> failures.AnyFailure:
        """The error this answer means, now that it isn't what was asked for."""
        return failures.classify(
            status=self.status, headers=self.headers, body=self.body, operation=self.operation
        )

    def decoded(self, decode: Callable[[bytes], T]) -> T | None:
        """The body's struct; None for an error status or another body."""
        if self.status >= 400:
            return None
        try:
            return decode(self.body)
        except wire.UNREADABLE:
            return None


class _Exchange:
    """One request's answer: its head, and its body as it arrives."""

    def __init__(self, operation: Operation, response: httpx.Response) -> None:
        self._operation = operation
        self._response = response
        self.headers = response.headers
        self.headers.encoding = "latin-1"  # told, not searched for
        self.status = failures.actual_status(response.status_code, response.headers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body unpacked. A connection that breaks after a first piece ends it."""
        decoding = open_decoding(self.headers.get("content-encoding", ""))
        began = False
        try:
            async for chunk in self._response.stream:  # type: ignore[union-attr]  # it is async
                if decoding is not None:
                    chunk = decoding.feed(chunk)
                if chunk:
                    began = True
                    yield chunk
        except httpx.TransportError as error:
            if not began:
                raise _unreachable(error) from error

    async def read(self, head: bytes = b"", chunks: AsyncIterator[bytes] | None = None) -> _Answer:
        """The whole body, `head` being what was read of it already."""
        pieces, size = [head], len(head)
        async for chunk in chunks or self.chunks():
            pieces.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise UpstreamProtocolError("The upstream's answer is too large")
        return _Answer(
            self._operation,
            self.status,
            self.headers,
            b"".join(pieces),
            self.headers.get_list("set-cookie"),
        )


async def _chain(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


def _read_models(answer: _Answer) -> list[wire.Model]:
    models = answer.decoded(wire.decode_models)
    if models is None:
        raise answer.failure()
    return models


def _read_chat_id(answer: _Answer) -> str:
    chat = answer.decoded(wire.decode_chat)
    if chat is None or chat.data is None or not chat.data.id:
        raise answer.failure()
    return chat.data.id


def _read_yes(answer: _Answer) -> None:
    """Nothing was asked for but `{"success": true, ...}`."""
    said = answer.decoded(wire.decode_yes)
    if said is None or said.success is not True:
        raise answer.failure()


def _read_profile(answer: _Answer) -> wire.Profile:
    profile = answer.decoded(wire.decode_profile)
    if profile is None or not profile.role:
        raise answer.failure()
    return profile


def _read_sign_in(answer: _Answer) -> login.AccessToken | None:
    """The token; None when the next sign-in address should be asked.

    Raises:
        LoginFailed, AccountDead, UpstreamBlocked: the answer is a refusal.
    """
    if answer.status < 400:
        token = login.read_sign_in(answer.body, answer.set_cookies)
        if token is not None:
            return token
    failure = answer.failure()
    if answer.status in (404, 405, 410) or isinstance(failure, UpstreamProtocolError):
        return None
    raise failure


def _unreachable(error: httpx.TransportError) -> UpstreamUnavailable:
    """Says what broke and never where: an address may hold a proxy's password."""
    return UpstreamUnavailable(_WORDS.get(type(error), "The connection to the upstream broke"))


_WORDS: dict[type[httpx.TransportError], str] = {
    httpx.ConnectTimeout: "The upstream can't be reached in time",
    httpx.ConnectError: "The upstream can't be reached",
    httpx.ProxyError: "The egress proxy refuses",
    httpx.RemoteProtocolError: "The upstream broke off or spoke no HTTP",
}
