"""The gateway's server around a small app: granian's real processes, their drain and their deaths."""

import contextlib
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fakes.processes import (
    ROOT,
    Watched,
    clean_environment,
    free_port,
    status_of,
    wait_until_gone,
)
from tests.fakes.stack import eventually

SERVE = """
import os
from gateway import server
from shared import address
from shared.log import set_up_log
from shared.run_directory import RunDirectory
from shared.settings import load

settings = load(os.environ)
set_up_log("gateway", settings)
run = RunDirectory("gateway")
with address.claimed(settings.listen_address, settings.service_port):
    server.serve(settings, run_directory=run.path, app="tests.fakes.stub_app:create_app")
run.remove()
"""
WORKER = r"-c|multiprocessing"


@pytest.fixture
def port() -> int:
    return free_port()


@contextlib.contextmanager
def serving(port: int, **variables: str) -> Iterator[Watched]:
    environ = clean_environment(
        **{
            "SERVICE_PORT": str(port),
            "WORKERS": "2",
            "DRAIN_DELAY_SECONDS": "0",
            "DRAIN_SECONDS": "5",
            **variables,
        }
    )
    with Watched.start([sys.executable, "-c", SERVE], environ, directory=ROOT) as server:
        eventually(
            lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
            within_seconds=20,
            until=lambda status: status == 200,
        )
        eventually(lambda: len(server.family()), within_seconds=5, until=lambda n: n == 2)
        yield server


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


class Stream:
    """One stream read in a thread, so that the test can look at other things meanwhile."""

    def __init__(self, port: int, lines: int) -> None:
        self.text = ""
        self.failed = ""
        self._url = f"http://127.0.0.1:{port}/stream?n={lines}"
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._began.wait(10)

    def _read(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=30) as answer:
                for line in answer:
                    self.text += line.decode()
                    self._began.set()
        except OSError as error:
            self.failed = str(error)
            self._began.set()

    def join(self, seconds: float) -> str:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the stream goes on"
        assert not self.failed
        return self.text


def test_sigterm_keeps_accepting_with_readyz_503_and_lets_streams_finish(port: int) -> None:
    with serving(port, DRAIN_DELAY_SECONDS="1.5") as server:
        stream = Stream(port, lines=30)
        server.send(signal.SIGTERM)
        eventually(
            lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
            within_seconds=1,
            until=lambda status: status == 503,
        )
        assert get(port, "/pid")  # still served
        assert stream.join(10).splitlines() == [str(n) for n in range(30)]
        assert server.wait(5) == 0


def test_after_the_delay_nobody_is_let_in_while_a_stream_still_runs(port: int) -> None:
    with serving(port) as server:
        stream = Stream(port, lines=30)
        server.send(signal.SIGTERM)
        eventually(
            lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
            within_seconds=3,
            until=lambda status: status == 0,
        )
        assert stream.join(10).endswith("29\n")
        assert server.wait(5) == 0


def test_sigint_skips_the_delay(port: int) -> None:
    with serving(port, DRAIN_DELAY_SECONDS="30") as server:
        server.send(signal.SIGINT)
        assert server.wait(5) == 0


def test_streams_that_outlast_the_drain_are_told_to_end(port: int) -> None:
    with serving(port, DRAIN_SECONDS="1") as server:
        stream = Stream(port, lines=600)
        server.send(signal.SIGTERM)
        assert stream.join(4).endswith("ending\n")
        assert server.wait(3) == 0


def test_a_second_signal_ends_streams_at_once(port: int) -> None:
    with serving(port, DRAIN_DELAY_SECONDS="30", DRAIN_SECONDS="30") as server:
        stream = Stream(port, lines=600)
        server.send(signal.SIGTERM)
        eventually(lambda: "draining" in server.stderr, within_seconds=2)
        time.sleep(1.1)  # longer than the time in which a second signal counts as an echo
        server.send(signal.SIGTERM)
        assert stream.join(5).endswith("ending\n")
        assert server.wait(3) == 0


def test_the_echo_of_a_signal_changes_nothing(port: int) -> None:
    with serving(port) as server:
        stream = Stream(port, lines=20)
        server.send(signal.SIGTERM)
        eventually(lambda: "draining" in server.stderr, within_seconds=2)
        server.send(signal.SIGTERM)
        assert stream.join(10).endswith("19\n")
        assert server.wait(5) == 0


def test_a_killed_process_is_replaced_and_the_other_goes_on(port: int) -> None:
    with serving(port) as server:
        stream = Stream(port, lines=30)
        before = {child.pid for child in server.family()}
        # Which of the two carries the stream can't be chosen: kill one that answers elsewhere.
        carrier = _carrier(server, port)
        victim = next(child for child in server.family() if child.pid != carrier.pid)
        victim.kill()
        eventually(
            lambda: {child.pid for child in server.family()} - before,
            within_seconds=10,
            until=bool,
        )
        eventually(lambda: len(server.family()), within_seconds=5, until=lambda n: n == 2)
        assert stream.join(10).endswith("29\n")


def _carrier(server: Watched, port: int) -> psutil.Process:
    """The process with the established connection."""
    for child in server.family():
        if any(c.status == psutil.CONN_ESTABLISHED for c in child.net_connections("tcp")):
            return child
    raise AssertionError("nobody carries the stream")


def test_crashes_in_a_row_do_not_end_the_server(port: int) -> None:
    """granian gives up at two within 5.5 s."""
    with serving(port) as server:
        for _ in range(4):
            before = {child.pid for child in server.family()}
            for child in server.family():
                child.kill()
            eventually(
                lambda before=before: {c.pid for c in server.family()} - before,
                within_seconds=15,
                until=lambda new: len(new) == 2,
            )
        eventually(
            lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
            within_seconds=10,
            until=lambda status: status == 200,
        )
        assert server.process.poll() is None


def test_a_killed_parent_takes_its_processes_along(port: int) -> None:
    with serving(port) as server:
        family = server.family()
        server.kill()
        wait_until_gone(family, 5)
    with serving(port):  # the address is free again
        pass


def test_a_second_server_at_the_same_address_is_refused(port: int) -> None:
    environ = clean_environment(SERVICE_PORT=str(port), WORKERS="1", REDIS_URL="redis://x")
    keys = {"API_KEY": "sk-x", "SECRET_KEY": "s" * 40}
    with (
        serving(port),
        Watched.start([sys.executable, "-m", "gateway"], {**environ, **keys}) as second,
    ):
        assert second.wait(10) == 98
        [line] = second.stderr.splitlines()
        assert line.startswith(f"SERVICE_PORT: 127.0.0.1:{port} is taken")


def test_of_many_servers_racing_for_an_address_one_gets_it(port: int) -> None:
    """SO_REUSEPORT would let all of them listen."""
    environ = clean_environment(
        SERVICE_PORT=str(port),
        WORKERS="1",
        REDIS_URL="redis://127.0.0.1:1",
        API_KEY="sk-x",
        SECRET_KEY="s" * 40,
        DRAIN_DELAY_SECONDS="0",
    )
    with contextlib.ExitStack() as held:
        racers = [
            held.enter_context(Watched.start([sys.executable, "-m", "gateway"], environ))
            for _ in range(4)
        ]
        eventually(
            lambda: [racer.process.poll() for racer in racers],
            within_seconds=20,
            until=lambda ends: sorted(str(end) for end in ends) == ["98", "98", "98", "None"],
        )


def test_a_name_that_is_no_address_here_is_refused(port: int) -> None:
    environ = clean_environment(
        SERVICE_PORT=str(port),
        LISTEN_ADDRESS="no-such-host.invalid",
        REDIS_URL="redis://x",
        API_KEY="sk-x",
        SECRET_KEY="s" * 40,
    )
    with Watched.start([sys.executable, "-m", "gateway"], environ) as gateway:
        assert gateway.wait(10) == 98
        assert gateway.stderr.startswith("LISTEN_ADDRESS: no-such-host.invalid is no address")


def test_one_process_holds_two_thousand_streams(port: int) -> None:
    """granian's default would make the 1,025th wait for another to end."""
    count = 2_000
    with serving(port, WORKERS="2", DRAIN_SECONDS="1"), contextlib.ExitStack() as held:
        connections = []
        for _ in range(count):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            connection.sendall(b"GET /stream?n=600 HTTP/1.1\r\nHost: x\r\n\r\n")
            connections.append(connection)
        for connection in connections:
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_a_process_that_outgrew_its_memory_retires_without_breaking_its_streams(
    port: int, tmp_path: Path
) -> None:
    script = SERVE.replace(
        "run = RunDirectory",
        "server.RSS_LOOK_SECONDS = 1\nrun = RunDirectory",
    )
    environ = clean_environment(
        SERVICE_PORT=str(port), WORKERS="1", WORKER_MAX_MEMORY="10M", DRAIN_DELAY_SECONDS="0"
    )
    with Watched.start([sys.executable, "-c", script], environ, directory=ROOT) as server:
        eventually(
            lambda: status_of(f"http://127.0.0.1:{port}/readyz"),
            within_seconds=20,
            until=lambda status: status == 200,
        )
        stream = Stream(port, lines=40)
        eventually(lambda: "gateway process retires" in server.stderr, within_seconds=5)
        assert stream.join(10).endswith("39\n")
        server.send(signal.SIGTERM)
        assert server.wait(10) == 0
