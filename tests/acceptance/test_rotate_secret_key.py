"""SECRET_KEY is changed in a running product: nobody is refused, nobody logs in for it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes.background import job_processes
from tests.fakes.stack import Gateway, Stack, eventually

OLD = "the secret key of before, long enough"
NEW = "the secret key of afterwards, long enough"


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack(environment={"SECRET_KEY": OLD}, accounts=1) as stack:
        yield stack


def restart(stack: Stack, secret_key: str, previous: str = "") -> Gateway:
    """Another instance takes over, as in a rolling restart."""
    stack.environment |= {"SECRET_KEY": secret_key, "SECRET_KEY_PREVIOUS": previous}
    gateway = stack.add_gateway()
    stack.gateways.pop(0).stop()
    return gateway


def asked(gateway: Gateway, key: str, **fields: object) -> dict[str, str]:
    answer = httpx.post(
        f"{gateway.url}/v1/responses",
        headers={"authorization": f"Bearer {key}"},
        json={"model": "qwen3-max", "input": "hi", **fields},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, str] = answer.json()
    return body


def test_everything_goes_on_through_a_rotation(stack: Stack) -> None:
    admin = {"authorization": f"Bearer {stack.admin_key}"}
    created = httpx.post(f"{stack.url}/api/keys", headers=admin, json={"name": "ci"}).json()
    said = [asked(stack.gateway, key)["id"] for key in (stack.key, created["key"])]

    restart(stack, OLD, NEW)
    rotating = restart(stack, NEW, OLD)
    for key, before in zip((stack.key, created["key"]), said, strict=True):
        asked(rotating, key, previous_response_id=before)
    with job_processes(stack) as workers:
        eventually(lambda: "rotation is complete" in workers.logs(), within_seconds=100)
    assert "rotation goes on" in workers.logs()

    after = restart(stack, NEW)
    for key, before in zip((stack.key, created["key"]), said, strict=True):
        asked(after, key, previous_response_id=before)
    assert stack.sim.stats()["logins"] == {stack.emails[0]: 1}
    keys = httpx.get(f"{after.url}/api/keys", headers=admin).json()["data"]
    assert created["id"] in [key["id"] for key in keys]
    for secret in (OLD, NEW):
        assert secret not in stack.logs() + workers.logs()
