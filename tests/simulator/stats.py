"""What happened: counts per operation and account, streams, stops, and the last requests as they came."""

import time
from collections import Counter, deque
from typing import Any, Literal

import msgspec

from tests.simulator.connection import Request

KEPT_REQUESTS = 500
KEPT_BYTES = 2**20  # of one body
KEPT_ROWS = 5000  # of logins, stops and aborted streams


class RequestRecord(msgspec.Struct):
    """One request as it came. Tokens are masked when it is written out, never in the record itself."""

    operation: str
    email: str
    request: Request
    body: bytes  # empty when it is too large to keep
    status: int = 0

    def shown(self) -> dict[str, Any]:
        """`{at, operation, email, method, path, query, headers, body, status, address}`."""
        request = self.request
        return {
            "at": request.at,
            "operation": self.operation,
            "email": self.email,
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": {name: _masked(name, value) for name, value in request.headers.items()},
            "body": _readable(self.body) if self.body else None,
            "body_bytes": request.size,
            "status": self.status,
            "address": request.address,
        }


class StreamRecord(msgspec.Struct):
    """One generation, from its acceptance to its end."""

    email: str
    chat_id: str
    response_id: str
    started_at: float
    ended_at: float | None = None
    frames_sent: int = 0
    end: Literal["open", "complete", "aborted", "stopped", "broken"] = "open"


class Login(msgspec.Struct):
    at: float
    email: str
    address: str
    outcome: str


class Stats:
    """Counters of one run, cleared by reset."""

    def __init__(self) -> None:
        self.requests: dict[str, Counter[str]] = {}
        self.logins: Counter[str] = Counter()
        self.login_log: deque[Login] = deque(maxlen=KEPT_ROWS)
        self.refreshes: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.max_open: Counter[str] = Counter()
        self.max_open_total = 0
        self.ended: Counter[str] = Counter()
        self.aborted: deque[StreamRecord] = deque(maxlen=KEPT_ROWS)
        self.stops: deque[dict[str, Any]] = deque(maxlen=KEPT_ROWS)
        self.errors: list[str] = []
        self.uploads: Counter[str] = Counter()
        self.log: deque[RequestRecord] = deque(maxlen=KEPT_REQUESTS)

    def count(self, operation: str, email: str, request: Request) -> RequestRecord:
        counter = self.requests.get(operation)
        if counter is None:
            counter = self.requests[operation] = Counter()
        counter[email or "-"] += 1
        body = request.body if request.size <= KEPT_BYTES else b""
        record = RequestRecord(operation, email, request, body)
        self.log.append(record)
        return record

    def login(self, email: str, address: str, outcome: str) -> None:
        if outcome == "ok":
            self.logins[email] += 1
        self.login_log.append(Login(time.time(), email, address, outcome))

    def opened(self, stream: StreamRecord) -> None:
        self.open[stream.email] += 1
        self.max_open[stream.email] = max(self.max_open[stream.email], self.open[stream.email])
        self.max_open_total = max(self.max_open_total, self.open.total())

    def closed(
        self, stream: StreamRecord, end: Literal["complete", "aborted", "stopped", "broken"]
    ) -> None:
        if stream.end != "open":
            return
        stream.end = end
        stream.ended_at = time.time()
        self.open[stream.email] -= 1
        self.ended[end] += 1
        if end == "aborted":
            self.aborted.append(stream)

    # -- for tests in process

    def total(self, operation: str) -> int:
        return self.requests.get(operation, Counter()).total()

    def of(self, operation: str, email: str) -> int:
        return self.requests.get(operation, Counter())[email]

    def recorded(self, operation: str | None = None) -> list[dict[str, Any]]:
        """The kept requests of one operation, oldest first, tokens masked."""
        return [one.shown() for one in self.log if operation in (None, one.operation)]

    def as_json(self) -> dict[str, Any]:
        """The body of `GET /_sim/stats`, chats excluded."""
        return {
            "requests": {
                name: {"total": counter.total(), "by_account": dict(counter)}
                for name, counter in self.requests.items()
            },
            "logins": dict(self.logins),
            "login_log": [msgspec.to_builtins(one) for one in self.login_log],
            "refreshes": dict(self.refreshes),
            "uploads": dict(self.uploads),
            "streams": {
                "open": self.open.total(),
                "open_by_account": {email: count for email, count in self.open.items() if count},
                "max_open": self.max_open_total,
                "max_open_by_account": dict(self.max_open),
                "ended": dict(self.ended),
                "aborted": [msgspec.to_builtins(one) for one in self.aborted],
            },
            "stops": list(self.stops),
            "errors": self.errors,
        }


def _masked(name: str, value: str) -> str:
    if name == "authorization":
        scheme, _, token = value.partition(" ")
        return f"{scheme} {mask(token)}"
    if name == "cookie":
        parts = [part.strip() for part in value.split(";")]
        return "; ".join(
            f"token={mask(part[6:])}" if part.startswith("token=") else part for part in parts
        )
    return value


def mask(token: str) -> str:
    """Enough of a token to tell two apart, too little to use it."""
    return f"…{token[-6:]}" if len(token) > 12 else "…"


def _readable(body: bytes) -> Any:
    """The body as JSON, else as text, else its length."""
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"bytes": len(body)}
