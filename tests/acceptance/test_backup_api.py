"""Export and import through the admin API."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.chat import ask, assert_error, call, text_of
from tests.fakes.stack import Stack, eventually

PASSWORD = "a password for the archive"


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """Accounts are deleted here: a product that nobody else uses."""
    with Stack() as stack:
        yield stack


@pytest.fixture
def stack(own_stack: Stack, admin: dict[str, str]) -> Iterator[Stack]:
    own_stack.clear()
    yield own_stack
    for number, email in enumerate(own_stack.emails, start=1):
        fields = {"email": email, "password": f"demo-password-{number}"}
        post(own_stack, admin, "/api/accounts", json=fields)


@pytest.fixture
def admin(own_stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {own_stack.admin_key}"}


def post(stack: Stack, admin: dict[str, str], path: str, **more: Any) -> httpx.Response:
    headers = admin | more.pop("headers", {})
    return call(stack, "POST", path, headers=headers, timeout_seconds=30, **more)


def exported(stack: Stack, admin: dict[str, str]) -> httpx.Response:
    answer = post(stack, admin, "/api/export", json={"password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return answer


def test_an_export_is_a_file_that_tells_nothing(stack: Stack, admin: dict[str, str]) -> None:
    answer = exported(stack, admin)
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["cache-control"] == "no-store"
    for secret in ("example.com", "demo-password-1", PASSWORD, stack.admin_key):
        assert secret not in answer.text
    assert PASSWORD not in stack.logs()


def test_another_gateway_goes_on_from_an_import_without_a_login(
    stack: Stack, admin: dict[str, str]
) -> None:
    for number in range(3):
        assert text_of(ask(stack, f"ask {number}"))
    made = post(stack, admin, "/api/keys", json={"name": "backed up"}).json()
    backup = exported(stack, admin)
    logins = stack.sim.stats()["logins"]
    environment = {
        "SECRET_KEY": "quite another secret key, long enough",
        "ACCOUNTS": "",
        "QWEN_CHAT_PROXY_URL": stack.sim.url,
    }
    with Stack(environment=environment) as other:
        body = {"password": PASSWORD, "archive": backup.json()}
        answer = post(other, admin, "/api/import", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accounts"] == {"restored": 3, "skipped": 0}
        assert answer.json()["keys"] == {"restored": 1, "skipped": 0}
        with_key = {"authorization": f"Bearer {made['key']}"}
        eventually(
            lambda: {
                call(other, "GET", "/v1/models", headers=with_key).status_code for _ in "1234"
            },
            within_seconds=2,
            until=lambda found: found == {200},
        )
        assert text_of(ask(other, headers=with_key))
    assert stack.sim.stats()["logins"] == logins
    call(stack, "DELETE", f"/api/keys/{made['id']}", headers=admin)


@pytest.mark.parametrize("form", ["object", "text", "fields", "header"])
def test_a_deleted_account_comes_back_whatever_form_the_import_has(
    stack: Stack, admin: dict[str, str], form: str
) -> None:
    backup = exported(stack, admin)
    call(stack, "DELETE", f"/api/accounts/{stack.emails[1]}", headers=admin)
    bodies: dict[str, dict[str, Any]] = {
        "object": {"json": {"password": PASSWORD, "archive": backup.json()}},
        "text": {"json": {"password": PASSWORD, "archive": backup.text}},
        "fields": {"json": backup.json() | {"password": PASSWORD}},
        "header": {"content": backup.content, "headers": {"x-archive-password": PASSWORD}},
    }
    answer = post(stack, admin, "/api/import", **bodies[form])
    assert answer.status_code == 200, answer.text
    assert answer.json()["accounts"] == {"restored": 1, "skipped": 2}
    assert call(stack, "GET", f"/api/accounts/{stack.emails[1]}", headers=admin).status_code == 200


@pytest.mark.parametrize("body", [{}, {"password": ""}, {"password": None}, {"password": 1}])
def test_an_export_without_a_password_is_refused(
    stack: Stack, admin: dict[str, str], body: dict[str, Any]
) -> None:
    answer = post(stack, admin, "/api/export", json=body)
    assert_error(answer, 400, "invalid_request_error", "invalid_value", param="password")


def test_an_import_that_can_not_be_read_is_refused_and_changes_nothing(
    stack: Stack, admin: dict[str, str]
) -> None:
    archive = exported(stack, admin).json()
    call(stack, "DELETE", f"/api/accounts/{stack.emails[2]}", headers=admin)
    wrong: list[tuple[dict[str, Any], str | None]] = [
        ({"archive": archive}, "password"),
        ({"archive": archive, "password": "another"}, "password"),
        ({"archive": archive | {"data": "AAAA"}, "password": PASSWORD}, "password"),
        ({"archive": archive | {"version": 2}, "password": PASSWORD}, "version"),
        ({"archive": {}, "password": PASSWORD}, "created_at"),
        ({"password": PASSWORD}, "created_at"),
    ]
    for body, param in wrong:
        answer = post(stack, admin, "/api/import", json=body)
        assert_error(answer, 400, "invalid_request_error", "invalid_value", param=param)
    gone = call(stack, "GET", f"/api/accounts/{stack.emails[2]}", headers=admin)
    assert gone.status_code == 404
    post(stack, admin, "/api/import", json={"archive": json.dumps(archive), "password": PASSWORD})


@pytest.mark.parametrize("path", ["/api/export", "/api/import"])
def test_only_the_admin_may(stack: Stack, path: str) -> None:
    answer = call(stack, "POST", path, json={"password": PASSWORD})
    assert_error(answer, 403, "permission_error", "forbidden")
