"""Every page object as HTML: nothing that a record holds becomes markup, and the headers hold."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import get_type_hints

import msgspec
import pytest

from gateway.admin.actions import KeyCreatedPage
from gateway.admin.batches import BatchesPage, BatchPage
from gateway.admin.errors import ErrorPage
from gateway.admin.login import LoginPage
from gateway.admin.pages import (
    AccountForm,
    AccountsPage,
    KeyForm,
    KeysPage,
    OverviewPage,
    StateCount,
    Tab,
    shown,
)
from gateway.admin.rendering import Page, render, static_address
from gateway.admin.settings import ChangeRow, SettingGroup, SettingRow, SettingsPage
from gateway.api.overview import Overview
from shared.store.accounts import Account, CooldownView, LastError
from shared.store.api_keys import ApiKey
from shared.store.batches import Batch, LineResult
from shared.store.usage import Sums

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}</textarea>"

ACCOUNT = Account(
    email=HOSTILE,
    state="cooling",
    state_reason=HOSTILE,
    proxy=HOSTILE,
    egress=HOSTILE,
    enabled=True,
    concurrency=None,
    in_flight=2,
    token_expires_at=1e300,
    cooldowns=[CooldownView(HOSTILE, 1e10, HOSTILE)],
    last_error=LastError(0, HOSTILE, HOSTILE),
    added_at=0,
    last_used=1.5,
)

RESULT = LineResult(1, HOSTILE, "failed", HOSTILE)
BATCH = Batch(
    id=HOSTILE,
    kind="import",
    state="running",
    total=7,
    valid=3,
    invalid=2,
    skipped=2,
    processed=2,
    succeeded=1,
    failed=1,
    concurrency=5,
    active=[HOSTILE],
    recent=[RESULT],
    created_at=1e300,
    started_at=1.0,
    finished_at=None,
)

PAGES: dict[str, Page] = {
    "batches": BatchesPage(csrf_token=HOSTILE, batches=[BATCH], concurrency=5, message=HOSTILE),
    "batch": BatchPage(
        csrf_token=HOSTILE,
        batch=BATCH,
        troubles=[RESULT],
        more_troubles=True,
        refresh_seconds=2,
    ),
    "login": LoginPage(csrf_token=HOSTILE, message=HOSTILE),
    "overview": OverviewPage(
        csrf_token=HOSTILE,
        numbers=Overview(
            instance="draining",
            processes=2,
            open_streams=1234,
            in_flight=5678,
            accounts={"new": 1},
            usable=False,
            models=7,
            variants=23,
            today=Sums(4321, 8765, 1, 99),
            keys=1,
            configured_keys=2,
        ),
        accounts=1,
        states=[StateCount("new", 1, HOSTILE)],
        base_url=HOSTILE,
        example_model=HOSTILE,
    ),
    "accounts": AccountsPage(
        csrf_token=HOSTILE,
        accounts=[ACCOUNT],
        total=1,
        tabs=[Tab(HOSTILE, 1, HOSTILE, chosen=True)],
        state=HOSTILE,
        search=HOSTILE,
        concurrency=2,
        first_address=HOSTILE,
        next_address=HOSTILE,
        address=HOSTILE,
        message=HOSTILE,
        done=HOSTILE,
        given=AccountForm(HOSTILE, HOSTILE),
    ),
    "keys": KeysPage(
        csrf_token=HOSTILE,
        keys=[ApiKey(id=HOSTILE, name=HOSTILE, prefix=HOSTILE, models=[HOSTILE], expires_at=1e300)],
        configured=1,
        default_rate_limit=60,
        message=HOSTILE,
        given=KeyForm(*[HOSTILE] * 6),
    ),
    "settings": SettingsPage(
        csrf_token=HOSTILE,
        groups=[
            SettingGroup(
                HOSTILE,
                [
                    SettingRow(
                        name=HOSTILE,
                        description=HOSTILE,
                        value=HOSTILE,
                        given=HOSTILE,
                        source="stored",
                        choices=(HOSTILE,) if has_choices else (),
                        secret=secret,
                        has_secret=secret,
                        fixed_because=HOSTILE if fixed else "",
                    )
                    for has_choices in (True, False)
                    for secret in (True, False)
                    for fixed in (True, False)
                ],
            )
        ],
        changes=[ChangeRow(1, HOSTILE, HOSTILE, HOSTILE, "")],
        message=HOSTILE,
        changed=HOSTILE,
    ),
    "key_created": KeyCreatedPage(csrf_token=HOSTILE, name=HOSTILE, key=HOSTILE, base_url=HOSTILE),
    "error": ErrorPage(
        csrf_token=HOSTILE, status=503, title=HOSTILE, message=HOSTILE, again=HOSTILE
    ),
}


class Markup(HTMLParser):
    """The elements of a page and the attributes that make a browser act."""

    def __init__(self, html: bytes | memoryview) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(bytes(html).decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("template", PAGES)
def test_what_records_hold_never_becomes_markup(template: str) -> None:
    markup = Markup(render(template, PAGES[template]).body)
    assert not {"script", "img", "style", "iframe"} & set(markup.elements)
    assert markup.handlers == []
    assert "49" not in markup.text
    if template != "error":  # with Redis away it says only what we wrote
        assert HOSTILE in markup.text


def test_the_error_page_says_the_message_where_redis_answers() -> None:
    page = ErrorPage(status=400, title="Bad Request", message=HOSTILE, again="")
    markup = Markup(render("error", page).body)
    assert HOSTILE in markup.text
    assert "script" not in markup.elements


def test_every_page_object_has_its_hostile_example() -> None:
    assert {type(page) for page in PAGES.values()} == set(_pages(Page))
    for page in PAGES.values():
        for name, kind in get_type_hints(type(page)).items():
            if kind is str:
                assert getattr(page, name) == HOSTILE, f"{type(page).__name__}.{name}"


def test_every_page_has_the_headers_that_fence_it_in() -> None:
    for template, page in PAGES.items():
        headers = render(template, page).headers
        policy = dict(
            directive.split(" ", 1) for directive in headers["content-security-policy"].split("; ")
        )
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["base-uri"] == "'none'"
        assert policy["form-action"] == "'self'"
        assert "script-src" not in policy, "there is no script: default-src refuses all"
        assert not [value for value in policy.values() if "unsafe" in value or "*" in value]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert headers["content-type"] == "text/html; charset=utf-8"


def test_numbers_are_grouped_and_moments_carry_the_exact_one() -> None:
    overview = bytes(render("overview", PAGES["overview"]).body).decode()
    assert "1,234" in overview
    assert "5,678" in overview
    assert "4,321" in overview
    assert "8,766" in overview  # tokens of both directions
    page = msgspec.structs.replace(PAGES["accounts"], now=1e10 - 3 * 3600)
    accounts = bytes(render("accounts", page).body).decode()
    assert 'title="2286-11-20 17:46:40 UTC">in 3 h</time>' in accounts


def test_what_an_upstream_says_of_a_failure_is_shown_without_secrets() -> None:
    said = "token eyJhbGciOi.eyJzdWIiOi.c2ln of someone@example.com: password=hunter22 refused"
    error = LastError(0, "login_failed", said)
    account = shown(msgspec.structs.replace(ACCOUNT, last_error=error, state_reason=f"no: {said}"))
    assert account.last_error is not None
    for text in (account.last_error.message, account.state_reason):
        assert "refused" in text
        for secret in ("eyJhbGciOi", "hunter22", "someone@"):
            assert secret not in text


def test_a_reason_is_not_said_twice() -> None:
    error = LastError(0, "login_failed", "wrong password")
    once = msgspec.structs.replace(ACCOUNT, last_error=error, state_reason="wrong password")
    assert shown(once).state_reason == ""
    other = msgspec.structs.replace(once, state_reason="switched off")
    assert shown(other).state_reason == "switched off"
    alone = msgspec.structs.replace(other, last_error=None)
    assert shown(alone) == alone


def test_the_address_of_a_static_file_changes_with_it() -> None:
    path, _, version = static_address("admin.css").partition("?v=")
    assert path == "/admin/static/admin.css"
    assert len(version) == 8


def _pages(parent: type[Page]) -> Iterator[type[Page]]:
    for child in parent.__subclasses__():
        yield child
        yield from _pages(child)
