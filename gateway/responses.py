"""Answers that run a turn: they stream it or fold it, and end it the moment the client leaves.

A Starlette `StreamingResponse` never notices a client that left while it is parked in `send()`, and
then does not close what it iterates (design: trap 6.2). Here the turn runs inside the answer's own
task, a watcher reads `receive()` for the disconnect, and cancelling the task runs every `finally`.

When headers go out: with the first event, or with the first keep-alive comment after
`keepalive_seconds` of silence. Until then a failure has its status; afterwards it is told in band.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal

from starlette.types import Receive, Scope, Send

from gateway.dialects import Dialect, StreamWriter, Turn
from gateway.errors import error_response
from shared import metrics
from shared.chat.collect import Collector
from shared.chat.events import Event, TurnEnd, TurnFailed
from shared.errors import Draining, GatewayError
from shared.turns.run import ChatTurn

log = logging.getLogger(__name__)

# A keep-alive leaves a little early, so that the gap the client sees stays within the promise.
EARLY = 0.9


class OpenAnswers:
    """The answers of this process that still run; a drain that lasted too long ends them."""

    def __init__(self) -> None:
        self._answers: set[TurnAnswer] = set()

    def __len__(self) -> int:
        return len(self._answers)

    @contextmanager
    def track(self, answer: "TurnAnswer") -> Iterator[None]:
        self._answers.add(answer)
        metrics.STREAMS_OPEN.of().inc()
        try:
            yield
        finally:
            self._answers.discard(answer)
            metrics.STREAMS_OPEN.of().dec()

    def end_all(self) -> None:
        """Cancel every turn; its client is told why, in band or by status."""
        for answer in list(self._answers):
            answer.cancel("draining")


class TurnAnswer:
    """What both readings of a turn share: the client's leaving, the drain, the error answer.

    Args:
        info: what the dialect's writer needs to know of the turn.
        headers: of the answer, without those that are known only when it starts.
        keepalive_seconds: the longest silence of a stream towards the client.
    """

    def __init__(
        self,
        turn: ChatTurn,
        *,
        dialect: Dialect,
        info: Turn,
        headers: dict[str, str],
        open_answers: OpenAnswers,
        keepalive_seconds: float,
    ) -> None:
        self.turn = turn
        self._keepalive_seconds = keepalive_seconds
        self._dialect = dialect
        self._info = info
        self._headers = headers
        self._open_answers = open_answers
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_by: Literal["client", "draining"] | None = None
        self._ended = False
        self._scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        with self._open_answers.track(self):
            try:
                await self._until_cancelled(self._answer(send), receive)
            except GatewayError as error:
                await self._send_error(error, scope, receive, send)
        if self._cancelled_by == "client":
            scope["client_left"] = True
            metrics.CLIENT_DISCONNECTS.of().inc()

    def cancel(self, by: Literal["client", "draining"]) -> None:
        """End the turn, unless its last byte went out already: then only the tail of the upstream's
        stream is being read, so that its connection can be used again."""
        if self._task is not None and self._cancelled_by is None and not self._ended:
            self._cancelled_by = by
            self._task.cancel()

    async def _answer(self, send: Send) -> None:
        """Run the turn and send its answer; an error before the first byte is raised."""
        raise NotImplementedError

    async def _until_cancelled(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Run `work` inside this task; the client's leaving and the end of a drain cancel it."""
        self._task = asyncio.current_task()
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await work
        except asyncio.CancelledError:
            if self._cancelled_by is None:
                raise
        finally:
            if self._cancelled_by is not None:
                self._task.uncancel()  # type: ignore[union-attr]  # it is the current task
            self._task = None
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel("client")

    async def _send_error(
        self, error: GatewayError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        response = error_response(
            error,
            dialect=self._dialect,
            request_id=scope["request_id"],
            headers=self._late_headers(),
        )
        await response(scope, receive, send)

    def _late_headers(self) -> dict[str, str]:
        """`x-gateway-overhead-ms`: from arrival to headers, less the time spent waiting."""
        overhead = time.monotonic() - self._scope["arrived_at"] - self.turn.stopwatch.waited_seconds
        overhead = max(0.0, overhead)
        self._scope["overhead_seconds"] = overhead
        return self._headers | {"x-gateway-overhead-ms": f"{overhead * 1000:.1f}"}


class WholeAnswer(TurnAnswer):
    """The turn folded into one JSON document."""

    async def _answer(self, send: Send) -> None:
        collector = Collector()

        async def collect(events: list[Event]) -> None:
            for event in events:
                collector.feed(event)

        try:
            await self.turn.run(collect)
        except asyncio.CancelledError:
            if self._cancelled_by == "draining":
                raise Draining from None
            raise
        if collector.error is not None:
            raise collector.error
        body = self._dialect.write_reply(self._info, collector.reply)
        headers = self._late_headers() | {
            "content-type": "application/json",
            "content-length": str(len(body)),
        }
        await send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})
        await send({"type": "http.response.body", "body": body})


class StreamAnswer(TurnAnswer):
    """The turn as server-sent events; comments keep a silent stream alive."""

    def __init__(self, turn: ChatTurn, **shared: Any) -> None:
        super().__init__(turn, **shared)
        self._writer: StreamWriter = self._dialect.open_writer(self._info)
        self._lock = asyncio.Lock()  # a keep-alive and a frame never mix
        self._started = False
        self._last_sent_at = 0.0

    async def _answer(self, send: Send) -> None:
        async def emit(events: list[Event]) -> None:
            feed = self._writer.feed
            frames = b"".join([feed(event) for event in events])
            await self._send(frames, send, end=type(events[-1]) in (TurnEnd, TurnFailed))

        keepalive = asyncio.create_task(self._keep_alive(send))
        try:
            await self.turn.run(emit)
        except GatewayError as error:
            await self._tell(error, send)
        except asyncio.CancelledError:
            if self._cancelled_by != "draining":
                raise
            await self._tell(Draining(), send)
        finally:
            keepalive.cancel()

    async def _tell(self, error: GatewayError, send: Send) -> None:
        """Raise it while it can still have its status; afterwards say it in band."""
        if not self._started:
            raise error
        await self._send(self._writer.feed(TurnFailed(error)), send, end=True)

    async def _send(self, frames: bytes, send: Send, *, end: bool = False) -> None:
        if not frames and not end:
            return
        async with self._lock:
            if not self._started:
                self._started = True
                await send(self._start())
            self._ended = end
            await send({"type": "http.response.body", "body": frames, "more_body": not end})
            self._last_sent_at = time.monotonic()

    def _start(self) -> MutableMapping[str, Any]:
        headers = self._late_headers() | {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
        }
        return {"type": "http.response.start", "status": 200, "headers": _raw(headers)}

    async def _keep_alive(self, send: Send) -> None:
        """A comment whenever the stream was silent; also while queued or failing over."""
        await asyncio.sleep(self._keepalive_seconds)
        while True:
            silent_seconds = time.monotonic() - self._last_sent_at
            if silent_seconds >= EARLY * self._keepalive_seconds and not self._lock.locked():
                await self._send(self._dialect.KEEPALIVE, send)
                silent_seconds = 0
            await asyncio.sleep(max(0.01, EARLY * self._keepalive_seconds - silent_seconds))


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
