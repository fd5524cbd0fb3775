"""What the client speaks to: a gateway, or the simulator itself; one turn looks the same for both.

A turn against a gateway is one `POST /v1/chat/completions`. Straight to the simulator it is what a
gateway must do for it: `chats/new`, then the completion in that chat, one after the other over
kept-alive connections with an account's token, and no more. Both ask with the same prompt.
"""

import hashlib
import re
import time
from itertools import pairwise
from typing import Literal, Protocol
from uuid import uuid4

import msgspec

from tests.bench.client import Answer, Client

Kind = Literal["plain", "streamed"]

PROMPT = "Say what the quick brown fox does, and to whom, in as many words as it takes."
MODEL = "qwen3.6-plus"

_TEXT = re.compile(rb'"content": ?"(?!")')
_STAMP = re.compile(rb"(\d{19}) ")


class Turn(msgspec.Struct):
    """One turn as the client saw it; moments are `time.monotonic()` seconds.

    Attributes:
        frames: server-sent events of the answer, 0 when it was no stream.
        gap_seconds: the longest pause between two frames, 0 without.
        lateness: seconds from the moment the simulator sent a frame to the moment the client had
            read it; only of stamped frames.
        error: what was wrong with the answer; empty when nothing was.
    """

    started_at: float
    ended_at: float
    first_token_at: float | None
    frames: int
    gap_seconds: float
    lateness: list[float]
    error: str

    @property
    def seconds(self) -> float:
        return self.ended_at - self.started_at


class Target(Protocol):
    """Something that answers turns."""

    name: str
    client: Client

    async def turn(self, kind: Kind) -> Turn: ...

    async def text(self, kind: Kind) -> str:
        """The whole text of one answer, decoded in full: the check that answers are right."""
        ...


class OpenAI:
    """A gateway that speaks OpenAI chat completions."""

    def __init__(self, name: str, url: str, *, key: str, model: str = MODEL) -> None:
        self.name = name
        self.client = Client(url)
        self._headers = {"authorization": f"Bearer {key}", "accept": "*/*"}
        self._requests: dict[Kind, bytes] = {
            "plain": self._request(model, stream=False),
            "streamed": self._request(model, stream=True),
        }

    def _request(self, model: str, *, stream: bool) -> bytes:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": PROMPT}]}
        return self.client.request(
            "POST",
            "/v1/chat/completions",
            headers=self._headers,
            body=msgspec.json.encode(body),
        )

    async def turn(self, kind: Kind) -> Turn:
        answer = await self.client.ask(self._requests[kind])
        return read_turn(answer, error=_fault_of(answer, kind))

    async def text(self, kind: Kind) -> str:
        answer = await self.client.ask(self._requests[kind])
        if fault := _fault_of(answer, kind):
            raise RuntimeError(f"{self.name}, {kind}: {fault}")
        if kind == "plain":
            message = msgspec.json.decode(answer.body)["choices"][0]["message"]
            return str(message["content"])
        return "".join(
            choice["delta"].get("content") or ""
            for frame in answer.frames
            if frame != b"data: [DONE]"
            for choice in msgspec.json.decode(frame.removeprefix(b"data:"))["choices"]
        )


class Direct:
    """The simulator without anything between: the floor."""

    name = "direct"

    def __init__(self, url: str) -> None:
        self.client = Client(url)
        self._headers: dict[str, str] = {}
        self._new_chat = b""

    async def sign_in(self, email: str, password: str) -> None:
        """Hold a token, as a gateway does before its turns begin."""
        digest = hashlib.sha256(password.encode()).hexdigest()
        body = msgspec.json.encode({"email": email, "password": digest})
        request = self.client.request("POST", "/api/v1/auths/signin", body=body)
        answer = await self.client.ask(request)
        token = msgspec.json.decode(answer.body)["token"]
        self._headers = {
            "authorization": f"Bearer {token}",
            "cookie": f"token={token}",
            "version": "0.2.63",
            "source": "web",
            "accept": "*/*",
        }
        chat = {
            "title": "New Chat",
            "models": [MODEL],
            "chat_mode": "local",
            "chat_type": "t2t",
            "timestamp": int(time.time() * 1000),
        }
        self._new_chat = self.client.request(
            "POST", "/api/v2/chats/new", headers=self._headers, body=msgspec.json.encode(chat)
        )

    async def turn(self, kind: Kind) -> Turn:
        started_at, answer = await self._ask()
        turn = read_turn(answer, error=_upstream_fault_of(answer))
        turn.started_at = started_at
        return turn

    async def text(self, kind: Kind) -> str:
        _, answer = await self._ask()
        if fault := _upstream_fault_of(answer):
            raise RuntimeError(f"{self.name}: {fault}")
        frames = [msgspec.json.decode(frame.removeprefix(b"data:")) for frame in answer.frames]
        choices = [choice for frame in frames for choice in frame.get("choices", [])]
        return "".join(choice["delta"]["content"] for choice in choices)

    async def _ask(self) -> tuple[float, Answer]:
        opened = await self.client.ask(self._new_chat)
        if opened.error or opened.status != 200:
            return opened.sent_at, opened
        chat_id = msgspec.json.decode(opened.body)["data"]["id"]
        body = msgspec.json.encode(_completion(chat_id))
        request = self.client.request(
            "POST",
            f"/api/v2/chat/completions?chat_id={chat_id}",
            headers=self._headers,
            body=body,
        )
        return opened.sent_at, await self.client.ask(request)


def read_turn(answer: Answer, *, error: str) -> Turn:
    """What the rig keeps of an answer."""
    times = answer.frame_times
    first = next(
        (at for frame, at in zip(answer.frames, times, strict=True) if _TEXT.search(frame)), None
    )
    gap = max((after - before for before, after in pairwise(times)), default=0.0)
    return Turn(
        started_at=answer.sent_at,
        ended_at=answer.ended_at,
        first_token_at=first,
        frames=len(times),
        gap_seconds=gap,
        lateness=[
            at - int(stamp) / 1e9
            for frame, at in zip(answer.frames, times, strict=True)
            for stamp in _STAMP.findall(frame)
        ],
        error=error,
    )


def _fault_of(answer: Answer, kind: Kind) -> str:
    """Why the answer of a gateway is not a whole one; empty when it is."""
    if fault := _common_fault_of(answer):
        return fault
    if kind == "streamed":
        if not answer.frames or answer.frames[-1] != b"data: [DONE]":
            return f"the stream ended without [DONE]: {answer.frames[-1:]!r}"
    elif b'"stop"' not in answer.body:
        return f"no finish_reason: {answer.body[:200]!r}"
    return ""


def _upstream_fault_of(answer: Answer) -> str:
    if fault := _common_fault_of(answer):
        return fault
    if not answer.frames or b'"finished"' not in answer.frames[-1]:
        return f"the stream was cut: {answer.frames[-1:]!r}"
    return ""


def _common_fault_of(answer: Answer) -> str:
    if answer.error:
        return answer.error
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:200]!r}"
    return ""


def _completion(chat_id: str) -> dict[str, object]:
    """The body of protocol sheet 5, as short as a gateway could send it."""
    now = int(time.time())
    message = {
        "fid": str(uuid4()),
        "parentId": None,
        "childrenIds": [],
        "role": "user",
        "content": PROMPT,
        "user_action": "chat",
        "files": [],
        "timestamp": now,
        "models": [MODEL],
        "chat_type": "t2t",
        "sub_chat_type": "t2t",
        "extra": {"meta": {"subChatType": "t2t"}},
        "feature_config": {"output_schema": "phase", "thinking_enabled": False},
    }
    return {
        "stream": True,
        "version": "2.1",
        "incremental_output": True,
        "chat_id": chat_id,
        "chat_mode": "local",
        "model": MODEL,
        "parent_id": None,
        "messages": [message],
        "timestamp": now,
    }
