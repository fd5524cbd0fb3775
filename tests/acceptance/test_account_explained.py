"""`GET /api/accounts/{email}`: what an account used, and why it is or isn't chosen now."""

import time

from tests.fakes.chat import answer_with, ask, call, usage_of
from tests.fakes.ledger import CURRENT_SECONDS, admin_of, ask_admin
from tests.fakes.stack import Stack, eventually


def test_an_account_tells_what_it_used_today_and_its_last_uses(stack: Stack) -> None:
    answer = ask(stack, headers={"x-request-id": "the-use-i-look-for"})
    told = usage_of(answer)
    assert told is not None
    found = [ask_admin(stack, f"accounts/{email}") for email in stack.emails]
    [account] = [
        one
        for one in found
        if any(use["request_id"] == "the-use-i-look-for" for use in one["last_uses"])
    ]
    use = account["last_uses"][0]
    assert (use["input_tokens"], use["output_tokens"]) == (
        told["prompt_tokens"],
        told["completion_tokens"],
    )
    assert (use["model"], use["error"]) == (answer.headers["x-gateway-model"], None)
    assert abs(use["at"] - time.time()) < 10
    assert account["used"]["today"]["requests"] >= 1
    listed = {one["email"]: one for one in ask_admin(stack, "accounts")["data"]}
    assert listed[account["email"]]["used"] == account["used"]
    assert account["cli"] == {"state": "off", "requests_today": 0}


def test_it_says_why_an_account_is_not_chosen_now(stack: Stack) -> None:
    email = stack.emails[0]
    path = f"/api/accounts/{email}"
    call(stack, "PATCH", path, headers=admin_of(stack), json={"enabled": False})
    try:
        chat = ask_admin(stack, f"accounts/{email}")["explain"][0]
        assert (chat["capability"], chat["lent"]) == ("chat", False)
        assert [reason["code"] for reason in chat["reasons"]] == ["disabled"]
    finally:
        call(stack, "PATCH", path, headers=admin_of(stack), json={"enabled": True})
    assert ask_admin(stack, f"accounts/{email}")["explain"][0]["reasons"] == []


def test_a_failure_is_among_the_last_errors_of_its_account(stack: Stack) -> None:
    answer_with(stack, fail="quota_exhausted")
    assert ask(stack, headers={"x-request-id": "the-quota"}).status_code == 200

    def failed() -> list[dict[str, object]]:
        accounts = [ask_admin(stack, f"accounts/{email}") for email in stack.emails]
        return [
            account
            for account in accounts
            if any(error["request_id"] == "the-quota" for error in account["last_errors"])
        ]

    [account] = eventually(failed, within_seconds=CURRENT_SECONDS)
    chat = account["explain"][0]  # type: ignore[index]
    assert chat["lent"] is False
    [reason] = chat["reasons"]
    assert reason["code"] == "cooling"
    assert "quota" in reason["message"]
    assert reason["until"] > time.time()


def test_nobody_is_404(stack: Stack) -> None:
    answer = call(stack, "GET", "/api/accounts/nobody@example.org", headers=admin_of(stack))
    assert answer.status_code == 404
