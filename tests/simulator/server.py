"""The simulator: a listening socket, the table of routes, and the way of a request through them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tests.simulator import accounts, chats, completions, control, device, media, portal, storage
from tests.simulator.canned import Canned
from tests.simulator.config import Config
from tests.simulator.connection import Connection, Exchange, Response, json_response
from tests.simulator.failures import answer_of, html_page, literal
from tests.simulator.models import DEFAULT_MODELS
from tests.simulator.player import FOR_EVER
from tests.simulator.script import Action, to_action
from tests.simulator.state import State
from tests.simulator.stats import Stats

log = logging.getLogger(__name__)

Access = Literal["open", "token", "cookie", "write"]
Handler = Callable[[State, Exchange], Response | None]


class Route(msgspec.Struct, frozen=True):
    """`access`: open · token (Bearer) · cookie (and the same cookie) · write (and the header `version`)."""

    operation: str
    access: Access
    handler: Handler


def list_models(state: State, exchange: Exchange) -> Response:
    """`GET /api/models`, and wrapped `GET /api/v2/models/`; with and without login (3)."""
    if state.config.models_need_login and state.accounts.by_token(exchange.request.bearer) is None:
        return accounts.unauthorized(state.config)
    listed = {"data": state.config.models}
    wrapped = "/v2/" in exchange.request.path
    return json_response({"success": True, "data": listed} if wrapped else listed)


EXACT: dict[tuple[str, str], Route] = {
    ("POST", "/api/v1/auths/signin"): Route("signin", "open", accounts.signin),
    ("POST", "/api/v2/auths/signin"): Route("signin", "open", accounts.signin),
    ("GET", "/api/v2/auths/refresh"): Route("refresh", "open", accounts.refresh),
    ("GET", "/api/v1/auths"): Route("profile", "open", accounts.profile),
    ("GET", "/api/models"): Route("models", "open", list_models),
    ("GET", "/api/v2/models"): Route("models", "open", list_models),
    ("POST", "/api/v2/chats/new"): Route("chats_new", "write", chats.chats_new),
    ("GET", "/api/v2/chats"): Route("chats_list", "token", chats.chats_list),
    ("DELETE", "/api/v2/chats"): Route("chats_delete_all", "write", chats.chats_delete_all),
    ("POST", "/api/v2/chats/batch_delete"): Route(
        "chats_batch_delete", "write", chats.chats_batch_delete
    ),
    ("POST", "/api/v2/chat/completions"): Route("completions", "write", completions.completions),
    ("POST", "/api/v2/chat/completions/stop"): Route("stop", "write", chats.stop),
    ("GET", "/api/v2/users/user/settings"): Route("settings", "token", accounts.settings),
    ("POST", "/api/v2/users/user/settings/update"): Route(
        "settings_update", "write", accounts.settings_update
    ),
    ("POST", "/api/v2/users/user/entitlement_quota"): Route("quota", "token", accounts.quota),
    ("POST", "/api/v1/files/getstsToken"): Route("sts_token", "open", storage.sts_token),
    ("POST", "/api/v2/files/parse"): Route("parse", "write", storage.parse),
    ("POST", "/api/v2/files/parse/status"): Route("parse_status", "token", storage.parse_status),
    ("POST", "/api/v1/oauth2/device/code"): Route("device_code", "open", device.device_code),
    ("POST", "/api/v2/oauth2/authorize"): Route(
        "device_authorize", "token", device.device_authorize
    ),
    ("POST", "/api/v1/oauth2/token"): Route("device_token", "open", device.device_token),
    ("GET", "/v1/models"): Route("portal_models", "open", portal.portal_models),
    ("POST", "/v1/chat/completions"): Route(
        "portal_completions", "open", portal.portal_completions
    ),
}

PATTERNS: list[tuple[str, re.Pattern[str], Route]] = [
    ("GET", re.compile(r"/api/v2/chats/([^/]+)"), Route("chat_detail", "token", chats.chat_detail)),
    (
        "DELETE",
        re.compile(r"/api/v2/chats/([^/]+)"),
        Route("chat_delete", "write", chats.chat_delete),
    ),
    (
        "GET",
        re.compile(r"/api/v1/tasks/status/([^/]+)"),
        Route("task_status", "token", media.task_status),
    ),
    (
        "GET",
        re.compile(r"/api/v2/task/status/([^/]+)"),
        Route("task_status", "token", media.task_status),
    ),
    ("GET", re.compile(r"(/media/.+)"), Route("media", "open", media.media_file)),
    ("PUT", re.compile(f"/{storage.BUCKET}/(.+)"), Route("upload", "open", storage.put_object)),
    ("GET", re.compile(f"/{storage.BUCKET}/(.+)"), Route("download", "open", storage.get_object)),
]

OPERATIONS = sorted(
    {route.operation for route in EXACT.values()} | {r.operation for _, _, r in PATTERNS}
)


class Simulator:
    """The upstream on a real port.

    async with Simulator(accounts=3) as sim:
        sim.next(operation="completions", fail="RateLimited", num=4)
        ... await something that talks to sim.url ...
        assert sim.stats.logins["demo1@example.com"] == 1
    """

    def __init__(
        self,
        *,
        accounts: int | list[tuple[str, str]] = 3,
        host: str = "127.0.0.1",
        port: int = 0,
        prefix: str = "",
        **config: Any,  # Any: fields of Config
    ) -> None:
        if isinstance(accounts, int):
            accounts = [demo_account(number) for number in range(1, accounts + 1)]
        self.state = State(msgspec.convert(config, Config), accounts)
        self._host, self._port = host, port
        self._prefix = prefix.rstrip("/")
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._canned = Canned(self.state)

    # -- life

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; the port of before is kept when a stopped simulator starts again."""
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            return Connection(self._accept, self._connections, self._report)

        self._server = await loop.create_server(connection, self._host, self._port, backlog=4096)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
            for connection in list(self._connections):
                connection.reset()
            await self._server.wait_closed()
            self._server = None
        await asyncio.sleep(0)

    # -- for tests

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}{self._prefix}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def stats(self) -> Stats:
        return self.state.stats

    @property
    def accounts(self) -> accounts.Accounts:
        return self.state.accounts

    @property
    def config(self) -> Config:
        return self.state.config

    @property
    def connections(self) -> int:
        return len(self._connections)

    def next(self, operation: str = "*", **fields: Any) -> Action:
        """Queue an action, as `POST /_sim/next` does."""
        action = to_action({"operation": operation} | fields)
        self.state.playbook.add(action)
        return action

    def script(self, name: str, *steps: dict[str, Any]) -> None:
        """Register a script of several turns, as `POST /_sim/scripts` does."""
        self.state.playbook.write(name, steps)

    def configure(self, **fields: Any) -> None:
        self.state.configure(fields)

    def chats(self, email: str | None = None) -> dict[str, Any]:
        counts = self.state.chats.counts()
        return counts.get(email, {"kept": 0, "temporary": 0}) if email else counts

    def reset(self) -> None:
        self.state.clear()

    # -- the way of a request

    def _accept(self, exchange: Exchange) -> None:
        try:
            self._admit(exchange)
        except (
            Exception
        ) as error:  # a fault of ours must show in the counts, not vanish in a parser's callback
            self._report(error, exchange)
            exchange.respond(Response(500, b"the simulator failed", "text/plain"))

    def _admit(self, exchange: Exchange) -> None:
        request = exchange.request
        if self._prefix and request.path.startswith(self._prefix + "/"):
            request.path = request.path[len(self._prefix) :]
            exchange.prefix = self._prefix
        if self.state.config.canned and self._canned.takes(exchange):
            return
        if request.path.startswith("/_sim"):
            exchange.respond(control.control(self.state, exchange))
            return
        route = self._route(exchange)
        if route is None:
            self.state.stats.count("unknown", "", request)
            exchange.respond(html_page(404))
            return
        exchange.operation = route.operation
        self._identify(exchange)
        exchange.log = self.state.stats.count(route.operation, exchange.email, request)
        exchange.action = self._take(exchange)
        if self.state.config.gzip:
            exchange.gzip = "gzip" in request.headers.get("accept-encoding", "")
        delay = self._delay(exchange)
        action: Action | None = exchange.action
        if delay or (action is not None and action.hang == "before"):
            exchange.spawn(self._later(exchange, route, delay))
        else:
            self._perform(exchange, route)

    def _route(self, exchange: Exchange) -> Route | None:
        method = exchange.request.method
        path = exchange.request.path
        if exchange.request.headers.get("host", "").startswith(f"{storage.BUCKET}."):
            path = f"/{storage.BUCKET}{path}"
        exact = EXACT.get((method, path)) or EXACT.get((method, path.rstrip("/")))
        if exact is not None:
            return exact
        for verb, pattern, route in PATTERNS:
            if verb == method and (found := pattern.fullmatch(path)):
                exchange.params = found.groups()
                return route
        return None

    def _identify(self, exchange: Exchange) -> None:
        """Whose request it is, as far as can be told before it is authorised."""
        request = exchange.request
        if exchange.operation == "signin":
            exchange.email = str(request.json().get("email", ""))
            return
        account = self.state.accounts.by_token(request.bearer)
        owner = account.email if account else self.state.devices.owner(request.bearer)
        exchange.email = owner

    def _take(self, exchange: Exchange) -> Action | None:
        playbook = self.state.playbook
        if not playbook.queue:
            return None
        kind = None
        if exchange.operation == "completions":
            messages = exchange.request.json().get("messages") or [{}]
            kind = messages[-1].get("chat_type") if isinstance(messages[-1], dict) else None
        body = exchange.request.body
        return playbook.take(exchange.operation, email=exchange.email, body=body, chat_type=kind)

    def _delay(self, exchange: Exchange) -> float:
        latency = self.state.config.latency_ms
        delay = latency.get(exchange.operation, latency.get("*", 0.0)) if latency else 0.0
        action: Action | None = exchange.action
        return delay + (action.latency_ms if action else 0)

    async def _later(self, exchange: Exchange, route: Route, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1000)
        action: Action | None = exchange.action
        if action is not None and action.hang == "before" and route.operation != "completions":
            await asyncio.sleep(FOR_EVER)
        self._perform(exchange, route)

    def _perform(self, exchange: Exchange, route: Route) -> None:
        action: Action | None = exchange.action
        scripted = action is not None and route.operation not in STREAMING
        if scripted and action is not None and self._scripted(exchange, action):
            return
        if route.access != "open":
            found = accounts.authorize(self.state, exchange.request, route.access)
            if isinstance(found, Response):
                exchange.respond(found)
                return
        response = route.handler(self.state, exchange)
        if response is not None:
            if action is not None and action.set is not None:
                response = _altered(response, action.set)
            exchange.respond(response)

    def _scripted(self, exchange: Exchange, action: Action) -> bool:
        """Answer by script alone; false when the route's own answer is wanted."""
        if action.reset == "before":
            exchange.reset()
        elif action.hang == "after":
            exchange.start(200, "application/json")
        elif action.empty:
            exchange.respond(Response(action.status or 200, b""))
        elif action.fail is not None:
            exchange.respond(FAILURE_FORMS.get(exchange.operation, answer_of)(action))
        elif action.body is not None or action.status is not None:
            exchange.respond(literal(action))
        else:
            return False
        return True

    def _report(self, error: BaseException, exchange: Exchange) -> None:
        self.state.stats.errors.append(f"{exchange.operation}: {type(error).__name__}: {error}")
        log.error("request failed", exc_info=error, extra={"operation": exchange.operation})


STREAMING = ("completions", "portal_completions")
FAILURE_FORMS: dict[str, Callable[[Action], Response]] = {
    "upload": storage.failure,
    "download": storage.failure,
    "device_code": device.failure,
    "device_token": device.failure,
    "portal_models": portal.failure,
}


def demo_account(number: int) -> tuple[str, str]:
    return f"demo{number}@example.com", f"demo-password-{number}"


def _altered(response: Response, members: dict[str, Any]) -> Response:
    """The JSON answer with members replaced; null removes one."""
    payload = msgspec.json.decode(response.body)
    for name, value in members.items():
        if value is None:
            payload.pop(name, None)
        else:
            payload[name] = value
    return msgspec.structs.replace(response, body=msgspec.json.encode(payload))


__all__ = ["DEFAULT_MODELS", "OPERATIONS", "Simulator", "demo_account"]
