"""Tells the ledger of every request that callers make: answered, refused, failed or left.

An entry is written before the answer's last byte goes out, so whoever has seen an answer to its end
is counted, whatever is killed then. Who left is counted when its turn has settled: only then it is
known what it used.

Knows: which routes count, what a request leaves in its scope (`caller`, `asked_model`, `turn`,
`failure`). Does not know: sums, the log.
"""

import asyncio
from typing import Final

from starlette.types import Scope

from shared.errors import GatewayError
from shared.store.api_keys import ApiKey
from shared.store.ledger import CLIENT_LEFT, Entry, Ledger, Record
from shared.turns.entry import entry_of, milliseconds
from shared.turns.run import ChatTurn

# POST: each is one request in the sums of its key and model. Of all others the log has the refused.
GENERATING: Final = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/responses"})
CALLERS_PATHS: Final = ("/v1", "/cli")


class Accounting:
    """One per process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._settling: set[asyncio.Task[None]] = set()

    async def before_last_byte(
        self, scope: Scope, *, route: str, status: int, seconds: float
    ) -> None:
        """The request is written into the ledger, unless what it used isn't known yet."""
        turn: ChatTurn | None = scope.get("turn")
        if not _is_final(turn):
            return
        scope["accounted"] = True
        if _concerns(scope, route, status):
            await self._ledger.write(_entry(scope, route=route, status=status, seconds=seconds))

    def after(self, scope: Scope, *, route: str, status: int, seconds: float) -> None:
        """A request that was not written before: its client left, or a drain broke it off."""
        if scope.get("accounted"):
            return
        if "failure" not in scope:
            status = CLIENT_LEFT
        if not _concerns(scope, route, status):
            return
        settling = asyncio.create_task(self._after(scope, route, status, seconds))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Everything that ended has been handed to the ledger."""
        if self._settling:
            await asyncio.wait(self._settling)

    async def _after(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        turn: ChatTurn | None = scope.get("turn")
        if turn is not None:
            await turn.settled()
        self._ledger.note(_entry(scope, route=route, status=status, seconds=seconds))


def _concerns(scope: Scope, route: str, status: int) -> bool:
    return _counts(scope, route) or (status >= 400 and scope["path"].startswith(CALLERS_PATHS))


def _counts(scope: Scope, route: str) -> bool:
    return route in GENERATING and scope["method"] == "POST"


def _is_final(turn: ChatTurn | None) -> bool:
    return turn is None or not turn.tried or turn.usage is not None or turn.error is not None


def _entry(scope: Scope, *, route: str, status: int, seconds: float) -> Entry:
    caller: ApiKey | None = scope.get("caller")
    turn: ChatTurn | None = scope.get("turn")
    failure: GatewayError | None = scope.get("failure")
    key_id, key_name = (caller.id, caller.name) if caller is not None else ("", "")
    if turn is not None:
        began = turn.first_event_at
        return entry_of(
            turn,
            request_id=scope["request_id"],
            route=route,
            key_id=key_id,
            key_name=key_name,
            status=status,
            total_seconds=seconds,
            first_token_seconds=None if began is None else began - scope["arrived_at"],
            error=failure or turn.error,
        )
    asked_model: str | None = scope.get("asked_model")
    record = Record(
        request_id=scope["request_id"],
        route=route,
        status=status,
        total_ms=milliseconds(seconds),
        key_id=key_id,
        model=asked_model and asked_model[:_LONGEST_NAME],
        error=failure.code if failure is not None else None,
    )
    return Entry(record=record, key_name=key_name, summed=_counts(scope, route))


_LONGEST_NAME: Final = 100
