"""One account to be brought in, or why a line holds none; and the plainest of its forms.

    a@example.org:password                      split at the first `:`
    b@example.org:pass|word|http://proxy:3128   and at the last `|` when a proxy follows it

A line is numbered as an editor numbers it, from 1; blank ones count and are no line of the batch.

Knows: lines, their fields, what may stand in them. Does not know: Redis, who is there already.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

LONGEST_LINE_BYTES: Final = 16 * 1024
PROXY_SCHEMES: Final = ("http://", "https://", "socks5://", "socks5h://")

_LONGEST_EMAIL: Final = 254
# Bounded, since it is kept sealed for each line: far above any password there is.
_LONGEST_PASSWORD: Final = 1_000
_UNREADABLE: Final = "\ufffd"


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """An account to be logged in; one whose token still lives needs no login for it.

    `expires_at` in epoch seconds.
    """

    number: int
    email: str
    password: str
    proxy: str = ""
    token: str = ""
    expires_at: float = 0.0

    def __repr__(self) -> str:
        return f"BatchLine(number={self.number})"


class InvalidLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that holds no account. `reason` says what to mend and never repeats a secret."""

    number: int
    reason: str
    email: str = ""


Line = BatchLine | InvalidLine


class RawLine(NamedTuple):
    """One line without its end; of one that is too long only that it was there."""

    number: int
    data: bytes
    too_long: bool


class RawLines:
    """Bytes → lines that aren't blank. `feed` as they come, then `close`.

    It keeps at most the longest line.
    """

    def __init__(self) -> None:
        self._number = 0
        self._begun = b""
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[RawLine]:
        """The lines that these bytes complete."""
        if data.isspace() and not (self._begun or self._too_long):
            self._number += data.count(b"\n")  # a file full of line ends costs no time
            begun = data[data.rfind(b"\n") + 1 :]
        else:
            *whole, begun = (self._begun + data).split(b"\n")
            for line in whole:
                yield from self._line(line)
        self._begun = begun
        if len(begun) > LONGEST_LINE_BYTES:
            self._begun, self._too_long = b"", True  # what is thrown away needs no memory

    def close(self) -> Iterator[RawLine]:
        """The last line, where nothing ends it."""
        if self._begun or self._too_long:
            yield from self._line(self._begun)
        self._begun = b""

    def _line(self, data: bytes) -> Iterator[RawLine]:
        self._number += 1
        if self._too_long or len(data) > LONGEST_LINE_BYTES:
            self._too_long = False
            yield RawLine(self._number, b"", too_long=True)
        elif data and not data.isspace():
            yield RawLine(self._number, data.removesuffix(b"\r"), too_long=False)


class PlainLines:
    """`email:password[|proxy]`, one a line. `feed` bytes as they come, then `close`."""

    def __init__(self) -> None:
        self._lines = RawLines()

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        for raw in self._lines.feed(data):
            yield from _read_raw(raw)

    def close(self) -> Iterator[Line]:
        """The last line, where nothing ends it."""
        for raw in self._lines.close():
            yield from _read_raw(raw)


def read_line(number: int, text: str) -> Line:
    """The account of one line `email:password[|proxy]`."""
    email, colon, rest = text.partition(":")
    password, bar, proxy = rest.rpartition("|")
    if not bar or not proxy.strip().startswith(PROXY_SCHEMES):
        password, proxy = rest, ""  # the bar belongs to the password
    if not colon:
        return InvalidLine(number=number, reason="no `:` between e-mail and password")
    return checked(
        BatchLine(number=number, email=email.strip(), password=password, proxy=proxy.strip())
    )


def text_of(raw: RawLine) -> str | InvalidLine:
    """The line as text, or why it is none."""
    if raw.too_long:
        limit = LONGEST_LINE_BYTES // 1024
        return InvalidLine(number=raw.number, reason=f"longer than {limit} kB")
    if b"\0" in raw.data:
        reason = "a NUL byte: save the file as UTF-8"
        return InvalidLine(number=raw.number, reason=reason)
    data = raw.data.removeprefix(b"\xef\xbb\xbf") if raw.number == 1 else raw.data
    try:
        return data.decode()
    except UnicodeDecodeError:
        reason = "not valid UTF-8: save the file as UTF-8"
        return InvalidLine(number=raw.number, reason=reason)


def checked(line: BatchLine) -> Line:
    """The line, unless one of its fields can't be what it should be."""
    reason = _fault(line)
    if reason is None:
        return line
    shown = line.email if _fault_of_email(line.email) is None else ""
    return InvalidLine(number=line.number, reason=reason, email=shown)


def _read_raw(raw: RawLine) -> Iterator[Line]:
    text = text_of(raw)
    if isinstance(text, InvalidLine):
        yield text
    elif text := text.strip():
        yield read_line(raw.number, text)


def _fault(line: BatchLine) -> str | None:
    if fault := _fault_of_email(line.email):
        return fault
    if not line.password:
        return "no password"
    if len(line.password) > _LONGEST_PASSWORD:
        return f"the password is longer than {_LONGEST_PASSWORD} characters"
    for what, text in (("password", line.password), ("proxy", line.proxy), ("token", line.token)):
        if _has_control(text):
            return f"a control character in the {what}"
        if _UNREADABLE in text:
            return f"an unreadable character (U+FFFD) in the {what}: save the file as UTF-8"
    if line.proxy and not line.proxy.startswith(PROXY_SCHEMES):
        return "the proxy is no http://, https:// or socks5:// URL"
    return None


def _fault_of_email(email: str) -> str | None:
    name, at, host = email.partition("@")
    if not at or not name or not host or "@" in host:
        return "no e-mail address where one belongs"
    if len(email) > _LONGEST_EMAIL:
        return f"the e-mail address is longer than {_LONGEST_EMAIL} characters"
    if any(c.isspace() for c in email) or _has_control(email):
        return "a blank or a control character in the e-mail address"
    if any(c in email for c in f":|{_UNREADABLE}"):
        return "a character in the e-mail address that can't be there"
    return None


def _has_control(text: str) -> bool:
    return not text.isprintable() and any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
