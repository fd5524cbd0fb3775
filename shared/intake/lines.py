"""One account to be brought in, or why a line holds none; and the plainest of its forms.

    a@example.org:password                      split at the first `:`
    b@example.org:pass|word|http://proxy:3128   and at the last `|` when a proxy follows it

A line is numbered as an editor numbers it, from 1; blank ones count and are no line of the batch.

Knows: lines, their fields, what may stand in them. Does not know: Redis, who is there already.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

LONGEST_LINE_BYTES: Final = 16 * 1024
PROXY_SCHEMES: Final = ("http://", "https://", "socks5://", "socks5h://")


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


class PlainLines:
    """`email:password[|proxy]`, one a line. `feed` bytes as they come, then `close`."""

    def __init__(self) -> None:
        self._number = 0
        self._begun = b""
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        *whole, begun = (self._begun + data).split(b"\n")
        for raw in whole:
            yield from self._line(raw)
        self._begun = begun
        if len(begun) > LONGEST_LINE_BYTES:
            self._begun, self._too_long = b"", True  # what is thrown away needs no memory

    def close(self) -> Iterator[Line]:
        """The last line, where nothing ends it."""
        if self._begun or self._too_long:
            yield from self._line(self._begun)
        self._begun = b""

    def _line(self, raw: bytes) -> Iterator[Line]:
        self._number += 1
        too_long, self._too_long = self._too_long or len(raw) > LONGEST_LINE_BYTES, False
        if self._number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if too_long:
            limit = LONGEST_LINE_BYTES // 1024
            yield InvalidLine(number=self._number, reason=f"longer than {limit} kB")
            return
        try:
            text = raw.decode().strip()
        except UnicodeDecodeError:
            yield InvalidLine(number=self._number, reason="not valid UTF-8")
            return
        if text:
            yield read_line(self._number, text)


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


def checked(line: BatchLine) -> Line:
    """The line, unless one of its fields can't be what it should be."""
    reason = _fault(line)
    if reason is None:
        return line
    shown = line.email if _fault_of_email(line.email) is None else ""
    return InvalidLine(number=line.number, reason=reason, email=shown)


def _fault(line: BatchLine) -> str | None:
    if fault := _fault_of_email(line.email):
        return fault
    if not line.password:
        return "no password"
    if any(ord(c) < 32 or ord(c) == 127 for c in line.password):
        return "a control character in the password"
    if line.proxy and not line.proxy.startswith(PROXY_SCHEMES):
        return "the proxy is no http://, https:// or socks5:// URL"
    return None


def _fault_of_email(email: str) -> str | None:
    name, at, host = email.rpartition("@")
    if not at or not name or not host:
        return "no e-mail address before the first `:`"
    if len(email) > 254:
        return "the e-mail address is longer than 254 characters"
    if any(c.isspace() or ord(c) < 32 or ord(c) == 127 for c in email):
        return "a blank or a control character in the e-mail address"
    return None
