"""Every form an operator may bring: what it is, what its lines say, what is wrong with which."""

import json
from typing import Any

import pytest

from shared.intake.documents import LONGEST_ITEM_BYTES
from shared.intake.expiry import epoch_seconds
from shared.intake.formats import Form, Intake
from shared.intake.lines import LONGEST_LINE_BYTES, BatchLine, InvalidLine, Line

ONE = BatchLine(number=1, email="a@b.c", password="pw")


def read(data: bytes | str, *, cut: int = 0, form: Form | None = None) -> list[Line]:
    data = data.encode() if isinstance(data, str) else data
    intake = Intake(form)
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]
    found = [line for piece in pieces for line in intake.feed(piece)]
    return [*found, *intake.close()]


def read_json(document: Any) -> list[Line]:  # Any: JSON
    return read(json.dumps(document))


def told(lines: list[Line]) -> list[tuple[int, str]]:
    """(number, e-mail) of an account, (number, reason) of a line that holds none."""
    return [(one.number, one.email if isinstance(one, BatchLine) else one.reason) for one in lines]


# -- which form it is


@pytest.mark.parametrize(
    "data",
    [
        b"a@b.c:pw",
        b"\xef\xbb\xbfa@b.c:pw\r\n",
        "a@b.c:pw\r\n".encode("utf-16"),
        b"\xfe\xff" + "a@b.c:pw".encode("utf-16-be"),
        b'["a@b.c:pw"]',
        b'\xef\xbb\xbf [{"email":"a@b.c","password":"pw"}]\n',
        b'{"accounts":"a@b.c:pw"}',
        b'{"accounts":[{"email":"a@b.c","password":"pw"}]}',
        '{"accounts":["a@b.c:pw"]}'.encode("utf-16"),
    ],
)
def test_its_first_bytes_say_which_form_it_has(data: bytes) -> None:
    for cut in (0, 1, 2, 3):
        assert read(data, cut=cut) == [ONE]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_first_line_that_names_the_columns_makes_it_csv(separator: str, mark: str) -> None:
    rows = ["E-Mail,Note,Password", "a@b.c,,p:w|x", '"b@b.c","x","y"']
    data = mark + "\n".join(row.replace(",", separator) for row in rows)
    assert read(data) == [
        BatchLine(number=2, email="a@b.c", password="p:w|x"),
        BatchLine(number=3, email="b@b.c", password="y"),
    ]


def test_nothing_at_all_has_no_lines() -> None:
    assert read(b"") == read(b"\xef\xbb\xbf") == read(b" \r\n\n") == read(b"\xff\xfe") == []


# -- CSV


def test_csv_takes_proxy_token_and_expiry_by_name() -> None:
    data = "expires,token,proxy,password,email\n1900000000000,tok,http://h:1, p ,a@b.c\n"
    assert read(data) == [
        BatchLine(
            number=2,
            email="a@b.c",
            password=" p ",
            proxy="http://h:1",
            token="tok",
            expires_at=1_900_000_000,
        )
    ]


def test_the_export_of_a_password_manager_is_csv_with_columns_of_its_own() -> None:
    data = 'name,url,username,password,note\nQwen,https://x,a@b.c,pw,"two\nlines"\n,,b@b.c,pw,\n'
    assert told(read(data)) == [(2, "a@b.c"), (4, "b@b.c")]


def test_quoted_fields_hold_separators_quotes_and_line_ends() -> None:
    data = 'email,password,note\r\na@b.c,"p,""w",\r\nb@b.c,p"w,"1\r\n\r\n2"\r\n'
    lines = read(data)
    assert [line.password for line in lines if isinstance(line, BatchLine)] == ['p,"w', 'p"w']
    assert [line.number for line in lines] == [2, 3]


def test_a_quote_that_is_never_closed_costs_its_own_row_only() -> None:
    rows = [f"a{number}@b.c,pw" for number in range(300)]
    rows[100] = 'x@b.c,"pw'
    lines = read("email,password\n" + "\n".join(rows))
    bad = [line for line in lines if isinstance(line, InvalidLine)]
    assert told(bad) == [(102, "a quote that is never closed")]
    assert [line.number for line in lines] == list(range(2, 302))


def test_csv_without_a_header_is_email_password_proxy() -> None:
    assert read("a@b.c,pw\nb@b.c,x,http://h:1", form="csv") == [
        ONE,
        BatchLine(number=2, email="b@b.c", password="x", proxy="http://h:1"),
    ]


def test_csv_whose_columns_nobody_knows_says_so_at_each_row() -> None:
    lines = read("name,secret\nx,y\n", form="csv")
    reason = "the first row names no columns `email` and `password`"
    assert told(lines) == [(1, reason), (2, reason)]


def test_a_row_with_too_few_fields_has_no_password() -> None:
    assert told(read("email,password\na@b.c\n,\n\nb@b.c,pw")) == [
        (2, "no password"),
        (3, "a row without values"),
        (5, "b@b.c"),
    ]


# -- JSON


def test_items_are_numbered_and_a_broken_one_costs_no_other() -> None:
    data = b"""[{"email":"a@b.c","password":"pw"}, {"email":"x@b.c","password":5}, 7, {"email" "x"},
      null, {"email":"x@b.c"}, "b@b.c:pw", {"email":"c@b.c","password":"\xff"}, [1, {"a": "]"}],
      {"email":"d@b.c","password":"pw","stats":{"x":{"y":["}"]}}}]"""
    assert told(read(data)) == [
        (1, "a@b.c"),
        (2, "password: expected a text"),
        (3, "the item: expected a text or an object"),
        (4, "no account: malformed JSON, or not UTF-8"),
        (5, "the item: expected a text or an object"),
        (6, "no password"),
        (7, "b@b.c"),
        (8, "no account: malformed JSON, or not UTF-8"),
        (9, "the item: expected a text or an object"),
        (10, "d@b.c"),
    ]


def test_a_data_json_of_qwen2api_brings_its_tokens_and_its_settings() -> None:
    document = {
        "defaultHeaders": None,
        "settings": {"apiKeys": ["sk-1", "sk-]"], "chatRetryCount": 3},
        "accounts": [
            {
                "email": "a@b.c",
                "password": "pw",
                "token": "tok",
                "expires": 1_900_000_000,
                "proxy": None,
                "stats": {"chat": {"input": 1, "output": 2}, "cli": {"calls": 0}},
                "statsHistory": {"2026-11-01": {"chat": {"input": 1}}},
            },
            {"email": "b@b.c", "password": "pw", "token": None, "expires": None},
            {"email": "c@b.c", "password": "pw", "token": "", "expires": "", "proxy": "http://h:1"},
        ],
    }
    for text in (json.dumps(document), json.dumps(document, indent=2)):
        intake = Intake()
        lines = [*intake.feed(text.encode()), *intake.close()]
        assert lines == [
            BatchLine(
                number=1, email="a@b.c", password="pw", token="tok", expires_at=1_900_000_000
            ),
            BatchLine(number=2, email="b@b.c", password="pw"),
            BatchLine(number=3, email="c@b.c", password="pw", proxy="http://h:1"),
        ]
        assert json.loads(intake.settings) == document["settings"]


def test_a_text_of_lines_is_read_as_they_are() -> None:
    text = 'a@b.c:p"w\\\n\nb@b.c:\u00e5\U0001f600/\t\nbad\r\nc@b.c:pw'
    data = json.dumps({"dry_run": True, "accounts": text, "settings": 1}).encode()
    escaped = json.dumps({"accounts": text}, ensure_ascii=False).encode()
    for one in (data, escaped):
        for cut in (0, 1, 2, 3, 5, 64):
            assert read(one, cut=cut) == read(text)


@pytest.mark.parametrize("escape", ["\\ud83d", "\\ude00", "\\x", "\\u12g4"])
def test_half_a_character_is_unreadable(escape: str) -> None:
    data = f'{{"accounts":"a@b.c:p{escape}\\nb@b.c:pw"}}'
    for cut in (0, 1, 3):
        bad, good = read(data, cut=cut)
        assert isinstance(bad, InvalidLine)
        assert "U+FFFD" in bad.reason
        assert good == BatchLine(number=2, email="b@b.c", password="pw")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"users":[]}', [(1, "no `accounts` in this JSON")]),
        (b'{"email":"a@b.c","password":"pw"}', [(1, "no `accounts` in this JSON")]),
        (b'{"accounts":7}', [(1, "no `accounts` in this JSON")]),
        (b'["a@b.c:pw"', [(1, "the JSON ends too early: it was cut off here")]),
        (b'["a@b.c:pw","b@', [(1, "a@b.c"), (2, "the JSON ends too early: it was cut off here")]),
        (b'["a@b.c:pw"] x', [(1, "a@b.c"), (2, "something follows the end of the JSON")]),
        (b'["a@b.c:pw"]["b"]', [(1, "a@b.c"), (2, "something follows the end of the JSON")]),
        (
            b'{"accounts":"a@b.c:pw\\nb@b.c:p',
            [(1, "a@b.c"), (2, "b@b.c"), (3, "the JSON ends too early: it was cut off here")],
        ),
        (b"[]", []),
        (b'{"accounts":[]}', []),
        (b'{"accounts":""}', []),
    ],
)
def test_what_is_wrong_with_the_whole_is_told_behind_its_lines(
    data: bytes, expected: list[tuple[int, str]]
) -> None:
    for cut in (0, 1, 2):
        assert told(read(data, cut=cut)) == expected


def test_an_item_that_is_too_long_costs_no_other() -> None:
    long = "x" * (LONGEST_ITEM_BYTES + 1)
    lines = read_json(["a@b.c:pw", long, {"email": "x@b.c", "note": long + '"]'}, "b@b.c:pw"])
    assert told(lines) == [
        (1, "a@b.c"),
        (2, "longer than 256 kB"),
        (3, "longer than 256 kB"),
        (4, "b@b.c"),
    ]


def test_a_text_in_json_has_no_longer_lines_than_a_file() -> None:
    lines = read_json({"accounts": "x" * (LONGEST_LINE_BYTES + 1) + "\na@b.c:pw"})
    assert told(lines) == [(1, "longer than 16 kB"), (2, "a@b.c")]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_900_000_000, 1_900_000_000),
        ("1900000000", 1_900_000_000),
        (1_900_000_000_000, 1_900_000_000),
        (None, 0),
        ("", 0),
        ("soon", 0),
        (float("nan"), 0),
        ("-inf", 0),
        (-5, 0),
    ],
)
def test_an_expiry_is_epoch_seconds_however_it_is_written(
    value: float | str | None, seconds: float
) -> None:
    assert epoch_seconds(value) == seconds
