"""Chats bound to their account, their messages, and the lock of a running generation (sections 4, 15.2, 15.4)."""

from __future__ import annotations

import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulator.connection import Exchange, Response, json_response
from tests.simulator.failures import refuse

if TYPE_CHECKING:
    from tests.simulator.state import State

CHAT_TYPES = {
    "t2t",
    "search",
    "t2i",
    "t2v",
    "i2v",
    "image_edit",
    "artifacts",
    "web_dev",
    "deep_research",
}
PAGE = 50
KEPT_TEMPORARY = 5000


class Chat(msgspec.Struct):
    """One chat. `locked_until` is a monotonic moment; a running generation locks it for ever."""

    id: str
    email: str
    mode: str
    chat_type: str
    models: list[str]
    created_at: float
    messages: dict[str, dict[str, Any]] = {}
    locked_until: float = 0.0
    running: str | None = None  # the response id of the generation that is on its way
    stop_wanted: bool = False
    detail_reads: int = 0

    @property
    def temporary(self) -> bool:
        return self.mode == "local"

    @property
    def locked(self) -> bool:
        return self.running is not None or self.locked_until > time.monotonic()


class Chats:
    """Every chat by id."""

    def __init__(self) -> None:
        self._chats: dict[str, Chat] = {}
        self._temporary: deque[str] = deque()

    def new(self, email: str, *, mode: str, chat_type: str, models: list[str]) -> Chat:
        chat = Chat(str(uuid.uuid4()), email, mode, chat_type, models, time.time())
        self._chats[chat.id] = chat
        if chat.temporary:
            self._temporary.append(chat.id)
            self._forget()
        return chat

    def _forget(self) -> None:
        """Let the oldest temporary chat go when there are too many, so that a long run needs no more memory."""
        if len(self._temporary) <= KEPT_TEMPORARY:
            return
        oldest = self._temporary.popleft()
        chat = self._chats.get(oldest)
        if chat is not None and chat.running is not None:
            self._temporary.append(oldest)
        else:
            self._chats.pop(oldest, None)

    def of(self, email: str, chat_id: str) -> Chat | None:
        """The chat when it exists and belongs to `email`."""
        chat = self._chats.get(chat_id)
        return chat if chat is not None and chat.email == email else None

    def owner(self, chat_id: str) -> str:
        chat = self._chats.get(chat_id)
        return chat.email if chat else ""

    def delete(self, email: str, chat_id: str) -> bool:
        if self.of(email, chat_id) is None:
            return False
        chat = self._chats.pop(chat_id)
        chat.stop_wanted = True
        return True

    def all_of(self, email: str) -> list[Chat]:
        return [chat for chat in self._chats.values() if chat.email == email]

    def unlock(self) -> None:
        for chat in self._chats.values():
            chat.locked_until = 0.0

    def counts(self) -> dict[str, dict[str, int]]:
        """`{email: {"kept": n, "temporary": n}}` of the chats that exist now."""
        out: dict[str, dict[str, int]] = {}
        for chat in self._chats.values():
            row = out.setdefault(chat.email, {"kept": 0, "temporary": 0})
            row["temporary" if chat.temporary else "kept"] += 1
        return out


def is_milliseconds(value: object) -> bool:
    return type(value) is int and 10**12 <= value < 10**14


def is_seconds(value: object) -> bool:
    return type(value) is int and 10**9 <= value < 10**11


# -- endpoints


def chats_new(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/chats/new`: `{"success": true, "data": {"id"}}`; `timestamp` in milliseconds (4)."""
    body = exchange.request.json()
    if state.config.check_timestamps and not is_milliseconds(body.get("timestamp")):
        return refuse("Bad_Request", details="timestamp must be in milliseconds")
    if not isinstance(body.get("title"), str):
        return refuse("Bad_Request", details="title is missing")
    models = body.get("models")
    if not isinstance(models, list) or not models:
        return refuse("Bad_Request", details="models is missing")
    mode = body.get("chat_mode")
    if mode not in ("normal", "local"):
        return refuse("Bad_Request", details="chat_mode must be normal or local")
    kind = body.get("chat_type")
    if kind not in CHAT_TYPES:
        return refuse("Bad_Request", details="chat_type is unknown")
    chat = state.chats.new(exchange.email, mode=mode, chat_type=kind, models=models)
    return json_response(
        {"success": True, "request_id": str(uuid.uuid4()), "data": {"id": chat.id}}
    )


def chats_list(state: State, exchange: Exchange) -> Response:
    """`GET /api/v2/chats/?page=N`: the account's chats, newest first, temporary ones not among them (15.2)."""
    asked = exchange.request.query.get("page", "")
    page = max(1, int(asked)) if asked.isdigit() else 1
    kept = [chat for chat in reversed(state.chats.all_of(exchange.email)) if not chat.temporary]
    rows = [
        {
            "id": chat.id,
            "title": "New Chat",
            "chat_type": chat.chat_type,
            "created_at": int(chat.created_at),
        }
        for chat in kept[(page - 1) * PAGE : page * PAGE]
    ]
    return json_response({"success": True, "data": rows})


def chat_detail(state: State, exchange: Exchange) -> Response:
    """`GET /api/v2/chats/{id}`: `data.chat.history.messages` by id, `data.chat.messages` in order (4).

    What a media answer left out of its stream appears here after `detail_polls` looks (8.1, 8.2).
    """
    chat = state.chats.of(exchange.email, exchange.params[0])
    if chat is None:
        return refuse("CHAT_NOT_FOUND")
    chat.detail_reads += 1
    late = chat.detail_reads <= state.config.detail_polls
    messages = [_shown(message, late) for message in chat.messages.values()]
    detail = {
        "id": chat.id,
        "title": "New Chat",
        "chat": {
            "history": {"messages": {message["id"]: message for message in messages}},
            "messages": messages,
            "models": chat.models,
        },
    }
    return json_response({"success": True, "request_id": str(uuid.uuid4()), "data": detail})


def _shown(message: dict[str, Any], late: bool) -> dict[str, Any]:
    shown = dict(message)
    hidden = shown.pop("_late", None)
    if hidden and not late:
        shown |= hidden
    return shown


def chat_delete(state: State, exchange: Exchange) -> Response:
    """`DELETE /api/v2/chats/{id}` (4)."""
    if not state.chats.delete(exchange.email, exchange.params[0]):
        return refuse("CHAT_NOT_FOUND")
    return json_response(
        {"success": True, "request_id": str(uuid.uuid4()), "data": {"status": True}}
    )


def chats_delete_all(state: State, exchange: Exchange) -> Response:
    """`DELETE /api/v2/chats/`: all of the account's (15.2)."""
    for chat in state.chats.all_of(exchange.email):
        state.chats.delete(exchange.email, chat.id)
    return json_response({"success": True, "data": {"status": True}})


def chats_batch_delete(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/chats/batch_delete {ids}` (15.2)."""
    ids = exchange.request.json().get("ids")
    if not isinstance(ids, list):
        return refuse("Bad_Request", details="ids is missing")
    deleted = [chat_id for chat_id in ids if state.chats.delete(exchange.email, str(chat_id))]
    return json_response({"success": True, "data": {"deleted": len(deleted)}})


def stop(state: State, exchange: Exchange) -> Response:
    """`POST /api/v2/chat/completions/stop?chat_id=` `{chat_id, response_id}`: ends and unlocks (15.2)."""
    body = exchange.request.json()
    chat_id = str(body.get("chat_id", ""))
    state.stats.stops.append(
        {
            "at": time.time(),
            "email": exchange.email,
            "chat_id": chat_id,
            "response_id": body.get("response_id"),
        }
    )
    chat = state.chats.of(exchange.email, chat_id)
    if chat is None or exchange.request.query.get("chat_id") != chat_id:
        return refuse("CHAT_NOT_FOUND")
    if chat.running is not None and body.get("response_id") not in (None, chat.running):
        return refuse("Not_Found", details="The response is not exist.")
    if chat.running is not None:
        chat.stop_wanted = True
    chat.locked_until = 0.0
    return json_response(
        {"success": True, "request_id": str(uuid.uuid4()), "data": {"status": True}}
    )
