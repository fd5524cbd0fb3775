"""Promise 8: a WAF page, an empty answer or an error envelope inside HTTP 200 is never shown to a
client as a success. The egress address that was refused rests; its accounts are not to blame."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.caller import Call, ask, sample
from tests.fakes.stack import Stack

BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])

# What the upstream answers, each time with status 200 → status and code for the caller.
BLOCKED = (503, "upstream_blocked")
BROKEN = (502, "upstream_error")
EMPTY = (502, "upstream_empty")
DISGUISED: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "a firewall's page": ({"fail": "waf_page"}, BLOCKED),
    "a punish document": ({"fail": "punish"}, BLOCKED),
    "a punish document as a frame": ({"situation": "firewall_punish_frame"}, BLOCKED),
    "RGV587": ({"fail": "rgv587"}, BLOCKED),
    "x5sec": ({"fail": "x5sec"}, BLOCKED),
    "a captcha": ({"fail": "captcha"}, BLOCKED),
    "a page under the type of a stream": (
        {"fail": "waf_page", "content_type": "text/event-stream"},
        BLOCKED,
    ),
    "no byte": ({"empty": True}, EMPTY),
    "a stream without a byte": ({"situation": "empty_body"}, EMPTY),
    "only the created frame": ({"situation": "only_created"}, BROKEN),
    "an answer without text": ({"situation": "empty_answer"}, EMPTY),
    "a quota envelope": ({"fail": "RateLimited"}, (429, "accounts_exhausted")),
    "a quota envelope as a frame": (
        {"fail": "RateLimited", "form": "frame"},
        (429, "accounts_exhausted"),
    ),
    "an internal error": ({"fail": "internal_error"}, BROKEN),
    "an internal error as a frame": ({"fail": "internal_error", "form": "frame"}, BROKEN),
    "an error object as a frame": ({"fail": "ErrorFrame"}, BROKEN),
    "an error text as a frame": ({"fail": "ErrorText"}, BROKEN),
    "a refused token": ({"fail": "Unauthorized"}, BROKEN),
    "moderation": ({"fail": "data_inspection_failed"}, (400, "content_filter")),
    "an unknown model": ({"fail": "ModelNotFound"}, (404, "model_not_found")),
    "JSON that means nothing": ({"fail": "nonsense"}, BROKEN),
    "a line of text": ({"fail": "text"}, BROKEN),
    "an answer as one JSON document": ({"fail": "json_answer"}, BROKEN),
}


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    with Stack(environment={"CHAT_RETRY_BACKOFF_MS": "1"}) as stack:
        yield stack


@pytest.fixture
def stack(own_stack: Stack) -> Stack:
    own_stack.clear()
    return own_stack


def assert_told(call: Call, status: int, code: str) -> None:
    assert (call.status, call.code) == (status, code), call.body
    assert b"[DONE]" not in call.body
    assert b"choices" not in call.body
    if status in (429, 503):
        assert int(call.headers["retry-after"]) >= 1


@BOTH
@pytest.mark.parametrize("disguise", DISGUISED)
@pytest.mark.anyio
async def test_a_failure_inside_a_200_has_its_own_status(
    stack: Stack, disguise: str, stream: bool
) -> None:
    action, (status, code) = DISGUISED[disguise]
    stack.sim.next(operation="completions", times=0, **action)
    assert_told(await ask(stack.url, stack.key, "fooled?", stream=stream), status, code)


# What comes in place of the rest of an answer that had begun.
IN_THE_MIDDLE: dict[str, tuple[dict[str, Any], str]] = {
    "an envelope": ({"fail": "internal_error", "form": "frame"}, "upstream_error"),
    "an error object": ({"fail": "ErrorFrame"}, "upstream_error"),
    "an error text": ({"fail": "ErrorText"}, "upstream_error"),
    "a quota envelope": ({"fail": "RateLimited", "form": "frame"}, "accounts_exhausted"),
    "moderation": ({"fail": "data_inspection_failed", "form": "frame"}, "content_filter"),
    "a punish document": ({"fail": "punish", "form": "frame"}, "upstream_blocked"),
    "a reset": ({"reset_after": 4}, "upstream_error"),
    "a closed connection": ({"close_after": 4}, "upstream_error"),
    "an early end": ({"cut_after": 4}, "upstream_error"),
}


@BOTH
@pytest.mark.parametrize("interruption", IN_THE_MIDDLE)
@pytest.mark.anyio
async def test_a_failure_after_the_first_text_is_told_and_never_ended_as_a_success(
    stack: Stack, interruption: str, stream: bool
) -> None:
    action, code = IN_THE_MIDDLE[interruption]
    where = {"after": 4} if "fail" in action else {}
    stack.sim.next(operation="completions", say="one two three four", frames=4, **where, **action)
    call = await ask(stack.url, stack.key, "begun", stream=stream)
    assert call.code == code
    assert len(stack.sim.recorded("completions")) == 1  # nothing is silently begun again
    assert b"[DONE]" not in call.body
    if stream:
        assert call.status == 200
        assert call.text.startswith("one")
        assert b'"finish_reason":"stop"' not in call.body
        assert b'"error"' in call.frames[-1]
    else:
        assert call.status >= 400
        assert b"one" not in call.body


@BOTH
@pytest.mark.parametrize("operation", ["signin", "chats_new", "completions"])
@pytest.mark.parametrize("firewall", ["waf_page", "punish"])
@pytest.mark.anyio
async def test_a_refused_address_rests_and_nobody_is_blamed(
    stack: Stack, firewall: str, operation: str, stream: bool
) -> None:
    if operation == "signin":
        stack.sim.revoke()
    stack.sim.next(operation=operation, fail=firewall, times=0)
    assert_told(await ask(stack.url, stack.key, "first", stream=stream), *BLOCKED)
    stack.sim.clear()  # the firewall has calmed down at once
    asked = requests(stack)

    # No further call while the address rests, from any process.
    further = await asyncio.gather(
        *[ask(stack.url, stack.key, f"further {n}", stream=stream) for n in range(10)]
    )

    for call in further:
        assert_told(call, *BLOCKED)
        assert 60 <= int(call.headers["retry-after"]) <= 600
    assert requests(stack) == asked
    accounts = [stack.account(email) for email in stack.emails]
    assert [(one.state, one.cooldowns) for one in accounts] == [("ready", [])] * 3
    assert sample(stack.url, "accounts", state="dead") == 0


def requests(stack: Stack) -> dict[str, int]:
    """How often each operation was asked for; the model list apart, which costs no account."""
    told = stack.sim.stats()["requests"]
    return {name: one["total"] for name, one in told.items() if name != "models"}
