"""Sign-in answers in all their variants, and what is read of a token."""

import base64
import hashlib

import msgspec
import pytest

from shared.errors import AccountDead, LoginFailed
from shared.upstream.login import AccessToken, hash_password, read_sign_in, token_expiry


def jwt(payload: object) -> str:
    middle = base64.urlsafe_b64encode(msgspec.json.encode(payload)).rstrip(b"=").decode()
    return f"eyJhbGciOiJIUzI1NiJ9.{middle}.c2lnbmF0dXJl"


TOKEN = jwt({"id": "a", "last_password_change": 1712000000, "exp": 1797000000})
READ = AccessToken(TOKEN, 1797000000)


@pytest.mark.parametrize(
    ("body", "cookies"),
    [
        ({"token": TOKEN, "token_type": "Bearer"}, []),
        ({"access_token": TOKEN}, []),
        ({"success": True, "data": {"token": TOKEN}}, []),
        ({"success": True, "data": {"access_token": TOKEN, "refresh_token": "r"}}, []),
        ({"success": True, "data": {"role": "user"}}, [f"token={TOKEN}; Path=/; HttpOnly"]),
        ({"id": "a"}, ["other=1; Path=/", f"token={TOKEN}; Secure; SameSite=Lax"]),
        ([], [f"token={TOKEN}"]),
    ],
)
def test_every_variant_of_a_sign_in_gives_the_token(body: object, cookies: list[str]) -> None:
    assert read_sign_in(msgspec.json.encode(body), cookies) == READ


@pytest.mark.parametrize(
    ("body", "cookies"),
    [(b"", []), (b"{}", []), (b'{"token": null}', []), (b'{"token": ""}', ["token="])],
)
def test_an_answer_without_token_gives_none(body: bytes, cookies: list[str]) -> None:
    assert read_sign_in(body, cookies) is None


@pytest.mark.parametrize(
    "body",
    [{"role": "pending"}, {"role": "pending", "token": TOKEN}, {"data": {"role": "pending"}}],
)
def test_a_pending_account_is_dead_whatever_else_is_said(body: object) -> None:
    with pytest.raises(AccountDead):
        read_sign_in(msgspec.json.encode(body), [])


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        jwt({"id": "a"}),
        jwt({"exp": None}),
        jwt({"exp": "soon"}),
        jwt([1]),
        "a.!!!.b",
        "a.e30",
        "a.b",
        "a..b",
        "é.é.é",
    ],
)
def test_a_token_whose_expiry_nobody_can_read_is_no_login(token: str) -> None:
    assert token_expiry(token) is None
    with pytest.raises(LoginFailed, match="expiry"):
        read_sign_in(msgspec.json.encode({"token": token}), [])


def test_the_expiry_is_read_whatever_the_padding() -> None:
    for filler in range(5):
        assert token_expiry(jwt({"x": "y" * filler, "exp": 1797000000})) == 1797000000


def test_a_password_goes_as_lower_case_hex_of_its_hash() -> None:
    assert hash_password("pässwörd") == hashlib.sha256("pässwörd".encode()).hexdigest()


def test_a_token_never_shows_in_its_representation() -> None:
    assert TOKEN not in repr(READ)
