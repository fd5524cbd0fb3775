"""Plays prepared events to the peer with the timing and the transport faults of an action.

Positions (`after`, `reset_after`, `close_after`, `cut_after`, `stall_after`) count events that were sent, the first
`response.created` included; 0 is the moment after the headers.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Literal

from tests.simulator.connection import Exchange
from tests.simulator.script import Action
from tests.simulator.stats import StreamRecord

EVENT_STREAM = "text/event-stream"
FOR_EVER = 10**9
STOP_LOOK_SECONDS = 0.05
BEFORE_RESET_SECONDS = 0.005  # what was sent goes out before the reset overtakes it

End = Literal["complete", "aborted", "stopped", "broken"]


class Player:
    """One stream. `over(end)` is told before the last byte goes out, so that counts are never behind."""

    def __init__(
        self,
        exchange: Exchange,
        action: Action,
        record: StreamRecord,
        *,
        delay_ms: float,
        gzip: bool,
        beat: Callable[[], bytes],
        stopped: Callable[[], bool],
        over: Callable[[End], None],
    ) -> None:
        self._exchange = exchange
        self._action = action
        self._record = record
        self._delay_ms = delay_ms if action.delay_ms is None else action.delay_ms
        self._gzip = gzip or action.gzip
        self._beat = beat
        self._stopped = stopped
        self._over = over

    async def play(self, events: list[bytes], *, failed: bool = False) -> None:
        """Head, events, end; or what the action wants in place of any of them."""
        action, exchange = self._action, self._exchange
        self._start()
        if action.hang == "after":
            await asyncio.sleep(FOR_EVER)
        await asyncio.sleep(action.first_ms / 1000)
        if await self._interrupted(0):
            return
        for index, group in enumerate(self._groups(events)):
            if index and self._delay_ms:
                await asyncio.sleep(self._delay_ms / 1000)
            if self._stopped():
                break
            await self._send(b"".join(group))
            self._record.frames_sent += len(group)
            if action.silence_ms and self._record.frames_sent == 1:
                await self._silence()
            if await self._interrupted(self._record.frames_sent):
                return
        await self._keep_open()
        self._over("stopped" if self._stopped() else ("broken" if failed else "complete"))
        exchange.end()

    def _start(self) -> None:
        accepts = "gzip" in self._exchange.request.headers.get("accept-encoding", "")
        self._exchange.start(
            self._action.status or 200,
            self._action.content_type or f"{EVENT_STREAM}; charset=utf-8",
            [("cache-control", "no-cache"), *(self._action.headers or {}).items()],
            compressed=accepts and self._gzip,
        )

    def _groups(self, events: list[bytes]) -> Iterator[list[bytes]]:
        """`burst` events a piece, but never across a position where something is to happen."""
        action = self._action
        positions = {action.reset_after, action.close_after, action.cut_after, action.stall_after}
        if action.silence_ms:
            positions.add(1)
        group: list[bytes] = []
        for count, event in enumerate(events, start=1):
            group.append(event)
            if len(group) >= action.burst or count in positions:
                yield group
                group = []
        if group:
            yield group

    async def _send(self, data: bytes) -> None:
        cut = self._action.cut
        for at in range(0, len(data), cut or len(data) or 1):
            self._exchange.send(data[at : at + cut] if cut else data)
            await self._exchange.drain()

    async def _interrupted(self, sent: int) -> bool:
        """Whether the stream ended at this position."""
        action, exchange = self._action, self._exchange
        if action.stall_after == sent:
            await self._wait(FOR_EVER if action.stall_ms is None else action.stall_ms / 1000)
        if action.reset_after == sent:
            await asyncio.sleep(BEFORE_RESET_SECONDS)
            self._over("broken")
            exchange.reset()
        elif action.close_after == sent:
            self._over("broken")
            exchange.close()
        elif action.cut_after == sent:
            self._over("broken")
            exchange.end()
        else:
            return False
        return True

    async def _silence(self) -> None:
        """No content, only `keep_alive` frames (6.1)."""
        until = time.monotonic() + self._action.silence_ms / 1000
        while (left := until - time.monotonic()) > 0 and not self._stopped():
            await asyncio.sleep(min(left, self._action.keep_alive_ms / 1000))
            self._exchange.send(self._beat())
            await self._exchange.drain()

    async def _keep_open(self) -> None:
        if self._action.keep_open_ms:
            endless = self._action.keep_open_ms < 0
            await self._wait(FOR_EVER if endless else self._action.keep_open_ms / 1000)

    async def _wait(self, seconds: float) -> None:
        """Sleep, but wake soon after the generation was stopped."""
        until = time.monotonic() + seconds
        while not self._stopped() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, STOP_LOOK_SECONDS))
