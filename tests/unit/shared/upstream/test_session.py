"""What an upstream says back of our secrets stands in no message."""

import pytest

from shared.errors import UpstreamRejected
from shared.upstream.client import Session

SESSION = Session("a@example.org", "token-0123456789", cookies="acw_tc=own-cookie-value; lang=en")
SITE = "ssxmod_itna=site-cookie-value; short=abc"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such token: token-0123456789!", "no such token: …!"),
        ("cookie own-cookie-value, cookie site-cookie-value", "cookie …, cookie …"),
        ("Cookie: ssxmod_itna=site-cookie-value; short=abc", "Cookie: …"),
        ("cut off: token-01234", "cut off: …"),
        ("twice token-0123456789 token-0123456789", "twice … …"),
        ("the English alphabet begins with abc", "the English alphabet begins with abc"),
        ("nothing of ours: tok", "nothing of ours: tok"),
        ("", ""),
    ],
)
def test_a_secret_that_is_said_back_is_concealed(said: str, shown: str) -> None:
    error = UpstreamRejected(f"It refused: {said}")
    SESSION.conceal(error, site_cookies=SITE)
    assert error.message == f"It refused: {shown}"


def test_a_session_without_secrets_changes_nothing() -> None:
    error = UpstreamRejected("It refused")
    Session("a@example.org", "").conceal(error)
    assert error.message == "It refused"
