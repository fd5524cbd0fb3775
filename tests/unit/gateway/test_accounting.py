"""When a request is written into the ledger: before the last byte of its answer, and once."""

import asyncio
from typing import Any

import pytest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from gateway.accounting import GENERATING, Accounting
from gateway.middleware import RequestFrame
from gateway.routes import ROUTES
from shared.errors import NoAccount
from shared.store.ledger import Entry
from shared.turns.run import Tried

pytestmark = pytest.mark.anyio


class Pen:
    """Notes what happens in which order."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.entries: list[Entry] = []

    async def write(self, entry: Entry) -> None:
        await asyncio.sleep(0)
        self._written(entry)

    def note(self, entry: Entry) -> None:
        asyncio.get_running_loop().call_soon(self._written, entry)

    def _written(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.story.append("written")


class Turn:
    """What the accounting asks a turn."""

    def __init__(self, *tried: Tried) -> None:
        self.tried = list(tried)
        self.usage = None
        self.error = None
        self.account = tried[-1].account if tried else None
        self.attempts = len(tried)
        self.first_event_at = None
        self.settles = asyncio.Event()

    class variant:
        model_id = "qwen3-max"

    async def settled(self) -> None:
        await self.settles.wait()


class Resources:
    def __init__(self, pen: Pen) -> None:
        self.accounting = Accounting(pen)  # type: ignore[arg-type]  # has the ledger's two verbs


class App:
    class state:
        resources: Any


class ChatRoute:
    path = "/v1/chat/completions"


async def ask(pen: Pen, answer: Any, *, method: str = "POST", path: str = ChatRoute.path) -> None:
    """One request through the frame; `answer(scope, send)` is what the product would do."""
    app = App()
    app.state.resources = Resources(pen)

    async def product(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(app=app, route=ChatRoute())
        await answer(scope, send)

    async def send(message: Message) -> None:
        pen.story.append("last byte" if not message.get("more_body", True) else "bytes")

    async def receive() -> Message:
        raise AssertionError("nobody asks")

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    await RequestFrame(product)(scope, receive, send)
    await app.state.resources.accounting.close()
    await asyncio.sleep(0)  # what was noted is written


def start(status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [], "more_body": True}


def body(*, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": b"x", "more_body": more}


async def test_a_request_is_written_before_the_last_byte_of_its_answer_and_once() -> None:
    pen = Pen()

    async def answer(scope: Scope, send: Send) -> None:
        for message in (start(), body(more=True), body()):
            await send(message)

    await ask(pen, answer)
    assert pen.story == ["bytes", "bytes", "written", "last byte"]


async def test_who_left_is_written_when_the_turn_has_settled() -> None:
    pen, turn = Pen(), Turn(Tried("a@example.org"))

    async def answer(scope: Scope, send: Send) -> None:
        scope["turn"] = turn
        await send(start())
        asyncio.get_running_loop().call_later(0.02, turn.settles.set)
        pen.story.append("left")

    await ask(pen, answer)
    assert pen.story == ["bytes", "left", "written"]
    assert turn.settles.is_set()
    assert (pen.entries[0].record.status, pen.entries[0].record.error) == (499, None)


@pytest.mark.parametrize(("path", "written"), [(ChatRoute.path, True), ("/admin/", False)])
async def test_who_left_while_its_request_was_read_is_written_if_it_is_a_caller(
    path: str, written: bool
) -> None:
    pen = Pen()

    async def answer(scope: Scope, send: Send) -> None:
        scope["route"] = None if not written else scope["route"]

    await ask(pen, answer, path=path)
    assert [entry.record.status for entry in pen.entries] == [499] * written


async def test_what_a_drain_broke_off_is_written_when_it_has_settled_with_its_error() -> None:
    pen, turn = Pen(), Turn(Tried("a@example.org"))

    async def answer(scope: Scope, send: Send) -> None:
        scope.update(turn=turn, failure=NoAccount())
        await send(start())
        await send(body())
        turn.settles.set()

    await ask(pen, answer)
    assert pen.story == ["bytes", "last byte", "written"]
    assert (pen.entries[0].record.status, pen.entries[0].record.error) == (200, "no_account")


@pytest.mark.parametrize(
    ("method", "path", "status", "written"),
    [
        ("GET", "/v1/responses/resp_1", 200, False),
        ("GET", "/v1/responses/resp_1", 404, True),
        ("GET", "/admin/", 404, False),
        ("GET", "/api/keys", 403, False),
    ],
)
async def test_of_other_requests_the_refused_ones_of_callers_are_written(
    method: str, path: str, status: int, written: bool
) -> None:
    pen = Pen()

    async def answer(scope: Scope, send: Send) -> None:
        await send(start(status))
        await send(body())

    await ask(pen, answer, method=method, path=path)
    assert bool(pen.entries) == written
    assert all(not entry.summed for entry in pen.entries)


def test_every_route_that_callers_post_to_is_generating_or_known_not_to_be() -> None:
    """Who adds a route decides whether it counts as a request."""
    free = {
        "/v1/messages/count_tokens",  # lends no account
        "/v1/responses/{id}/cancel",
    }
    posted = {
        route.path
        for route in ROUTES
        if isinstance(route, Route)
        and route.path.startswith(("/v1", "/cli"))
        and "POST" in (route.methods or ())
    }
    assert posted == GENERATING | free
