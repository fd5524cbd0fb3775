"""What the command line draws and writes."""

import io

from shared.store.batches import Batch
from workers.progress import Progress


class Screen(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def batch(done: int, *, failed: int = 0, total: int = 2000) -> Batch:
    return Batch(
        id="batch_1",
        kind="import",
        state="completed" if done == total else "running",
        total=total,
        valid=total,
        invalid=0,
        skipped=0,
        processed=done,
        succeeded=done - failed,
        failed=failed,
        concurrency=5,
        active=[],
        recent=[],
        created_at=0,
        started_at=0,
        finished_at=None,
    )


def test_a_terminal_sees_share_counts_pace_and_what_is_left() -> None:
    screen, clock = Screen(terminal=True), Clock()
    progress = Progress(results=io.StringIO(), screen=screen, clock=clock)
    progress.show("list.txt", batch(0))
    clock.now = 10
    progress.show("list.txt", batch(500, failed=3))
    last = screen.getvalue().split("\r\x1b[K")[-1]
    assert last.startswith(
        "list.txt  █████░░░░░░░░░░░░░░░  25%  500/2,000, 497 succeeded, 3 failed"
    )
    progress.show("list.txt", batch(2000))
    assert screen.getvalue().endswith("\r\x1b[Klist.txt: completed, 2,000/2,000, 2,000 succeeded\n")


def test_elsewhere_there_is_a_line_every_five_seconds_and_one_at_the_end() -> None:
    screen, clock = Screen(terminal=False), Clock()
    progress = Progress(results=io.StringIO(), screen=screen, clock=clock)
    for second in range(12):
        clock.now = second
        progress.show("list.txt", batch(second))
    progress.show("list.txt", batch(2000))
    assert screen.getvalue().splitlines() == [
        "list.txt: running, 0/2,000, 0 succeeded",
        "list.txt: running, 5/2,000, 5 succeeded",
        "list.txt: running, 10/2,000, 10 succeeded",
        "list.txt: completed, 2,000/2,000, 2,000 succeeded",
    ]


def test_a_result_is_one_line_with_tabs_between() -> None:
    results = io.StringIO()
    progress = Progress(results=results, screen=Screen(terminal=False))
    progress.result("list.txt:1", "a@b.c", "succeeded", "")
    progress.result("list.txt:2", "", "invalid", "no password")
    assert (
        results.getvalue() == "list.txt:1\ta@b.c\tsucceeded\nlist.txt:2\t\tinvalid\tno password\n"
    )
