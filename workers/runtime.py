"""What surrounds every job: its step, its resources, its log context, its end.

    @job
    async def run(resources: Resources, batch_id: str) -> None: ...

makes `run` the function RQ calls with a step's id and arguments. It begins the step (or leaves:
done already, or under way elsewhere), opens what the job uses, runs it within its time, and says
how the step ended: done, due again after a failure, or given up. RQ never hears of a failure: our
records say it.

Knows: steps and their ends. Does not know: what jobs do. A job never sleeps and never loops to a
deadline: it does one step and hands on.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec

from shared import jobs, metrics
from shared.errors import StoreUnavailable
from shared.log import context
from shared.settings import Settings
from shared.store.store import Store

log = logging.getLogger(__name__)

P = ParamSpec("P")


class Permanent(Exception):
    """Trying again won't help. The message says why; it is kept for the operator."""


class Transient(Exception):
    """It may work later: the step is due again after a pause, without counting as a failure."""

    def __init__(self, message: str, *, retry_after_seconds: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Resources:
    """What one job holds; opened for it and closed after it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings, observe=_observe_redis)
        self.due = self.store.due

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        await self.store.open()
        try:
            yield
        finally:
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
    path = f"{run.__module__}.{run.__name__}"

    @functools.wraps(run)
    def perform(step_id: str, /, *arguments: P.args, **named: P.kwargs) -> None:
        if _settings is None:
            raise RuntimeError("workers.runtime.configure was not called")
        name = jobs.name_of(path)
        with context(job=name, step=step_id):
            asyncio.run(_perform(_settings, name, step_id, run, *arguments, **named))

    return perform


async def _perform(
    settings: Settings,
    name: str,
    step_id: str,
    run: Callable[Concatenate[Resources, P], Awaitable[None]],
    *arguments: P.args,
    **named: P.kwargs,
) -> None:
    resources = Resources(settings)
    async with resources.opened():
        try:
            if not await resources.due.begin(step_id):
                log.info("step was done or is under way")
                return
            async with asyncio.timeout(jobs.JOBS[name].timeout_seconds):
                await run(resources, *arguments, **named)
        except StoreUnavailable:
            # Nothing can be written down now; the step's claim lapses and it is due again.
            log.warning("step interrupted, store away")
        except Transient as error:
            log.info("step put off", extra={"reason": str(error)})
            await resources.due.again(step_id, delay_seconds=error.retry_after_seconds)
        except Permanent as error:
            log.warning("step given up", extra={"reason": str(error)})
            await resources.due.give_up(step_id, str(error))
        except Exception as error:
            log.exception("step failed")
            await _settle_failure(resources, name, step_id, error)
        else:
            await resources.due.done(step_id)
        finally:
            await _hand_on_counts(resources)


async def _settle_failure(resources: Resources, name: str, step_id: str, error: Exception) -> None:
    tries = await resources.due.tries(step_id)
    kind = jobs.JOBS[name]
    if kind.max_tries and tries >= kind.max_tries:
        await resources.due.give_up(step_id, f"{type(error).__name__} after {tries} tries")
        return
    pause = jobs.retry_pause_seconds(name, tries)
    await resources.due.again(step_id, delay_seconds=pause)


async def _hand_on_counts(resources: Resources) -> None:
    try:
        await resources.store.counts.add(metrics.take_counts())
    except StoreUnavailable:
        log.warning("counts of this job are lost, store away")


def _observe_redis(operation: str, seconds: float, ok: bool) -> None:
    metrics.REDIS_SECONDS.of(operation).observe(seconds)
    if not ok:
        metrics.REDIS_ERRORS.of().inc()
