"""What surrounds every job: its step, its resources, its log context, its end.

    @job
    async def run(resources: Resources, batch_id: str) -> None: ...

makes `run` the function RQ calls with a step's id and arguments. It begins the step (or leaves:
done already, or under way elsewhere), opens what the job uses, runs it within its time, and says
how the step ended: done, due again after a failure, or given up. RQ never hears of a failure: our
records say it.

A job never sleeps and never loops to a deadline: it does one step and hands on. What can't be cut
into steps is a `lasting_job`: RQ's call only begins it, beside RQ's own loop (`workers.beside`),
where many run at once; while it runs its claim is extended every second. So a killed process's are
due again as soon as everybody else's, and one that was cancelled stops within a second.

Knows: steps and their ends. Does not know: what jobs do.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec

from shared import jobs, metrics
from shared.accounts import Accounts
from shared.batches import LineWork
from shared.catalogues import Catalogues
from shared.errors import StoreUnavailable
from shared.log import context
from shared.settings import Settings
from shared.store.store import Store
from shared.turns.run import Turns
from shared.upstream.client import Upstream
from workers.beside import Beside

log = logging.getLogger(__name__)

EXTEND_SECONDS = 1.0
"""How often a lasting job says that it lives, and hears whether it was cancelled."""

PUT_OFF_SECONDS = 2.0
MOST_BESIDE = 64
"""Lasting jobs in one process: what waits for an account must not crowd out everybody else."""

P = ParamSpec("P")


class Permanent(Exception):
    """Trying again won't help. The message says why; it is kept for the operator."""


class Transient(Exception):
    """It may work later: the step is due again after a pause, without counting as a failure."""

    def __init__(self, message: str, *, retry_after_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Resources:
    """What jobs hold: opened for one, or for all that last, and closed after it."""

    def __init__(self, settings: Settings) -> None:
        self._configured = settings
        self.store = Store(settings, observe=metrics.observe_redis)
        self.due = self.store.due
        self.stopping = asyncio.Event()
        """Set when this process stops: what lasts begins nothing new and hands on."""

    @property
    def settings(self) -> Settings:
        """Those in force now."""
        return self.store.settings.current

    @functools.cached_property
    def upstream(self) -> Upstream:
        return Upstream(
            self._configured,
            current=lambda: self.settings,
            observe=metrics.observe_upstream,
        )

    @functools.cached_property
    def accounts(self) -> Accounts:
        return Accounts(store=self.store, upstream=self.upstream)

    @functools.cached_property
    def catalogues(self) -> Catalogues:
        return Catalogues(
            store=self.store,
            accounts=self.accounts,
            upstream=self.upstream,
        )

    @functools.cached_property
    def line_work(self) -> LineWork:
        return LineWork(batches=self.store.batches, accounts=self.accounts, upstream=self.upstream)

    @functools.cached_property
    def turns(self) -> Turns:
        return Turns(
            store=self.store,
            accounts=self.accounts,
            upstream=self.upstream,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        await self.store.open()
        try:
            yield
        finally:
            for name in ("turns", "catalogues", "upstream"):
                if name in self.__dict__:  # a job has used it
                    await getattr(self, name).close()
            await self.store.close()


def configure(settings: Settings) -> None:
    """The settings of every job of this process; called once, before the first."""
    global _settings
    _settings = settings


_settings: Settings | None = None


def job(
    run: Callable[Concatenate[Resources, P], Awaitable[None]],
) -> Callable[Concatenate[str, P], None]:
    """Make a coroutine function the job RQ calls: `(step id, *ids)`; RQ wants a plain function."""

    @functools.wraps(run)
    def perform(step_id: str, /, *arguments: P.args, **named: P.kwargs) -> None:
        settings = configured()
        step = Perform(run, step_id, lambda resources: run(resources, *arguments, **named))

        async def alone() -> None:
            resources = Resources(settings)
            async with resources.opened():
                await step.perform(resources)

        asyncio.run(alone())

    return perform


def lasting_job(
    *, given_up: Callable[Concatenate[Resources, P], Awaitable[None]]
) -> Callable[
    [Callable[Concatenate[Resources, P], Awaitable[None]]], Callable[Concatenate[str, P], None]
]:
    """Make a coroutine function a job that RQ's call only begins.

    Args:
        given_up: called with the same ids when nobody will try again, so that the record says so.
    """

    def decorate(
        run: Callable[Concatenate[Resources, P], Awaitable[None]],
    ) -> Callable[Concatenate[str, P], None]:
        @functools.wraps(run)
        def begin(step_id: str, /, *arguments: P.args, **named: P.kwargs) -> None:
            step = Perform(
                run,
                step_id,
                lambda resources: run(resources, *arguments, **named),
                given_up=lambda resources: given_up(resources, *arguments, **named),
            )
            beside().begin(step.perform, otherwise=step.put_off)

        return begin

    return decorate


def configured() -> Settings:
    if _settings is None:
        raise RuntimeError("workers.runtime.configure was not called")
    return _settings


def beside() -> Beside[Resources]:
    """The loop of this process's lasting jobs, started when the first one comes."""
    global _beside
    if _beside is None:
        settings = configured()
        _beside = Beside(lambda: Resources(settings), most=MOST_BESIDE)
    return _beside


_beside: Beside[Resources] | None = None


def ask_to_finish() -> None:
    """Lasting jobs get a moment to end; then they are due again, for another process."""
    if _beside is not None:
        _beside.ask_to_stop()


def finish() -> None:
    """Like `ask_to_finish`, and done when it returns."""
    global _beside
    if _beside is not None:
        _beside.stop()
        _beside = None


Work = Callable[[Resources], Awaitable[None]]


class Perform:
    """One step: begun, done within its time, ended one way or another."""

    def __init__(
        self,
        run: Callable[..., object],
        step_id: str,
        work: Work,
        *,
        given_up: Work | None = None,
    ) -> None:
        self._name = jobs.name_of(f"{run.__module__}.{run.__name__}")
        self._kind = jobs.JOBS[self._name]
        self._step_id = step_id
        self._work = work
        self._given_up = given_up

    async def perform(self, resources: Resources) -> None:
        with context(job=self._name, step=self._step_id):
            await self._perform(resources)

    async def put_off(self, resources: Resources) -> None:
        """Nothing was begun: this process has its hands full, another one may not."""
        await resources.due.again(self._step_id, delay_seconds=PUT_OFF_SECONDS, counted=False)

    async def _perform(self, resources: Resources) -> None:
        due, step_id = resources.due, self._step_id
        try:
            if not await due.begin(step_id):
                log.info("step was done or is under way")
                return
            async with asyncio.timeout(self._kind.timeout_seconds):
                await self._do(resources)
        except StoreUnavailable:
            # Nothing can be written down now; the step's claim lapses and it is due again.
            log.warning("step interrupted, store away")
        except Transient as error:
            log.info("step put off", extra={"reason": str(error)})
            await due.again(step_id, delay_seconds=error.retry_after_seconds, counted=False)
        except Permanent as error:
            await self._give_up(resources, str(error))
        except StepEnded:
            log.info("step was ended by somebody else")
        except asyncio.CancelledError:
            log.info("step interrupted, process stops")
            await due.again(step_id, delay_seconds=0, counted=False)
            raise
        except Exception as error:
            log.exception("step failed")
            await self._settle_failure(resources, error)
        else:
            await due.done(step_id)
        finally:
            await hand_on_counts(resources)

    async def _do(self, resources: Resources) -> None:
        if not self._kind.lasting:
            await self._work(resources)
            return
        # Whoever failed told it; a process that was killed could not.
        tries = await resources.due.tries(self._step_id)
        if self._kind.max_tries and tries > self._kind.max_tries:
            raise Permanent(f"interrupted {tries - 1} times")
        work = asyncio.ensure_future(self._work(resources))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=EXTEND_SECONDS)
                if not work.done():
                    await self._extend(resources)
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _extend(self, resources: Resources) -> None:
        try:
            if not await resources.due.extend(self._step_id):
                raise StepEnded
        except StoreUnavailable:
            pass  # it goes on; should its claim lapse meanwhile, whoever ends it first has ended it

    async def _settle_failure(self, resources: Resources, error: Exception) -> None:
        tries = await resources.due.tries(self._step_id)
        if self._kind.max_tries and tries >= self._kind.max_tries:
            await self._give_up(resources, f"{type(error).__name__} after {tries} tries")
            return
        pause = jobs.retry_pause_seconds(self._name, tries)
        await resources.due.again(self._step_id, delay_seconds=pause)

    async def _give_up(self, resources: Resources, reason: str) -> None:
        log.warning("step given up", extra={"reason": reason})
        if self._given_up is not None:
            await self._given_up(resources)
        await resources.due.give_up(self._step_id, reason)


class StepEnded(Exception):
    """While it ran, somebody else said that this step has ended: it was cancelled."""


async def hand_on_counts(resources: Resources) -> None:
    """What this process counted since the last time is on the page of `/metrics`."""
    try:
        await resources.store.counts.add(metrics.take_counts())
    except StoreUnavailable:
        log.warning("counts of this job are lost, store away")
