"""`python -m workers import`: accounts from files into the pool, watched to the end.

    python -m workers import accounts.txt more.csv       a batch per file; result lines on stdout
    generate | python -m workers import -                 standard input
    python -m workers import data/data.json               Qwen2API: tokens, settings, keys, too
    python -m workers import redis://old-host:6379/0      … out of its Redis
    python -m workers import --dry-run accounts.txt       what would become of each line
    python -m workers import --no-wait accounts.txt       leave it to the job processes
    python -m workers import --follow batch_…             watch one that runs

It speaks to Redis, needs no gateway and no job process: it does lines itself, beside whoever else
does, within `BATCH_LOGIN_CONCURRENCY` of the whole fleet. Whatever ends it, the batch stays.

Exit status: 0 every account is in the pool (or was) · 1 some are not, the result lines say why ·
2 usage, configuration, a file that can't be read · 3 Redis is away · 130 interrupted.

Knows: arguments, the order of things. Does not know: forms of files, how a line is done.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from shared import imports, takeover
from shared.batches import Pump
from shared.errors import BadRequest, NotFound, StoreUnavailable
from shared.jobs import pump_steps
from shared.settings import Settings
from shared.store.batches import Batch
from shared.store.settings import Author
from workers.progress import Progress
from workers.runtime import Resources, hand_on_counts
from workers.sources import Source, open_source

LOOK_SECONDS: Final = 0.25
COUNTS_SECONDS: Final = 2.0

DONE, NOT_ALL, USAGE, AWAY, INTERRUPTED = 0, 1, 2, 3, 130

_BY: Final = Author(key="python -m workers import")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    sources: list[str]
    dry_run: bool = False
    wait: bool = True
    follow: str = ""


def read_order(arguments: Sequence[str]) -> Order:
    """
    Raises:
        SystemExit: 2 with the usage on stderr, or 0 after `--help`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m workers import",
        description="Import accounts: lines email:password[|proxy], CSV with a header, a JSON "
        "array, or a Qwen2API data.json.",
        epilog="Exit status: 0 every account is in the pool, 1 some are not, 2 usage or "
        "configuration, 3 Redis is away, 130 interrupted (the batch goes on).",
    )
    parser.add_argument(
        "source", nargs="*", metavar="FILE", help="a file, - for stdin, or Qwen2API's redis:// URL"
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--dry-run", action="store_true", help="say what would become of each line")
    way.add_argument("--no-wait", action="store_true", help="leave the rest to the job processes")
    way.add_argument("--follow", metavar="BATCH", default="", help="watch a batch that exists")
    found = parser.parse_args(arguments)
    if bool(found.source) == bool(found.follow):
        parser.error("name at least one FILE, or --follow BATCH without one")
    return Order(
        sources=found.source, dry_run=found.dry_run, wait=not found.no_wait, follow=found.follow
    )


def run(settings: Settings, order: Order, progress: Progress) -> int:
    """Everything that was asked for; the exit status."""
    try:
        return asyncio.run(_run(settings, order, progress))
    except KeyboardInterrupt:
        progress.say("interrupted; what was put down is done by the job processes")
        return INTERRUPTED


async def _run(settings: Settings, order: Order, progress: Progress) -> int:
    try:
        sources = [open_source(text) for text in order.sources]
    except (OSError, ValueError) as error:
        progress.say(str(error))
        return USAGE
    resources = Resources(settings)
    try:
        async with resources.opened():
            return await AccountsImport(resources, progress).run(order, sources)
    except BrokenPipeError:
        # Whoever read the results has gone; nor may the interpreter write what is left of them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except (StoreUnavailable, NotFound, OSError) as error:
        progress.say(str(error) or type(error).__name__)
        return AWAY if isinstance(error, StoreUnavailable) else USAGE
    finally:
        for source in sources:
            await source.close()


class AccountsImport:
    """One run of the command."""

    def __init__(self, resources: Resources, progress: Progress) -> None:
        self._resources = resources
        self._batches = resources.store.batches
        self._progress = progress
        self._interrupted = resources.stopping
        self._seen = imports.Seen()

    async def run(self, order: Order, sources: Sequence[Source]) -> int:
        """The exit status.

        Raises:
            StoreUnavailable: Redis was away before all lines were put down.
            NotFound: there is no batch to follow.
        """
        status, named = DONE, []
        if order.follow:
            await self._batches.get(order.follow)
            named = [(order.follow, order.follow)]
        for source in sources:
            self._seen.begin(source.name)
            try:
                if order.dry_run:
                    status = max(status, await self._dry_run(source))
                else:
                    named.append((source.name, await self._put_down(source)))
            except BadRequest as error:
                self._progress.say(f"{source.name}: {error.message}")
                status = USAGE
        if not order.wait or not named:
            return status
        async with self._at_work():
            return max([status, *[await self._watch(name, batch) for name, batch in named]])

    async def _dry_run(self, source: Source) -> int:
        counts = {"valid": 0, "invalid": 0, "skipped": 0}
        async for line in imports.dry_run(self._batches, source.lines(), seen=self._seen):
            counts[line.status] += 1
            place = f"{source.name}:{line.line}"
            self._progress.result(place, line.email, line.status, line.message)
        told = ", ".join(f"{number:,} {status}" for status, number in counts.items())
        self._progress.say(f"{source.name}: {told}; nothing was stored")
        return NOT_ALL if counts["invalid"] else DONE

    async def _put_down(self, source: Source) -> str:
        """The id of its batch, which goes on from here whatever becomes of this process."""
        store = self._resources.store
        batch_id = await imports.put_down(self._batches, source.lines(), seen=self._seen)
        self._progress.say(f"{source.name}: {batch_id}")
        for step in pump_steps(self._resources.settings.worker_processes):
            await store.due.add(step)
        if kept := await source.settings():
            taken = await takeover.take_over(store, kept, by=_BY)
            settings = ", ".join(taken.settings) or "no settings"
            self._progress.say(f"{source.name}: taken over: {settings}; {taken.api_keys} API keys")
            for reason in taken.refused:
                self._progress.say(f"{source.name}: not taken over: {reason}")
        return batch_id

    async def _watch(self, name: str, batch_id: str) -> int:
        """Until it has ended, each line's outcome in order as soon as those before it are known."""
        number = 1
        while True:
            try:
                batch = await self._batches.get(batch_id)
                number = await self._tell(name, batch, number)
                self._progress.show(name, batch)
            except StoreUnavailable:
                batch = None  # it comes back, and what was put down is there
            if batch is not None and batch.ended:
                return (
                    NOT_ALL if batch.failed or batch.invalid or batch.state == "cancelled" else DONE
                )
            if await self._was_interrupted():
                self._progress.say(
                    f"{name}: interrupted; the job processes go on, "
                    f"`python -m workers import --follow {batch_id}` watches"
                )
                return INTERRUPTED

    async def _tell(self, name: str, batch: Batch, number: int) -> int:
        """The first line whose outcome isn't known yet."""
        async for result in self._batches.results(batch.id, first=number):
            if result.status == "waiting" and not batch.ended:
                break
            place = f"{name}:{result.line}"
            self._progress.result(place, result.email, result.status, result.message)
            number = result.line + 1
        self._progress.flush()
        return number

    async def _was_interrupted(self) -> bool:
        try:
            await asyncio.wait_for(self._interrupted.wait(), LOOK_SECONDS)
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """Lines are done here, too, until the end or an interruption; those begun end first."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self._interrupted.set()
            loop.remove_signal_handler(signal.SIGINT)  # a second one waits for nothing

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        working = [asyncio.create_task(self._work()), asyncio.create_task(self._hand_on())]
        try:
            yield
        finally:
            self._interrupted.set()
            await asyncio.gather(*working)

    async def _work(self) -> None:
        resources = self._resources

        def share() -> int:
            return resources.settings.batch_login_concurrency

        while not self._interrupted.is_set():
            pump = Pump(
                resources.line_work, self._batches, share=share, is_to_stop=self._interrupted.is_set
            )
            await pump.run()
            await self._was_interrupted()  # what others hold may wait again

    async def _hand_on(self) -> None:
        while not self._interrupted.is_set():
            try:
                await asyncio.wait_for(self._interrupted.wait(), COUNTS_SECONDS)
            except TimeoutError:
                pass
            await hand_on_counts(self._resources)
