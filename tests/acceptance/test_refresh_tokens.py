"""Access tokens are renewed before they lapse, by job processes, once."""

import contextlib
import time
from collections.abc import Iterator, Mapping

import psutil  # type: ignore[import-untyped]  # no stubs in the lock file

from shared.store import keys
from tests.fakes.background import job_processes
from tests.fakes.chat import ask, text_of
from tests.fakes.stack import Program, Stack, eventually

ACCOUNTS = 6
HOUR = 3600


@contextlib.contextmanager
def product(environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Accounts whose tokens lapse within the hour, except the last, which never needed one."""
    given = {"WORKER_PROCESSES": "2", **(environment or {})}
    with Stack(environment=given, accounts=ACCOUNTS) as stack:
        lapse_soon(stack)
        yield stack


def lapse_soon(stack: Stack) -> None:
    for email in stack.emails[:-1]:
        set_fields(stack, email, state="ready", token="", token_version="1", token_at="")
        set_fields(stack, email, token_expires_at=str(time.time() + HOUR))


def set_fields(stack: Stack, email: str, **fields: str) -> None:
    words = [word for pair in fields.items() for word in pair]
    stack.redis.command("HSET", keys.account(email), *words)


def logins(stack: Stack) -> dict[str, int]:
    return dict(stack.sim.stats()["logins"])


def renewed(stack: Stack) -> list[str]:
    """Whose token lives longer than a day."""
    accounts = [stack.account(email) for email in stack.emails]
    return [a.email for a in accounts if (a.token_expires_at or 0) > time.time() + 86_400]


def test_each_token_that_lapses_soon_is_renewed_once_however_many_job_processes_there_are() -> None:
    with product() as stack, job_processes(stack), job_processes(stack):
        due = stack.emails[:-1]
        eventually(lambda: renewed(stack), within_seconds=20, until=lambda found: found == due)
        assert logins(stack) == dict.fromkeys(due, 1)


def test_accounts_that_are_dead_or_disabled_are_left_alone_and_a_wrong_password_is_told() -> None:
    with product() as stack:
        dead, disabled, wrong = stack.emails[:3]
        set_fields(stack, dead, state="dead", state_reason="its password is wrong")
        set_fields(stack, disabled, enabled="0")
        stack.sim.account(wrong, password="changed at the upstream")
        due = stack.emails[3:-1]
        with job_processes(stack):
            eventually(lambda: renewed(stack), within_seconds=20, until=lambda found: found == due)
            found = eventually(
                lambda: stack.account(wrong), within_seconds=5, until=lambda a: a.state == "dead"
            )
            assert "The email or password provided is incorrect" in found.state_reason
            assert stack.account(dead).state_reason == "its password is wrong"
        tried = {one["body"]["email"] for one in stack.sim.recorded("signin")}
        assert tried == {wrong, *due}


def test_nothing_is_renewed_without_auto_refresh() -> None:
    with product({"AUTO_REFRESH": "false"}) as stack, job_processes(stack):
        steps = eventually(
            lambda: stack.redis.command("HGET", keys.due_slots(), "refresh_tokens"),
            within_seconds=10,
            until=lambda reply: reply != b"$-1\r\n",
        )
        assert steps
        eventually(
            lambda: stack.redis.command("HLEN", keys.due_steps()),
            within_seconds=10,
            until=lambda reply: reply == b":0\r\n",
        )
        assert logins(stack) == {}


def test_a_turn_and_the_schedule_that_want_the_same_token_log_in_once() -> None:
    with product() as stack:
        for email in stack.emails[1:]:
            set_fields(stack, email, enabled="0")
        set_fields(stack, stack.emails[0], token_expires_at=str(time.time() + 1))
        stack.sim.config(latency_ms={"signin": 1_000})
        with job_processes(stack):
            eventually(lambda: stack.sim.recorded("signin"), within_seconds=20)
            assert text_of(ask(stack))
        assert logins(stack) == {stack.emails[0]: 1}


def test_a_firewall_ends_the_round_and_the_rest_is_renewed_when_its_rest_is_over() -> None:
    with product() as stack:
        stack.sim.next(operation="signin", fail="waf_page")
        with job_processes(stack):
            eventually(lambda: stack.sim.recorded("signin"), within_seconds=20)
            eventually(lambda: stack.redis.command("EXISTS", keys.rest("direct")) == b":1\r\n")
            assert renewed(stack) == []
            assert len(stack.sim.recorded("signin")) == 1
            stack.redis.command("DEL", keys.rest("direct"))
            set_fields(stack, stack.emails[0], error_at="")
            due = stack.emails[:-1]
            eventually(lambda: renewed(stack), within_seconds=40, until=lambda f: f == due)


def test_whoever_is_killed_every_token_is_renewed() -> None:
    """Promise 4's bound: interrupted work goes on within 60 s."""
    with product() as stack:
        stack.sim.config(latency_ms={"signin": 300})
        with job_processes(stack) as first:
            eventually(lambda: logins(stack), within_seconds=20)
            kill(first)
            with job_processes(stack):
                due = stack.emails[:-1]
                eventually(lambda: renewed(stack), within_seconds=60, until=lambda f: f == due)
        # The login that was under way when its process died is the only one done again.
        assert sum(logins(stack).values()) <= len(due) + 1


def kill(workers: Program) -> None:
    """kill -9 of the job processes and their parent."""
    parent = psutil.Process(workers.pid)
    for process in [*parent.children(recursive=True), parent]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
