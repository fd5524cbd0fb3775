"""What a stack's admin API says was used, compared before and after."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tests.fakes.chat import call
from tests.fakes.stack import Stack, eventually

CURRENT_SECONDS = 1.0
"""Contract, section 5: usage is current within this."""

Used = dict[str, int]
NOTHING: Used = {"requests": 0, "input_tokens": 0, "output_tokens": 0, "failures": 0}


def admin_of(stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.admin_key}"}


def ask_admin(stack: Stack, path: str) -> Any:  # Any: JSON
    answer = call(stack, "GET", f"/api/{path}", headers=admin_of(stack))
    assert answer.status_code == 200, answer.text
    return answer.json()


def used_by(stack: Stack, by: str) -> dict[str, Used]:
    """What each account, key (its name) or model has used until now."""
    total: dict[str, Used] = {}
    for row in ask_admin(stack, f"usage?by={by}")["data"]:
        sums = total.setdefault(row[by], dict(NOTHING))
        for name in sums:
            sums[name] += row[name]
    return total


def total_of(stack: Stack, by: str) -> Used:
    """Over all accounts, keys or models."""
    sums = dict(NOTHING)
    for one in used_by(stack, by).values():
        for name in sums:
            sums[name] += one[name]
    return sums


class Grown:
    """How much the totals have grown since the block began."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = {by: total_of(stack, by) for by in ("account", "key", "model")}

    def now(self, by: str) -> Used:
        now = total_of(self._stack, by)
        return {name: now[name] - self._before[by][name] for name in now}

    def becomes(self, by: str, **expected: int) -> None:
        """The growth is this within the promised second."""
        wanted = NOTHING | expected
        eventually(
            lambda: self.now(by),
            within_seconds=CURRENT_SECONDS,
            until=lambda grown: grown == wanted,
        )


@contextlib.contextmanager
def growing(stack: Stack) -> Iterator[Grown]:
    yield Grown(stack)


def records(stack: Stack, **query: object) -> list[dict[str, Any]]:
    """The request log, newest first."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    found: list[dict[str, Any]] = ask_admin(stack, f"requests?{asked}")["data"]
    return found


def record_of(stack: Stack, request_id: str) -> dict[str, Any]:
    """The one record of this request, within the promised second."""
    [found] = eventually(
        lambda: records(stack, request_id=request_id),
        within_seconds=CURRENT_SECONDS,
        until=lambda found: len(found) == 1,
    )
    return found
