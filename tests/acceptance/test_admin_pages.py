"""The operator's pages as a browser meets them, and the admin API behind their session.

`full` has an account in each interesting state, many more, names that want to be markup, and two
gateway instances; `empty` has nothing. A browser is an httpx client that keeps cookies.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from gateway.admin.login import ATTEMPTS_PER_MINUTE
from gateway.admin.pages import ACCOUNTS_PER_PAGE
from gateway.admin.routes import ADMIN_ROUTES
from gateway.session import COOKIE
from tests.fakes.chat import ask
from tests.fakes.stack import ADMIN_KEY, REGULAR_KEY, Stack, eventually

HOSTILE = "\"'><script>alert(1)</script>"
HOSTILE_EMAIL = f"{HOSTILE}@example.com"
COOLING, DEAD, PROXIED = "demo1@example.com", "demo2@example.com", "proxied@example.com"
CROWD = [f"crowd{number:03}@example.com" for number in range(2 * ACCOUNTS_PER_PAGE)]

PAGES = sorted(
    {
        route.path
        for route in ADMIN_ROUTES
        if isinstance(route, Route) and "GET" in (route.methods or ()) and "{" not in route.path
    }
)
BEHIND_THE_LOGIN = [
    "/admin/",
    "/admin/accounts",
    "/admin/batches",
    "/admin/keys",
    "/admin/settings",
]


@pytest.fixture(scope="module")
def full() -> Iterator[Stack]:
    with Stack(environment={"TRUSTED_PROXIES": "127.0.0.1"}) as stack:
        stack.add_gateway()
        _rest_one_and_lose_one(stack)
        asyncio.run(_fill(stack))
        yield stack


@pytest.fixture(scope="module")
def empty() -> Iterator[Stack]:
    with Stack(accounts=0) as stack:
        yield stack


def _rest_one_and_lose_one(stack: Stack) -> None:
    """COOLING has a spent quota, DEAD another password than we know."""
    stack.sim.account(DEAD, password="changed by its owner")
    stack.sim.next(operation="completions", email=COOLING, fail="RateLimited", num=4, times=0)

    def settled() -> bool:
        ask(stack, "hi")
        return stack.account(COOLING).state == "cooling" and stack.account(DEAD).state == "dead"

    eventually(settled, within_seconds=15)


async def _fill(stack: Stack) -> None:
    async with stack.store() as store:
        for email in (HOSTILE_EMAIL, *CROWD):
            await store.accounts.add(email, "a password nobody sees")
        await store.accounts.add(
            PROXIED,
            "a password nobody sees",
            proxy="socks5://someone:proxy-password@proxy.example.com:1080",
            access_token="an-access-token-nobody-sees",
            token_expires_at=time.time() + 86_400,
        )
        await store.accounts.set_enabled(CROWD[0], False)
        await store.api_keys.create(HOSTILE, rate_limit_per_minute=1234, models=[HOSTILE])


class Form(HTMLParser):
    """What a page has of forms and of the CSRF token."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.inputs: list[dict[str, str]] = []
        self.csrf_token = ""
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(found)
        if tag == "input":
            self.inputs.append(found)
        if tag == "meta" and found.get("name") == "csrf-token":
            self.csrf_token = found["content"]

    def handle_data(self, data: str) -> None:
        self.text += data


def browser(stack: Stack) -> httpx.Client:
    """Follows redirects and keeps cookies, as people's do."""
    return httpx.Client(base_url=stack.url, follow_redirects=True, timeout=10)


@contextlib.contextmanager
def sign_in(stack: Stack) -> Iterator[httpx.Client]:
    """A browser with a session."""
    with browser(stack) as client:
        answer = client.post("/admin/login", data={"key": ADMIN_KEY})
        assert answer.status_code == 200, answer.text
        yield client


def csrf_token_of(client: httpx.Client) -> str:
    return Form(client.get("/admin/").text).csrf_token


def text_of(page: httpx.Response) -> str:
    return " ".join(Form(page.text).text.split())


# -- signing in


@pytest.mark.parametrize("path", ["/", "/admin"])
def test_the_root_leads_to_the_pages(full: Stack, path: str) -> None:
    answer = httpx.get(full.url + path)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/admin/"


def test_the_login_page_has_one_form_with_one_password_field_that_posts_to_itself(
    full: Stack,
) -> None:
    page = Form(httpx.get(f"{full.url}/admin/login").text)
    [form] = page.forms
    assert form["method"] == "post"
    assert "action" not in form
    assert [field["type"] for field in page.inputs] == ["password"]


@pytest.mark.parametrize("path", [*BEHIND_THE_LOGIN, "/admin/accounts?state=dead&q=demo"])
def test_who_signs_in_comes_back_to_the_page_that_was_asked_for(full: Stack, path: str) -> None:
    with browser(full) as client:
        login = client.get(path)
        assert login.url.path == "/admin/login"
        assert "csrf-token" not in login.text
        answer = client.post(str(login.url), data={"key": ADMIN_KEY})
        assert answer.status_code == 200
        assert answer.url.raw_path.decode() == path


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "/api/keys",
    ],
)
def test_signing_in_leads_to_no_other_place(full: Stack, elsewhere: str) -> None:
    answer = httpx.post(
        f"{full.url}/admin/login", params={"next": elsewhere}, data={"key": ADMIN_KEY}
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == "/admin/"


def test_a_wrong_key_gets_the_form_again_with_the_reason(full: Stack) -> None:
    for key in ("wrong", "", ADMIN_KEY[:-1]):
        answer = httpx.post(f"{full.url}/admin/login", data={"key": key})
        assert answer.status_code == 401
        assert "That is not the admin key." in text_of(answer)
        assert Form(answer.text).inputs[0]["type"] == "password"
        assert "set-cookie" not in answer.headers


def test_a_regular_key_is_refused_with_the_reason(full: Stack) -> None:
    answer = httpx.post(f"{full.url}/admin/login", data={"key": REGULAR_KEY})
    assert answer.status_code == 403
    assert "regular API key" in text_of(answer)
    assert "set-cookie" not in answer.headers
    for path in BEHIND_THE_LOGIN:
        assert httpx.get(full.url + path, headers=full.headers).status_code == 403


@pytest.mark.parametrize("body", [b"key=%FF", b"\xff\xfe", b"&".join([b"a=1"] * 1000), b"{}"])
def test_a_form_that_is_none_signs_nobody_in(full: Stack, body: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{full.url}/admin/login", content=body, headers=headers)
    assert answer.status_code in (400, 401)
    assert answer.headers["content-type"].startswith("text/html")
    assert "set-cookie" not in answer.headers


def test_a_form_that_is_too_long_is_refused_with_a_page(full: Stack) -> None:
    answer = httpx.post(f"{full.url}/admin/login", data={"key": "k" * 200_000})
    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith("text/html")


def test_too_many_attempts_have_to_wait_and_a_right_one_takes_them_back(stack: Stack) -> None:
    def attempt(key: str) -> httpx.Response:
        return httpx.post(f"{stack.url}/admin/login", data={"key": key})

    for _ in range(ATTEMPTS_PER_MINUTE - 1):
        assert attempt("wrong").status_code == 401
    assert attempt(ADMIN_KEY).status_code == 303
    statuses = [attempt("wrong").status_code for _ in range(ATTEMPTS_PER_MINUTE)]
    assert statuses == [401] * ATTEMPTS_PER_MINUTE
    refused = attempt(ADMIN_KEY)
    assert refused.status_code == 429, "guessing right doesn't help any more"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "Too many attempts" in text_of(refused)
    assert "set-cookie" not in refused.headers


def test_attempts_are_counted_by_the_address_that_a_trusted_proxy_tells(full: Stack) -> None:
    def attempt(address: str) -> int:
        headers = {"x-forwarded-for": address}
        answer = httpx.post(f"{full.url}/admin/login", data={"key": "wrong"}, headers=headers)
        return answer.status_code

    statuses = [attempt("192.0.2.1") for _ in range(ATTEMPTS_PER_MINUTE + 1)]
    assert statuses[-1] == 429
    assert attempt("192.0.2.2") == 401


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(full: Stack) -> None:
    plain = httpx.post(f"{full.url}/admin/login", data={"key": ADMIN_KEY})
    behind_tls = httpx.post(
        f"{full.url}/admin/login",
        data={"key": ADMIN_KEY},
        headers={"x-forwarded-for": "192.0.2.9", "x-forwarded-proto": "https"},
    )
    for answer in (plain, behind_tls):
        attributes = answer.headers["set-cookie"].lower().split("; ")
        assert {"httponly", "samesite=lax", "path=/"} <= set(attributes)
    assert "secure" not in plain.headers["set-cookie"].lower()
    assert "secure" in behind_tls.headers["set-cookie"].lower().split("; ")


def test_whose_forwarded_headers_are_not_trusted_says_nothing(empty: Stack) -> None:
    answer = httpx.post(
        f"{empty.url}/admin/login",
        data={"key": ADMIN_KEY},
        headers={"x-forwarded-for": "192.0.2.9", "x-forwarded-proto": "https"},
    )
    assert "secure" not in answer.headers["set-cookie"].lower()


def test_a_session_is_good_at_every_instance(full: Stack) -> None:
    _, second = full.gateways
    with sign_in(full) as client:
        token = csrf_token_of(client)
        cookies = {COOKIE: client.cookies[COOKIE]}
    with httpx.Client(base_url=second.url, cookies=cookies) as client:
        assert client.get("/admin/").status_code == 200
        answer = client.post("/admin/logout", data={"csrf_token": token})
        assert answer.status_code == 303


def test_signing_out_needs_the_token_and_takes_the_cookie(full: Stack) -> None:
    with sign_in(full) as client:
        assert client.post("/admin/logout").status_code == 403
        assert client.get("/admin/").url.path == "/admin/"
        token = csrf_token_of(client)
        assert client.post("/admin/logout", data={"csrf_token": token}).url.path == "/admin/login"
        assert COOKIE not in client.cookies
        assert client.get("/admin/").url.path == "/admin/login"


def test_what_is_posted_without_a_session_asks_to_sign_in(full: Stack) -> None:
    for path in (
        "/admin/keys", "/admin/keys/any/delete", "/admin/settings/output_think", "/admin/logout",
    ):  # fmt: skip
        answer = httpx.post(full.url + path, data={"name": "n"})
        assert answer.status_code == 401
        assert "Sign in" in text_of(answer)


# -- every page


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("which", ["empty", "full"])
def test_every_page_answers_over_an_empty_and_a_full_store(
    request: pytest.FixtureRequest, which: str, path: str
) -> None:
    with sign_in(request.getfixturevalue(which)) as client:
        for method in ("GET", "HEAD"):
            answer = client.request(method, path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "referrer-policy" in answer.headers
            assert "x-request-id" in answer.headers


def test_nothing_on_a_page_comes_from_elsewhere_and_all_of_it_is_there(full: Stack) -> None:
    with sign_in(full) as client:
        for path in PAGES:
            page = client.get(path).text
            assert "<script" not in page
            assert " style=" not in page
            for address in re.findall(r'(?:src|href|action)="([^"]*)"', page):
                assert address.startswith(("/admin/", "#")), address
            for address in re.findall(r'<link [^>]*href="([^"]*)"', page):
                answer = httpx.get(full.url + unescape(address))
                assert answer.status_code == 200, "without a session: the login page needs it"
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert "immutable" in answer.headers["cache-control"]


def test_a_static_file_is_never_kept_under_another_version(full: Stack) -> None:
    answer = httpx.get(f"{full.url}/admin/static/admin.css?v=of-another-release")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["cache-control"] == "no-cache"
    for name in ("nothing.css", "..%2fpages.py", "..%2f..%2fapp.py"):
        assert httpx.get(f"{full.url}/admin/static/{name}").status_code == 404


def test_what_is_not_there_is_a_page_under_admin_and_json_elsewhere(full: Stack) -> None:
    with sign_in(full) as client:
        missing, wrong = client.get("/admin/nothing"), client.put("/admin/keys")
        assert (missing.status_code, wrong.status_code) == (404, 405)
        for answer in (missing, wrong):
            assert answer.headers["content-type"].startswith("text/html")
            assert "frame-ancestors" in answer.headers["content-security-policy"]
    assert httpx.get(f"{full.url}/administration").json()["error"]["code"] == "not_found"


# -- what they say


def test_the_overview_of_an_empty_pool_says_what_to_do_next(empty: Stack) -> None:
    with sign_in(empty) as client:
        overview, accounts = client.get("/admin/"), client.get("/admin/accounts")
        keys = client.get("/admin/keys")
    assert "ACCOUNTS=you@example.com:password" in text_of(overview)
    assert "ACCOUNTS=you@example.com:password" in text_of(accounts)
    assert "No keys created yet" in text_of(keys)


def test_the_overview_tells_state_accounts_models_and_how_to_use_it(full: Stack) -> None:
    with sign_in(full) as client:
        page = client.get("/admin/")
    text = text_of(page)
    assert "This instance ready 2 processes" in text
    assert "dead 1" in text
    assert "cooling 1" in text
    assert "disabled 1" in text
    assert f"all {len(CROWD) + 5}" in text
    listed = httpx.get(f"{full.url}/models").json()["data"]
    assert f"{len(listed)} names with variants" in text
    assert f"{full.url}/v1/chat/completions" in text
    assert listed[0]["id"] in text


def test_the_overview_counts_open_streams_over_all_processes(full: Stack) -> None:
    with sign_in(full) as client, httpx.Client(timeout=20) as caller:
        slow = {"model": "Qwen3-Max", "stream": True}
        slow |= {"messages": [{"role": "user", "content": "[[sim: frames=400 delay_ms=50]]"}]}
        url = f"{full.url}/v1/chat/completions"
        with caller.stream("POST", url, headers=full.headers, json=slow) as answer:
            assert answer.status_code == 200
            cookies = {COOKIE: client.cookies[COOKIE]}
            for _ in range(10):  # each on a connection of its own: both processes have their say
                text = text_of(httpx.get(f"{full.url}/admin/", cookies=cookies))
                assert "Open streams 1 " in text
                assert "In flight 1 " in text
        eventually(lambda: "Open streams 0 " in text_of(client.get("/admin/")))


def test_a_resting_account_says_why_and_how_long(full: Stack) -> None:
    with sign_in(full) as client:
        page = client.get("/admin/accounts", params={"state": "cooling"})
    text = text_of(page)
    [cooldown] = full.account(COOLING).cooldowns
    assert COOLING in text
    assert re.search(r"chat: again in \d+ (h|min|s)", text)
    assert cooldown.reason in text
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(cooldown.until))
    assert f'title="{moment}"' in page.text
    error = full.account(COOLING).last_error
    assert error is not None
    assert error.code in text
    assert error.message in text


def test_a_dead_account_says_why(full: Stack) -> None:
    with sign_in(full) as client:
        text = text_of(client.get("/admin/accounts", params={"state": "dead"}))
    account = full.account(DEAD)
    assert DEAD in text
    assert account.last_error is not None
    assert account.last_error.code in text


def test_the_pages_of_the_list_show_every_account_once(full: Stack) -> None:
    seen: list[str] = []
    with sign_in(full) as client:
        address = "/admin/accounts"
        for _ in range(len(CROWD) // ACCOUNTS_PER_PAGE + 1):
            page = client.get(address)
            seen += [unescape(name) for name in re.findall(r'class="name">(.*?)</span>', page.text)]
            found = re.search(r'rel="next" href="([^"]*)"', page.text)
            address = unescape(found[1]) if found else ""
    assert not address
    assert seen == sorted([HOSTILE_EMAIL, *full.emails, PROXIED, *CROWD])


def test_the_list_can_be_searched_and_filtered(full: Stack) -> None:
    with sign_in(full) as client:

        def names(**query: str) -> list[str]:
            page = client.get("/admin/accounts", params=query)
            return re.findall(r'class="name">(.*?)</span>', page.text)

        assert names(q="crowd00") == CROWD[:10]
        assert names(q=" CROWD000 ") == [CROWD[0]]
        assert names(state="disabled") == [CROWD[0]]
        assert names(state="disabled", q="demo") == []
        nothing = client.get("/admin/accounts", params={"q": HOSTILE + "?"})
        assert "No account matches" in text_of(nothing)
        assert "<script" not in nothing.text
        unknown = client.get("/admin/accounts", params={"state": HOSTILE})
        assert unknown.status_code == 400
        assert "<script" not in unknown.text


def test_names_that_want_to_be_markup_are_shown_as_they_are(full: Stack) -> None:
    with sign_in(full) as client:
        for path, name in (("/admin/accounts", HOSTILE_EMAIL), ("/admin/keys", HOSTILE)):
            page = client.get(path)
            assert "<script" not in page.text
            assert name in text_of(page)


def test_no_secret_is_on_any_page_or_in_any_log_line(full: Stack) -> None:
    with sign_in(full) as client:
        token, cookie = csrf_token_of(client), client.cookies[COOKIE]
        text = "".join(client.get(path).text for path in PAGES)
        text += client.get("/admin/accounts", params={"q": PROXIED}).text
    assert "socks5://proxy.example.com:1080" in text
    secrets = [
        "proxy-password",
        "a password nobody sees",
        "an-access-token",
        ADMIN_KEY,
        "demo-pass",
    ]
    for secret in (*secrets, REGULAR_KEY, cookie):
        assert secret not in text
    for secret in (*secrets, REGULAR_KEY, cookie, token):
        assert secret not in full.logs()


# -- changing things


def test_a_key_is_created_shown_once_used_and_deleted(full: Stack) -> None:
    with sign_in(full) as client:
        form = {"csrf_token": csrf_token_of(client), "name": "Jo's <laptop>"}
        form |= {"rate_limit_per_minute": "60", "models": "", "expires_in_days": "30"}
        form |= {"max_streams": "2", "daily_token_budget": "1000000"}
        created = client.post("/admin/keys", data=form)
        assert created.status_code == 201
        [key] = re.findall(r"sk-[A-Za-z0-9_-]{43}", created.text)
        assert "Jo's <laptop>" in text_of(created)
        headers = {"authorization": f"Bearer {key}"}
        for gateway in full.gateways:
            answer = httpx.get(f"{gateway.url}/v1/models", headers=headers)
            assert answer.status_code == 200

        listing = client.get("/admin/keys")
        assert key not in listing.text
        assert key[:10] in listing.text
        assert "in 30 d" in text_of(listing)
        [record] = [one for one in _keys(client) if one["name"] == "Jo's <laptop>"]
        assert record["rate_limit_per_minute"] == 60
        assert (record["max_streams"], record["daily_token_budget"]) == (2, 1_000_000)
        assert "1,000,000" in text_of(listing)
        assert record["models"] is None

        address = f"/admin/keys/{record['id']}/delete"
        assert f'action="{address}"' in listing.text
        assert client.post(address).status_code == 403
        deleted = client.post(address, data={"csrf_token": form["csrf_token"]})
        assert deleted.url.path == "/admin/keys"
        assert "The key was deleted" in text_of(deleted)
        assert "Jo's <laptop>" not in text_of(deleted)
        again = client.post(address, data={"csrf_token": form["csrf_token"]})
        assert again.status_code == 200, "somebody else was faster: it is gone as was wanted"
        for gateway in full.gateways:
            url = f"{gateway.url}/v1/models"
            eventually(
                lambda url=url: httpx.get(url, headers=headers).status_code,  # type: ignore[misc]  # bound
                within_seconds=2,
                until=lambda status: status == 401,
            )
        assert key not in full.logs()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "   "),
        ("name", "n" * 201),
        ("rate_limit_per_minute", "-1"),
        ("rate_limit_per_minute", "many"),
        ("rate_limit_per_minute", "1e3"),
        ("rate_limit_per_minute", "9" * 40),
        ("max_streams", "two"),
        ("daily_token_budget", "-1"),
        ("expires_in_days", "soon"),
        ("models", "m" * 300),
    ],
)
def test_a_form_with_a_wrong_field_comes_back_as_it_was_filled_in(
    full: Stack, field: str, value: str
) -> None:
    with sign_in(full) as client:
        before = _keys(client)
        form = {"csrf_token": csrf_token_of(client), "name": "Typed <by hand>", "models": "a, b"}
        answer = client.post("/admin/keys", data=form | {field: value})
        assert answer.status_code == 400
        alert = re.search(r'role="alert">(.*?)</p>', answer.text)
        assert alert is not None
        assert field.removesuffix("_in_days") in alert[1]
        if field != "name":
            assert 'value="Typed &lt;by hand&gt;"' in answer.text
        assert _keys(client) == before


def test_a_setting_is_changed_told_and_taken_back(full: Stack) -> None:
    with sign_in(full) as client:
        token = {"csrf_token": csrf_token_of(client)}
        page = client.post(
            "/admin/settings/model_aliases", data=token | {"value": '{"<b>":"Qwen3-Max"}'}
        )
        assert page.url.path == "/admin/settings"
        assert "model_aliases is changed" in text_of(page)
        assert 'value="{&#34;&lt;b&gt;&#34;:&#34;Qwen3-Max&#34;}"' in page.text
        assert "API_KEY 1, 127.0.0.1" in text_of(page)
        shown = _settings(client)["model_aliases"]
        assert (shown["value"], shown["source"]) == ({"<b>": "Qwen3-Max"}, "stored")
        back = client.post("/admin/settings/model_aliases", data=token | {"back": "1"})
        assert back.status_code == 200
        assert _settings(client)["model_aliases"]["source"] == "default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_login_concurrency", "51"),
        ("batch_login_concurrency", ""),
        ("search_info_mode", "<list>"),
        ("service_port", "1"),
        ("nothing", "1"),
        ("site_cookies", ""),
    ],
)
def test_a_wrong_setting_is_refused_with_the_reason(full: Stack, name: str, value: str) -> None:
    with sign_in(full) as client:
        before = _settings(client)
        form = {"csrf_token": csrf_token_of(client), "value": value}
        answer = client.post(f"/admin/settings/{name}", data=form)
        assert answer.status_code == 400
        alert = re.search(r'role="alert">(.*?)</p>', answer.text)
        assert alert is not None
        assert alert[1].startswith(f"{name}: ")
        assert _settings(client) == before


def test_without_the_token_no_setting_is_changed(full: Stack) -> None:
    with sign_in(full) as client:
        answer = client.post("/admin/settings/output_think", data={"value": "false"})
        assert answer.status_code == 403
        assert _settings(client)["output_think"]["source"] == "default"


def _settings(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/settings").json()["data"]
    return found


@pytest.mark.parametrize("token", ["", "wrong", "é", "of another session"])
def test_with_the_cookie_alone_no_form_changes_anything(full: Stack, token: str) -> None:
    with sign_in(full) as client, sign_in(full) as other:
        if token == "of another session":
            token = csrf_token_of(other)
        before = _keys(client)
        answer = client.post("/admin/keys", data={"csrf_token": token, "name": "not wanted"})
        assert answer.status_code == 403
        assert answer.headers["content-type"].startswith("text/html")
        assert "<script" not in answer.text
        assert _keys(client) == before


def test_a_form_may_tell_the_token_as_a_header(full: Stack) -> None:
    with sign_in(full) as client:
        headers = {"x-csrf-token": csrf_token_of(client)}
        answer = client.post("/admin/keys", data={"name": "by header"}, headers=headers)
        assert answer.status_code == 201


def _keys(client: httpx.Client) -> list[dict[str, object]]:
    data: list[dict[str, object]] = client.get("/api/keys").json()["data"]
    return data


# -- the admin API behind a session


def test_with_the_cookie_the_admin_api_can_be_read(full: Stack) -> None:
    with sign_in(full) as client:
        for path in ("/api/accounts", f"/api/accounts/{COOLING}", "/api/keys"):
            assert client.get(path).status_code == 200


def test_with_the_cookie_alone_the_admin_api_changes_nothing(full: Stack) -> None:
    with sign_in(full) as client:
        before = _keys(client)
        asked: list[Callable[[], httpx.Response]] = [
            lambda: client.post("/api/keys", json={"name": "n"}),
            lambda: client.post("/api/keys", json={"name": "n"}, headers={"x-csrf-token": "wrong"}),
            lambda: client.patch(f"/api/keys/{before[0]['id']}", json={"name": "n"}),
            lambda: client.delete(f"/api/keys/{before[0]['id']}"),
        ]
        for ask_for in asked:
            answer = ask_for()
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "forbidden"
        assert _keys(client) == before


def test_with_the_token_of_its_pages_a_session_may_change_through_the_admin_api(
    full: Stack,
) -> None:
    with sign_in(full) as client:
        headers = {"x-csrf-token": csrf_token_of(client)}
        created = client.post("/api/keys", json={"name": "by api"}, headers=headers)
        assert created.status_code == 201
        address = f"/api/keys/{created.json()['id']}"
        changed = client.patch(address, json={"name": "changed"}, headers=headers)
        assert changed.json()["name"] == "changed"
        assert client.delete(address, headers=headers).status_code == 204


def test_a_key_beside_the_cookie_decides(full: Stack) -> None:
    with sign_in(full) as client:
        wrong = client.get("/api/keys", headers={"authorization": "Bearer sk-nobody-has-this"})
        regular = client.get("/api/keys", headers=full.headers)
        assert (wrong.status_code, regular.status_code) == (401, 403)


def test_a_session_is_no_key_for_the_api_of_callers(full: Stack) -> None:
    with sign_in(full) as client:
        assert client.get("/v1/models").status_code == 401


# -- Redis away


def test_without_redis_the_pages_say_so_and_come_back_by_themselves(empty: Stack) -> None:
    with sign_in(empty) as client:
        token = csrf_token_of(client)
        empty.redis.freeze()
        try:
            for path in BEHIND_THE_LOGIN:
                asked_at = time.monotonic()
                answer = client.get(path)
                assert time.monotonic() - asked_at < 2
                assert answer.status_code == 503
                assert answer.headers["content-type"].startswith("text/html")
                assert int(answer.headers["retry-after"]) >= 1
                assert "Redis does not answer" in text_of(answer)
                assert f'content="5; url={path}"' in answer.text
            form = {"csrf_token": token, "name": "not now"}
            posted = client.post("/admin/keys", data=form)
            assert posted.status_code == 503
            assert 'content="5; url=/admin/"' in posted.text, "it isn't posted again by itself"
            assert client.get("/api/keys").json()["error"]["code"] == "store_unavailable"
            with browser(empty) as newcomer:
                assert newcomer.get("/admin/login").status_code == 200
                assert newcomer.post("/admin/login", data={"key": "wrong"}).status_code == 401
                entered = newcomer.post("/admin/login", data={"key": ADMIN_KEY})
                assert entered.status_code == 503, "signed in, and told"
                assert COOKIE in newcomer.cookies
        finally:
            empty.redis.thaw()
        for path in BEHIND_THE_LOGIN:
            eventually(lambda path=path: client.get(path).status_code == 200)  # type: ignore[misc]  # bound
        assert "not now" not in client.get("/admin/keys").text
