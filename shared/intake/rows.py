"""CSV → lines of a batch: the first row names the columns, in any order.

    email,password,proxy            also `;` or tabs between them; `username` is an e-mail, too
    a@example.org,"p,w",            a quoted field may hold the separator, `""` and line ends
    b@example.org,pw,http://h:3128

Further columns (`name`, `url`, `note` of a password manager) are left out; `token` and `expires`
are taken. A file without a header is read as e-mail, password, proxy.

Knows: rows and their columns. Does not know: what is done with an account.
"""

import csv
from collections.abc import Iterator
from typing import Final

from shared.intake.expiry import epoch_seconds
from shared.intake.lines import (
    LONGEST_LINE_BYTES,
    BatchLine,
    InvalidLine,
    Line,
    RawLine,
    RawLines,
    checked,
    text_of,
)

_SEPARATORS: Final = ",;\t"
# The first name that a header has counts.
_NAMES: Final = {
    "email": ("email", "e-mail", "mail", "username", "user", "login", "account"),
    "password": ("password", "passwd", "pass", "pwd"),
    "proxy": ("proxy", "proxy_url"),
    "token": ("token", "access_token"),
    "expires": ("expires", "expires_at"),
}
_WITHOUT_HEADER: Final = {"email": 0, "password": 1, "proxy": 2}
# A quote still open after so many lines is a stray one: what follows it are rows of their own.
_MOST_LINES: Final = 100
_NO_HEADER: Final = "the first row names no columns `email` and `password`"

Columns = dict[str, int]


class CsvRows:
    """CSV, one account a row. `feed` bytes as they come, then `close`."""

    def __init__(self) -> None:
        self._lines = RawLines()
        self._row: list[RawLine] = []  # begun, a quote is open
        self._size = 0  # of the row, in bytes
        self._columns: Columns | None = None
        self._separator = ","

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        for raw in self._lines.feed(data):
            yield from self._take(raw)

    def close(self) -> Iterator[Line]:
        """The last row, where nothing ends it."""
        for raw in self._lines.close():
            yield from self._take(raw)
        if self._row:
            yield from self._never_closed()

    def _take(self, raw: RawLine, *, alone: bool = False) -> Iterator[Line]:
        """`alone`: no row goes on in the next line, so that every line is read twice at most."""
        text = text_of(raw)
        if self._columns is None and isinstance(text, str):
            self._separator = _separator(text)
        self._row.append(raw)
        self._size += len(raw.data)
        if isinstance(text, InvalidLine):
            yield from self._never_closed() if len(self._row) > 1 else self._end([text])
        elif not _is_open(text, self._separator, begun=len(self._row) > 1):
            yield from self._end([text_of(line) for line in self._row])
        elif alone or self._size > LONGEST_LINE_BYTES or len(self._row) > _MOST_LINES:
            yield from self._never_closed()

    def _never_closed(self) -> Iterator[Line]:
        """The row's first line is at fault; those behind it are rows of their own."""
        first, *others = self._row
        self._row, self._size = [], 0
        yield InvalidLine(number=first.number, reason="a quote that is never closed")
        for raw in others:
            yield from self._take(raw, alone=True)

    def _end(self, texts: list[str | InvalidLine]) -> Iterator[Line]:
        number = self._row[0].number
        self._row, self._size = [], 0
        pieces = [text for text in texts if isinstance(text, str)]
        if len(pieces) < len(texts):
            yield from (text for text in texts if isinstance(text, InvalidLine))
            return
        text = "\n".join(pieces)
        if not text.strip():
            return
        try:
            fields = next(csv.reader([text], delimiter=self._separator))
        except (csv.Error, StopIteration):
            yield InvalidLine(number=number, reason="no row of CSV")
            return
        if self._columns is None:
            self._columns = columns_of(fields)
            if self._columns is not None:
                return
            self._columns = _WITHOUT_HEADER if "@" in fields[0] else {}
        yield self._account(number, fields)

    def _account(self, number: int, fields: list[str]) -> Line:
        columns = self._columns
        if not columns:
            return InvalidLine(number=number, reason=_NO_HEADER)
        if not any(field.strip() for field in fields):
            return InvalidLine(number=number, reason="a row without values")

        def field(name: str) -> str:
            at = columns.get(name, len(fields))
            return fields[at] if at < len(fields) else ""

        return checked(
            BatchLine(
                number=number,
                email=field("email").strip(),
                password=field("password"),
                proxy=field("proxy").strip(),
                token=field("token").strip(),
                expires_at=epoch_seconds(field("expires")),
            )
        )


def columns_of(fields: list[str]) -> Columns | None:
    """Where the columns are that a header names; None when it is no header."""
    names = [field.strip().strip('"').lower().replace(" ", "_") for field in fields]
    found = {
        column: names.index(next(name for name in accepted if name in names))
        for column, accepted in _NAMES.items()
        if any(name in names for name in accepted)
    }
    return found if "email" in found and "password" in found else None


def is_header(text: str) -> bool:
    """Whether a file that begins with this line is CSV."""
    return columns_of(text.strip().split(_separator(text))) is not None


def _separator(text: str) -> str:
    """The one that occurs most often in the first row; the comma where none does."""
    return max(_SEPARATORS, key=text.count)


def _is_open(text: str, separator: str, *, begun: bool) -> bool:
    """Whether a quoted field goes on in the next line; `begun`: one goes on in this one."""
    at, inside = 0, begun
    while True:
        if inside:
            at = text.find('"', at) + 1
            if not at:
                return True
            if text.startswith('"', at):
                at += 1  # a doubled quote is one of the text
                continue
            inside = False
        elif text.startswith('"', at):
            at, inside = at + 1, True
            continue
        at = text.find(separator, at) + 1
        if not at:
            return False
