"""Every failure of protocol sheet 15.4, scripted once at the upstream: who answers in the end, what
becomes of the account, and of its egress address. What callers see when all fail: test_errors.py.
"""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.store.accounts import Account
from tests.fakes.chat import (
    ask,
    assert_error,
    assert_in_band_error,
    call,
    directive,
    ended_well,
    get,
    text_of,
)
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.stack import Stack, eventually

Action = dict[str, Any]

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def hasty_stack() -> Iterator[Stack]:
    """Three accounts and the shortest deadlines."""
    with Stack(
        environment={
            "FIRST_TOKEN_TIMEOUT_SECONDS": "1",
            "KEEPALIVE_SECONDS": "1",
            "ACCOUNT_WAIT_SECONDS": "1",
        }
    ) as stack:
        yield stack


@pytest.fixture
def stack(hasty_stack: Stack) -> Stack:
    hasty_stack.clear()
    return hasty_stack


def attempts(stack: Stack) -> list[str]:
    """The account of each completion that was asked for, in order."""
    return [one["email"] for one in stack.sim.recorded("completions")]


def chats(stack: Stack) -> list[str]:
    return [one["body"]["chat_id"] for one in stack.sim.recorded("completions")]


def settled(stack: Stack, email: str) -> Account:
    """The account once its turn has given it back."""
    return eventually(
        lambda: stack.account(email), until=lambda account: not account.in_flight, within_seconds=2
    )


def next_midnight() -> float:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()


# -- another account answers

TRANSIENT: list[Action] = [
    {"fail": "internal_error"},
    {"fail": "internal_error", "form": "frame"},
    {"fail": "server_busy"},
    {"fail": "InternalError"},
    {"fail": "ErrorFrame"},
    {"fail": "ErrorText"},
    {"fail": "http_500"},
    {"fail": "html_500"},
    {"fail": "html_502"},
    {"fail": "html_503"},
    {"fail": "html_504"},
    {"fail": "empty"},
    {"fail": "nonsense"},
    {"fail": "text"},
    {"fail": "json_answer"},
    {"say": ""},
    {"reset": "before"},
    {"reset_after": 1},
    {"close_after": 1},
    {"cut_after": 1},
    {"hang": "before"},
    {"hang": "after"},
    {"silence_ms": 5000},
]


@BOTH
@pytest.mark.parametrize("action", TRANSIENT, ids=str)
def test_a_transient_failure_moves_to_another_account_and_a_new_chat(
    stack: Stack, action: Action, stream: bool
) -> None:
    stack.sim.next(operation="completions", **action)
    answer = ask(stack, stream=stream)
    assert "simulator" in text_of(answer)
    first, second = attempts(stack)
    assert first != second
    assert len(set(chats(stack))) == 2
    account = settled(stack, first)
    assert account.state in ("ready", "cooling")
    assert all(cooldown.until <= time.time() + 5 for cooldown in account.cooldowns)
    assert settled(stack, second).state == "ready"


@BOTH
@pytest.mark.parametrize(
    "fail", ["CHAT_NOT_FOUND", "PARENT_NOT_FOUND", "NotExist", "Not_Found", "ChatInProgress",
             "ChatInProgressRateLimited"],
)  # fmt: skip
def test_a_lost_or_locked_chat_is_replaced_and_blames_no_account(
    stack: Stack, fail: str, stream: bool
) -> None:
    stack.sim.next(operation="completions", fail=fail)
    assert text_of(ask(stack, stream=stream))
    assert len(set(chats(stack))) == 2
    account = settled(stack, attempts(stack)[0])
    assert [c for c in account.cooldowns if c.until > time.time() + 1 or c.reason == "quota"] == []


QUOTA: list[Action] = [
    {"fail": "RateLimited"},
    {"fail": "RateLimited", "num": 2},
    {"fail": "TodaysLimit"},
    {"fail": "RateLimited", "form": "frame"},
    {"fail": "quotaLimited"},
    {"fail": "ExceedLimit"},
    {"fail": "quota_exhausted"},
    {"fail": "membership_limit"},
    {"fail": "insufficient_quota"},
    {"fail": "AllocatedQuota"},
]


@BOTH
@pytest.mark.parametrize("action", QUOTA, ids=str)
def test_a_spent_account_rests_until_midnight_utc_and_another_answers(
    stack: Stack, action: Action, stream: bool
) -> None:
    stack.sim.next(operation="completions", **action)
    assert text_of(ask(stack, stream=stream))
    first, second = attempts(stack)
    assert first != second
    [cooldown] = settled(stack, first).cooldowns
    assert (cooldown.capability, cooldown.reason) == ("chat", "quota")
    since_midnight = 86_400 - (next_midnight() - time.time())
    if since_midnight > 1000:  # just after midnight the upstream's own hours count
        assert abs(cooldown.until - next_midnight()) < 2
    assert stack.account(first).state == "cooling"
    for _ in range(4):
        assert text_of(ask(stack))
    assert first not in attempts(stack)[1:]


@BOTH
@pytest.mark.parametrize(
    "fail",
    ["TooQuickly", "HighDemand", "ParallelLimited", "Too_Many_Requests", "http_429", "html_429"],
)
def test_a_burst_limit_rests_the_account_shortly_and_another_answers(
    stack: Stack, fail: str, stream: bool
) -> None:
    stack.sim.next(operation="completions", fail=fail)
    assert text_of(ask(stack, stream=stream))
    first, second = attempts(stack)
    assert first != second
    [cooldown] = settled(stack, first).cooldowns
    assert cooldown.reason == "busy"
    assert time.time() < cooldown.until < time.time() + 10


def test_a_burst_limit_on_the_only_account_is_waited_out(stack: Stack) -> None:
    """Sheet 15.4: the same account once after about 3 s, then another."""
    with Stack(accounts=1) as alone:
        alone.sim.next(operation="completions", fail="TooQuickly")
        begun = time.monotonic()
        assert text_of(ask(alone))
        assert time.monotonic() - begun > 2
        assert attempts(alone) == ["demo1@example.com"] * 2


# -- the token, the password


@BOTH
@pytest.mark.parametrize(
    "action",
    [
        {"fail": "Unauthorized"},
        {"fail": "http_401"},
        {"fail": "html_401"},
        {"fail": "http_403"},
        {"fail": "Forbidden"},
        {"fail": "Unauthorized", "form": "frame"},
    ],
    ids=str,
)
def test_a_dead_token_is_renewed_once_and_the_same_account_answers(
    stack: Stack, action: Action, stream: bool
) -> None:
    stack.sim.next(operation="completions", **action)
    assert text_of(ask(stack, stream=stream))
    first, second = attempts(stack)
    assert first == second
    assert [one["email"] for one in stack.sim.recorded("signin")] == [first]
    assert settled(stack, first).cooldowns == []


def together(stack: Stack) -> None:
    """As many turns at once as the accounts have slots: each account answers some."""
    prompts = [directive(frames=3, delay_ms=100)] * 6
    with ThreadPoolExecutor(len(prompts)) as threads:
        assert all(threads.map(lambda prompt: text_of(ask(stack, prompt)), prompts))


@pytest.mark.parametrize("unauthorized", ["status", "blanket"])
def test_a_token_dropped_before_its_time_is_noticed_by_every_account_alone(
    stack: Stack, unauthorized: str
) -> None:
    together(stack)
    stack.sim.config(unauthorized=unauthorized)
    stack.sim.revoke()
    before = len(stack.sim.recorded("signin"))
    together(stack)
    signed_in = [one["email"] for one in stack.sim.recorded("signin")][before:]
    assert sorted(signed_in) == stack.emails
    assert {settled(stack, email).state for email in stack.emails} == {"ready"}


def test_a_token_refused_again_after_its_renewal_moves_to_another_account(stack: Stack) -> None:
    stack.sim.next(operation="completions", fail="Unauthorized", times=2)
    assert text_of(ask(stack))
    first, again, second = attempts(stack)
    assert first == again != second
    assert len(stack.sim.recorded("signin")) == 1
    [cooldown] = settled(stack, first).cooldowns
    assert cooldown.until < time.time() + 10


@pytest.mark.parametrize("fail", ["InvalidPassword", "pending"])
def test_an_unusable_account_is_dead_and_the_operator_is_told(stack: Stack, fail: str) -> None:
    stack.sim.next(operation="completions", fail=fail)
    assert text_of(ask(stack))
    first, second = attempts(stack)
    assert first != second
    _assert_dead(stack, first)


@pytest.mark.parametrize("field", [{"state": "pending"}, {"password": "another one"}])
def test_an_account_that_cannot_sign_in_is_dead_and_another_answers(
    stack: Stack, field: dict[str, str]
) -> None:
    email = stack.emails[1]
    stack.sim.account(email, **field)
    stack.sim.revoke()
    try:
        for _ in range(4):
            assert text_of(ask(stack))
        _assert_dead(stack, email)
    finally:
        stack.sim.account(email, state="active", password="demo-password-2")


def _assert_dead(stack: Stack, email: str) -> None:
    assert settled(stack, email).state == "dead"
    admin = {"authorization": f"Bearer {stack.admin_key}"}
    shown = call(stack, "GET", f"/api/accounts?q={email}", headers=admin).json()
    [account] = shown["data"]
    assert (account["state"], shown["counts"]["dead"]) == ("dead", 1)
    assert account["last_error"]["message"]
    asked = len(stack.sim.recorded("completions"))
    for _ in range(4):
        assert text_of(ask(stack))
    assert email not in attempts(stack)[asked:]


# -- told to the caller at once


@BOTH
@pytest.mark.parametrize(
    "fail",
    [
        "ModelNotFound",
        "data_inspection_failed",
        "invalid_input",
        "InvalidAttachment",
        "MissingVersion",
        "a_code_nobody_has_seen",
    ],
)
def test_what_another_account_would_hear_as_well_is_told_at_once(
    stack: Stack, fail: str, stream: bool
) -> None:
    stack.sim.next(operation="completions", fail=fail)
    answer = ask(stack, stream=stream)
    assert 400 <= answer.status_code < 600
    [email] = attempts(stack)
    account = settled(stack, email)
    assert (account.state, account.cooldowns) == ("ready", [])


# -- the firewall refuses an address, not an account

FIREWALL = ["waf_page", "punish", "rgv587", "x5sec", "captcha", "html_403"]


@pytest.mark.parametrize("fail", FIREWALL)
@pytest.mark.parametrize("operation", ["completions", "chats_new"])
def test_a_firewall_rests_the_egress_and_no_account(
    stack: Stack, fail: str, operation: str
) -> None:
    stack.sim.next(operation=operation, fail=fail, times=0)
    answer = ask(stack)
    assert_error(answer, 503, "server_error", "upstream_blocked", retry_after=True)
    assert len(stack.sim.recorded(operation)) == 1
    for email in stack.emails:
        account = settled(stack, email)
        assert account.state in ("new", "ready")
        assert account.cooldowns == []
    again = ask(stack)
    assert_error(again, 503, "server_error", "upstream_blocked", retry_after=True)
    assert int(again.headers["retry-after"]) >= 60
    assert len(stack.sim.recorded(operation)) == 1
    ready = get(stack, "/readyz")
    assert ready.status_code == 200


def test_a_firewall_at_the_login_rests_the_egress_and_no_account(stack: Stack) -> None:
    stack.sim.revoke()
    stack.sim.next(operation="signin", fail="waf_page", times=0)
    assert_error(ask(stack), 503, "server_error", "upstream_blocked", retry_after=True)
    assert len(stack.sim.recorded("signin")) == 1
    assert_error(ask(stack), 503, "server_error", "upstream_blocked", retry_after=True)
    assert len(stack.sim.recorded("signin")) == 1
    assert {settled(stack, email).state for email in stack.emails} <= {"ready", "new"}


@pytest.mark.anyio
async def test_a_refused_egress_leaves_the_accounts_behind_another_one(stack: Stack) -> None:
    proxied = stack.emails[2]
    async with (
        ConnectProxy(tls=None, source="127.0.0.2", username="u", password="p") as proxy,
        stack.store() as store,
    ):
        await store.accounts.set_proxy(proxied, f"http://u:p@127.0.0.1:{proxy.port}")
        try:
            for email in stack.emails[:2]:
                stack.sim.next(operation="completions", email=email, fail="waf_page", times=0)
            for _ in range(4):
                assert text_of(await asyncio.to_thread(ask, stack))
            *refused, _, _, _, last = attempts(stack)
            assert last == proxied
            assert len([email for email in refused if email != proxied]) <= 1
            addresses = {one["email"]: one["address"] for one in stack.sim.recorded("completions")}
            assert addresses[proxied].startswith("127.0.0.2")
        finally:
            await store.accounts.set_proxy(proxied, "")


# -- how often, how long


@BOTH
def test_the_retry_count_bounds_the_attempts(stack: Stack, stream: bool) -> None:
    stack.sim.next(operation="completions", fail="internal_error", times=0)
    assert_error(ask(stack, stream=stream), 502, "server_error", "upstream_error")
    assert sorted(attempts(stack)) == stack.emails


def test_further_attempts_come_after_a_pause_that_doubles_and_is_never_quite_the_same() -> None:
    """A fleet that failed in step must not come back in step: half to the whole of
    `CHAT_RETRY_BACKOFF_MS`, then twice that."""
    first_pauses, second_pauses = [], []
    with Stack(environment={"CHAT_RETRY_BACKOFF_MS": "400"}) as stack:
        for _ in range(6):
            stack.clear()
            stack.sim.next(operation="completions", fail="nonsense", times=0)
            assert ask(stack).status_code == 502
            at = [one["at"] for one in stack.sim.recorded("completions")]
            assert len(at) == 3
            first_pauses.append(at[1] - at[0])
            second_pauses.append(at[2] - at[1])
    assert 0.2 <= min(first_pauses) < 0.4
    assert 0.4 <= min(second_pauses) < 0.8


def test_failing_over_goes_on_after_a_comment_has_gone_out(stack: Stack) -> None:
    """contract.md 4: comments and pings are not events."""
    stack.sim.next({"operation": "completions", "latency_ms": 950, "fail": "internal_error"},
                   {"operation": "completions", "latency_ms": 500})  # fmt: skip
    answer = ask(stack, stream=True)
    assert answer.text.startswith(": keepalive\n\n")
    assert ended_well(answer)
    assert text_of(answer)
    assert len(attempts(stack)) == 2


def test_when_all_fail_after_a_comment_it_is_told_in_band(stack: Stack) -> None:
    stack.sim.next(operation="completions", latency_ms=500, fail="internal_error", times=0)
    answer = ask(stack, stream=True)
    assert answer.text.startswith(": keepalive\n\n")
    assert_in_band_error(answer, "server_error", "upstream_error")
    assert len(attempts(stack)) == 3


def test_an_outage_is_not_multiplied_by_its_callers(stack: Stack) -> None:
    """The fleet's retry budget: 10 further attempts a second, beyond them a share of the first."""
    stack.sim.next(operation="completions", fail="internal_error", times=0)
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(stack).status_code, range(60)))
    seconds = time.monotonic() - begun
    assert set(answers) <= {502, 503}
    asked = len(attempts(stack))
    assert asked <= 60 + 10 * (seconds + 1) + 0.25 * 60


def test_turns_succeed_again_soon_after_the_upstream_is_back(stack: Stack) -> None:
    """contract.md 4: refused connections rest no account for more than 5 s."""
    stack.sim.stop()
    assert_error(ask(stack), 502, "server_error", "upstream_error")
    for email in stack.emails:
        assert all(c.until < time.time() + 5 for c in settled(stack, email).cooldowns)
    stack.sim.start()
    eventually(
        lambda: ask(stack).status_code, until=lambda status: status == 200, within_seconds=10
    )
