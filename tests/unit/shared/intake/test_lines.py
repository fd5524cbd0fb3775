"""Plain lines: what is an account, what is none and why."""

import tracemalloc

import pytest

from shared.intake.lines import LONGEST_LINE_BYTES, BatchLine, InvalidLine, Line, PlainLines


def read(data: bytes, *, cut: int = 0) -> list[Line]:
    reader = PlainLines()
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]
    found = [line for piece in pieces for line in reader.feed(piece)]
    return [*found, *reader.close()]


@pytest.mark.parametrize(
    ("text", "password", "proxy"),
    [
        ("a@b.c:pw", "pw", ""),
        ("a@b.c:p:w|x", "p:w|x", ""),
        ("a@b.c:pw|http://u:p@h:1", "pw", "http://u:p@h:1"),
        ("a@b.c:p|w|socks5://h:1", "p|w", "socks5://h:1"),
        ("  a@b.c : pw  ", " pw", ""),
    ],
)
def test_a_line_is_split_at_its_first_colon_and_its_last_bar(
    text: str, password: str, proxy: str
) -> None:
    [line] = read(text.encode())
    assert line == BatchLine(number=1, email="a@b.c", password=password, proxy=proxy)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"no colon", "no `:`"),
        (b"no-at:pw", "no e-mail"),
        (b"a@b.c:", "no password"),
        (b"a b@c.d:pw", "a blank"),
        (b"a@b.c:p\x07w", "a control character in the password"),
        (b"a@b.c:p\0w", "a NUL byte"),
        (b"a@b@c:pw", "no e-mail"),
        (b"a|b@c.d:pw", "a character in the e-mail"),
        (b"a@b.c:" + b"x" * 1001, "longer than 1000"),
        ("a@b.c:p\ufffdw".encode(), "U+FFFD"),
        (b"a@b.c:pw|http://h:1\x1b", "a control character in the proxy"),
        (b"\xff@b.c:pw", "not valid UTF-8"),
        (b"a@b.c:" + b"x" * LONGEST_LINE_BYTES, "longer than"),
        (b"a" * 300 + b"@b.c:pw", "longer than 254"),
    ],
)
def test_a_line_that_holds_no_account_says_what_to_mend_and_nothing_secret(
    raw: bytes, reason: str
) -> None:
    bad, good = read(raw + b"\na@b.c:pw")
    assert isinstance(bad, InvalidLine)
    assert reason in bad.reason
    assert (bad.number, good.number) == (1, 2)
    assert "pw" not in bad.reason


def test_blank_lines_count_and_are_no_lines_of_the_batch() -> None:
    assert [line.number for line in read(b"\xef\xbb\xbfa@b.c:1\r\n\r\n \nb@b.c:2")] == [1, 4]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_any_cut_of_the_bytes_gives_the_same_lines(cut: int) -> None:
    data = "å@b.c:pæss\r\n\nbad\nb@c.d:x|http://h:1".encode()
    assert read(data, cut=cut) == read(data)


def test_of_a_line_of_10_mb_nothing_is_kept() -> None:
    reader, piece = PlainLines(), b"x" * 64_000
    tracemalloc.start()
    try:
        for _ in range(160):
            assert list(reader.feed(piece)) == []
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()
    [bad, good] = [*reader.feed(b"\na@b.c:pw\n"), *reader.close()]
    assert isinstance(bad, InvalidLine)
    assert isinstance(good, BatchLine)


def test_a_password_is_in_no_repr() -> None:
    assert "pw" not in repr(read(b"a@b.c:pw"))
