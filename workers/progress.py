"""What the command line shows of a batch: a bar on a terminal, a line now and then elsewhere.

    list.txt  ███████████░░░░░░░░░  55%  2,750/5,000, 2,731 succeeded, 19 failed  46/s  0:49 left

Results go to standard output, one a line, progress to standard error: either may be piped.

Knows: streams and their width. Does not know: where a batch comes from.
"""

import shutil
import time
from collections.abc import Callable
from typing import Final, TextIO

from shared.store.batches import Batch

_BAR: Final = 20
_TELL_SECONDS: Final = 5.0


class Progress:
    """One command's output.

    Args:
        results: where each line's outcome goes.
        screen: where progress and messages go.
        clock: seconds that only grow.
    """

    def __init__(
        self, *, results: TextIO, screen: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._results = results
        self._screen = screen
        self._clock = clock
        self._bar = screen.isatty()
        self._drawn = False
        self._told_at: float | None = None
        self._began: tuple[float, int] | None = None  # when, and how many were done then

    def result(self, place: str, email: str, status: str, message: str) -> None:
        """`accounts.txt:7  a@example.org  failed  …`, tabs between them."""
        if self._drawn and self._results.isatty():
            self._wipe()
        self._results.write("\t".join((place, email, status, message)).rstrip("\t") + "\n")

    def flush(self) -> None:
        """What was written is on its way."""
        self._results.flush()

    def show(self, name: str, batch: Batch) -> None:
        """How far the batch is; the last call says how it ended."""
        now = self._clock()
        if self._began is None:
            self._began = now, batch.processed
        if self._bar:
            width = shutil.get_terminal_size().columns - 1
            self._screen.write("\r\x1b[K" + self._line(name, batch, now)[:width])
            self._screen.flush()
            self._drawn = True
        elif batch.ended or self._told_at is None or now - self._told_at >= _TELL_SECONDS:
            self._told_at = now
            self.say(_numbers(name, batch))
        if batch.ended:
            self._wipe()
            self._began = self._told_at = None
            if self._bar:
                self.say(_numbers(name, batch))

    def say(self, message: str) -> None:
        """A message for the operator."""
        self._wipe()
        self._screen.write(message + "\n")
        self._screen.flush()

    def _line(self, name: str, batch: Batch, now: float) -> str:
        share = batch.processed / batch.valid if batch.valid else 1.0
        bar = "█" * int(share * _BAR)
        return f"{name}  {bar:░<{_BAR}}  {share:.0%}  {_counts(batch)}{self._pace(batch, now)}"

    def _pace(self, batch: Batch, now: float) -> str:
        """`  46/s  0:49 left`, from when it was first shown."""
        began, done = self._began or (now, 0)
        done = batch.processed - done
        if done <= 0 or now <= began:
            return ""
        pace = done / (now - began)
        left = int((batch.valid - batch.processed) / pace)
        return f"  {pace:.0f}/s  {left // 60}:{left % 60:02} left"

    def _wipe(self) -> None:
        if self._drawn:
            self._screen.write("\r\x1b[K")
            self._screen.flush()
            self._drawn = False


def _numbers(name: str, batch: Batch) -> str:
    extra = "".join(
        f", {number:,} {what}"
        for number, what in ((batch.skipped, "skipped"), (batch.invalid, "invalid"))
        if number
    )
    return f"{name}: {batch.state}, {_counts(batch)}{extra}"


def _counts(batch: Batch) -> str:
    counts = f"{batch.processed:,}/{batch.valid:,}, {batch.succeeded:,} succeeded"
    return f"{counts}, {batch.failed:,} failed" if batch.failed else counts
