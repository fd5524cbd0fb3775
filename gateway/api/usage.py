"""`/api/usage`: what accounts, keys and models used on each UTC day."""

import datetime
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.resources import resources_of
from shared.errors import BadRequest
from shared.store.ledger import By
from shared.store.usage import Sums, oldest_day

_BY: Final[tuple[By, ...]] = ("account", "key", "model")
_ROWS_AT_ONCE: Final = 1_000

Row = dict[str, Any]  # Any: names and numbers of one JSON object
Named = Callable[[str], Row]


async def list_usage(request: Request) -> Response:
    """`GET /api/usage?from=&to=&by=account|key|model` → `{"data": [row, …]}`, the newest day first.

    Row: `{date, account|key|model, requests, input_tokens, output_tokens, failures}`, for keys also
    `key_id`. Days are `YYYY-MM-DD`; without them everything that is kept. An account's requests are
    the attempts on it. Sent day by day: ninety days of ten thousand accounts don't lie in memory.
    """
    resources = resources_of(request)
    await resources.gate.identify_admin(request)
    usage = resources.store.usage
    by = _by(request.query_params)
    today = await usage.today()
    first = max(_day(request.query_params, "from", oldest_day(today)), oldest_day(today))
    last = min(_day(request.query_params, "to", today), today)
    named = _named(by, await usage.key_names() if by == "key" else {})
    days = [last - datetime.timedelta(days=n) for n in range((last - first).days + 1)]
    newest = _rows(days[0], await usage.of_day(by, days[0]), named) if days else []

    async def pieces() -> AsyncIterator[bytes]:
        separator = b""
        yield b'{"data":['
        for day in days:
            rows = newest if day == days[0] else _rows(day, await usage.of_day(by, day), named)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                some = rows[start : start + _ROWS_AT_ONCE]
                yield separator + msgspec.json.encode(some)[1:-1]
                separator = b","
        yield b"]}"

    return StreamingResponse(pieces(), media_type="application/json")


def _rows(day: datetime.date, sums: Mapping[str, Sums], named: Named) -> list[Row]:
    return [
        {"date": day.isoformat(), **named(name), **msgspec.structs.asdict(one)}
        for name, one in sums.items()
    ]


def _named(by: By, key_names: Mapping[str, str]) -> Named:
    """What a row says of whose it is."""
    if by == "key":
        return lambda name: {"key": key_names.get(name), "key_id": name}
    return lambda name: {by: name}


def _by(query: Mapping[str, str]) -> By:
    given = query.get("by") or "model"
    for by in _BY:
        if by == given:
            return by
    raise BadRequest(f"by: expected one of {', '.join(_BY)}", param="by")


def _day(query: Mapping[str, str], name: str, default: datetime.date) -> datetime.date:
    given = query.get(name)
    if not given:
        return default
    try:
        return datetime.date.fromisoformat(given)
    except ValueError as error:
        raise BadRequest(f"{name}: expected a day as YYYY-MM-DD", param=name) from error
