"""A client of the chat route that keeps what came and when; it can leave at any moment.

heard = await ask(stack.url, stack.key, "hello [[sim: frames=3]]")
async with calling(stack.url, stack.key, "hello [[sim: stall_after=2]]") as call:
    await call.until(lambda: call.text == "one ")
                                                   # leaving the block closes the connection
"""

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import httpx
import msgspec

# A model that doesn't think, so that an answer is its text.
MODEL: Final = "qwen3-max-2026-01-23"
KEEPALIVE: Final = b": keepalive\n\n"
# Longer than any test waits: what hangs is found by the promise's bound, never by this.
_TIMEOUT: Final = httpx.Timeout(60)
# Made once: every client would read the machine's certificates again.
_TLS: Final = ssl.create_default_context()


class Call:
    """One request: its status, its pieces with the moment each came (`time.monotonic()`)."""

    def __init__(self) -> None:
        self.began_at = time.monotonic()
        self.status = 0
        self.headers = httpx.Headers()
        self.headers_at: float | None = None
        self.pieces: list[tuple[float, bytes]] = []
        self.ended_at: float | None = None
        self.broke: Exception | None = None  # the connection ended before the answer did
        self._news = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    @property
    def frames(self) -> list[bytes]:
        """The complete frames that came; comments included."""
        return [frame + b"\n\n" for frame in self.body.split(b"\n\n")[:-1]]

    @property
    def comments(self) -> list[bytes]:
        return [frame for frame in self.frames if frame.startswith(b":")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The JSON of every `data:` frame but `[DONE]`."""
        texts = [f[6:-2] for f in self.frames if f.startswith(b"data: ") and f.endswith(b"}\n\n")]
        return [msgspec.json.decode(text) for text in texts]

    @property
    def json(self) -> Any:  # Any: JSON
        return msgspec.json.decode(self.body)

    @property
    def text(self) -> str:
        """What the assistant has said so far, in either kind of answer."""
        if not self.is_stream:
            whole = self.status == 200 and self.ended_at is not None
            return str(self.json["choices"][0]["message"]["content"]) if whole else ""
        return "".join(
            choice["delta"].get("content") or ""
            for chunk in self.chunks
            for choice in chunk.get("choices", [])
        )

    @property
    def error(self) -> dict[str, Any] | None:
        """The error object, by status or in band."""
        documents = self.chunks if self.is_stream else [self.json]
        return next((one["error"] for one in documents if "error" in one), None)

    @property
    def code(self) -> str | None:
        return None if self.error is None else str(self.error["code"])

    @property
    def is_stream(self) -> bool:
        return bool(self.headers.get("content-type", "").startswith("text/event-stream"))

    @property
    def seconds(self) -> float:
        assert self.ended_at is not None
        return self.ended_at - self.began_at

    @property
    def whole(self) -> bool:
        """A success from its first to its last byte."""
        if self.status != 200 or self.broke is not None or self.ended_at is None:
            return False
        if not self.is_stream:
            return self.error is None
        ends = [c["finish_reason"] for k in self.chunks for c in k.get("choices", [])]
        return self.error is None and self.frames[-1] == b"data: [DONE]\n\n" and "stop" in ends

    @property
    def longest_gap(self) -> float:
        """The longest silence between its headers and its end, in seconds."""
        moments = [self.headers_at, *(at for at, _ in self.pieces), self.ended_at]
        known = [at for at in moments if at is not None]
        return max(later - sooner for sooner, later in itertools.pairwise(known))

    async def until(self, true: Callable[[], bool], *, within_seconds: float = 10) -> None:
        """Returns when it is true; looks whenever something came."""
        async with asyncio.timeout(within_seconds):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def end(self, *, within_seconds: float = 30) -> "Call":
        await self.until(lambda: self.ended_at is not None, within_seconds=within_seconds)
        return self

    def _tell(self) -> None:
        self._news.set()


@contextlib.asynccontextmanager
async def calling(
    url: str, key: str, prompt: str = "hello", *, stream: bool = True, **body: Any
) -> AsyncIterator[Call]:
    """A request under way; leaving the block closes its connection if it has not ended."""
    call = Call()
    request = asyncio.create_task(_run(call, url, key, prompt, stream, body))
    try:
        yield call
    finally:
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


async def ask(
    url: str, key: str, prompt: str = "hello", *, stream: bool = True, **body: Any
) -> Call:
    """A whole request, to whatever end."""
    call = Call()
    await _run(call, url, key, prompt, stream, body)
    return call


async def soon(
    true: Callable[[], Any], *, within_seconds: float, what: Callable[[], object] | None = None
) -> float:
    """Polls to the bound, which is a promise's; the seconds it took.

    Raises:
        AssertionError: not in time; with what `what` says then.
    """
    began = time.monotonic()
    while not await asyncio.to_thread(true):
        if time.monotonic() - began > within_seconds:
            raise AssertionError(f"not within {within_seconds} s: {what() if what else true}")
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def sample(url: str, name: str, **labels: str) -> float:
    """One sample of `/metrics`, without the prefix; 0 when it isn't there."""
    page = httpx.get(f"{url}/metrics", timeout=5).text
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    for line in page.splitlines():
        head, _, value = line.rpartition(" ")
        found, _, rest = head.partition("{")
        if found == f"qwen_gateway_{name}" and wanted <= set(rest.rstrip("}").split(",")):
            return float(value)
    return 0.0


def leases(url: str) -> int:
    """How many leases the whole pool has lent."""
    return int(sample(url, "leases_in_flight"))


async def _run(
    call: Call, url: str, key: str, prompt: str, stream: bool, body: dict[str, Any]
) -> None:
    # A client of its own: its connection is this request's alone, and opening one costs little.
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, verify=_TLS) as client:
        message = {"role": "user", "content": prompt}
        document = {"model": MODEL, "messages": [message], "stream": stream, **body}
        headers = {"authorization": f"Bearer {key}", "connection": "close"}
        to = f"{url}/v1/chat/completions"
        try:
            async with client.stream("POST", to, json=document, headers=headers) as answer:
                call.status, call.headers = answer.status_code, answer.headers
                call.headers_at = time.monotonic()
                call._tell()
                async for piece in answer.aiter_raw():
                    call.pieces.append((time.monotonic(), piece))
                    call._tell()
        except httpx.TransportError as error:
            call.broke = error
        finally:
            call.ended_at = time.monotonic()
            call._tell()
