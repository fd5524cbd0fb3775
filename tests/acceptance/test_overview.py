"""`GET /api/overview`: the numbers of the first page, and that page."""

import httpx

from tests.fakes.chat import ask, asking, call, directive, usage_of
from tests.fakes.ledger import ask_admin
from tests.fakes.stack import Stack, eventually


def test_it_tells_accounts_models_keys_and_what_was_used_today(stack: Stack) -> None:
    before = ask_admin(stack, "overview")
    told = usage_of(ask(stack))
    assert told is not None
    after = ask_admin(stack, "overview")
    assert set(after) == {
        "instance", "processes", "open_streams", "in_flight", "accounts", "usable", "models",
        "variants", "today", "keys", "configured_keys",
    }  # fmt: skip
    assert after["today"]["requests"] == before["today"]["requests"] + 1
    assert after["today"]["output_tokens"] == (
        before["today"]["output_tokens"] + told["completion_tokens"]
    )
    assert (after["instance"], after["processes"], after["usable"]) == ("ready", 2, True)
    assert sum(after["accounts"].values()) == len(stack.emails)
    assert set(after["accounts"]) == {"new", "ready", "cooling", "disabled", "dead"}
    assert 0 < after["models"] < after["variants"]
    assert after["configured_keys"] == 3
    assert after["keys"] == len(
        [key for key in ask_admin(stack, "keys")["data"] if not key["name"].startswith("API_KEY")]
    )


def test_it_counts_the_streams_that_are_open_now(stack: Stack) -> None:
    with asking(stack, directive(say="x " * 50, frames=50, delay_ms=50)) as answer:
        chunks = answer.iter_bytes()
        next(chunks)
        numbers = ask_admin(stack, "overview")
        assert (numbers["open_streams"], numbers["in_flight"]) == (1, 1)
    eventually(lambda: ask_admin(stack, "overview")["in_flight"] == 0, within_seconds=2)


def test_regular_keys_may_not_see_it(stack: Stack) -> None:
    assert call(stack, "GET", "/api/overview").status_code == 403


def test_the_page_shows_what_was_asked_today(stack: Stack) -> None:
    ask(stack)
    headers = {"authorization": f"Bearer {stack.admin_key}"}
    page = httpx.get(f"{stack.url}/admin/", headers=headers).text
    assert "Requests today" in page
    assert f">{ask_admin(stack, 'overview')['today']['requests']:,}<" in page
