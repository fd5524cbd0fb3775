"""`POST /api/accounts/refresh`: many accounts get new tokens, as a batch."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.background import job_processes
from tests.fakes.chat import assert_error, call
from tests.fakes.stack import Stack, eventually

ACCOUNTS = 8


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    environment = {"AUTO_REFRESH": "false", "BATCH_LOGIN_CONCURRENCY": "50"}
    with Stack(environment=environment, accounts=ACCOUNTS) as stack, job_processes(stack):
        yield stack


@pytest.fixture
def stack(own_stack: Stack) -> Stack:
    own_stack.clear()
    return own_stack


def admin(stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.admin_key}"}


def refresh(stack: Stack, **body: Any) -> httpx.Response:
    return call(stack, "POST", "/api/accounts/refresh", headers=admin(stack), json=body)


def ended(stack: Stack, batch_id: str, *, within_seconds: float = 20) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        batch: dict[str, Any] = call(
            stack, "GET", f"/api/batches/{batch_id}", headers=admin(stack)
        ).json()
        return batch

    return eventually(
        look, within_seconds=within_seconds, until=lambda batch: batch["state"] == "completed"
    )


def logins(stack: Stack) -> dict[str, int]:
    return dict(stack.sim.stats()["logins"])


def test_each_account_whose_token_lapses_soon_is_logged_in_once(stack: Stack) -> None:
    first = refresh(stack)  # nobody has a token yet
    assert first.status_code == 202
    assert (first.json()["kind"], first.json()["total"]) == ("refresh", ACCOUNTS)
    batch = ended(stack, first.json()["id"])
    assert (batch["succeeded"], batch["failed"]) == (ACCOUNTS, 0)
    assert logins(stack) == dict.fromkeys(stack.emails, 1)

    second = refresh(stack).json()  # nobody's lapses within a day
    assert ended(stack, second["id"])["total"] == 0
    third = refresh(stack, threshold_hours=31 * 24).json()
    assert ended(stack, third["id"])["succeeded"] == ACCOUNTS
    assert logins(stack) == dict.fromkeys(stack.emails, 2)


def test_dead_and_disabled_accounts_are_left_alone_and_a_failure_is_told_with_its_reason(
    stack: Stack,
) -> None:
    disabled, wrong = stack.emails[:2]
    call(stack, "PATCH", f"/api/accounts/{disabled}", headers=admin(stack), json={"enabled": False})
    stack.sim.account(wrong, password="changed at the upstream")
    batch = ended(stack, refresh(stack, threshold_hours=31 * 24).json()["id"])
    assert (batch["total"], batch["succeeded"], batch["failed"]) == (7, 6, 1)
    [failed] = [line for line in batch["recent"] if line["status"] == "failed"]
    assert failed["email"] == wrong
    assert "The email or password provided is incorrect" in failed["message"]
    assert stack.account(wrong).state == "dead"
    batch = ended(stack, refresh(stack, threshold_hours=31 * 24).json()["id"])
    assert (batch["total"], batch["failed"]) == (6, 0)
    stack.sim.account(wrong, password="demo-password-2")


def test_logins_through_one_egress_keep_their_distance_and_none_of_them_fails() -> None:
    environment = {
        "AUTO_REFRESH": "false",
        "BATCH_LOGIN_CONCURRENCY": "50",
        "LOGIN_MIN_INTERVAL_MS": "1000",
    }
    simulator = ("--set", "login_min_interval_ms=700")
    with Stack(environment=environment, accounts=ACCOUNTS, simulator=simulator) as stack:
        with job_processes(stack):
            batch = ended(stack, refresh(stack).json()["id"], within_seconds=60)
        assert (batch["succeeded"], batch["failed"]) == (ACCOUNTS, 0)
        assert logins(stack) == dict.fromkeys(stack.emails, 1)


@pytest.mark.parametrize("hours", [-1, "soon"])
def test_a_wrong_threshold_is_refused(stack: Stack, hours: object) -> None:
    answer = refresh(stack, threshold_hours=hours)
    assert_error(answer, 400, "invalid_request_error", "invalid_value", param="threshold_hours")


def test_only_the_admin_may(stack: Stack) -> None:
    answer = call(stack, "POST", "/api/accounts/refresh", json={})
    assert_error(answer, 403, "permission_error", "forbidden")
