"""The sealed cookie: who can read it, for how long, and what the browser is told about it."""

from http.cookies import SimpleCookie

import msgspec
import pytest
from starlette.requests import Request
from starlette.responses import Response

from gateway.session import COOKIE, LIFE_SECONDS, Sessions
from shared.sealing import Sealer

ADMIN_KEY = "sk-admin-of-the-unit-tests"
OLD = "the first secret key, long enough"
NEW = "the second secret key, long enough"


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_422_903.0

    def __call__(self) -> float:
        return self.now


def sessions(
    secret_key: str = OLD,
    previous: str = "",
    *,
    admin_key: str = ADMIN_KEY,
    clock: Clock | None = None,
) -> Sessions:
    return Sessions(Sealer(secret_key, previous), admin_key=admin_key, clock=clock or Clock())


def request(cookie: str = "", *, scheme: str = "http") -> Request:
    headers = [(b"cookie", f"{COOKIE}={cookie}".encode())] if cookie else []
    return Request(
        {
            "type": "http",
            "method": "GET",
            "scheme": scheme,
            "server": ("gateway.example", 80),
            "path": "/admin/",
            "query_string": b"",
            "headers": headers,
        }
    )


def set_cookie(response: Response) -> dict[str, str]:
    """The one cookie of an answer: its value and its attributes, in lower case."""
    [header] = response.headers.getlist("set-cookie")
    morsel = SimpleCookie(header)[COOKIE]
    flags = {name: str(value) for name, value in morsel.items() if value}
    return {"value": morsel.value, **flags}


def opened(by: Sessions, *, scheme: str = "http") -> dict[str, str]:
    response = Response()
    by.open(request(scheme=scheme), response)
    return set_cookie(response)


def test_every_process_with_the_same_keys_reads_a_session() -> None:
    cookie = opened(sessions())
    session = sessions().of(request(cookie["value"]))
    assert session is not None
    assert session.proves(session.csrf_token)
    assert not session.proves("")
    assert not session.proves("ä")
    assert not session.proves(session.csrf_token[:-1])


def test_two_sessions_have_different_tokens() -> None:
    one, other = (sessions().of(request(opened(sessions())["value"])) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.csrf_token != other.csrf_token
    assert not one.proves(other.csrf_token)


def test_a_session_ends_with_its_life() -> None:
    clock = Clock()
    ours = sessions(clock=clock)
    cookie = opened(ours)
    assert cookie["max-age"] == str(LIFE_SECONDS)
    clock.now += LIFE_SECONDS - 1
    assert ours.of(request(cookie["value"])) is not None
    clock.now += 1
    assert ours.of(request(cookie["value"])) is None


def test_another_admin_key_ends_every_session() -> None:
    cookie = opened(sessions())
    assert sessions(admin_key="sk-the-next-admin-key").of(request(cookie["value"])) is None


def test_a_session_lives_through_a_rotation_of_the_secret_key_and_no_further() -> None:
    cookie = opened(sessions(OLD))
    assert sessions(NEW, OLD).of(request(cookie["value"])) is not None
    assert sessions(NEW).of(request(cookie["value"])) is None


@pytest.mark.parametrize(
    "cookie",
    ["", "v1", "v1:a:b:c", "v1:::", "äöü", "x" * 5000, "v2:0:0:0"],
)
def test_nonsense_is_no_session(cookie: str) -> None:
    assert sessions().of(request(cookie)) is None


def test_a_changed_cookie_is_no_session() -> None:
    value = opened(sessions())["value"]
    for at in range(0, len(value), 7):
        changed = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        assert sessions().of(request(changed)) is None, at


def test_a_secret_sealed_for_another_place_is_no_session() -> None:
    sealed = Sealer(OLD).seal(
        msgspec.json.encode({}).decode(), place="gw:{pool}:account:a#password"
    )
    assert sessions().of(request(sealed)) is None


def test_the_cookie_tells_nothing() -> None:
    cookie = opened(sessions())
    session = sessions().of(request(cookie["value"]))
    assert session is not None
    assert ADMIN_KEY not in cookie["value"]
    assert session.csrf_token not in cookie["value"]
    assert ADMIN_KEY not in msgspec.json.encode(session).decode()


def test_scripts_and_other_sites_do_not_get_the_cookie() -> None:
    plain, secure = opened(sessions()), opened(sessions(), scheme="https")
    for cookie in (plain, secure):
        assert cookie["httponly"] == "True"
        assert cookie["samesite"] == "lax"
        assert cookie["path"] == "/"
        assert "domain" not in cookie
    assert "secure" not in plain, "a browser would drop it over plain http"
    assert secure["secure"] == "True"


def test_signing_out_takes_the_cookie_away() -> None:
    response = Response()
    sessions().end(request(), response)
    cookie = set_cookie(response)
    assert cookie["value"] == ""
    assert cookie["max-age"] == "0"
    assert cookie["path"] == "/"


def test_only_the_admin_key_is_the_admin_key() -> None:
    ours = sessions()
    assert ours.is_admin_key(ADMIN_KEY)
    assert not ours.is_admin_key("")
    assert not ours.is_admin_key(ADMIN_KEY + " ")
    assert not sessions(admin_key="").is_admin_key("")
