"""Every form that `POST /api/batches` takes, and what a data.json of Qwen2API brings along."""

import csv
import hashlib
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.background import job_processes
from tests.fakes.batches import Batches, Json, add_accounts
from tests.fakes.stack import Program, Stack

PASSWORD = "p,a;s\"s:w|o'rd å"


@pytest.fixture(scope="module")
def forms_stack() -> Iterator[Stack]:
    with Stack(environment={"BATCH_LOGIN_CONCURRENCY": "10"}) as stack:
        yield stack


@pytest.fixture
def stack(forms_stack: Stack) -> Iterator[Stack]:
    forms_stack.clear()
    yield forms_stack
    forms_stack.sim.clear()


@pytest.fixture(scope="module")
def running(forms_stack: Stack) -> Iterator[Program]:
    with job_processes(forms_stack) as workers:
        yield workers


@pytest.fixture
def batches(stack: Stack) -> Iterator[Batches]:
    with Batches.of(stack) as batches:
        yield batches


def post(batches: Batches, content: str | bytes, kind: str | None, query: str = "") -> Json:
    headers = {} if kind is None else {"content-type": kind}
    data = content.encode() if isinstance(content, str) else content
    answer = batches.http.post(f"/api/batches{query}", content=data, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


def as_csv(emails: list[str]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["note", "email", "password"])
    rows.writerows([["two\nlines", email, PASSWORD] for email in emails])
    return text.getvalue()


def as_items(emails: list[str]) -> list[dict[str, Any]]:
    return [{"email": email, "password": PASSWORD} for email in emails]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("text", "text/plain; charset=utf-8"),
        ("text", None),
        ("text", "application/x-www-form-urlencoded"),
        ("csv", "text/csv"),
        ("csv", "application/octet-stream"),
        ("array", "application/json"),
        ("array", "text/plain"),
        ("object", "application/json"),
        ("object", "application/x-www-form-urlencoded"),
        ("data_json", "application/json"),
        ("utf_16", "text/plain"),
    ],
)
def test_accounts_come_in_every_form(
    stack: Stack, batches: Batches, name: str, kind: str | None
) -> None:
    label = f"{name}-{kind}".translate(str.maketrans("/_; =", "-----")).lower()
    emails = [line.partition(":")[0] for line in add_accounts(stack.sim, 3, name=label)]
    for email in emails:
        stack.sim.account(email, password=PASSWORD)
    lines = "\r\n".join(f"{email}:{PASSWORD}" for email in emails)
    content: dict[str, str | bytes] = {
        "text": lines,
        "csv": as_csv(emails),
        "array": json.dumps(as_items(emails)),
        "object": json.dumps({"accounts": lines}),
        "data_json": json.dumps({"accounts": as_items(emails)}, indent=2),
        "utf_16": lines.encode("utf-16"),
    }
    batch = post(batches, content[name], kind)
    assert (batch["total"], batch["valid"], batch["invalid"], batch["skipped"]) == (3, 3, 0, 0)
    batch = batches.ended(batch["id"], within_seconds=20)
    assert batch["succeeded"] == 3, batches.results(batch["id"])


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_dry_run_is_one_wherever_it_is_said(batches: Batches, query: str) -> None:
    before = batches.http.get("/api/batches").json()
    body: Json = {"accounts": [{"email": "x@example.org", "password": "pw"}, 7]}
    if not query:
        body["dry_run"] = True
    # `curl -d` calls it a form: that must not make an import of it.
    for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
        found = post(batches, json.dumps(body), kind, query)
        assert (found["total"], found["valid"], found["invalid"]) == (2, 1, 1)
        assert found["lines"][1] == {
            "line": 2,
            "email": "",
            "status": "invalid",
            "message": "the item: expected a text or an object",
        }
    assert batches.http.get("/api/batches").json() == before


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b'["a@b.c:pw"', None),
        (b'{"accounts": "x', None),
        (b"a@b.c:pw", None),
        (b"{}", "accounts"),
        (b'{"accounts": 7}', "accounts"),
        (b'{"accounts": null}', "accounts"),
        (b'{"accounts": []}', "accounts"),
        (b'{"accounts": "x", "dry_run": "yes"}', "dry_run"),
        (b"", "accounts"),
    ],
)
def test_what_is_no_json_is_refused_as_a_whole(
    batches: Batches, content: bytes, param: str | None
) -> None:
    before = batches.http.get("/api/batches").json()
    answer = batches.http.post(
        "/api/batches", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert batches.http.get("/api/batches").json() == before


def test_lines_that_hold_no_account_are_told_by_number_and_reason(batches: Batches) -> None:
    content = b"\xff@x.y:pw\nno-colon\nq@x.y:p\0w\nz@x.y:pw|http://:9\n" + b"x" * 10_000_000
    found = post(batches, content, "text/plain", "?dry_run=1")
    assert (found["total"], found["invalid"]) == (5, 5)
    assert [(line["line"], line["message"]) for line in found["lines"]] == [
        (1, "not valid UTF-8: save the file as UTF-8"),
        (2, "no `:` between e-mail and password"),
        (3, "a NUL byte: save the file as UTF-8"),
        (4, "the proxy is no scheme://[user:password@]host[:port]"),
        (5, "longer than 16 kB"),
    ]


@pytest.mark.usefixtures("running")
def test_a_data_json_brings_living_tokens_settings_and_keys(stack: Stack, batches: Batches) -> None:
    lines = add_accounts(stack.sim, 3, name="moved")
    [living, lapsed, other] = [line.partition(":")[0] for line in lines]
    token = sign_in(stack, living)
    logins = stack.sim.stats()["logins"]
    accounts = [
        {
            "email": email,
            "password": f"pass:{email}",
            "token": token if email != other else None,
            "expires": int(time.time()) + (86_400 if email == living else -10),
            "proxy": None,
            "stats": {"chat": {"input": 10, "output": 20}},
        }
        for email in (living, lapsed, other)
    ]
    kept = {
        "apiKeys": [stack.admin_key, "sk-of-qwen2api-7", "sk-of-qwen2api-8"],
        "chatRetryCount": "4",
        "searchInfoMode": "sideways",
        "unknown": {"x": 1},
    }
    document = {"defaultHeaders": None, "accounts": accounts, "settings": kept}
    try:
        batch = post(batches, json.dumps(document, indent=2), "application/json")
        assert batches.ended(batch["id"], within_seconds=20)["succeeded"] == 3
        now = stack.sim.stats()["logins"]
        assert now.get(living) == logins.get(living)  # its token lives: no login
        assert now[lapsed] == now[other] == 1
        found = batches.http.get("/api/settings").json()["data"]
        assert (found["chat_retry_count"]["value"], found["chat_retry_count"]["source"]) == (
            4,
            "stored",
        )
        assert found["search_info_mode"]["source"] == "default"  # refused, and nothing else with it
        for key in ("sk-of-qwen2api-7", "sk-of-qwen2api-8"):
            headers = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{stack.url}/v1/models", headers=headers).status_code == 200
            assert httpx.get(f"{stack.url}/api/keys", headers=headers).status_code == 403
        keys = batches.http.get("/api/keys").json()["data"]
        assert sorted(key["name"] for key in keys if key["source"] == "stored") == [
            "Qwen2API 2",
            "Qwen2API 3",
        ]
        assert "sk-of-qwen2api" not in stack.logs()
        # Again: nothing twice.
        batch = post(batches, json.dumps(document), "application/json")
        assert (batch["valid"], batch["skipped"]) == (0, 3)
        assert batches.http.get("/api/keys").json()["data"] == keys
    finally:
        batches.settings(chat_retry_count=None)
        for key in batches.http.get("/api/keys").json()["data"]:
            if key["source"] == "stored":
                batches.http.delete(f"/api/keys/{key['id']}")


def sign_in(stack: Stack, email: str) -> str:
    """A token that another program got there."""
    digest = hashlib.sha256(f"pass:{email}".encode()).hexdigest()
    answer = httpx.post(
        f"{stack.sim.url}/api/v1/auths/signin", json={"email": email, "password": digest}
    )
    return str(answer.json()["token"])
