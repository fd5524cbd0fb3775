"""Canned completions: the same bytes for everybody, as fast as can be, for the load rig.

Nothing is checked and no chat is locked; a prompt with a directive goes the ordinary way. With
`canned_stamped` each paced frame's text is the moment it was sent (`time.monotonic_ns`, 19 digits and a blank),
so that a client on the same machine can tell how long every single frame was under way.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.simulator.answers import canned_events

if TYPE_CHECKING:
    from tests.simulator.connection import Exchange
    from tests.simulator.state import State

PATH = "/api/v2/chat/completions"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
STAMP = "%019d "
BLANK_STAMP = STAMP % 0


class Canned:
    """Answers completions from precomputed bytes."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._frames = -1
        self._whole = b""
        self._chunks: list[bytes] = []
        self._stamped: list[bytes] = []

    def takes(self, exchange: Exchange) -> bool:
        """Whether this request was answered here."""
        request = exchange.request
        if request.path != PATH or request.method != "POST" or b"[[sim:" in request.body:
            return False
        config = self._state.config
        if config.canned_frames != self._frames:
            self._prepare(config.canned_frames)
        counter = self._state.stats.requests.setdefault("completions", Counter())
        counter["-"] += 1
        if config.canned_delay_ms > 0:
            chunks = self._stamped if config.canned_stamped else self._chunks
            Paced(exchange, self._state, chunks, config.canned_delay_ms / 1000).begin()
        else:
            self._state.stats.ended["complete"] += 1
            exchange.raw(self._whole)
        return True

    def _prepare(self, frames: int) -> None:
        events = canned_events(frames)
        self._frames = frames
        self._chunks = [_chunk(event) for event in events]
        self._stamped = [_chunk(event) for event in canned_events(frames, word=BLANK_STAMP)]
        body = b"".join(events)
        self._whole = HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


def stamped(chunk: bytes) -> bytes:
    """The chunk with this moment in place of a blank stamp; the length stays."""
    now = STAMP % time.monotonic_ns()
    return chunk.replace(BLANK_STAMP.encode(), now.encode(), 1)


class Paced:
    """One canned stream, a frame at a time, on loop timers: no task, no coroutine."""

    __slots__ = ("_chunks", "_delay", "_due", "_exchange", "_index", "_loop", "_stats", "_timer")

    def __init__(
        self, exchange: Exchange, state: State, chunks: list[bytes], delay_seconds: float
    ) -> None:
        self._exchange = exchange
        self._stats = state.stats
        self._chunks = chunks
        self._delay = delay_seconds
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._index = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        stats = self._stats
        stats.open["-"] += 1
        stats.max_open["-"] = max(stats.max_open["-"], stats.open["-"])
        stats.max_open_total = max(stats.max_open_total, stats.open["-"])
        self._exchange.on_gone = self._left
        self._exchange.started = True
        self._exchange.raw_part(HEAD + self._chunks[0])
        self._again()

    def _again(self) -> None:
        self._index += 1
        self._due += self._delay  # against the first moment, so that lateness does not add up
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        if self._index >= len(self._chunks):
            self._stats.open["-"] -= 1
            self._stats.ended["complete"] += 1
            self._exchange.raw(b"0\r\n\r\n")
            return
        self._exchange.raw_part(stamped(self._chunks[self._index]))
        self._again()

    def _left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stats.open["-"] -= 1
        self._stats.ended["aborted"] += 1
