"""`python -m workers import` as an operator uses it: files, pipes, exit statuses, interruptions."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from tests.fakes.background import job_processes
from tests.fakes.batches import Batches, add_accounts
from tests.fakes.stack import ROOT, Stack, eventually

ENDS_SECONDS = 40.0


@pytest.fixture(scope="module")
def import_stack() -> Iterator[Stack]:
    environment = {"WORKER_PROCESSES": "1", "BATCH_LOGIN_CONCURRENCY": "10"}
    with Stack(environment=environment) as stack:
        yield stack


@pytest.fixture
def stack(import_stack: Stack) -> Iterator[Stack]:
    import_stack.clear()
    yield import_stack
    import_stack.sim.clear()


@pytest.fixture
def batches(stack: Stack) -> Iterator[Batches]:
    with Batches.of(stack) as batches:
        yield batches


def begin(
    stack: Stack, *arguments: str, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """The command, beside the stack's Redis, in a directory of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "workers", "import", *arguments],
        cwd=stack.folder,
        env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **stack.environment},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


class Ran:
    """What the command said, and its exit status."""

    def __init__(self, status: int, results: bytes, screen: bytes) -> None:
        self.status = status
        self.results = [tuple(line.split("\t")) for line in results.decode().splitlines()]
        self.screen = screen.decode()


def run(stack: Stack, *arguments: str, given: bytes | None = None) -> Ran:
    stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
    with begin(stack, *arguments, stdin=stdin) as process:
        results, screen = process.communicate(given, timeout=ENDS_SECONDS)
        return Ran(process.returncode, results, screen)


def write(stack: Stack, name: str, lines: Sequence[str]) -> Path:
    path = stack.folder / name
    path.write_text("\n".join(lines))
    return path


def test_it_imports_without_any_job_process_and_tells_each_line(
    stack: Stack, batches: Batches
) -> None:
    good = add_accounts(stack.sim, 30, name="alone")
    lines = [*good, "alone-1x@example.org:wrong", "no colon", good[3]]
    write(stack, "alone.txt", lines)
    ran = run(stack, "alone.txt")
    assert ran.status == 1, ran.screen
    assert [line[0] for line in ran.results] == [f"alone.txt:{n}" for n in range(1, 34)]
    assert ran.results[0] == ("alone.txt:1", "alone-1@example.org", "succeeded")
    assert ran.results[30][1:3] == ("alone-1x@example.org", "failed")
    assert "incorrect" in ran.results[30][3]
    assert ran.results[31][1:] == ("", "invalid", "no `:` between e-mail and password")
    assert ran.results[32][2:] == ("skipped", "The same e-mail address as in line 4.")
    # No terminal: plain lines.
    assert "\r" not in ran.screen
    assert "\x1b" not in ran.screen
    assert "pass:" not in ran.screen + str(ran.results)  # every password begins so
    assert "completed, 31/31, 30 succeeded, 1 failed, 1 skipped, 1 invalid" in ran.screen
    assert batches.http.get("/api/accounts/alone-7@example.org").json()["state"] == "ready"
    batch = batches.http.get("/api/batches").json()["data"][0]
    assert (batch["kind"], batch["state"], batch["succeeded"]) == ("import", "completed", 30)
    again = run(stack, "alone.txt", "--dry-run")
    assert (again.status, again.results[0][2]) == (1, "skipped")


def test_all_is_well_when_every_account_is_there(stack: Stack) -> None:
    one = write(stack, "one.txt", add_accounts(stack.sim, 3, name="file-one"))
    csv = "email,password\n" + "\n".join(
        line.replace(":", ",", 1) for line in add_accounts(stack.sim, 3, name="file-two")
    )
    write(stack, "two.csv", [csv])
    ran = run(stack, str(one), "two.csv", "-", given=b'["file-one-1@example.org:x"]')
    assert ran.status == 0, ran.screen
    assert [line[0] for line in ran.results] == [
        *(f"{one}:{n}" for n in (1, 2, 3)),
        *(f"two.csv:{n}" for n in (2, 3, 4)),
        "stdin:1",
    ]
    assert {line[2] for line in ran.results[:6]} == {"succeeded"}
    assert ran.results[6][2:] == ("skipped", f"The same e-mail address as in line 1 of {one}.")


def test_a_dry_run_says_what_would_be_and_stores_nothing(stack: Stack, batches: Batches) -> None:
    before = batches.http.get("/api/batches").json()
    ran = run(stack, "--dry-run", "-", given=b"dry@x.y:pw\nbad\nDRY@x.y:pw\n\n")
    assert ran.status == 1
    assert [line[:3] for line in ran.results] == [
        ("stdin:1", "dry@x.y", "valid"),
        ("stdin:2", "", "invalid"),
        ("stdin:3", "dry@x.y", "skipped"),
    ]
    assert "1 valid, 1 invalid, 1 skipped; nothing was stored" in ran.screen
    assert run(stack, "--dry-run", "-", given=b"dry@x.y:pw").status == 0
    assert batches.http.get("/api/batches").json() == before


def test_a_slow_pipe_is_read_as_it_comes(stack: Stack) -> None:
    lines = add_accounts(stack.sim, 4, name="pipe")
    with begin(stack, "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for line in lines:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            time.sleep(0.7)  # longer than Redis may be silent
        results, screen = process.communicate(timeout=ENDS_SECONDS)
    assert process.returncode == 0, screen
    assert results.count(b"succeeded") == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "FILE"),
        (["nowhere.txt"], "nowhere.txt"),
        (["."], "directory"),
        (["--dry-run", "--no-wait", "x"], "not allowed"),
        (["--follow", "batch_none"], "no such batch"),
        (["--follow", "batch_none", "x"], "FILE"),
        (["redis://[", "--dry-run"], ""),
        (["-"], "no lines were given"),
        (["-", "--dry-run"], "no lines were given"),
    ],
)
def test_wrong_usage_is_status_2_and_says_why(
    stack: Stack, arguments: list[str], told: str
) -> None:
    ran = run(stack, *arguments)
    assert ran.status == 2, ran.screen
    assert told in ran.screen
    assert "Traceback" not in ran.screen


def test_without_a_redis_to_join_it_says_what_to_start(stack: Stack, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATA_DIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "workers", "import", "-"],
        env=environment, cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert b"make run" in ran.stderr
    gone = {**stack.environment, "REDIS_URL": f"unix://{tmp_path}/none.sock"}
    ran = subprocess.run(
        [sys.executable, "-m", "workers", "import", "-"],
        env={**environment, **gone}, cwd=tmp_path, capture_output=True, input=b"a@b.c:pw",
        check=False,
    )  # fmt: skip
    assert ran.returncode == 3, ran.stderr
    assert b"Traceback" not in ran.stderr


def test_on_a_terminal_there_is_a_bar(stack: Stack) -> None:
    stack.sim.config(latency_ms={"signin": 300})
    write(stack, "bar.txt", add_accounts(stack.sim, 40, name="bar"))
    ours, theirs = pty.openpty()
    with begin(stack, "bar.txt", stderr=theirs) as process:
        os.close(theirs)
        screen = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                screen += piece
        results, _ = process.communicate(timeout=ENDS_SECONDS)
    os.close(ours)
    assert process.returncode == 0
    assert results.count(b"succeeded") == 40
    drawn = screen.decode().split("\r\x1b[K")
    bars = [line for line in drawn if "█" in line and "░" in line]
    assert len(bars) >= 2
    assert "40 succeeded" in drawn[-1]
    assert "left" in bars[-1]


def test_no_wait_leaves_it_to_the_job_processes_and_follow_watches(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.config(latency_ms={"signin": 200})
    write(stack, "left.txt", add_accounts(stack.sim, 40, name="left"))
    ran = run(stack, "--no-wait", "left.txt")
    assert (ran.status, ran.results) == (0, [])
    batch_id = ran.screen.split()[-1]
    assert batches.get(batch_id)["state"] == "queued"
    with job_processes(stack):
        eventually(lambda: batches.get(batch_id)["processed"] >= 5, within_seconds=20)
        ran = run(stack, "--follow", batch_id)
    assert ran.status == 0, ran.screen
    assert [line[0] for line in ran.results] == [f"{batch_id}:{n}" for n in range(1, 41)]


def test_an_interrupted_one_ends_what_it_began_and_the_rest_goes_on(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.config(latency_ms={"signin": 200})
    write(stack, "cut.txt", add_accounts(stack.sim, 200, name="cut"))
    with begin(stack, "cut.txt") as process:
        newest = eventually(
            lambda: batches.http.get("/api/batches?limit=1").json()["data"][0],
            within_seconds=20,
            until=lambda batch: batch["total"] == 200 and batch["processed"] >= 10,
        )
        process.send_signal(signal.SIGINT)
        _, screen = process.communicate(timeout=15)
    assert process.returncode == 130
    assert f"--follow {newest['id']}" in screen.decode()
    assert batches.get(newest["id"])["active"] == []
    ran = run(stack, "--follow", newest["id"])
    assert ran.status == 0, ran.screen
    assert len(ran.results) == 200
    logins = stack.sim.stats()["logins"]
    assert {number for email, number in logins.items() if email.startswith("cut-")} == {1}


def test_one_killed_by_force_loses_nothing(stack: Stack, batches: Batches) -> None:
    stack.sim.config(latency_ms={"signin": 200})
    write(stack, "killed.txt", add_accounts(stack.sim, 60, name="killed"))
    with begin(stack, "killed.txt") as process:
        newest = eventually(
            lambda: batches.http.get("/api/batches?limit=1").json()["data"][0],
            within_seconds=20,
            until=lambda batch: batch["total"] == 60 and batch["processed"] >= 10,
        )
        process.kill()
        process.communicate()
    ran = run(stack, "--follow", newest["id"])
    assert ran.status == 0, ran.screen
    assert batches.get(newest["id"])["succeeded"] == 60


def test_whoever_reads_the_results_may_leave(stack: Stack, batches: Batches) -> None:
    stack.sim.config(latency_ms={"signin": 100})
    write(stack, "head.txt", add_accounts(stack.sim, 100, name="head"))
    with begin(stack, "head.txt") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        screen = process.stderr.read().decode()
        assert process.wait(ENDS_SECONDS) == 130
    assert "Traceback" not in screen
    assert "Exception" not in screen
    batch = batches.http.get("/api/batches?limit=1").json()["data"][0]
    assert run(stack, "--follow", batch["id"]).status == 0


def test_a_frozen_redis_is_waited_for(stack: Stack, batches: Batches) -> None:
    stack.sim.config(latency_ms={"signin": 100})
    write(stack, "frozen.txt", add_accounts(stack.sim, 90, name="frozen"))
    with begin(stack, "frozen.txt") as process:
        eventually(
            lambda: batches.http.get("/api/batches?limit=1").json()["data"][0],
            within_seconds=20,
            until=lambda batch: batch["total"] == 90 and batch["processed"] >= 10,
        )
        stack.redis.freeze()
        time.sleep(2)  # longer than anybody waits for an answer
        stack.redis.thaw()
        results, screen = process.communicate(timeout=ENDS_SECONDS)
    assert process.returncode == 0, screen
    assert results.count(b"succeeded") == 90
    logins = stack.sim.stats()["logins"]
    assert {number for email, number in logins.items() if email.startswith("frozen-")} == {1}


def test_the_redis_of_qwen2api_is_read_and_left_as_it_is(stack: Stack, batches: Batches) -> None:
    url = f"{stack.redis.url}?db=3"
    lines = add_accounts(stack.sim, 250, name="redis")
    with redis.Redis.from_url(url, decode_responses=True) as old:
        for line in lines:
            email, _, password = line.partition(":")
            record = {"password": password, "token": "", "expires": "", "proxy": ""}
            old.hset(f"user:{email}", mapping=record | {"stats": "{}"})
        old.hset("user:broken", mapping={"password": "x"})
        kept = {"apiKeys": ["sk-of-its-admin", "sk-of-its-user"], "chatRetryBackoffMs": 500}
        old.hset("qwen2api:settings", "json", json.dumps(kept))
        before = {key: old.hgetall(key) for key in old.scan_iter()}
        try:
            assert run(stack, "--dry-run", url).status == 1
            assert (
                batches.http.get("/api/settings").json()["data"]["chat_retry_backoff_ms"]["value"]
                == 20
            )
            ran = run(stack, url)
            assert ran.status == 1, ran.screen
            assert {key: old.hgetall(key) for key in old.scan_iter()} == before
        finally:
            old.flushdb()
    assert [line[2] for line in ran.results].count("succeeded") == 250
    assert [line[1:] for line in ran.results if line[2] == "invalid"] == [
        ("", "invalid", "no e-mail address where one belongs")
    ]
    assert "taken over: chat_retry_backoff_ms; 2 API keys" in ran.screen
    assert "sk-of-its" not in ran.screen
    found = batches.http.get("/api/settings").json()["data"]["chat_retry_backoff_ms"]
    assert (found["value"], found["source"]) == (500, "stored")
    answer = batches.http.get("/v1/models", headers={"authorization": "Bearer sk-of-its-user"})
    assert answer.status_code == 200
    audit = batches.http.get("/api/settings/audit").json()["data"]
    assert audit[0]["by"]["key"] == "python -m workers import"
    batches.settings(chat_retry_backoff_ms=None)
