"""The examples in deploy/ are taken by the programs they are written for."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared import metrics
from tests.fakes.components import find_component, requires_component
from tests.fakes.redis_server import RedisServer

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": "/usr/bin:/bin", **variables},
    )


@requires_component("haproxy")
def test_haproxy_takes_its_configuration() -> None:
    done = run(find_component("haproxy") or "", "-c", "-f", str(DEPLOY / "haproxy.cfg"))
    assert done.returncode == 0, done.stderr
    assert "[WARNING]" not in done.stderr


@requires_component("nginx")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    logs = f"pid {tmp_path}/nginx.pid; error_log stderr;"
    done = run(find_component("nginx") or "", "-t", "-c", str(DEPLOY / "nginx.conf"), "-g", logs)
    assert done.returncode == 0, done.stderr


@requires_component("promtool")
def test_prometheus_takes_its_configuration() -> None:
    done = run(find_component("promtool") or "", "check", "config", str(DEPLOY / "prometheus.yml"))
    assert done.returncode == 0, done.stderr


@requires_component("promtool")
def test_the_metrics_page_passes_promtools_linter() -> None:
    page = metrics.render(metrics.PoolState(accounts={"ready": 1})).decode()
    done = subprocess.run(
        [find_component("promtool") or "", "check", "metrics"],
        input=page,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout


@requires_component("redis-server")
def test_redis_takes_its_configuration(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    config = DEPLOY / "redis.conf"
    process = subprocess.Popen(
        [
            find_component("redis-server") or "",
            str(config),
            *("--port", "0", "--unixsocket", str(server.socket), "--dir", str(tmp_path)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        from tests.fakes.stack import eventually

        eventually(lambda: process.poll() is not None or server.answers(), within_seconds=10)
        assert b"noeviction" in server.command("CONFIG", "GET", "maxmemory-policy")
        assert b"yes" in server.command("CONFIG", "GET", "appendonly")
    finally:
        process.kill()
        process.communicate()


def test_every_metric_of_the_dashboard_exists() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    page = metrics.render(metrics.PoolState()).decode()
    families = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"qwen_gateway_\w+", target["expr"])
    }
    assert asked
    assert asked <= families


@pytest.mark.parametrize("command", ["gateway", "workers"])
def test_the_image_starts_what_it_is_told_and_waits_for_redis(command: str) -> None:
    """Without Docker: the entry point itself, with a Redis that never comes."""
    root = DEPLOY.parent
    done = subprocess.run(
        [str(DEPLOY / "entrypoint.sh"), command],
        env={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(root),
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "WAIT_FOR_REDIS_SECONDS": "0.2",
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("no Redis at 127.0.0.1:1")


def test_the_image_holds_every_folder_its_commands_import() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    for folder in ("shared", "gateway", "workers", "deploy"):
        assert f"COPY {folder} ./{folder}" in dockerfile


@pytest.mark.parametrize(
    "unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda u: u.name
)
def test_units_signal_the_parent_alone(unit: Path) -> None:
    """systemd's default signals every process of the unit: Redis would end first."""
    assert "KillMode=mixed" in unit.read_text()
