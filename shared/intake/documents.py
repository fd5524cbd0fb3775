r"""JSON → lines of a batch, without ever holding the document.

    [{"email": "a@example.org", "password": "pw", "proxy": "http://h:3128"}, …]
    ["a@example.org:pw|http://h:3128", …]
    {"accounts": [ … as above …]}          a Qwen2API data.json; also `token`, `expires`, `settings`
    {"accounts": "a@example.org:pw\n…"}    lines as `PlainLines` reads them

An item is cut out by counting brackets outside of strings, then decoded for itself: one that is
broken costs no other. Items are numbered from 1, the lines of a text as lines are.

    start → items → after                an array
    start → members ⇄ items | text       an object, whose `accounts` is an array or a text
            members → after → over

Knows: where an item begins and ends, its fields. Does not know: what is done with an account.
"""

import re
from collections.abc import Callable, Generator, Iterator
from typing import Final

import msgspec

from shared.intake.expiry import epoch_seconds
from shared.intake.json_text import JsonText
from shared.intake.lines import BatchLine, InvalidLine, Line, PlainLines, checked, read_line

# An account of Qwen2API brings 90 days of statistics along.
LONGEST_ITEM_BYTES: Final = 256 * 1024

# An object without inner ones and escapes, a string without escapes: nearly all there is, whole.
# Then whatever begins, ends or separates something.
_TOKEN = re.compile(rb'\{[^{}"]*+(?:"[^"\\]*+"[^{}"]*+)*+\}|"[^"\\]*+"|["\[\]{},]')
_IN_STRING = re.compile(rb'["\\]')
_ACCOUNTS = re.compile(rb'\s*"accounts"\s*:\s*')
_SETTINGS = re.compile(rb'\s*"settings"\s*:')
_BEFORE: Final = b" \t\r\n\xef\xbb\xbf"  # with a byte order mark
_BLANK: Final = b" \t\r\n"

Reading = Generator[Line, None, int]
"""Yields lines, returns where to read on."""


class _Item(msgspec.Struct):
    email: str = ""
    password: str = ""
    proxy: str | None = None
    token: str | None = None
    expires: float | str | None = None


_item = msgspec.json.Decoder(_Item | str)


class JsonDocument:
    """One document of JSON. `feed` bytes as they come, then `close`.

    `settings`: what the document has under that name, as it stands there.
    """

    def __init__(self) -> None:
        self.settings = b""
        self._read: Callable[[bytes, int], Reading] = self._start
        self._number = 0
        self._closes = b"]"  # what ends the array or object that is read
        self._found = False  # there are accounts, whatever becomes of them
        self._piece = _Piece()
        self._text = JsonText()
        self._lines = PlainLines()

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        at = 0
        while at < len(data):
            at = yield from self._read(data, at)

    def close(self) -> Iterator[Line]:
        """The last line of a text that was cut off, and what is wrong with the end."""
        if self._read == self._in_text:
            yield from self._end_text()
        if self._read == self._after:
            if not self._found:
                yield self._invalid("no `accounts` in this JSON")
        elif self._read not in (self._start, self._over):
            yield self._invalid("the JSON ends too early: it was cut off here")
        self._read = self._over

    def _start(self, data: bytes, at: int) -> Reading:
        begun = data[at:].lstrip(_BEFORE)
        if not begun:
            return len(data)
        if begun[:1] == b"[":
            self._found, self._read = True, self._in_items
        elif begun[:1] == b"{":
            self._closes, self._read = b"}", self._in_members
        else:
            yield self._invalid("JSON that is neither an array nor an object")
            self._read = self._over
        return len(data) - len(begun) + 1

    def _in_items(self, data: bytes, at: int) -> Reading:
        at, ended = self._piece.read(data, at)
        if ended in (b",", b"]"):
            yield from self._end_item()
        if ended == b"]":
            nested = self._closes == b"}"
            self._read = self._in_members if nested else self._after
        elif ended == b"}":
            self._piece.hold(ended)  # it ends nothing: the item is broken
        return at

    def _in_members(self, data: bytes, at: int) -> Reading:
        yield from ()
        at, ended = self._piece.read(data, at, stop=not self._found)
        if ended in (b"[", b'"'):
            if _ACCOUNTS.fullmatch(self._piece.held):
                self._piece.take()
                self._found = True
                self._read = self._in_items if ended == b"[" else self._in_text
            else:
                self._piece.enter(ended)
        elif ended == b"]":
            self._piece.hold(ended)  # it ends nothing: the member is broken
        elif ended:
            member, _ = self._piece.take()
            if name := _SETTINGS.match(member):
                self.settings = member[name.end() :]
            if ended == b"}":
                self._read = self._after
        return at

    def _in_text(self, data: bytes, at: int) -> Reading:
        found = self._text.read(data[at:])
        yield from self._numbered(self._lines.feed(found.text))
        if found.ended:
            yield from self._end_text()
        return at + found.used

    def _end_text(self) -> Iterator[Line]:
        yield from self._numbered(self._lines.close())
        self._read = self._in_members

    def _numbered(self, lines: Iterator[Line]) -> Iterator[Line]:
        for line in lines:
            self._number = line.number
            yield line

    def _after(self, data: bytes, at: int) -> Reading:
        if data[at:].strip(_BLANK):
            yield self._invalid("something follows the end of the JSON")
            self._read = self._over
        return len(data)

    def _over(self, data: bytes, at: int) -> Reading:
        yield from ()
        return len(data)

    def _end_item(self) -> Iterator[Line]:
        item, too_long = self._piece.take()
        if too_long:
            yield self._invalid(f"longer than {LONGEST_ITEM_BYTES // 1024} kB")
        elif item.strip(_BLANK):
            self._number += 1
            yield _account(self._number, item)

    def _invalid(self, reason: str) -> InvalidLine:
        self._number += 1
        return InvalidLine(number=self._number, reason=reason)


class _Piece:
    """The item or member that has begun: brackets are counted, strings passed over."""

    def __init__(self) -> None:
        self.held = bytearray()
        self._too_long = False
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last byte was a backslash

    def read(self, data: bytes, at: int, *, stop: bool = False) -> tuple[int, bytes]:
        """Reads to what separates or ends it; that is b"" when it hasn't come yet.

        Args:
            stop: also before a text or an array outside of all brackets; its first byte is told.
        """
        while at < len(data):
            if self._in_string:
                at = self._read_string(data, at)
                continue
            token = _TOKEN.search(data, at)
            if token is None:
                break
            self.hold(data[at : token.start()])
            text, at = token[0], token.end()
            if not self._depth and (text in b",]}" or (stop and text.startswith((b"[", b'"')))):
                return token.start() + 1, text[:1]
            if text in (b"[", b"{", b'"'):
                self.enter(text)
            else:
                self._depth -= text in (b"]", b"}")
                self.hold(text)
        self.hold(data[at:])
        return len(data), b""

    def enter(self, bracket: bytes) -> None:
        """It goes on inside of this bracket or quote."""
        self.hold(bracket)
        if bracket == b'"':
            self._in_string = True
        else:
            self._depth += 1

    def hold(self, data: bytes) -> None:
        if not self._too_long:
            self.held += data
        if len(self.held) > LONGEST_ITEM_BYTES:
            self.held.clear()  # what is thrown away needs no memory
            self._too_long = True

    def take(self) -> tuple[bytes, bool]:
        """What was held, and whether that was too long; the next one begins."""
        taken = bytes(self.held), self._too_long
        self.held.clear()
        self._too_long = False
        return taken

    def _read_string(self, data: bytes, at: int) -> int:
        if self._escaped:
            end, self._escaped = at + 1, False
        elif found := _IN_STRING.search(data, at):
            end = found.end()
            self._escaped = found[0] == b"\\"
            self._in_string = self._escaped
        else:
            end = len(data)
        self.hold(data[at:end])
        return end


def _account(number: int, item: bytes) -> Line:
    try:
        account = _item.decode(item)
    except msgspec.ValidationError as error:
        return InvalidLine(number=number, reason=_wrong_field(str(error)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return InvalidLine(number=number, reason="no account: malformed JSON, or not UTF-8")
    if isinstance(account, str):
        return read_line(number, account.strip())
    return checked(
        BatchLine(
            number=number,
            email=account.email.strip(),
            password=account.password,
            proxy=(account.proxy or "").strip(),
            token=(account.token or "").strip(),
            expires_at=epoch_seconds(account.expires),
        )
    )


_WORDS: Final = {"str": "a text", "object": "an object", "null": "null", "float": "a number"}


def _wrong_field(message: str) -> str:
    """``Expected `str`, got `int` - at `$.password` `` → ``password: not a text``."""
    expected, _, where = message.partition(" - at `$.")
    types = expected.removeprefix("Expected `").partition("`")[0].split(" | ")
    words = [_WORDS.get(name, name) for name in types]
    return f"{where.rstrip('`') or 'the item'}: expected {' or '.join(words)}"
