"""`python -m tests.soak`: the kill loops of turns and of imports, then the long run, with a report.

    python -m tests.soak                       100 rounds, 20 imports, one hour
    python -m tests.soak --rounds 5 --imports 5 --seconds 60

SOAK_ROUNDS, SOAK_IMPORTS and SOAK_SECONDS say the same by environment. Exit status 1: a promise was broken.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from tests.bench.report import this_machine
from tests.fakes.stack import ROOT
from tests.soak.callers import Callers
from tests.soak.endurance import Endurance, run_long
from tests.soak.imports import ImportRound, run_imports
from tests.soak.kills import Round, run_rounds
from tests.soak.product import running
from tests.soak.report import Report, as_markdown

ROUNDS = 100
IMPORTS = 20
SECONDS = 3600.0
LEASE_TTL_SECONDS = 30.0  # the default of the product


def soak(
    *, rounds: int, imports: int, seconds: float, lease_ttl_seconds: float, seed: int
) -> Report:
    """All parts, each with a product of its own."""
    machine, started_at = this_machine(), time.time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        done: list[Round] = []
        if rounds:
            with running(lease_ttl_seconds=lease_ttl_seconds) as product:
                done = runner.run(run_rounds(product, rounds=rounds, seed=seed, tell=_tell_round))
        imported: list[ImportRound] = []
        if imports:
            with running(lease_ttl_seconds=lease_ttl_seconds) as product:
                imported = run_imports(product, rounds=imports, seed=seed, tell=_tell_import)
        endurance: Endurance | None = None
        if seconds:
            with running(lease_ttl_seconds=lease_ttl_seconds) as product:
                endurance = runner.run(run_long(product, seconds=seconds, tell=_tell_progress))
    machine.load_after = this_machine().load_after
    return Report(
        started_at=started_at,
        machine=machine,
        settings={"LEASE_TTL_SECONDS": f"{lease_ttl_seconds:g}", "seed": str(seed)},
        rounds=done,
        imports=imported,
        endurance=endurance,
    )


def _tell_round(one: Round) -> None:
    leases = "–" if one.leases_after_seconds is None else f"{one.leases_after_seconds:.1f}"
    print(
        f"round {one.number}: {one.killed} killed, leases back after {leases} s, "
        f"{one.turns} {one.violations or ''}",
        file=sys.stderr,
        flush=True,
    )


def _tell_import(one: ImportRound) -> None:
    print(
        f"import {one.number}: {one.killed} killed, completed {one.completed_after_seconds} s "
        f"after it, {one.repeated} logins repeated {one.violations or ''}",
        file=sys.stderr,
        flush=True,
    )


def _tell_progress(elapsed: float, callers: Callers) -> None:
    print(f"{elapsed:.0f} s: {dict(callers.tally())}", file=sys.stderr, flush=True)


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    environ = os.environ
    parser.add_argument("--rounds", type=int, default=int(environ.get("SOAK_ROUNDS", ROUNDS)))
    parser.add_argument("--imports", type=int, default=int(environ.get("SOAK_IMPORTS", IMPORTS)))
    parser.add_argument(
        "--seconds", type=float, default=float(environ.get("SOAK_SECONDS", SECONDS))
    )
    parser.add_argument("--lease-ttl-seconds", type=float, default=LEASE_TTL_SECONDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "soak.json")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    options = arguments(given)
    report = soak(
        rounds=options.rounds,
        imports=options.imports,
        seconds=options.seconds,
        lease_ttl_seconds=options.lease_ttl_seconds,
        seed=options.seed,
    )
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    text = as_markdown(report)
    options.report.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Report: {options.report}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
