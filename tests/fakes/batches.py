"""Batches against a stack: many accounts of the simulator, and asking the admin API."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Self

import httpx

from shared.intake.lines import Line
from tests.fakes.stack import SimulatorControl, Stack, eventually

Json = dict[str, Any]  # Any: JSON


def add_accounts(sim: SimulatorControl, count: int, *, name: str) -> list[str]:
    """So many accounts there; their lines `email:password`."""
    emails = [f"{name}-{number}@example.org" for number in range(1, count + 1)]
    for start in range(0, count, 1000):
        some = [
            {"email": email, "password": f"pass:{email}"} for email in emails[start : start + 1000]
        ]
        sim.http.post(f"{sim.url}/_sim/accounts", json=some).raise_for_status()
    return [f"{email}:pass:{email}" for email in emails]


async def each(lines: Iterable[Line]) -> AsyncIterator[Line]:
    """As they come from a body or a file."""
    for line in lines:
        yield line


class Batches:
    """`/api/batches` as the operator uses it; `with` closes it."""

    def __init__(self, url: str, admin_key: str) -> None:
        headers = {"authorization": f"Bearer {admin_key}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=30)

    @classmethod
    def of(cls, stack: Stack) -> Self:
        return cls(stack.url, stack.admin_key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.http.close()

    def create(self, lines: Sequence[str], **more: object) -> Json:
        answer = self.http.post("/api/batches", json={"accounts": "\n".join(lines), **more})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def get(self, batch_id: str) -> Json:
        answer = self.http.get(f"/api/batches/{batch_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def post(self, batch_id: str, verb: str) -> Json:
        answer = self.http.post(f"/api/batches/{batch_id}/{verb}")
        assert answer.status_code in (200, 202), answer.text
        return dict(answer.json())

    def ended(self, batch_id: str, *, within_seconds: float) -> Json:
        def look() -> Json:
            batch = self.get(batch_id)
            check_counters(batch)
            return batch

        return eventually(
            look,
            within_seconds=within_seconds,
            until=lambda batch: batch["state"] in ("completed", "cancelled"),
        )

    def results(self, batch_id: str) -> list[Json]:
        answer = self.http.get(f"/api/batches/{batch_id}/results")
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in answer.text.splitlines()]

    def statuses(self, batch_id: str) -> Counter[str]:
        return Counter(result["status"] for result in self.results(batch_id))

    def settings(self, **changes: object) -> None:
        self.http.patch("/api/settings", json=changes).raise_for_status()

    def ready_accounts(self) -> int:
        return int(self.http.get("/api/accounts?limit=1").json()["counts"]["ready"])


def check_counters(batch: Mapping[str, Any]) -> None:
    assert batch["total"] == batch["valid"] + batch["invalid"] + batch["skipped"], batch
    assert batch["processed"] == batch["succeeded"] + batch["failed"], batch
    assert batch["processed"] <= batch["valid"], batch


def most_at_once(login_log: Sequence[Mapping[str, Any]], *, seconds: float) -> int:
    """How many logins of that length were under way at once, seen from when each came."""
    moments = sorted(float(one["at"]) for one in login_log)
    return max(
        sum(at <= other < at + seconds for other in moments[index : index + 200])
        for index, at in enumerate(moments)
    )
