"""Whatever bytes come, however they are cut: lines or reasons, no exception, no growing memory."""

import itertools
import json
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.intake.documents import LONGEST_ITEM_BYTES
from shared.intake.formats import Form, Intake
from shared.intake.lines import BatchLine, InvalidLine, Line

FORMS: list[Form | None] = [None, "lines", "csv", "json"]
SECRET = "Tr0ub4dor"
# What the forms are made of, and what breaks them.
PIECES = [
    b"a@b.c", b":", b"|", b"http://h:1", SECRET.encode(), b"\n", b"\r\n", b"\r", b"\0", b"\t",
    b",", b";", b'"', b'""', b"'", b"[", b"]", b"{", b"}", b"\\", b'\\"', b"\\u", b"\\ud83d",
    b"\\ude00", b"\\n", b'"accounts":', b'"settings":', b'"email":"a@b.c"', b'"password":"x"',
    b"email,password\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xc3", b"\xa5",
    b"\xed\xa0\x80", b"null", b"0", b" ", b"x" * 40, b"\xe2\x80\xa8", b"\x85",
]  # fmt: skip
mixed = st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join)
anything = st.binary(max_size=200) | mixed


def read(data: bytes, cuts: list[int], form: Form | None) -> list[Line]:
    intake = Intake(form)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found: list[Line] = []
    for begin, end in itertools.pairwise(places):
        found += intake.feed(data[begin:end])
    return [*found, *intake.close()]


@given(anything, st.lists(st.integers(0, 5000), max_size=30), st.sampled_from(FORMS))
@example(b'"' * 50 + b"\n" + b'",a","\n' * 300, [7, 90], "csv")
@example(b'{"accounts":"\\ud83d\\n"}', [20], None)
@example(b"\xef\xbb\xbf\n\xc2\xa0\nemail,password\n a@b.c,x", [1, 3, 5, 6], "csv")
@example(b'email,password\n\n \n  "a@b.c",x\n', [15, 16, 17, 18, 19], None)
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_the_same_lines_however_they_are_cut(
    data: bytes, cuts: list[int], form: Form | None
) -> None:
    lines = read(data, [], form)
    assert read(data, cuts, form) == lines
    assert read(data, list(range(len(data))), form) == lines
    numbers = [line.number for line in lines]
    assert numbers == sorted(set(numbers))
    assert all(number >= 1 for number in numbers)
    for line in lines:
        if isinstance(line, InvalidLine):
            assert line.reason
            assert SECRET not in line.reason
        else:
            line.email.encode()
            line.password.encode()
            assert line.email.count("@") == 1


accounts = st.lists(
    st.tuples(
        st.from_regex(r"[a-z0-9.+-]{1,20}@[a-z0-9]{1,10}\.[a-z]{2}", fullmatch=True),
        st.text(
            st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufffd"),
            min_size=1,
            max_size=30,
        ).filter(lambda text: text == text.strip() and "|" not in text),
    ),
    max_size=8,
)


@given(accounts, st.lists(st.integers(0, 2000), max_size=10))
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_again_in_every_form(
    pairs: list[tuple[str, str]], cuts: list[int]
) -> None:
    lines = "\n".join(f"{email}:{password}" for email, password in pairs)
    rows = "".join('{},"{}"\n'.format(e, p.replace('"', '""')) for e, p in pairs)
    items = [{"email": email, "password": password} for email, password in pairs]
    forms: dict[Form, str] = {"lines": lines, "csv": "email,password\n" + rows}
    for form, text in forms.items():
        assert found(read(text.encode(), cuts, form)) == pairs
        assert found(read(text.encode("utf-16"), cuts, form)) == pairs
    for document in (items, {"accounts": items}, {"accounts": lines}, lines.split("\n")):
        if document != [""]:
            for ascii_only in (True, False):
                text = json.dumps(document, ensure_ascii=ascii_only)
                assert found(read(text.encode(), cuts, None)) == pairs


def found(lines: list[Line]) -> list[tuple[str, str]]:
    assert not [line for line in lines if isinstance(line, InvalidLine)]
    return [(line.email, line.password) for line in lines if isinstance(line, BatchLine)]


COUNT = 100_000
WATCHED_FROM = 90_000
"""Tracing is slow: from here on a reader that keeps anything would grow by megabytes."""
LONG_LINE = [b"a@b.c:pw\n", *[b"x" * 65_536] * 160, b"\n", b"b@b.c:pw"]


def long_file(form: Form) -> Iterator[bytes]:
    """A file of 100,000 accounts, made as it is read."""
    heads: dict[Form, bytes] = {"lines": b"", "csv": b"email,password\n", "json": b"["}
    yield heads[form]
    for start in range(0, COUNT, 1000):
        numbers = range(start, start + 1000)
        match form:
            case "lines":
                yield b"".join(b"u%d@example.org:password-%d\n" % (n, n) for n in numbers)
            case "csv":
                yield b"".join(b"u%d@example.org,password-%d\n" % (n, n) for n in numbers)
            case "json":
                item = b'{"email":"u%d@example.org","password":"password-%d"},'
                yield b"".join(item % (n, n) for n in numbers)
    yield b"]" if form == "json" else b""


@pytest.mark.parametrize("form", ["lines", "csv", "json"])
def test_100_000_lines_never_lie_in_memory_together(form: Form) -> None:
    intake, count = Intake(form), 0
    try:
        for chunk in long_file(form):
            if count >= WATCHED_FROM and not tracemalloc.is_tracing():
                tracemalloc.start()
            count += sum(isinstance(line, BatchLine) for line in intake.feed(chunk))
        count += sum(isinstance(line, BatchLine) for line in intake.close())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == COUNT
    assert peak_bytes < 500_000


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"\n" * 65_536),
        (b"email,password\n", b"\n \n" * 20_000),
        (b"email,password\n", b'",a","\n' * 2_000),
        (b"email,password\n", b'"\n\n' * 2_000),
        (b"[", b"[" * 5_000),
        (b"[", b"{" * 5_000),
        (b"[", b'{"' * 5_000),
        (b'["', b'\\"' * 5_000),
        (b'{"accounts":"', b"\\n" * 5_000),
        (b'{"accounts":"', b"\\ud83d" * 5_000),
    ],
)
def test_no_bytes_take_much_longer_than_accounts_do(begin: bytes, again: bytes) -> None:
    def seconds_a_byte(*pieces: bytes) -> float:
        intake = Intake()
        started = time.process_time()
        for piece in pieces:
            for _ in intake.feed(piece):
                pass
        return (time.process_time() - started) / sum(map(len, pieces))

    accounts = b"".join(b"u%d@example.org:password-%d\n" % (n, n) for n in range(1000))
    usual = min(seconds_a_byte(accounts, accounts) for _ in range(3))
    # Tokens of one byte take 10 times as long; what is read again and again takes 400 times.
    assert min(seconds_a_byte(begin, *[again] * 8) for _ in range(2)) < 60 * usual


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("lines", b"a@b.c:pw\n", b"\nb@b.c:pw"),
        ("csv", b"email,password\na@b.c,pw\n", b"\nb@b.c,pw"),
        ("csv", b'email,password\na@b.c,pw\n"', b'"\nb@b.c,pw'),
        ("json", b'["a@b.c:pw","', b'","b@b.c:pw"]'),
        ("json", b'["a@b.c:pw",{"x":["', b'"]},"b@b.c:pw"]'),
        ("json", b'{"accounts":"a@b.c:pw\\n', b'\\nb@b.c:pw"}'),
    ],
)
def test_a_line_of_10_mb_costs_its_own_line_only(form: Form, before: bytes, after: bytes) -> None:
    intake, piece = Intake(), b"x" * 65_536
    tracemalloc.start()
    try:
        lines = list(intake.feed(before))
        for _ in range(160):
            lines += intake.feed(piece)
        lines += [*intake.feed(after), *intake.close()]
        assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST_ITEM_BYTES
    finally:
        tracemalloc.stop()
    assert [line.email for line in lines] == ["a@b.c", "", "b@b.c"]
    assert isinstance(lines[1], InvalidLine)
    assert "longer than" in lines[1].reason
