"""Answers that run a turn: they stream it or fold it, and end it the moment the client leaves.

A Starlette `StreamingResponse` never notices a client that left while it is parked in `send()`, and
then does not close what it iterates (design: trap 6.2). Here the turn runs inside the answer's own
task, a watcher reads `receive()` for the disconnect, and cancelling the task runs every `finally`.

When headers go out: with the first event, or with the first keep-alive comment after
`keepalive_seconds` of silence. Until then a failure has its status; afterwards it is told in band.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from starlette.types import Message, Receive, Scope, Send

from gateway.dialects import Dialect, StreamWriter, Turn
from gateway.errors import retry_after
from gateway.idempotency import Once, repeated
from shared import metrics
from shared.chat.collect import Collector
from shared.chat.events import Event, TurnEnd, TurnFailed
from shared.errors import Draining, GatewayError
from shared.turns.run import Emit
from shared.turns.stopwatch import Stopwatch

# A keep-alive leaves early, so that the gap the client sees stays within the promise on a busy
# machine, too (with 0.9 and 1 s a gap of 1.0005 s was measured at three times the load).
EARLY = 0.8


class OpenAnswers:
    """The answers of this process that still run; a drain that lasted too long ends them."""

    def __init__(self) -> None:
        self._answers: set[TurnAnswer] = set()

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


class Run(Protocol):
    """Where an answer's events come from: a `ChatTurn`, or what was kept of one."""

    @property
    def stopwatch(self) -> Stopwatch: ...

    async def run(self, emit: Emit) -> None:
        """Emit events in batches; the terminal event is the last of the last batch."""
        ...


class Keep(Protocol):
    """Who wants to know what an answer says."""

    async def take(self, events: list[Event]) -> None:
        """The next events; those with the terminal one before the client has them all."""
        ...


class TurnAnswer:
    """What both readings of a turn share: the client's leaving, the drain, errors, repeats.

    Args:
        info: what the dialect's writer needs to know of the turn.
        headers: of the answer, without those that are known only when it starts.
        once: the request's Idempotency-Key, where it has one.
        keepalive_seconds: the longest silence of a stream towards the client.
    """

    def __init__(
        self,
        turn: Run,
        *,
        dialect: Dialect,
        info: Turn,
        headers: dict[str, str],
        open_answers: OpenAnswers,
        once: Once | None,
        keepalive_seconds: float,
        keep: Keep | None = None,
    ) -> None:
        self._turn = turn
        self._keep = keep
        self._dialect = dialect
        self._info = info
        self._headers = headers
        self._open_answers = open_answers
        self._once = once
        self._keepalive_seconds = keepalive_seconds
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_by: Literal["client", "draining"] | None = None
        self._started = False
        self._ended = False
        self._told_in_band: GatewayError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._send = send
        with self._open_answers.track(self):
            await self._until_cancelled(self._run(), receive)
        if self._cancelled_by == "client":
            scope["client_left"] = True
            metrics.CLIENT_DISCONNECTS.of().inc()

    def cancel(self, by: Literal["client", "draining"]) -> None:
        """End the turn, unless its last byte went out already: then only the tail of the upstream's
        stream is being read, so that its connection can be used again."""
        if self._task is not None and self._cancelled_by is None and not self._ended:
            self._cancelled_by = by
            self._task.cancel()

    async def _run(self) -> None:
        """Answer once; a repeat of an earlier request gets that one's answer."""
        if self._once is None:
            await self._answer()
            return
        try:
            earlier = await self._once.begin()
        except GatewayError as error:
            await self._tell(error)
            return
        if earlier is not None:
            for message in repeated(earlier, started=self._started):
                await self._transmit(message)
            return
        try:
            await self._answer()
        finally:
            await asyncio.shield(self._once.end(told_in_band=self._told_in_band))

    async def _answer(self) -> None:
        """Run the turn and answer it, whatever becomes of it."""
        try:
            await self._run_turn()
        except GatewayError as error:
            await self._tell(error)
        except asyncio.CancelledError:
            if self._cancelled_by != "draining":
                raise
            await self._tell(Draining())

    async def _run_turn(self) -> None:
        raise NotImplementedError

    async def _note(self, events: list[Event]) -> None:
        if self._keep is not None:
            await self._keep.take(events)

    async def _tell(self, error: GatewayError) -> None:
        """The error's status and body. Called while no byte went out."""
        self._scope["failure"] = error
        body = self._dialect.write_error(error, self._scope["request_id"])
        await self._transmit(
            self._start(error.status, "application/json", retry_after(error), len(body))
        )
        await self._transmit({"type": "http.response.body", "body": body})

    async def _transmit(self, message: Message) -> None:
        self._started = True
        self._ended = message["type"] == "http.response.body" and not message.get("more_body")
        if self._once is not None:
            self._once.note(message)
        await self._send(message)

    def _start(
        self, status: int, content_type: str, more: dict[str, str], length: int | None = None
    ) -> Message:
        headers = self._headers | more | {"content-type": content_type}
        if length is not None:
            headers["content-length"] = str(length)
        headers["x-gateway-overhead-ms"] = f"{self._overhead_seconds() * 1000:.1f}"
        raw = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        return {"type": "http.response.start", "status": status, "headers": raw}

    def _overhead_seconds(self) -> float:
        """From arrival to headers, less the time spent waiting for an account and the upstream."""
        since_arrival = time.monotonic() - self._scope["arrived_at"]
        overhead: float = max(0.0, since_arrival - self._turn.stopwatch.waited_seconds)
        self._scope["overhead_seconds"] = overhead
        return overhead

    async def _until_cancelled(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Run `work` inside this task; the client's leaving and the end of a drain cancel it."""
        self._task = task = asyncio.current_task()
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await work
        except asyncio.CancelledError:
            if self._cancelled_by is None:
                raise
        finally:
            if self._cancelled_by is not None and task is not None:
                task.uncancel()
            self._task = None
            watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel("client")


class WholeAnswer(TurnAnswer):
    """The turn folded into one JSON document."""

    async def _run_turn(self) -> None:
        collector = Collector()

        async def collect(events: list[Event]) -> None:
            if type(events[-1]) is not TurnFailed:
                await self._note(events)  # a failure has a status and no answer
            for event in events:
                collector.feed(event)
            if type(events[-1]) is TurnEnd:
                body = self._dialect.write_reply(self._info, collector.reply)
                await self._transmit(self._start(200, "application/json", {}, len(body)))
                await self._transmit({"type": "http.response.body", "body": body})

        await self._turn.run(collect)
        if collector.error is not None:
            raise collector.error


class WrittenAnswer(TurnAnswer):
    """One JSON document that `write` makes when it is this request's turn to be answered."""

    def __init__(self, turn: Run, *, write: Callable[[], Awaitable[bytes]], **shared: Any) -> None:
        super().__init__(turn, **shared)
        self._write = write

    async def _run_turn(self) -> None:
        body = await self._write()
        await self._transmit(self._start(200, "application/json", {}, len(body)))
        await self._transmit({"type": "http.response.body", "body": body})


class StreamAnswer(TurnAnswer):
    """The turn as server-sent events; comments keep a silent stream alive."""

    def __init__(self, turn: Run, **shared: Any) -> None:
        super().__init__(turn, **shared)
        self._writer: StreamWriter = self._dialect.open_writer(self._info)
        self._lock = asyncio.Lock()  # a keep-alive and a frame never mix
        self._last_sent_at = 0.0

    async def _run(self) -> None:
        keepalive = asyncio.create_task(self._keep_alive())
        try:
            await super()._run()
        finally:
            keepalive.cancel()

    async def _run_turn(self) -> None:
        async def emit(events: list[Event]) -> None:
            await self._note(events)
            feed = self._writer.feed
            frames = b"".join([feed(event) for event in events])
            last = events[-1]
            if type(last) is TurnFailed:
                self._scope["failure"] = self._told_in_band = last.error
            await self._frames(frames, end=type(last) in (TurnEnd, TurnFailed))

        await self._turn.run(emit)

    async def _tell(self, error: GatewayError) -> None:
        """By status while it can, afterwards in band."""
        if self._started:
            self._scope["failure"] = self._told_in_band = error
            await self._note([TurnFailed(error)])
            await self._frames(self._writer.feed(TurnFailed(error)), end=True)
            return
        async with self._lock:
            await super()._tell(error)

    async def _frames(self, frames: bytes, *, end: bool = False) -> None:
        """Everything that one read of the upstream gave, in one send."""
        if not frames and not end:
            return
        async with self._lock:
            if not self._started:
                await self._transmit(self._start(200, "text/event-stream; charset=utf-8", _LIVE))
            await self._transmit(
                {"type": "http.response.body", "body": frames, "more_body": not end}
            )
            self._last_sent_at = time.monotonic()

    async def _keep_alive(self) -> None:
        """A comment whenever the stream was silent; also while queued or failing over."""
        await asyncio.sleep(self._keepalive_seconds)
        while not self._ended:
            silent_seconds = time.monotonic() - self._last_sent_at
            if silent_seconds >= EARLY * self._keepalive_seconds and not self._lock.locked():
                await self._frames(self._dialect.KEEPALIVE)
                silent_seconds = 0
            await asyncio.sleep(max(0.01, EARLY * self._keepalive_seconds - silent_seconds))


# No proxy may hold a stream back.
_LIVE = {"cache-control": "no-cache", "x-accel-buffering": "no"}
