"""How long an import takes: `python -m tests.bench.imports [lines]`, over a product of its own.

Ideal: lines × login time ÷ concurrency. Printed beside it: what the batch took by its own record
(`started_at` to `finished_at`), what it took from the POST on, Redis commands per login (those that
processes sent; what scripts do inside isn't counted), and how many logins the simulator saw at once.
"""

import asyncio
import sys
import time

import msgspec

from shared.store.store import Store
from tests.fakes.background import job_processes
from tests.fakes.batches import Batches, add_accounts, most_at_once
from tests.fakes.stack import Stack

LATENCY_MS = 200
CONCURRENCY = 50


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One import in numbers."""

    lines: int
    ideal_seconds: float
    batch_seconds: float
    from_post_seconds: float
    redis_commands_per_login: float
    logins_at_once: int

    @property
    def of_ideal(self) -> float:
        return self.batch_seconds / self.ideal_seconds


def measure(count: int) -> Figures:
    """An import of `count` lines by two job processes."""
    environment = {
        "WORKER_PROCESSES": "2",
        "BATCH_LOGIN_CONCURRENCY": str(CONCURRENCY),
        "LOGIN_MIN_INTERVAL_MS": "0",
        "WORKERS": "1",
    }
    with Stack(environment=environment) as stack, Batches.of(stack) as batches:
        lines = add_accounts(stack.sim, count, name="bench")
        stack.sim.config(latency_ms={"signin": LATENCY_MS})
        with job_processes(stack):
            commands = _commands(stack)
            began = time.monotonic()
            batch = batches.create(lines)
            while batch["state"] != "completed":
                time.sleep(0.5)
                batch = batches.get(batch["id"])
            from_post = time.monotonic() - began
            commands = _commands(stack) - commands
        assert batch["succeeded"] == count, batch
        log = [one for one in stack.sim.stats()["login_log"] if one["email"].startswith("bench")]
    return Figures(
        lines=count,
        ideal_seconds=count * LATENCY_MS / 1000 / CONCURRENCY,
        batch_seconds=round(batch["finished_at"] - batch["started_at"], 2),
        from_post_seconds=round(from_post, 2),
        redis_commands_per_login=round(commands / count, 2),
        logins_at_once=most_at_once(log, seconds=LATENCY_MS / 1000 * 0.9),
    )


def _commands(stack: Stack) -> int:
    """Scripts that were sent until now, by all processes: a login is nothing else."""

    async def ask() -> int:
        async with stack.store() as store:
            return await _scripts_sent(store)

    return asyncio.run(ask())


async def _scripts_sent(store: Store) -> int:
    stats = await store.connection.ask("bench", "INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def main(arguments: list[str]) -> int:
    figures = measure(int(arguments[0]) if arguments else 5_000)
    print(msgspec.json.format(msgspec.json.encode(figures)).decode())
    print(f"{figures.of_ideal:.2f} × ideal")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
