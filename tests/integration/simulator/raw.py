"""A bare HTTP peer for the simulator's own tests: sockets and a hand-written reader, nothing of the gateway."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.simulator.server import Simulator

VERSION = "0.2.63"
NOW_SECONDS = int(time.time())


class Reply(msgspec.Struct):
    """A whole answer. `chunks` are the pieces of a chunked body; `complete` is false when it was cut."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: list[bytes] = []
    complete: bool = True

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """`data.code` of an error envelope."""
        assert self.json()["success"] is False
        return str(self.json()["data"]["code"])

    @property
    def frames(self) -> list[Any]:
        """The events of a plainly spelled stream."""
        return [msgspec.json.decode(event[6:]) for event in self.body.split(b"\n\n") if event]

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [frame["choices"][0]["delta"] for frame in self.frames if frame.get("choices")]

    def text(self, phase: str | None = "answer") -> str:
        return "".join(one["content"] for one in self.deltas if one.get("phase") == phase)


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        data = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            data = msgspec.json.encode(body)
        peer = self.writer.get_extra_info("peername")
        lines = {"host": f"{peer[0]}:{peer[1]}", "content-length": str(len(data))} | (headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        await self.writer.drain()

    async def head(self) -> Reply:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return Reply(int(first.split()[1]), {name.lower(): value for name, value in pairs})

    async def chunk(self) -> bytes:
        """The next chunk of the body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def reply(self) -> Reply:
        reply = await self.head()
        if reply.headers.get("transfer-encoding") == "chunked":
            await self._chunked(reply)
        else:
            reply.body = await self.reader.readexactly(int(reply.headers["content-length"]))
        return reply

    async def _chunked(self, reply: Reply) -> None:
        try:
            while data := await self.chunk():
                reply.chunks.append(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            reply.complete = False
        reply.body = b"".join(reply.chunks)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        await self.send(method, path, body, headers)
        return await self.reply()

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def connected(sim: Simulator) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port, limit=2**22)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


async def ask(
    sim: Simulator,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Reply:
    """One request on a connection of its own."""
    async with connected(sim) as peer:
        return await peer.ask(method, path, body, headers)


def sha256(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def credentials(number: int = 1) -> dict[str, str]:
    return {"email": f"demo{number}@example.com", "password": sha256(f"demo-password-{number}")}


async def sign_in(sim: Simulator, number: int = 1) -> dict[str, str]:
    """The headers of a signed-in browser for demo account `number`."""
    reply = await ask(sim, "POST", "/api/v1/auths/signin", credentials(number))
    token = reply.json()["token"]
    return {"authorization": f"Bearer {token}", "cookie": f"token={token}", "version": VERSION}


def chat_body(**changes: Any) -> dict[str, Any]:
    """The body of chats/new as section 4 shows it."""
    body = {
        "title": "New Chat",
        "models": ["qwen3.6-plus"],
        "chat_mode": "normal",
        "chat_type": "t2i",
        "timestamp": int(time.time() * 1000),
    }
    return body | changes


async def new_chat(sim: Simulator, headers: dict[str, str], **changes: Any) -> str:
    reply = await ask(sim, "POST", "/api/v2/chats/new", chat_body(**changes), headers)
    return str(reply.json()["data"]["id"])


def turn_body(chat_id: str, content: Any = "Hello", **changes: Any) -> dict[str, Any]:
    """The body of a text generation as section 5 shows it."""
    body = {
        "stream": True,
        "version": "2.1",
        "incremental_output": True,
        "chat_id": chat_id,
        "chat_mode": "normal",
        "model": "qwen3.6-plus",
        "parent_id": None,
        "messages": [message(content)],
        "timestamp": NOW_SECONDS,
    }
    return body | changes


def message(content: Any = "Hello", kind: str = "t2t", **features: Any) -> dict[str, Any]:
    return {
        "fid": "aaaaaaaa-0000-4000-8000-000000000001",
        "role": "user",
        "content": content,
        "files": [],
        "timestamp": NOW_SECONDS,
        "chat_type": kind,
        "sub_chat_type": kind,
        "feature_config": {"output_schema": "phase", "thinking_enabled": False} | features,
    }


def media_body(
    chat_id: str, kind: str, prompt: str = "a red fox", **changes: Any
) -> dict[str, Any]:
    """The leaner body of section 8."""
    body = {
        "stream": kind not in ("t2v", "i2v"),
        "version": "2.1",
        "incremental_output": True,
        "chat_id": chat_id,
        "model": "qwen3-omni-flash-2025-12-01",
        "size": "16:9",
        "messages": [
            {
                "role": "user",
                "content": prompt,
                "files": [],
                "chat_type": kind,
                "feature_config": {"output_schema": "phase"},
            }
        ],
    }
    return body | changes


def completions_path(chat_id: str) -> str:
    return f"/api/v2/chat/completions?chat_id={chat_id}"


async def turn(
    sim: Simulator,
    content: Any = "Hello",
    *,
    headers: dict[str, str] | None = None,
    chat_id: str | None = None,
    **changes: Any,
) -> Reply:
    """One text generation in a chat of its own, unless `chat_id` names one."""
    headers = headers or await sign_in(sim)
    chat_id = chat_id or await new_chat(sim, headers)
    return await ask(
        sim, "POST", completions_path(chat_id), turn_body(chat_id, content, **changes), headers
    )


async def media_turn(
    sim: Simulator, kind: str, prompt: str = "a red fox", **changes: Any
) -> tuple[Reply, str, dict[str, str]]:
    """One media generation: the answer, the chat, the headers."""
    headers = await sign_in(sim)
    chat_id = await new_chat(sim, headers)
    body = media_body(chat_id, kind, prompt, **changes)
    return await ask(sim, "POST", completions_path(chat_id), body, headers), chat_id, headers
