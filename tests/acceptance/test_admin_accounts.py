"""What an operator does with accounts on the pages: the same as through the admin API."""

from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.test_admin_pages import csrf_token_of, sign_in, text_of
from tests.fakes.stack import Stack

NEW = "new@example.com"
PASSWORD = "a-new-password"


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx.Client]:
    """A browser with a session; the upstream knows one more account than the pool does."""
    stack.sim.account(NEW, password=PASSWORD, state="active")
    with sign_in(stack) as client:
        yield client
        post(client, f"/admin/accounts/{NEW}/delete")


def post(client: httpx.Client, path: str, **fields: str) -> httpx.Response:
    return client.post(path, data={"csrf_token": csrf_token_of(client), **fields})


def add(client: httpx.Client, **fields: str) -> httpx.Response:
    given = {"email": NEW, "password": PASSWORD, "proxy": "", "back": "/admin/accounts"}
    return post(client, "/admin/accounts", **(given | fields))


def test_an_account_is_added_and_signed_in(client: httpx.Client, stack: Stack) -> None:
    answer = add(client)
    assert (answer.status_code, answer.url.path) == (200, "/admin/accounts")
    assert "The account was added and signed in." in text_of(answer)
    assert stack.account(NEW).state == "ready"
    assert PASSWORD not in answer.text


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        ({"password": "wrong"}, 422, "The email or password provided is incorrect"),
        ({"email": "demo1@example.com"}, 409, "There is an account with this e-mail address"),
        ({"email": "nobody"}, 400, "email: "),
        ({"proxy": "ftp://u:proxy-secret@x"}, 400, "proxy: expected"),
    ],
)
def test_what_is_not_added_is_told_above_the_form_as_it_was(
    client: httpx.Client, fields: dict[str, str], status: int, told: str
) -> None:
    answer = add(client, **fields)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert told in text_of(answer)
    assert fields.get("email", NEW) in answer.text
    assert fields.get("password", PASSWORD) not in answer.text
    assert "proxy-secret" not in answer.text


def test_each_action_does_what_it_says_and_leads_back_to_where_it_was(
    client: httpx.Client, stack: Stack
) -> None:
    add(client)
    back = "/admin/accounts?q=new"
    for action, told, state in [
        ("disable", "Nothing new begins on this account.", "disabled"),
        ("enable", "The account is lent again.", "ready"),
        ("reset", "Its cooldowns and the rest of its egress address are over.", "ready"),
        ("refresh", "The account has a new access token.", "ready"),
    ]:
        answer = post(client, f"/admin/accounts/{NEW}/{action}", back=back)
        assert answer.url.params["q"] == "new"
        assert told in text_of(answer)
        assert "demo1" not in text_of(answer)
        assert stack.account(NEW).state == state
    answer = post(client, f"/admin/accounts/{NEW}/delete", back="https://elsewhere.example/")
    assert answer.url.path == "/admin/accounts"
    assert "The account was deleted." in text_of(answer)
    assert NEW not in text_of(answer)


def test_a_refresh_that_fails_is_told_with_the_reason(client: httpx.Client, stack: Stack) -> None:
    add(client)
    stack.sim.account(NEW, password="changed")
    answer = post(client, f"/admin/accounts/{NEW}/refresh", back="/admin/accounts?q=new")
    assert answer.status_code == 422
    assert "The email or password provided is incorrect" in text_of(answer)
    assert stack.account(NEW).state == "dead"


def test_an_account_that_is_gone_and_an_action_that_there_is_not_are_told(
    client: httpx.Client,
) -> None:
    answer = post(client, "/admin/accounts/gone@example.com/refresh")
    assert answer.status_code == 404
    assert "There is no such account" in text_of(answer)
    assert post(client, f"/admin/accounts/{NEW}/explode").status_code == 404


def test_nothing_is_done_without_the_token_of_the_page(client: httpx.Client, stack: Stack) -> None:
    add(client)
    for path in ("/admin/accounts", f"/admin/accounts/{NEW}/delete"):
        assert (
            client.post(path, data={"email": "x@example.com", "password": "x"}).status_code == 403
        )
    assert stack.account(NEW).state == "ready"
