"""The report: figures with their spread over the repetitions of one run, as JSON and as a table."""

import contextlib
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from tests.fakes.stack import ROOT


class Spread(msgspec.Struct, frozen=True):
    """A value that was measured `repetitions` times."""

    median: float
    low: float
    high: float
    repetitions: int

    def __str__(self) -> str:
        if self.repetitions == 1:
            return _short(self.median)
        return f"{_short(self.median)} ({_short(self.low)}–{_short(self.high)})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), len(values))


class Figure(msgspec.Struct):
    """One line of the report. The report's legend explains `name` and `case`.

    Attributes:
        values: by target: `gateway`, `other`, `direct` (the simulator itself).
    """

    name: str
    case: str
    unit: str
    values: dict[str, Spread]


class Machine(msgspec.Struct):
    processor: str
    cores: int
    python: str
    commit: str
    load_before: float
    load_after: float


class Report(msgspec.Struct):
    """`reports/bench.json`.

    Attributes:
        legend: what exactly each name and each case of a figure means.
        tables: what is longer than a figure; by title, then by row.
    """

    started_at: float
    seconds: float
    quick: bool
    machine: Machine
    set_up: dict[str, str]
    figures: list[Figure]
    tables: dict[str, dict[str, float]]
    legend: dict[str, str]
    notes: list[str]

    def figure(self, name: str, case: str) -> Figure:
        return next(one for one in self.figures if (one.name, one.case) == (name, case))


def this_machine() -> Machine:
    load = os.getloadavg()[0]
    return Machine(_processor(), os.cpu_count() or 1, sys.version.split()[0], _commit(), load, load)


def as_table(report: Report) -> str:
    """Plain text: a line per figure, a column per target; then what each name means."""
    rows = _rows(report)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    legend = [f"{name}: {text}" for name, text in report.legend.items()]
    blocks = [_head(report), lines, _tables(report), legend, report.notes]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def as_markdown(report: Report) -> str:
    """The same without the legend, for a page."""
    head, *rows = ["| " + " | ".join(row) + " |" for row in _rows(report)]
    rule = "|" + "---|" * len(_rows(report)[0])
    blocks = ["\n".join([head, rule, *rows]), *_head(report), *_tables(report), *report.notes]
    return "\n\n".join(blocks) + "\n"


def _rows(report: Report) -> list[list[str]]:
    targets = list(dict.fromkeys(name for figure in report.figures for name in figure.values))
    rows = [["figure", "case", "unit", *targets]]
    for figure in report.figures:
        cells = [str(figure.values[name]) if name in figure.values else "" for name in targets]
        rows.append([figure.name, figure.case, figure.unit, *cells])
    return rows


def _head(report: Report) -> list[str]:
    machine = report.machine
    return [
        f"{machine.processor}, {machine.cores} cores, Python {machine.python}, {machine.commit}; "
        f"load {machine.load_before:.1f} → {machine.load_after:.1f}; {report.seconds:.0f} s; "
        "median (min–max) over repetitions",
        *(f"{name}: {text}" for name, text in report.set_up.items()),
    ]


def _tables(report: Report) -> list[str]:
    return [
        f"{title}: " + ", ".join(f"{name} {_short(value)}" for name, value in table.items())
        for title, table in report.tables.items()
    ]


def _short(value: float) -> str:
    if value != value:  # NaN: nothing was measured
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, check=False
        )
        return done.stdout.decode().strip() or "no commit"
    return "no commit"
