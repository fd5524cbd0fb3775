"""Generated pictures and videos: their answers in every shape, the tasks of videos, and the files (section 8)."""

from __future__ import annotations

import secrets
import struct
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulator import frames
from tests.simulator.connection import Exchange, Response, json_response
from tests.simulator.failures import html_page, refuse
from tests.simulator.frames import Ids, Payload

if TYPE_CHECKING:
    from tests.simulator.script import Action
    from tests.simulator.state import State

RATIOS = {"1:1": (1024, 1024), "4:3": (1472, 1104), "3:4": (1104, 1472)}
RATIOS |= {"16:9": (1664, 928), "9:16": (928, 1664)}
FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>key is missing or wrong</Message></Error>"


class Task(msgspec.Struct):
    """One video on its way. It says `running` `polls` times, then `final`."""

    id: str
    email: str
    url: str
    polls: int
    final: str
    asked: int = 0


class MediaStore:
    """Tasks by id, and generated files by path with the key that opens them."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self._keys: dict[str, str] = {}

    def publish(self, base: str, owner: str, kind: str, name: str) -> str:
        """A new file's address, `?key=` included."""
        path = f"/media/{owner}/{kind}/{uuid.uuid4()}/{name}"
        self._keys[path] = key = secrets.token_urlsafe(24)
        return f"{base}{path}?key={key}"

    def opens(self, path: str, key: str) -> bool:
        return bool(key) and self._keys.get(path) == key

    def new_task(self, email: str, url: str, *, polls: int, final: str) -> Task:
        task = Task(f"t-{uuid.uuid4()}", email, url, polls, final)
        self.tasks[task.id] = task
        return task


def png(width: int = 32, height: int = 18, *, seed: int = 0) -> bytes:
    """A small valid picture of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    colour = bytes([80 + seed % 160, 60 + seed // 7 % 160, 200 - seed // 49 % 160])
    rows = b"".join(b"\x00" + colour * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def mp4() -> bytes:
    """The first boxes of a video: enough for a type check, not for a player."""
    brand = b"ftypisom\x00\x00\x02\x00isomiso2mp41"
    boxes = [brand, b"free", b"mdat" + b"simulated video " * 16]
    return b"".join(struct.pack(">I", len(box) + 4) + box for box in boxes)


# -- answers


def image_events(ids: Ids, urls: list[str], size: tuple[int, int]) -> list[Payload]:
    """The normal SSE answer: created, keep_alive, one content frame a picture, finished (8.1)."""
    shown = [frames.picture(ids, url, width=size[0], height=size[1]) for url in urls]
    end = frames.finished(ids, phase="image_gen")
    return [frames.created(ids, index=None), frames.keep_alive(ids), *shown, end]


def markdown_events(ids: Ids, urls: list[str], kind: str) -> list[Payload]:
    """The address in Markdown inside answer text (8.1)."""
    links = [f"[Download video]({url})" if kind == "video" else f"![image]({url})" for url in urls]
    return [frames.created(ids), *frames.answer(ids, ["Here it is:\n\n", *links])]


def silent_events(ids: Ids, phase: str) -> list[Payload]:
    """A finished answer that names no address; the chat detail has it (8.1)."""
    return [frames.created(ids, index=None), frames.finished(ids, phase=phase)]


def task_events(ids: Ids, task_id: str) -> list[Payload]:
    """A video's task id in SSE frames, which comes even when `stream` was false (8.2)."""
    extra = {"wanx": {"task_id": task_id}}
    shown = frames.delta(ids, "", phase="video_gen", extra=extra)
    return [frames.created(ids, index=None), shown, frames.finished(ids, phase="video_gen")]


def message_document(ids: Ids, content: str, extra: dict[str, Any] | None = None) -> Payload:
    """One JSON document with `data.messages[0]` (8.1, 8.2)."""
    message = {"role": "assistant", "content": content, "extra": extra or {}, "done": False}
    data = {"chat_id": ids.chat_id, "parent_id": ids.parent_id, "message_id": ids.response_id}
    return {
        "success": True,
        "request_id": str(uuid.uuid4()),
        "data": data | {"messages": [message]},
    }


def fields_document(url: str, kind: str) -> Payload:
    """One JSON document with the address in a field somewhere inside (8.1)."""
    name = "video_url" if kind == "video" else "resource_url"
    return {"success": True, "data": {"result": {"items": [{name: url}]}}}


# -- endpoints


def task_status(state: State, exchange: Exchange) -> Response:
    """`GET /api/v1/tasks/status/{id}`, and v2 with the same inside an envelope (8.2)."""
    wrapped = "/v2/" in exchange.request.path
    task = state.media.tasks.get(exchange.params[0])
    if task is None or task.email != exchange.email:
        return refuse("Not_Found") if wrapped else json_response({"detail": "Not Found"}, 404)
    task.asked += 1
    running = task.asked <= task.polls
    status = "running" if running else task.final
    answer = {
        "chat_type": "t2v",
        "task_status": status,
        "message": "" if status in ("running", "pending", "success") else "generation failed",
        "content": task.url if status == "success" else "",
        "remaining_time": str(20 * (task.polls - task.asked + 1)) if running else "0",
    }
    return json_response({"success": True, "data": answer} if wrapped else answer)


def media_file(state: State, exchange: Exchange) -> Response:
    """A generated file; without its `?key=` 403 (8.1)."""
    request = exchange.request
    path = request.path
    if not state.media.opens(path, request.query.get("key", "")):
        return Response(403, FORBIDDEN, "application/xml")
    if path.endswith(".mp4"):
        return Response(200, mp4(), "video/mp4")
    if path.endswith(".png"):
        return Response(200, png(seed=zlib.crc32(path.encode()) % 8000), "image/png")
    return html_page(404)


def size_of(body: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of the body's ratio; `None` for one the upstream does not know (8)."""
    return RATIOS.get(body.get("size") or "1:1")


def final_status(action: Action) -> str:
    return action.task_status or "success"
