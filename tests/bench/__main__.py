"""`python -m tests.bench`: runs the load rig, prints its report, writes it as JSON and Markdown."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop

from tests.bench import phases
from tests.bench.phases import FULL, QUICK, TINY, Effort
from tests.bench.report import Figure, Report, as_markdown, as_table, this_machine
from tests.bench.rig import ACCOUNTS, Other, Plan, Rig, opened, plan_for
from tests.fakes.stack import ROOT

EFFORTS = {"full": FULL, "quick": QUICK, "tiny": TINY}


async def measure(plan: Plan, effort: Effort, *, quick: bool) -> Report:
    """Every figure of one run."""
    machine, started_at, begun = this_machine(), time.time(), time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    figures: list[Figure] = []
    async with opened(plan) as rig:
        figures += await _told("cold start", phases.cold_start, rig, effort)
        figures += phases.idle_memory(rig)
        await phases.warm_up(rig, effort)
        figures += await _told("cost of a turn", phases.cost, rig, effort)
        tables = await phases.commands(rig, effort)
        figures += await _told("latency", phases.latency, rig, effort)
        figures += await _told("rates", phases.rates, rig, effort)
        figures += await _told("streams", phases.streams, rig, effort)
        figures += await _told("memory", phases.memory, rig, effort)
    machine.load_after = this_machine().load_after
    return Report(
        started_at=started_at,
        seconds=time.monotonic() - begun,
        quick=quick,
        machine=machine,
        set_up=_set_up(plan, effort),
        figures=figures,
        tables=tables,
        legend={name: how for name, (_, how) in phases.MEASURES.items()} | phases.CASES,
        notes=NOTES,
    )


async def _told(
    what: str, phase: Callable[[Rig, Effort], Awaitable[list[Figure]]], rig: Rig, effort: Effort
) -> list[Figure]:
    begun = time.monotonic()
    figures = await phase(rig, effort)
    print(f"{what}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return figures


NOTES = [
    "Nothing is asserted about throughput. Trust ratios of one run; the machine may be shared.",
    "The client, Redis and the simulator share the cores the gateway does not have; their CPU is "
    "told apart and is in no figure of the gateway.",
]


def _set_up(plan: Plan, effort: Effort) -> dict[str, str]:
    shown = {
        "gateway": f"{plan.workers} gateway process(es) on core(s) {_cores(plan.gateway_cores)}",
        "everything else": f"client, simulator and Redis on core(s) {_cores(plan.other_cores)}",
        "pool": f"{ACCOUNTS} accounts, ACCOUNT_CONCURRENCY 2, LOGIN_MIN_INTERVAL_MS 0; else defaults",
        "answers": f"{effort.frames} upstream frames, the first and the last one without text",
        "redis": "a server of its own on a unix socket, AOF everysec",
    }
    if plan.other is not None:
        pids = ", ".join(map(str, plan.other.pids)) or "none given: no CPU or memory of it"
        shown["other"] = f"{plan.other.url}, model {plan.other.model}, processes {pids}"
    return shown


def _cores(cores: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cores)))


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most a minute")
    parser.add_argument("--effort", choices=EFFORTS, help="instead of --quick; tiny proves nothing")
    parser.add_argument(
        "--workers", type=int, help="gateway processes (as many cores if there are)"
    )
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "bench.json")
    group = parser.add_argument_group(
        "another gateway, measured in the same run (its upstream must be this run's simulator: "
        "choose its port)"
    )
    group.add_argument("--url", help="base URL, without /v1")
    group.add_argument("--key", default="sk-other", help="API key")
    group.add_argument("--model", default="qwen3.6-plus", help="model name it knows")
    group.add_argument("--pid", type=int, action="append", default=[], help="its root process(es)")
    group.add_argument("--simulator-port", type=int, default=0)
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    options = arguments(given)
    name = options.effort or ("quick" if options.quick else "full")
    other = None
    if options.url:
        other = Other(options.url, options.key, options.model, tuple(options.pid))
    plan = plan_for(workers=options.workers, simulator_port=options.simulator_port, other=other)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(measure(plan, EFFORTS[name], quick=name != "full"))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("stopped; everything that was started has ended", file=sys.stderr)
        return 1
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    options.report.with_suffix(".md").write_text(as_markdown(report), encoding="utf-8")
    print(as_table(report))
    print(f"Report: {options.report}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
