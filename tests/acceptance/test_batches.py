"""Batches through the whole product: gateway, job processes, Redis, simulator."""

import contextlib
import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil  # type: ignore[import-untyped]  # no stubs in the lock file
import pytest

from tests.fakes.background import job_processes
from tests.fakes.batches import Batches, Json, add_accounts, check_counters, most_at_once
from tests.fakes.stack import Program, Stack, eventually

TAKEN_UP_SECONDS = 60.0
"""Contract 7.4: interrupted work goes on within this."""
CHANGED_SECONDS = 2.0
"""Contract 5: a changed setting is in force in every process within this."""
LATENCY_MS = 200
KEEPALIVE_SECONDS = 2


@pytest.fixture(scope="module")
def batch_stack() -> Iterator[Stack]:
    environment = {
        "WORKER_PROCESSES": "2",
        "BATCH_LOGIN_CONCURRENCY": "10",
        "KEEPALIVE_SECONDS": str(KEEPALIVE_SECONDS),
    }
    with Stack(environment=environment) as stack:
        yield stack


@pytest.fixture
def stack(batch_stack: Stack) -> Iterator[Stack]:
    batch_stack.clear()
    yield batch_stack
    batch_stack.sim.clear()
    with Batches.of(batch_stack) as batches:
        batches.settings(batch_login_concurrency=None, login_min_interval_ms=None)


@pytest.fixture
def running(batch_stack: Stack) -> Iterator[Program]:
    """Job processes for one test alone: those of another would go on where it kills all of them."""
    with job_processes(batch_stack) as workers:
        yield workers


@pytest.fixture
def batches(stack: Stack) -> Iterator[Batches]:
    with Batches.of(stack) as batches:
        yield batches


@pytest.mark.usefixtures("running")
def test_each_line_has_its_outcome_and_each_good_one_its_account(
    stack: Stack, batches: Batches
) -> None:
    good = add_accounts(stack.sim, 12, name="mixed")
    wrong = "mixed-1x@example.org:not-its-password"
    known = f"{stack.emails[0].upper()}:whatever"
    batch = batches.create([*good[:6], "no colon", wrong, good[0], known, "", *good[6:]])
    assert (batch["total"], batch["valid"], batch["invalid"], batch["skipped"]) == (16, 13, 1, 2)
    assert batch["kind"] == "import"
    batch = batches.ended(batch["id"], within_seconds=20)
    assert (batch["state"], batch["succeeded"], batch["failed"]) == ("completed", 12, 1)
    results = {result["line"]: result for result in batches.results(batch["id"])}
    assert list(results) == [*range(1, 11), *range(12, 18)]  # line 11 is blank
    assert results[7]["status"] == "invalid"
    assert results[8]["status"] == "failed"
    assert "incorrect" in results[8]["message"]
    assert (results[9]["status"], results[9]["message"]) == (
        "skipped",
        "The same e-mail address as in line 1.",
    )
    assert (results[10]["status"], results[10]["message"]) == (
        "skipped",
        "The account exists already.",
    )
    assert {result["status"] for line, result in results.items() if line not in (7, 8, 9, 10)} == {
        "succeeded"
    }
    account = batches.http.get("/api/accounts/mixed-3@example.org").json()
    assert account["state"] == "ready"
    assert batches.http.get("/api/accounts/mixed-1x@example.org").status_code == 404
    assert len(batch["recent"]) == 13
    assert batches.http.get("/api/batches").json()["data"][0]["id"] == batch["id"]


def test_a_dry_run_stores_nothing(stack: Stack, batches: Batches) -> None:
    before = batches.http.get("/api/batches").json()
    lines = ["dry-1@example.org:pw", "dry-1@example.org:pw", "nothing", f"{stack.emails[0]}:pw"]
    answer = batches.http.post("/api/batches", json={"accounts": "\n".join(lines), "dry_run": True})
    assert answer.status_code == 200
    assert answer.json() == {
        "total": 4,
        "valid": 1,
        "invalid": 1,
        "skipped": 2,
        "lines": [
            {"line": 1, "email": "dry-1@example.org", "status": "valid", "message": ""},
            {
                "line": 2,
                "email": "dry-1@example.org",
                "status": "skipped",
                "message": "The same e-mail address as in line 1.",
            },
            {
                "line": 3,
                "email": "",
                "status": "invalid",
                "message": "no `:` between e-mail and password",
            },
            {
                "line": 4,
                "email": stack.emails[0],
                "status": "skipped",
                "message": "The account exists already.",
            },
        ],
    }
    assert batches.http.get("/api/batches").json() == before


def test_regular_keys_may_not_touch_batches(stack: Stack) -> None:
    for method, path in (
        ("POST", "/api/batches"),
        ("GET", "/api/batches"),
        ("GET", "/api/batches/x"),
        ("GET", "/api/batches/x/results"),
        ("GET", "/api/batches/x/events"),
        ("POST", "/api/batches/x/cancel"),
        ("POST", "/api/batches/x/retry"),
    ):
        answer = httpx.request(method, stack.url + path, headers=stack.headers)
        assert answer.status_code == 403, path
        assert answer.json()["error"]["code"] == "forbidden"


def test_a_batch_that_is_none_is_a_404(batches: Batches) -> None:
    for method, path in (
        ("GET", ""),
        ("GET", "/results"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        answer = batches.http.request(method, f"/api/batches/batch_none{path}")
        assert answer.status_code == 404, path


def test_without_a_line_there_is_no_batch(batches: Batches) -> None:
    answer = batches.http.post("/api/batches", json={"accounts": " \n"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "accounts"


@pytest.mark.usefixtures("running")
def test_whoever_watches_sees_it_grow_and_end(stack: Stack, batches: Batches) -> None:
    stack.sim.config(latency_ms={"signin": 400})
    batch = batches.create(add_accounts(stack.sim, 40, name="watched"))
    seen = []
    with batches.http.stream("GET", f"/api/batches/{batch['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
                check_counters(seen[-1])
    done = [one["processed"] for one in seen]
    assert done == sorted(done)
    assert len(set(done)) >= 3
    assert (seen[-1]["state"], seen[-1]["succeeded"]) == ("completed", 40)
    active = [one["active"] for one in seen if one["active"]]
    assert all(len(emails) <= 10 for emails in active)
    assert active[0][0].startswith("watched-")


@pytest.mark.usefixtures("running")
def test_whoever_watches_what_does_not_move_hears_that_the_stream_lives(
    stack: Stack, batches: Batches
) -> None:
    """Contract, section 7: promise 5."""
    stack.sim.next(operation="signin", hang="before")
    batch = batches.create(add_accounts(stack.sim, 1, name="slow"))
    moments = []
    with batches.http.stream("GET", f"/api/batches/{batch['id']}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith(":"):
                moments.append(time.monotonic())
            if len(moments) == 3:
                break
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert max(gaps) <= KEEPALIVE_SECONDS
    batches.post(batch["id"], "cancel")


@pytest.mark.usefixtures("running")
def test_a_gateway_that_drains_ends_the_stream_and_keeps_nobody_waiting(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.next(operation="signin", hang="before")
    batch = batches.create(add_accounts(stack.sim, 1, name="drained"))
    gateway = stack.add_gateway()
    with (
        httpx.Client(base_url=gateway.url, headers=batches.http.headers, timeout=10) as client,
        client.stream("GET", f"/api/batches/{batch['id']}/events") as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        gateway.signal(signal.SIGTERM)
        signalled_at = time.monotonic()
        for _ in lines:
            pass
        assert time.monotonic() - signalled_at < 5
    assert gateway.stop() == 0
    stack.gateways.remove(gateway)
    batches.post(batch["id"], "cancel")


@pytest.mark.usefixtures("running")
def test_never_more_logins_at_once_than_the_setting_in_force(
    stack: Stack, batches: Batches
) -> None:
    """Over two batches and two job processes, as the simulator sees it."""
    batches.settings(batch_login_concurrency=4)
    time.sleep(CHANGED_SECONDS)
    stack.sim.config(latency_ms={"signin": LATENCY_MS})
    since = time.time()
    one = batches.create(add_accounts(stack.sim, 150, name="narrow-a"))
    other = batches.create(add_accounts(stack.sim, 150, name="narrow-b"))
    eventually(lambda: batches.get(one["id"])["processed"] >= 20, within_seconds=20)
    batches.settings(batch_login_concurrency=12)
    changed_at = time.time()
    for batch in (one, other):
        assert batches.ended(batch["id"], within_seconds=30)["succeeded"] == 150
    log = [entry for entry in stack.sim.stats()["login_log"] if entry["at"] >= since]
    assert len(log) == 300
    seconds = LATENCY_MS / 1000 * 0.9
    before = [entry for entry in log if entry["at"] < changed_at]
    after = [entry for entry in log if entry["at"] > changed_at + CHANGED_SECONDS]
    assert most_at_once(before, seconds=seconds) <= 4
    assert most_at_once(log, seconds=seconds) <= 12
    assert most_at_once(after, seconds=seconds) > 4


@pytest.mark.usefixtures("running")
def test_two_batches_at_once_get_the_same_share(stack: Stack, batches: Batches) -> None:
    stack.sim.config(latency_ms={"signin": 100})
    since = time.time()
    long = batches.create(add_accounts(stack.sim, 400, name="long"))
    eventually(lambda: batches.get(long["id"])["processed"] >= 20, within_seconds=20)
    short = batches.create(add_accounts(stack.sim, 60, name="short"))
    batches.ended(short["id"], within_seconds=30)
    log = [entry for entry in stack.sim.stats()["login_log"] if entry["at"] >= since]
    emails = [entry["email"] for entry in log]
    first = next(i for i, email in enumerate(emails) if email.startswith("short"))
    last = max(i for i, email in enumerate(emails) if email.startswith("short"))
    both = Counter(email.partition("-")[0] for email in emails[first : last + 1])
    assert both["short"] == 60
    assert 40 <= both["long"] <= 80
    batches.post(long["id"], "cancel")


@pytest.mark.usefixtures("running")
def test_after_a_cancel_no_further_line_is_begun_and_a_retry_goes_on(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.config(latency_ms={"signin": 300})
    batch = batches.create(add_accounts(stack.sim, 100, name="cancelled"))
    eventually(lambda: batches.get(batch["id"])["processed"] >= 10, within_seconds=20)
    batch = batches.post(batch["id"], "cancel")
    assert batch["state"] == "cancelled"
    logins = len(stack.sim.recorded("signin"))
    time.sleep(1.5)
    assert len(stack.sim.recorded("signin")) == logins
    batch = batches.get(batch["id"])
    assert batch["active"] == []
    assert 10 <= batch["processed"] < 100
    assert batches.statuses(batch["id"]) == {
        "succeeded": batch["succeeded"],
        "cancelled": 100 - batch["succeeded"],
    }
    stack.sim.config(latency_ms={})
    assert batches.post(batch["id"], "retry")["state"] == "running"
    assert batches.ended(batch["id"], within_seconds=20)["succeeded"] == 100


@pytest.mark.usefixtures("running")
def test_what_failed_can_be_retried(stack: Stack, batches: Batches) -> None:
    lines = add_accounts(stack.sim, 5, name="retried")
    stack.sim.account("retried-2@example.org", password="changed")
    batch = batches.ended(batches.create(lines)["id"], within_seconds=20)
    assert (batch["succeeded"], batch["failed"]) == (4, 1)
    stack.sim.account("retried-2@example.org", password="pass:retried-2@example.org")
    batches.post(batch["id"], "retry")
    batch = batches.ended(batch["id"], within_seconds=20)
    assert (batch["succeeded"], batch["failed"]) == (5, 0)
    logins = stack.sim.stats()["logins"]
    assert {logins[f"retried-{number}@example.org"] for number in (1, 3, 4, 5)} == {1}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("form", ["429"])
def test_an_upstream_that_wants_it_slower_fails_no_line(
    stack: Stack, batches: Batches, form: str
) -> None:
    stack.sim.config(login_min_interval_ms=150, login_limit_form=form)
    batch = batches.create(add_accounts(stack.sim, 15, name=f"slower-{form}"))
    batch = batches.ended(batch["id"], within_seconds=60)
    assert (batch["succeeded"], batch["failed"]) == (15, 0)


@pytest.mark.usefixtures("running")
def test_a_firewall_rests_the_egress_and_the_batch_goes_on_by_itself(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.next(operation="signin", fail="waf_page")
    batches.settings(batch_login_concurrency=1)
    time.sleep(CHANGED_SECONDS)
    batch = batches.create(add_accounts(stack.sim, 3, name="blocked"))
    eventually(lambda: len(stack.sim.recorded("signin")) == 1, within_seconds=10)
    time.sleep(1.5)
    assert len(stack.sim.recorded("signin")) == 1
    batch = batches.get(batch["id"])
    assert (batch["state"], batch["processed"]) == ("running", 0)
    # The operator ends the rest; otherwise it ends after two minutes.
    batches.http.post(f"/api/accounts/{stack.emails[0]}/reset").raise_for_status()
    batch = batches.ended(batch["id"], within_seconds=20)
    assert (batch["succeeded"], batch["failed"]) == (3, 0)


@pytest.mark.usefixtures("running")
def test_an_upstream_that_is_broken_for_a_moment_fails_no_line(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.next(operation="signin", fail="html_502", times=3)
    batch = batches.create(add_accounts(stack.sim, 3, name="broken"))
    batch = batches.ended(batch["id"], within_seconds=20)
    assert (batch["succeeded"], batch["failed"]) == (3, 0)


@pytest.mark.usefixtures("running")
def test_the_metric_counts_lines_exactly(stack: Stack, batches: Batches) -> None:
    def lines() -> dict[str, float]:
        text = httpx.get(f"{stack.url}/metrics").text
        found = [line for line in text.splitlines() if "batch_lines_total{" in line]
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}

    before = lines()
    good = add_accounts(stack.sim, 4, name="metric")
    batch = batches.create([*good, good[0], "nothing", "metric-x@example.org:wrong"])
    batches.ended(batch["id"], within_seconds=20)
    after = lines()
    grown = {outcome: after[outcome] - before.get(outcome, 0) for outcome in after}
    assert {outcome: number for outcome, number in grown.items() if number} == {
        "succeeded": 4,
        "skipped": 1,
        "invalid": 1,
        "failed": 1,
    }


# -- the page


@pytest.mark.usefixtures("running")
def test_a_batch_is_put_down_watched_and_retried_on_a_page(stack: Stack, batches: Batches) -> None:
    lines = add_accounts(stack.sim, 3, name="page")
    stack.sim.config(latency_ms={"signin": 1_500})
    with httpx.Client(base_url=stack.url, follow_redirects=True, timeout=10) as client:
        client.post("/admin/login", data={"key": stack.admin_key})
        page = client.get("/admin/batches").text
        token = page.partition('name="csrf_token" value="')[2].partition('"')[0]
        refused = client.post("/admin/batches", data={"accounts": lines[0]})
        assert refused.status_code == 403
        refused = client.post("/admin/batches", data={"accounts": " ", "csrf_token": token})
        assert (refused.status_code, "no lines were given" in refused.text) == (400, True)
        text = "\r\n".join([*lines, "page-x@example.org:wrong<b>", "nothing"])
        page_of_batch = client.post("/admin/batches", data={"accounts": text, "csrf_token": token})
        assert page_of_batch.status_code == 200
        address = page_of_batch.url.path
        assert 'http-equiv="refresh"' in page_of_batch.text
        batches.ended(address.rpartition("/")[2], within_seconds=20)
        ended = client.get(address).text
        assert 'http-equiv="refresh"' not in ended
        assert "page-x@example.org" in ended
        assert "no `:` between e-mail and password" in ended
        assert not [one for one in (page_of_batch.text, ended) if "wrong" in one or "pass:" in one]
        again = client.post(f"{address}/retry", data={"csrf_token": token})
        assert (again.status_code, "running" in again.text) == (200, True)
        cancelled = client.post(f"{address}/cancel", data={"csrf_token": token})
        assert "cancelled" in cancelled.text
        assert address in client.get("/admin/batches").text


# -- whoever dies


def tree(program: Program) -> list[psutil.Process]:
    return psutil.Process(program.pid).children(recursive=True)


def job_process_ids(program: Program) -> list[int]:
    return [child.pid for child in tree(program) if "job-process" in child.cmdline()]


@pytest.mark.timeout(300)
def test_killed_job_processes_lose_no_line_and_do_none_twice(
    stack: Stack, batches: Batches
) -> None:
    """One after the other is killed with -9; the parent starts others."""
    stack.sim.config(latency_ms={"signin": 100})
    count = 400
    ready = batches.ready_accounts()
    lines = add_accounts(stack.sim, count, name="killed")
    kills = 0
    with job_processes(stack) as workers:
        batch = batches.create(lines)
        while kills < 3 and (before := batches.get(batch["id"]))["state"] != "completed":
            moved_on(batches, before)
            time.sleep(0.5)
            if pids := job_process_ids(workers):
                psutil.Process(pids[kills % len(pids)]).send_signal(signal.SIGKILL)
                kills += 1
        batches.ended(batch["id"], within_seconds=2 * TAKEN_UP_SECONDS)
    check_all_done(stack, batches, batch["id"], count, ready=ready, killed=kills, name="killed")


@pytest.mark.timeout(300)
def test_when_all_job_processes_are_killed_it_goes_on_after_a_restart(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.config(latency_ms={"signin": 200})
    count = 150
    ready = batches.ready_accounts()
    with job_processes(stack) as workers:
        batch = batches.create(add_accounts(stack.sim, count, name="restarted"))
        eventually(lambda: batches.get(batch["id"])["processed"] >= 20, within_seconds=20)
        for process in [psutil.Process(workers.pid), *tree(workers)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        workers.process.wait()
    processed = batches.get(batch["id"])["processed"]
    with job_processes(stack):
        restarted_at = time.monotonic()
        eventually(
            lambda: batches.get(batch["id"])["processed"] > processed,
            within_seconds=TAKEN_UP_SECONDS,
        )
        assert time.monotonic() - restarted_at < TAKEN_UP_SECONDS
        batches.ended(batch["id"], within_seconds=TAKEN_UP_SECONDS)
    check_all_done(stack, batches, batch["id"], count, ready=ready, killed=2, name="restarted")


@pytest.mark.timeout(120)
def test_job_processes_that_stop_end_what_they_began_and_others_go_on_at_once(
    stack: Stack, batches: Batches
) -> None:
    stack.sim.config(latency_ms={"signin": 300})
    count, ready = 100, batches.ready_accounts()
    with job_processes(stack) as workers:
        batch = batches.create(add_accounts(stack.sim, count, name="stopped"))
        eventually(lambda: batches.get(batch["id"])["processed"] >= 10, within_seconds=20)
        workers.signal(signal.SIGTERM)
        assert workers.process.wait(10) == 0
    stopped = batches.get(batch["id"])
    assert (stopped["state"], stopped["active"]) == ("running", [])
    assert stopped["processed"] < count
    with job_processes(stack):
        # Sooner than claims lapse (20 s): they were given back.
        eventually(
            lambda: batches.get(batch["id"])["processed"] > stopped["processed"], within_seconds=15
        )
        batches.ended(batch["id"], within_seconds=30)
    check_all_done(stack, batches, batch["id"], count, ready=ready, killed=0, name="stopped")


@pytest.mark.timeout(120)
def test_a_gateway_that_dies_takes_nothing_with_it(stack: Stack, batches: Batches) -> None:
    stack.sim.config(latency_ms={"signin": 200})
    with job_processes(stack):
        batch = batches.create(add_accounts(stack.sim, 60, name="gateway-died"))
        eventually(lambda: batches.get(batch["id"])["processed"] >= 5, within_seconds=20)
        for pid in stack.gateway_pids():
            psutil.Process(pid).kill()
        stack.gateway.wait_until_ready()
        with Batches.of(stack) as anew:
            batch = anew.ended(batch["id"], within_seconds=30)
    assert batch["succeeded"] == 60


def moved_on(batches: Batches, before: Json) -> None:
    """More lines are done than before, within what is promised."""
    eventually(
        lambda: batches.get(before["id"]),
        within_seconds=TAKEN_UP_SECONDS,
        until=lambda now: now["processed"] > before["processed"] or now["state"] == "completed",
    )


def check_all_done(
    stack: Stack,
    batches: Batches,
    batch_id: str,
    count: int,
    *,
    ready: int,
    killed: int,
    name: str,
) -> None:
    """Every line has succeeded once; a login was repeated only where its process died in it."""
    batch = batches.get(batch_id)
    assert (batch["state"], batch["succeeded"], batch["failed"]) == ("completed", count, 0)
    assert batch["active"] == []
    check_counters(batch)
    assert batches.statuses(batch_id) == {"succeeded": count}
    assert batches.ready_accounts() == ready + count
    logins = {
        email: number
        for email, number in stack.sim.stats()["logins"].items()
        if email.startswith(f"{name}-")
    }
    assert len(logins) == count
    share = 5  # of `BATCH_LOGIN_CONCURRENCY`, per process
    assert sum(logins.values()) - count <= killed * share
    assert max(logins.values()) <= 1 + killed


# -- secrets


@pytest.mark.usefixtures("running")
def test_a_password_is_in_no_log_no_answer_and_nowhere_in_redis(
    stack: Stack, batches: Batches, running: Program
) -> None:
    add_accounts(stack.sim, 2, name="secret")
    lines = [
        "secret-1@example.org:Tr0ub4dor-right",
        "secret-2@example.org:Tr0ub4dor-wrong|http://user:Tr0ub4dor-proxy@127.0.0.1:9",
        "Tr0ub4dor-is-no-line",
    ]
    stack.sim.account("secret-1@example.org", password="Tr0ub4dor-right")
    batch = batches.ended(batches.create(lines)["id"], within_seconds=40)
    told = [batches.http.get(f"/api/batches/{batch['id']}{path}").text for path in ("", "/results")]
    told += [batches.http.get("/api/batches").text, stack.logs(), running.logs()]
    told += [batches.http.get("/api/accounts").text, stack.redis.command("INFO").decode()]
    script = """local all = {}
      for _, key in ipairs(redis.call('KEYS', '*')) do
        all[#all + 1] = redis.call('DUMP', key)
      end
      local found = 0
      for _, dump in ipairs(all) do
        if string.find(dump, 'Tr0ub4dor', 1, true) then found = found + 1 end
      end
      return {found, #all}"""
    found = stack.redis.command("EVAL", script, "0").decode().split("\r\n")
    assert found[1] == ":0"
    assert int(found[2][1:]) > 5
    assert not [text for text in told if "Tr0ub4dor" in text]
