"""API keys in all their headers, stored keys and what they may, limits per minute."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.fakes.chat import ask, assert_error, call, get, text_of
from tests.fakes.stack import OTHER_KEY, Stack, eventually

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def admin(stack: Stack) -> dict[str, str]:
    return {"authorization": f"Bearer {stack.admin_key}"}


class Keys:
    """The admin API of keys; what was made is deleted after the test."""

    def __init__(self, stack: Stack, admin: dict[str, str]) -> None:
        self._stack = stack
        self._admin = admin
        self.made: list[str] = []

    def __call__(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        return call(self._stack, method, f"/api/keys{path}", headers=self._admin, **more)

    def create(self, **fields: Any) -> dict[str, Any]:
        answer = self("POST", json={"name": "made by a test", **fields})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        self.made.append(made["id"])
        return made


@pytest.fixture
def keys(stack: Stack, admin: dict[str, str]) -> Iterator[Keys]:
    keys = Keys(stack, admin)
    yield keys
    for made in keys.made:
        keys("DELETE", f"/{made}")


def with_key(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


# -- where a key stands


@BOTH
@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("authorization", "Bearer "),
        ("authorization", "bearer "),
        ("Authorization", "BEARER   "),
        ("x-api-key", ""),
        ("X-Api-Key", ""),
        ("api-key", ""),
    ],
)
def test_a_key_is_taken_from_each_of_the_three_headers(
    stack: Stack, name: str, prefix: str, stream: bool
) -> None:
    headers = {"authorization": ""} | {name.lower(): prefix + stack.key}
    assert text_of(ask(stack, headers=headers, stream=stream))


@pytest.mark.parametrize("which", ["admin_key", "key"])
def test_each_key_of_api_key_authenticates(stack: Stack, which: str) -> None:
    assert text_of(ask(stack, headers=with_key(getattr(stack, which))))
    assert text_of(ask(stack, headers=with_key(OTHER_KEY)))


@pytest.mark.parametrize(
    ("which", "admin"), [("admin_key", True), ("key", False)], ids=["admin", "regular"]
)
def test_verify_says_what_a_key_is(stack: Stack, which: str, admin: bool) -> None:
    body = {"apiKey": getattr(stack, which)}
    answer = call(stack, "POST", "/verify", headers={"authorization": ""}, json=body)
    assert (answer.status_code, answer.json()) == (200, {"status": 200, "isAdmin": admin})


def test_verify_refuses_a_wrong_key_and_a_wrong_body(stack: Stack) -> None:
    wrong = call(stack, "POST", "/verify", json={"apiKey": "sk-wrong"})
    assert_error(wrong, 401, "invalid_request_error", "invalid_api_key")
    for body in (b"", b"{}", b'{"apiKey":7}', b"[]"):
        answer = call(stack, "POST", "/verify", content=body)
        assert_error(answer, 400, "invalid_request_error", "invalid_value", param="apiKey")


# -- stored keys


def test_a_new_key_works_at_once_and_is_shown_in_clear_only_once(stack: Stack, keys: Keys) -> None:
    made = keys.create(name="Ada")
    assert made["key"].startswith("sk-")
    for _ in range(8):  # whichever process is asked
        assert text_of(ask(stack, headers=with_key(made["key"])))
    listed = {one["id"]: one for one in keys("GET").json()["data"]}
    assert listed[made["id"]]["name"] == "Ada"
    assert made["key"].startswith(listed[made["id"]]["prefix"])
    assert made["key"] not in keys("GET").text
    assert made["key"] not in stack.logs()


def test_a_deleted_key_is_refused_everywhere_within_2_s(stack: Stack, keys: Keys) -> None:
    made = keys.create()
    headers = with_key(made["key"])
    for _ in range(8):
        assert get(stack, "/v1/models", headers=headers).status_code == 200
    assert keys("DELETE", f"/{made['id']}").status_code == 204
    deleted_at = time.monotonic()
    statuses: list[int] = []
    while time.monotonic() - deleted_at < 2:
        statuses.append(get(stack, "/v1/models", headers=headers).status_code)
    assert 401 in statuses  # not by waiting alone
    for _ in range(8):  # whichever process is asked
        assert get(stack, "/v1/models", headers=headers).status_code == 401
    assert keys("DELETE", f"/{made['id']}").status_code == 404
    assert_error(ask(stack, headers=headers), 401, "invalid_request_error", "invalid_api_key")


@pytest.mark.parametrize("form", ["seconds", "iso"])
def test_an_expired_key_is_a_401(stack: Stack, keys: Keys, form: str) -> None:
    moment = time.time() - 5
    iso = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
    made = keys.create(expires_at=moment if form == "seconds" else iso)
    answer = ask(stack, headers=with_key(made["key"]))
    assert_error(answer, 401, "invalid_request_error", "invalid_api_key")


def test_a_stored_key_is_a_regular_one(stack: Stack, keys: Keys) -> None:
    made = keys.create()
    answer = get(stack, "/api/keys", headers=with_key(made["key"]))
    assert_error(answer, 403, "permission_error", "forbidden")


@BOTH
def test_a_key_with_models_sees_and_uses_only_those(stack: Stack, keys: Keys, stream: bool) -> None:
    made = keys.create(models=["Qwen3-Max", "qwen3.6-plus-thinking"])
    headers = with_key(made["key"])
    ids = [one["id"] for one in get(stack, "/v1/models", headers=headers).json()["data"]]
    assert ids == ["Qwen3.6-Plus-thinking", "Qwen3-Max", "Qwen3-Max-search"]
    for model in ("Qwen3-Max", "QWEN3-MAX-2026-01-23", "Qwen3.6-Plus-thinking"):
        assert text_of(ask(stack, headers=headers, model=model, stream=stream))
    for model in ("Qwen3.6-Plus", "Qwen3-Coder", "claude-sonnet-4"):
        answer = ask(stack, headers=headers, model=model, stream=stream)
        assert_error(answer, 403, "permission_error", "forbidden")
    assert get(stack, "/v1/models/Qwen3-Max", headers=headers).status_code == 200
    assert get(stack, "/v1/models/Qwen3-Coder", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"name":""}', b'{"name":7}', b'{"name":"x","rate_limit_per_minute":-1}',
     b'{"name":"x","expires_at":"tomorrow"}', b'{"name":"x","models":"all"}', b"[]", b"{"],
)  # fmt: skip
def test_a_wrong_key_record_is_a_400(keys: Keys, body: bytes) -> None:
    answer = keys("POST", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"


def test_the_keys_of_api_key_are_shown_and_can_be_neither_changed_nor_deleted(
    stack: Stack, keys: Keys
) -> None:
    made = keys.create(name="Bob")
    assert text_of(ask(stack))
    configured = [one for one in keys("GET").json()["data"] if one["source"] == "environment"]
    told = [(one["name"], one["admin"], one["prefix"]) for one in configured]
    assert told == [
        ("API_KEY 1", True, "sk-adm"),
        ("API_KEY 2", False, "sk-oth"),
        ("API_KEY 3", False, "sk-reg"),
    ]
    for one in configured:
        for method in ("PATCH", "DELETE"):
            answer = keys(method, f"/{one['id']}", json={"name": "other", "max_streams": 1})
            error = assert_error(answer, 403, "permission_error", "forbidden")
            assert "API_KEY" in error["message"]
    for key in (stack.admin_key, stack.key, OTHER_KEY):
        assert get(stack, "/v1/models", headers=with_key(key)).status_code == 200
    assert [one["id"] for one in keys("GET").json()["data"]][-1] == made["id"]


def test_a_key_says_when_it_was_last_used(stack: Stack, keys: Keys) -> None:
    made = keys.create()

    def last_used() -> dict[str, int | None]:
        return {one["id"]: one["last_used_at"] for one in keys("GET").json()["data"]}

    assert last_used()[made["id"]] is None
    assert text_of(ask(stack, headers=with_key(made["key"])))
    assert text_of(ask(stack))
    mine = keys("GET").json()["data"]
    regular = next(one["id"] for one in mine if one["name"] == "API_KEY 3")
    for key_id in (made["id"], regular):
        at = eventually(lambda key_id=key_id: last_used()[key_id], within_seconds=3)
        assert abs(at - time.time()) < 120


# -- limits


@BOTH
def test_a_limit_of_n_admits_n_at_once(stack: Stack, keys: Keys, stream: bool) -> None:
    headers = with_key(keys.create(rate_limit_per_minute=5)["key"])
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(stack, headers=headers, stream=stream), range(8)))
    admitted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(admitted), len(refused)) == (5, 3)
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "5"
    left = sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in admitted)
    assert left == [0, 1, 2, 3, 4]
    for answer in refused:
        assert_error(answer, 429, "rate_limit_error", "rate_limit_exceeded", retry_after=True)
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(answer.headers["retry-after"]) <= 12
        assert 0 < seconds(answer.headers["x-ratelimit-reset-requests"]) <= 60
    assert len(stack.sim.recorded("completions")) == 5


def test_who_obeys_retry_after_is_admitted(stack: Stack, keys: Keys) -> None:
    headers = with_key(keys.create(rate_limit_per_minute=60)["key"])
    answer = eventually(
        lambda: get_chat(stack, headers),
        until=lambda one: one.status_code == 429,
        within_seconds=30,
    )
    wait = int(answer.headers["retry-after"])
    assert wait == 1
    time.sleep(wait)  # what the answer told us to do, and no guess
    assert get_chat(stack, headers).status_code == 400


def get_chat(stack: Stack, headers: dict[str, str]) -> httpx.Response:
    """Counts as a request and costs the upstream nothing: 400 unless the limit refuses it."""
    return call(stack, "POST", "/v1/chat/completions", headers=headers, content=b"{}")


def test_a_limit_is_counted_per_key_over_both_processes(stack: Stack, keys: Keys) -> None:
    first, second = (with_key(keys.create(rate_limit_per_minute=3)["key"]) for _ in range(2))
    statuses = [get_chat(stack, first).status_code for _ in range(6)]
    assert statuses == [400, 400, 400, 429, 429, 429]
    assert get_chat(stack, second).status_code == 400
    assert get_chat(stack, stack.headers).status_code == 400


def test_without_a_limit_no_header_speaks_of_one(stack: Stack) -> None:
    assert not [name for name in ask(stack).headers if name.startswith("x-ratelimit")]


def test_a_changed_limit_is_in_force_within_2_s(stack: Stack, keys: Keys) -> None:
    made = keys.create(rate_limit_per_minute=1)
    headers = with_key(made["key"])
    get_chat(stack, headers)
    assert get_chat(stack, headers).status_code == 429
    answer = keys("PATCH", f"/{made['id']}", json={"rate_limit_per_minute": None})
    assert (answer.status_code, answer.json()["rate_limit_per_minute"]) == (200, None)
    changed_at = time.monotonic()
    admitted = 0
    while admitted < 8:
        status = get_chat(stack, headers).status_code
        admitted = admitted + 1 if status == 400 else 0
        assert time.monotonic() - changed_at < 2.5


def test_the_default_limit_of_all_keys_comes_from_the_settings() -> None:
    with Stack(accounts=1, environment={"RATE_LIMIT_PER_MINUTE": "2", "WORKERS": "1"}) as stack:
        statuses = [get_chat(stack, stack.headers).status_code for _ in range(3)]
        assert statuses == [400, 400, 429]
        assert get_chat(stack, with_key(OTHER_KEY)).status_code == 400


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text.removesuffix("s"))
