"""The admin API of one account: added, changed, refreshed, reset, deleted."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fakes.chat import ask, assert_error, call, text_of
from tests.fakes.stack import Stack, eventually

NEW = {"email": "new@example.com", "password": "a-new-password"}


class Accounts:
    """The admin API of accounts, as the admin."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.headers = {"authorization": f"Bearer {stack.admin_key}"}

    def __call__(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        return call(self._stack, method, f"/api/accounts{path}", headers=self.headers, **more)

    def add(self, **fields: Any) -> httpx.Response:
        return self("POST", json=NEW | fields)

    def get(self, email: str) -> dict[str, Any]:
        account: dict[str, Any] = self("GET", f"/{email}").json()
        return account


@pytest.fixture
def accounts(stack: Stack) -> Iterator[Accounts]:
    """The upstream knows one more account than the pool does."""
    stack.sim.account(NEW["email"], password=NEW["password"], state="active")
    accounts = Accounts(stack)
    yield accounts
    stack.clear()
    accounts("DELETE", f"/{NEW['email']}")


def refused(answer: httpx.Response, status: int, code: str, *, param: str | None = None) -> None:
    """As contract.md 4 has it; who is to come again is told when."""
    types = {403: "permission_error", 503: "server_error"}
    type_ = types.get(status, "invalid_request_error")
    assert_error(answer, status, type_, code, param=param, retry_after=status == 503)


def logins(stack: Stack, email: str) -> int:
    return int(stack.sim.stats()["logins"].get(email, 0))


# -- adding


def test_an_added_account_is_signed_in_and_serves_at_once(stack: Stack, accounts: Accounts) -> None:
    answer = accounts.add()
    assert answer.status_code == 201, answer.text
    account = answer.json()
    assert (account["email"], account["state"]) == (NEW["email"], "ready")
    assert account["token_expires_at"] > account["added_at"]
    assert account.items() <= accounts.get(NEW["email"]).items()
    for email in stack.emails:
        accounts("PATCH", f"/{email}", json={"enabled": False})
    assert text_of(ask(stack))
    assert [one["email"] for one in stack.sim.recorded("completions")] == [NEW["email"]]
    assert NEW["password"] not in answer.text + stack.logs()


def test_an_account_that_is_there_is_a_conflict_and_nobody_logs_in(
    stack: Stack, accounts: Accounts
) -> None:
    before = logins(stack, stack.emails[0])
    answer = accounts.add(email=f" {stack.emails[0].upper()} ", password="whatever")
    refused(answer, 409, "conflict")
    assert logins(stack, stack.emails[0]) == before
    assert stack.sim.recorded("signin") == []


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_login_that_fails_is_told_with_the_upstreams_reason_and_leaves_nothing(
    stack: Stack, accounts: Accounts, status: int
) -> None:
    stack.sim.config(wrong_password_status=status)
    answer = accounts.add(password="not the password")
    refused(answer, 422, "login_failed")
    assert "The email or password provided is incorrect" in answer.json()["error"]["message"]
    refused(accounts("GET", f"/{NEW['email']}"), 404, "not_found")
    assert accounts.add().status_code == 201  # and nothing stands in the way of the right one


def test_an_account_that_is_not_activated_is_told(stack: Stack, accounts: Accounts) -> None:
    stack.sim.account(NEW["email"], state="pending")
    answer = accounts.add()
    refused(answer, 422, "login_failed")
    assert "pending" in answer.json()["error"]["message"]
    refused(accounts("GET", f"/{NEW['email']}"), 404, "not_found")


def test_a_firewall_is_no_fault_of_the_account_and_its_egress_rests(
    stack: Stack, accounts: Accounts
) -> None:
    stack.sim.next(operation="signin", fail="waf_page")
    answer = accounts.add()
    refused(answer, 503, "upstream_blocked")
    assert int(answer.headers["retry-after"]) > 0
    assert len(stack.sim.recorded("signin")) == 1
    again = accounts.add()
    refused(again, 503, "upstream_blocked")
    assert len(stack.sim.recorded("signin")) == 1  # nobody knocks meanwhile
    accounts("POST", f"/{stack.emails[0]}/reset")  # it leaves through the same address
    assert accounts.add().status_code == 201


def test_two_who_add_the_same_account_log_it_in_once(stack: Stack, accounts: Accounts) -> None:
    stack.sim.config(latency_ms={"signin": 300})
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: accounts.add().status_code, range(8)))
    assert sorted(answers) == [201] + [409] * 7
    assert len(stack.sim.recorded("signin")) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": None}, "email"),
        ({"email": "two words@example.com"}, "email"),
        ({"password": ""}, "password"),
        ({"password": 7}, "password"),
        ({"proxy": "ftp://proxy:1"}, "proxy"),
        ({"proxy": "http://"}, "proxy"),
        ({"proxy": "proxy:1080"}, "proxy"),
    ],
)
def test_what_is_no_account_is_refused_with_the_field(
    stack: Stack, accounts: Accounts, fields: dict[str, Any], param: str
) -> None:
    refused(accounts.add(**fields), 400, "invalid_value", param=param)
    assert stack.sim.recorded("signin") == []


# -- changing


def test_a_disabled_account_serves_nobody_until_it_is_enabled(
    stack: Stack, accounts: Accounts
) -> None:
    for email in stack.emails[1:]:
        answer = accounts("PATCH", f"/{email}", json={"enabled": False})
        assert (answer.status_code, answer.json()["state"]) == (200, "disabled")
    for number in range(4):
        assert text_of(ask(stack, f"ask {number}"))
    assert {one["email"] for one in stack.sim.recorded("completions")} == {stack.emails[0]}
    answer = accounts("PATCH", f"/{stack.emails[1]}", json={"enabled": True})
    assert answer.json()["enabled"] is True


def test_a_change_sets_what_it_names_and_null_takes_it_away(
    stack: Stack, accounts: Accounts
) -> None:
    path = f"/{stack.emails[2]}"
    answer = accounts("PATCH", path, json={"concurrency": 7, "proxy": "http://u:p@proxy:8080"})
    changed = answer.json()
    assert (changed["concurrency"], changed["proxy"]) == (7, "http://proxy:8080")
    assert changed["egress"] != "direct"
    assert "u:p" not in answer.text
    assert accounts("PATCH", path, json={"enabled": True}).json() == changed
    restored = accounts("PATCH", path, json={"concurrency": None, "proxy": None}).json()
    assert (restored["concurrency"], restored["proxy"]) == (None, "")
    assert restored["egress"] == "direct"


def test_a_new_password_brings_a_dead_account_back(stack: Stack, accounts: Accounts) -> None:
    assert accounts.add().status_code == 201
    stack.sim.account(NEW["email"], password="another-password")
    refused(accounts("POST", f"/{NEW['email']}/refresh"), 422, "login_failed")
    assert accounts.get(NEW["email"])["state"] == "dead"
    answer = accounts("PATCH", f"/{NEW['email']}", json={"password": "another-password"})
    assert (answer.json()["state"], answer.json()["token_expires_at"]) == ("new", None)
    assert accounts("POST", f"/{NEW['email']}/refresh").json()["state"] == "ready"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "two"}, "concurrency"),
        ({"enabled": "yes"}, "enabled"),
        ({"proxy": "nowhere"}, "proxy"),
        ({"password": ""}, "password"),
        ({"cookies": "a=b\r\nx: y"}, "cookies"),
    ],
)
def test_a_wrong_change_is_refused_with_the_field_and_changes_nothing(
    stack: Stack, accounts: Accounts, change: dict[str, Any], param: str
) -> None:
    before = accounts.get(stack.emails[0])
    answer = accounts("PATCH", f"/{stack.emails[0]}", json={"enabled": False} | change)
    refused(answer, 400, "invalid_value", param=param)
    assert accounts.get(stack.emails[0]) == before


def test_a_deleted_account_is_gone(accounts: Accounts) -> None:
    accounts.add()
    answer = accounts("DELETE", f"/{NEW['email']}")
    assert (answer.status_code, answer.content) == (204, b"")
    refused(accounts("GET", f"/{NEW['email']}"), 404, "not_found")
    refused(accounts("DELETE", f"/{NEW['email']}"), 404, "not_found")


# -- a new token, and an end of all rests


def test_a_refresh_gives_a_new_token_and_many_at_once_one_login(
    stack: Stack, accounts: Accounts
) -> None:
    accounts.add()
    stack.sim.config(latency_ms={"signin": 500})
    before = logins(stack, NEW["email"])
    with ThreadPoolExecutor(10) as threads:
        refresh = [threads.submit(accounts, "POST", f"/{NEW['email']}/refresh") for _ in range(10)]
    assert [one.result().status_code for one in refresh] == [200] * 10
    assert logins(stack, NEW["email"]) == before + 1


def test_a_refresh_and_turns_that_need_a_token_log_in_once(
    stack: Stack, accounts: Accounts
) -> None:
    for email in stack.emails[1:]:
        accounts("PATCH", f"/{email}", json={"enabled": False})
    email = stack.emails[0]
    assert text_of(ask(stack))
    before = logins(stack, email)
    stack.sim.revoke(email=email)
    stack.sim.config(latency_ms={"signin": 500})
    with ThreadPoolExecutor(3) as threads:
        turns = [threads.submit(ask, stack, f"turn {n}") for n in range(2)]
        eventually(lambda: stack.sim.recorded("signin"), within_seconds=5)
        refreshed = threads.submit(accounts, "POST", f"/{email}/refresh")
    assert refreshed.result().status_code == 200
    assert all(text_of(turn.result()) for turn in turns)
    assert logins(stack, email) == before + 1


def test_a_refresh_of_a_dead_account_is_tried_and_brings_it_back(
    stack: Stack, accounts: Accounts
) -> None:
    accounts.add()
    stack.sim.account(NEW["email"], state="pending")
    refused(accounts("POST", f"/{NEW['email']}/refresh"), 422, "login_failed")
    dead = accounts.get(NEW["email"])
    assert dead["state"] == "dead"
    assert "pending" in dead["state_reason"]
    stack.sim.account(NEW["email"], state="active")
    answer = accounts("POST", f"/{NEW['email']}/refresh")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")


def test_a_reset_ends_cooldowns_and_the_rest_of_the_egress(
    stack: Stack, accounts: Accounts
) -> None:
    stack.sim.next(operation="completions", fail="waf_page", times=0)
    refused(ask(stack), 503, "upstream_blocked")
    stack.sim.clear()
    refused(ask(stack), 503, "upstream_blocked")
    assert accounts("POST", f"/{stack.emails[0]}/reset").status_code == 200
    assert text_of(ask(stack))
    stack.sim.next(operation="completions", fail="quotaLimited", times=0)
    assert ask(stack).status_code == 429
    stack.sim.clear()
    answer = accounts("POST", f"/{stack.emails[0]}/reset")
    assert (answer.json()["state"], answer.json()["cooldowns"]) == ("ready", [])
    assert text_of(ask(stack))


# -- who may, and what isn't there

VERBS = [
    ("POST", ""),
    ("PATCH", "/demo1@example.com"),
    ("DELETE", "/demo1@example.com"),
    ("POST", "/demo1@example.com/refresh"),
    ("POST", "/demo1@example.com/reset"),
]


@pytest.mark.parametrize(("method", "path"), VERBS)
def test_only_the_admin_key_may(stack: Stack, method: str, path: str) -> None:
    address = f"/api/accounts{path}"
    refused(call(stack, method, address, json={}), 403, "forbidden")
    nobody = {"authorization": ""}
    refused(call(stack, method, address, headers=nobody, json={}), 401, "invalid_api_key")


@pytest.mark.parametrize(("method", "path"), VERBS[1:])
def test_an_unknown_account_is_not_found(accounts: Accounts, method: str, path: str) -> None:
    path = path.replace("demo1", "nobody")
    answer = accounts(method, path, json={"enabled": True} if method == "PATCH" else None)
    refused(answer, 404, "not_found")


def test_an_empty_change_of_an_unknown_account_is_not_found(accounts: Accounts) -> None:
    refused(accounts("PATCH", "/nobody@example.com", json={}), 404, "not_found")
