"""`make bench` in its smallest form: its report is complete. What it says is asserted nowhere."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.bench.phases import COST_CASES, KINDS, MEASURES
from tests.bench.report import Report
from tests.fakes.processes import Watched, clean_environment, wait_until_gone
from tests.fakes.stack import ROOT, eventually

PER_COST_CASE = {
    "turns_per_cpu_s",
    "cpu_ms_per_turn",
    "turns_per_s",
    "redis_cpu_ms_per_turn",
    "simulator_cpu_ms_per_turn",
    "client_cpu_ms_per_turn",
    "redis_scripts_per_turn",
    "redis_commands_per_turn",
    "redis_bytes_in_per_turn",
    "redis_bytes_out_per_turn",
    "upstream_requests_per_turn",
}
QUANTILES = ("p50", "p99")
FRAME_CASES = tuple(
    f"{streams} {one}" for streams in ("1_stream", "50_streams") for one in QUANTILES
)
EXPECTED = {
    *(("cold_start", case) for case in ("ready", "first_answer")),
    *((name, case.name) for name in PER_COST_CASE for case in COST_CASES),
    *(("frames_per_core_s", case.name) for case in COST_CASES if case.kind == "streamed"),
    *((name, case) for name in ("first_token", "added_first_token") for case in QUANTILES),
    *((name, case) for name in ("frame", "added_frame") for case in FRAME_CASES),
    *((name, kind) for name in ("rate_p99_under_50ms", "p99_at_that_rate") for kind in KINDS),
    ("streams_without_stall", "20ms"),
    ("streams_open_meanwhile", "with_streams"),
    *(
        (name, case)
        for name in ("rss_per_process", "rss_tree")
        for case in ("idle", "before_streams", "with_streams", "after_streams")
    ),
}


@pytest.mark.timeout(120)
def test_the_load_rig_reports_every_figure_of_the_contract(tmp_path: Path) -> None:
    """Contract, section 8. The rig itself refuses a phase with a wrong answer in it."""
    path = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--effort", "tiny", "--report", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    figures = {(figure.name, figure.case): figure for figure in report.figures}
    assert set(figures) == EXPECTED
    assert {name for name, _ in EXPECTED} == set(MEASURES)
    assert all(
        figure.values["gateway"].median >= 0
        for figure in figures.values()
        if "added" not in figure.name
    )
    assert "direct" in figures["first_token", "p50"].values
    assert set(report.tables) == {
        "Redis commands per streamed turn",
        "Upstream requests per streamed turn",
    }
    assert "core(s)" in report.set_up["gateway"]
    assert all(f"{name}: " in done.stdout for name in MEASURES), "printed with what it means"
    assert "| cold_start | ready | s |" in path.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.timeout(60)
def test_a_rig_that_is_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "--report", str(tmp_path / "bench.json")]
    with Watched.start(command, clean_environment(), directory=ROOT) as rig:
        eventually(lambda: "cold start" in rig.stderr, within_seconds=30)
        family = rig.family()
        assert len(family) >= 4, "Redis, the simulator, the gateway's parent and process"
        rig.send(signal.SIGTERM)
        assert rig.wait(20) == 1
        wait_until_gone(family, seconds=5)
