"""What the ledger is told of a turn, by the gateway and by job processes alike."""

from typing import Final

from shared.chat.events import Usage
from shared.errors import GatewayError
from shared.log import Redactor
from shared.store.ledger import Entry, Record, Use
from shared.turns.run import ChatTurn, Tried

LANE: Final = "web"

# What an upstream says of a failure is its own text: whatever looks like a secret is masked.
_redact: Final = Redactor()


def entry_of(
    turn: ChatTurn,
    *,
    request_id: str,
    route: str,
    key_id: str,
    key_name: str = "",
    status: int,
    total_seconds: float,
    first_token_seconds: float | None = None,
    error: GatewayError | None = None,
    requests: int = 1,
) -> Entry:
    """Call it when the turn's `usage` is final.

    Args:
        error: why its caller has no answer, or not a whole one.
        requests: 0 when the request was counted before its turn began.
    """
    model, used = turn.variant.model_id, turn.usage or Usage()
    record = Record(
        request_id=request_id,
        route=route,
        status=status,
        total_ms=milliseconds(total_seconds),
        key_id=key_id,
        model=model,
        account=turn.account,
        lane=LANE,
        attempts=turn.attempts,
        first_token_ms=None if first_token_seconds is None else milliseconds(first_token_seconds),
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        error=error.code if error is not None else None,
    )
    uses = _uses_of(turn, used, request_id=request_id)
    return Entry(record=record, key_name=key_name, model=model, uses=uses, requests=requests)


def milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _uses_of(turn: ChatTurn, used: Usage, *, request_id: str) -> tuple[Use, ...]:
    """One per attempt. Those before the last had no first event: they used nothing."""
    uses = [_use(tried, tried.error, Usage(), turn, request_id) for tried in turn.tried[:-1]]
    for tried in turn.tried[-1:]:
        uses.append(_use(tried, tried.error or turn.error, used, turn, request_id))
    return tuple(uses)


def _use(
    tried: Tried, error: GatewayError | None, used: Usage, turn: ChatTurn, request_id: str
) -> Use:
    return Use(
        account=tried.account,
        request_id=request_id,
        model=turn.variant.model_id,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        error=error.code if error is not None else None,
        message=_redact(error.message) if error is not None else "",
    )
