"""Metrics over several processes: real processes, real files."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics

COUNTER = """
import sys
from shared import metrics
metrics.REQUESTS.of("/v1/models", "other", "200").inc(int(sys.argv[1]))
metrics.REQUEST_SECONDS.of().observe(0.2)
metrics.STREAMS_OPEN.of().inc(int(sys.argv[1]))
print("counted", flush=True)
sys.stdin.read()
"""

Spawn = Callable[[int], "subprocess.Popen[str]"]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    processes: list[subprocess.Popen[str]] = []

    def start(count: int) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", COUNTER, str(count)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": "."},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def shown(directory: Path) -> dict[str, float]:
    page = metrics.render(None, directory=str(directory)).decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if "le" not in sample.labels
    }


def test_processes_are_summed(spawn: Spawn, tmp_path: Path) -> None:
    spawn(2)
    spawn(3)
    page = shown(tmp_path)
    assert page["qwen_gateway_requests_total"] == 5
    assert page["qwen_gateway_request_seconds_count"] == 2
    assert page["qwen_gateway_streams_open"] == 5


def test_a_killed_process_keeps_its_counts_and_loses_its_open_streams(
    spawn: Spawn, tmp_path: Path
) -> None:
    spawn(2)
    killed = spawn(3)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    page = shown(tmp_path)
    assert page["qwen_gateway_requests_total"] == 5
    assert page["qwen_gateway_streams_open"] == 2


def test_the_file_of_a_process_killed_while_making_it_breaks_no_scrape(
    spawn: Spawn, tmp_path: Path
) -> None:
    spawn(2)
    (tmp_path / "counter_999999.db").touch()
    assert shown(tmp_path)["qwen_gateway_requests_total"] == 2
