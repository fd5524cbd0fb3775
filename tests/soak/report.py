"""The soak's report: `reports/soak.json`, and the same for reading."""

from collections import Counter, defaultdict

import msgspec

from tests.bench.report import Machine, Spread, spread
from tests.soak.endurance import Endurance
from tests.soak.imports import ImportRound
from tests.soak.kills import Round


class Report(msgspec.Struct):
    """Everything of one soak. `violations`: of all parts; empty is what is promised."""

    started_at: float
    machine: Machine
    settings: dict[str, str]
    rounds: list[Round]
    imports: list[ImportRound]
    endurance: Endurance | None

    @property
    def violations(self) -> list[str]:
        found = [
            f"round {one.number}, {one.killed} killed: {violation}"
            for one in self.rounds
            for violation in one.violations
        ]
        found += [
            f"import {one.number}, {one.killed} killed: {violation}"
            for one in self.imports
            for violation in one.violations
        ]
        return found + ([] if self.endurance is None else self.endurance.violations)


def as_markdown(report: Report) -> str:
    machine = report.machine
    blocks = [
        "# Soak",
        f"{machine.processor}, {machine.cores} cores, Python {machine.python}, {machine.commit}. "
        + ", ".join(f"{name} {value}" for name, value in report.settings.items())
        + ".",
        _kills(report.rounds) if report.rounds else "",
        _imports(report.imports) if report.imports else "",
        _long(report.endurance) if report.endurance is not None else "",
        "## Broken promises",
        "\n".join(f"- {one}" for one in report.violations) or "None.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _kills(rounds: list[Round]) -> str:
    """A row per role that was killed."""
    by_role: dict[str, list[Round]] = defaultdict(list)
    for one in rounds:
        by_role[one.killed].append(one)
    lines = [
        f"## {len(rounds)} rounds with one `kill -9` each",
        "",
        "| killed | rounds | served again after s | leases back after s | slowest 503 without Redis s | turns | refused with |",
        "|---|---|---|---|---|---|---|",
    ]
    for role, some in sorted(by_role.items()):
        turns = sum((Counter(one.turns) for one in some), Counter[str]())
        refusals = sum((Counter(one.refusals) for one in some), Counter[str]())
        cells = [
            role,
            str(len(some)),
            _seconds([one.serving_after_seconds for one in some]),
            _seconds([one.leases_after_seconds for one in some]),
            _seconds([one.unavailable_seconds for one in some]),
            ", ".join(f"{verdict} {count}" for verdict, count in turns.most_common()),
            ", ".join(f"{what} ×{count}" for what, count in refusals.most_common()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _imports(rounds: list[ImportRound]) -> str:
    """A row per role that was killed while an import ran."""
    by_role: dict[str, list[ImportRound]] = defaultdict(list)
    for one in rounds:
        by_role[one.killed].append(one)
    lines = [
        f"## {len(rounds)} imports with one `kill -9` each",
        "",
        "| killed | imports | completed after s | logins repeated |",
        "|---|---|---|---|",
    ]
    for role, some in sorted(by_role.items()):
        seconds = _seconds([one.completed_after_seconds for one in some])
        repeated = sum(one.repeated for one in some)
        lines.append(f"| {role} | {len(some)} | {seconds} | {repeated} |")
    return "\n".join(lines)


def _long(run: Endurance) -> str:
    turns = ", ".join(f"{verdict} {count}" for verdict, count in run.turns.items())
    lines = [
        f"## {run.seconds:.0f} s of steady load",
        "",
        f"Turns: {turns}.",
        "",
        "| process | MB in the second quarter | MB in the last | growth MB | growth of open files |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.role} | {one.rss_mb_early} | {one.rss_mb_late} | {one.rss_mb_growth:.1f} "
        f"| {one.open_files_growth:.0f} |"
        for one in run.growth
    ]
    return "\n".join(lines)


def _seconds(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    found: Spread | str = spread(known) if known else "–"
    return str(found)
