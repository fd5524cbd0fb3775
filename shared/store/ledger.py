"""The ledger: what became of every request, written once when it ends.

Knows: sums by account, key, model and UTC day; the newest records; the newest uses of an account.
Does not know: how a request runs, who reads (`usage.py`, `requests.py`).

One process writes what has ended since its last write in one script, so a turn costs one round trip
at most, and many that end at once cost one together. A write has a number that grows by one; the
script skips a number it has seen, so one whose answer was lost on the way is simply sent again:

    t=0  write 7 is applied, the connection breaks before its answer
    t=1  Redis is back, write 7 is sent again and skipped      counted once

Lost is what a process had not written when it was killed: entries it could not write because Redis
was away, and those nobody awaited (`note`). Whoever awaits `write` before an answer's last byte
loses nothing that a client has seen whole. Beyond that the ledger is as safe as Redis' own disk.
"""

import asyncio
import logging
import secrets
from collections import deque
from typing import Final, Literal

import msgspec

from shared.errors import StoreUnavailable
from shared.store import keys
from shared.store.connection import Connection

log = logging.getLogger(__name__)

DAYS_KEPT: Final = 90
"""Today included."""
RECORDS_KEPT: Final = 10_000
USES_KEPT: Final = 20
ERRORS_KEPT: Final = 10
FLUSH_SECONDS: Final = 0.5
"""How often what could not be written is tried again while Redis answers but refuses."""

CLIENT_LEFT: Final = 499
"""The status of a request whose client went away before its answer ended."""

By = Literal["account", "key", "model"]

# How long the end of an answer may wait for its entry: an outage must not hold answers back.
_WAIT_SECONDS = 0.5
_CLOSE_SECONDS = 1.0
_AT_ONCE = 50
# While Redis is away, so many wait for it here (about 1 kB each). Requests that used nothing, which
# an outage makes by the thousand, must not crowd out those that did.
_WAITING_MOST = 20_000
_IDLE_WAITING_MOST = 2_000
_LONGEST_TEXT = 300


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request as the log keeps it. Never what was asked or answered.

    Attributes:
        key_id: of the caller's API key; empty when it showed none that holds.
        model: the upstream's id, or the name that was asked for when that is all one knows.
        account: of its newest attempt.
        status: as it was told, 499 when the client left before the end.
        error: its code, also when it was told inside an answer that began with 200.
    """

    request_id: str
    route: str
    status: int
    total_ms: float
    key_id: str = ""
    model: str | None = None
    account: str | None = None
    lane: str | None = None
    attempts: int = 0
    first_token_ms: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether its caller has no whole answer, and didn't leave. A repeat has no error known."""
        return self.error is not None or (self.status >= 400 and self.status != CLIENT_LEFT)


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt on one account; `error` = the code of why it failed, `message` in words."""

    account: str
    request_id: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None
    message: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger is told of one request.

    Attributes:
        key_name: of the caller's key, for as long as its sums are kept.
        model: what its tokens are counted under: a name of the catalogue, else `other`.
        uses: its attempts; its tokens are those of the last one.
        requests: 1, or 0 for what was counted as a request when it was put down.
        summed: False = the log alone hears of it.
    """

    record: Record
    key_name: str = ""
    model: str = "other"
    uses: tuple[Use, ...] = ()
    requests: int = 1
    summed: bool = True

    @property
    def idle(self) -> bool:
        """Whether it used nothing: it was refused."""
        return not self.uses


class Ledger:
    """One process's pen."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._process = secrets.token_hex(8)
        self._serial = 0
        self._sent: list[_Waiting] = []  # the write that is under way, or whose answer was lost
        self._waiting: deque[_Waiting] = deque()
        self._idle_waiting = 0
        self._lost = 0
        self._writing: asyncio.Task[None] | None = None
        connection.on_return(self._write_what_waits)

    async def write(self, entry: Entry) -> None:
        """The entry is written, or will be as soon as Redis is back. Script: ledger_write.lua"""
        waiting = self._put(entry)
        if waiting is not None:
            await asyncio.wait({waiting.done}, timeout=_WAIT_SECONDS)

    def note(self, entry: Entry) -> None:
        """The entry will be written in a moment; nobody waits for it."""
        self._put(entry)

    async def flush(self) -> None:
        """What waits is written. The open store calls it every `FLUSH_SECONDS`.

        Raises:
            StoreUnavailable: something waits still.
        """
        if self._sent or self._waiting:
            await asyncio.wait({self._begin()})
        if self._sent or self._waiting:
            raise StoreUnavailable

    async def close(self) -> None:
        """A last try for what still waits."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.flush()
        except (TimeoutError, StoreUnavailable):
            self._lost += len(self._sent) + len(self._waiting)
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        self._tell_lost()

    def _put(self, entry: Entry) -> "_Waiting | None":
        idle_full = entry.idle and self._idle_waiting >= _IDLE_WAITING_MOST
        if idle_full or len(self._waiting) >= _WAITING_MOST:
            self._lost += 1
            return None
        waiting = _Waiting(entry)
        self._waiting.append(waiting)
        self._idle_waiting += entry.idle
        self._begin()
        return waiting

    def _write_what_waits(self) -> None:
        self._begin()

    def _begin(self) -> asyncio.Task[None]:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="ledger")
        return self._writing

    async def _write_all(self) -> None:
        while self._sent or self._waiting:
            if not self._sent:
                self._take()
            try:
                await self._connection.run(
                    "ledger_write",
                    keys.LEDGER,
                    self._process,
                    self._serial,
                    DAYS_KEPT,
                    RECORDS_KEPT,
                    USES_KEPT,
                    ERRORS_KEPT,
                    *(waiting.encode() for waiting in self._sent),
                )
            except StoreUnavailable:
                # It may have been applied: it is sent again under its number.
                for waiting in (*self._sent, *self._waiting):
                    waiting.release()
                return
            except Exception:
                # One bad write must not hold up all that come after it.
                log.exception("not written into the ledger")
                self._lost += len(self._sent)
            for waiting in self._sent:
                waiting.release()
            self._sent = []
        self._tell_lost()

    def _take(self) -> None:
        self._serial += 1
        while self._waiting and len(self._sent) < _AT_ONCE:
            waiting = self._waiting.popleft()
            self._idle_waiting -= waiting.entry.idle
            self._sent.append(waiting)

    def _tell_lost(self) -> None:
        if self._lost:
            log.warning("entries of the ledger were lost", extra={"count": self._lost})
            self._lost = 0


class _Waiting:
    """An entry on its way; `done` when nobody need wait for it any longer."""

    def __init__(self, entry: Entry) -> None:
        loop = asyncio.get_running_loop()
        self.entry = entry
        self.done: asyncio.Future[None] = loop.create_future()
        self._ended_at = loop.time()

    def release(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def encode(self) -> bytes:
        """As ledger_write.lua reads it; by its age it counts for the day on which it ended."""
        age_ms = max(0.0, asyncio.get_running_loop().time() - self._ended_at) * 1000
        return msgspec.json.encode(
            {
                "age_ms": int(age_ms),
                "record": _text(self.entry.record),
                "key": [self.entry.record.key_id, self.entry.key_name],
                "sums": _sums_of(self.entry),
                "uses": [
                    [use.account, _text(_shortened(use)), use.error is not None]
                    for use in self.entry.uses
                ],
            }
        )


def _sums_of(entry: Entry) -> list[tuple[By, str, int, int, int, int]]:
    """What it adds to which sums: requests, input tokens, output tokens, failures."""
    if not entry.summed:
        return []
    record = entry.record
    used = record.input_tokens, record.output_tokens
    failures = int(record.failed)
    sums: list[tuple[By, str, int, int, int, int]] = [
        ("account", use.account, 1, use.input_tokens, use.output_tokens, int(use.error is not None))
        for use in entry.uses
    ]
    if record.key_id:
        sums.append(("key", record.key_id, entry.requests, *used, failures))
        sums.append(("model", entry.model, entry.requests, *used, failures))
    return sums


def _shortened(use: Use) -> Use:
    return msgspec.structs.replace(use, message=use.message[:_LONGEST_TEXT])


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
