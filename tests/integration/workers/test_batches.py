"""The look after batches: pumps are put down where lines wait, whoever should have done it."""

from collections.abc import AsyncIterator

import pytest

from shared.imports import put_down
from shared.intake.lines import BatchLine
from shared.settings import Settings
from tests.fakes.batches import each
from tests.fakes.redis_server import redis_server, redis_url
from workers import batches, pump
from workers.runtime import Resources

__all__ = ["redis_server", "redis_url"]

pytestmark = pytest.mark.anyio

LINES = [BatchLine(number=n, email=f"a{n}@example.org", password="pw") for n in (1, 2)]


@pytest.fixture
async def resources(redis_url: str) -> AsyncIterator[Resources]:
    resources = Resources(
        Settings(
            redis_url=redis_url,
            secret_key="0123456789abcdef0123456789abcdef",
            worker_processes=3,
        )
    )
    async with resources.opened():
        yield resources


async def look(resources: Resources) -> list[str]:
    """What one look puts down."""
    await batches.run.__wrapped__(resources)  # type: ignore[attr-defined]  # set by functools.wraps
    return [step.id for step in await resources.due.take(10)]


async def test_where_lines_wait_each_job_process_gets_a_pump(resources: Resources) -> None:
    """The gateway that put the batch down died before it could put its pumps down."""
    assert await look(resources) == []
    await put_down(resources.store.batches, each(LINES))
    assert await look(resources) == ["pump-1", "pump-2", "pump-3"]
    assert await look(resources) == []  # they are taken, and due again by themselves


async def test_a_pump_whose_process_stops_is_due_again_and_one_that_is_done_is_not(
    resources: Resources,
) -> None:
    run = pump.run.__wrapped__  # type: ignore[attr-defined]  # set by functools.wraps
    await run(resources)
    resources.stopping.set()
    with pytest.raises(Exception, match="another pump goes on") as raised:
        await run(resources)
    assert type(raised.value).__name__ == "Transient"
