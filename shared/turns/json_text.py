"""Reads JSON while it is being written: one value, piece by piece, cut anywhere.

A reader is given a text and a position and answers the position it got to. What stands behind that
position wasn't understood *yet*: the caller keeps it and gives it again with more text behind it.
That rest is always short (an escape, a word, a comma with the blanks behind it), so that nothing is
looked at more than a bounded number of times however the text is cut.

    reader.read('{"a": tr', 0)      → 6     the word may go on
    reader.read('true}', 0)         → 5     reader.done

Strict first: a text that is valid JSON passes as it is, character by character. Only where a strict
reader would have to give up, and what was meant is beyond doubt, is something else written:

| written                            | becomes                                       |
|------------------------------------|-----------------------------------------------|
| a raw line break or tab in a string| its escape                                    |
| `\\d`, an escape JSON doesn't know  | `\\\\d`; `\\'` becomes `'`                       |
| `\\ud83d`, half of a character      | `\\ufffd`: strict readers refuse it otherwise    |
| `[1, 2, ]`                         | without the last comma                        |
| `True`, `False`, `None`, `NaN`     | `true`, `false`, `null`, `null`               |
| `'text'`                           | `"text"`                                      |
| final closers missing              | added by `complete`, when the caller knows    |
|                                    | from elsewhere that the value is over         |

A quote always ends its string: where an inner quote wasn't escaped, nobody can tell what was meant.

Sans-IO. Knows JSON; knows nothing of tools.
"""

import json
import re
from collections.abc import Callable
from typing import Final, Literal, Protocol

Write = Callable[[str], object]

MAX_DEPTH: Final = 400  # containers inside containers; parsers of the clients give up near 1,000


class Reader(Protocol):
    """Reads one value. `done`: it is whole. `refused`: what stands at the position can't follow."""

    done: bool
    refused: bool

    def read(self, text: str, at: int) -> int:
        """Contract: not called any more once `done` or `refused`."""

    def complete(self) -> bool:
        """The value is over: close what is open. False = it was cut where nothing can be added."""


_Expects = Literal["value", "item", "name", "first name", "colon", "after"]


class JsonReader:
    """Reads any value and passes it to `write`, valid, in pieces that never part an escape.

    strict: refuse what isn't valid JSON instead of mending it.
    """

    def __init__(self, write: Write, *, strict: bool = False) -> None:
        self.done = False
        self.refused = False
        self._write = write
        self._strict = strict
        self._expects: _Expects = "value"
        self._owed: list[str] = []  # the closers of what is open, innermost last
        self._quote = ""  # of the string that is being read
        self._is_name = False

    def read(self, text: str, at: int) -> int:
        end = len(text)
        mark = at  # text[mark:at] is valid as it stands, and not yet written
        while at < end and not self.done:
            if self._quote:
                at = _end(_PLAIN[self._quote], text, at)
                if at == end:
                    break
                stop, mended = self._in_string(text, at)
            else:
                at = _end(_BLANKS, text, at)
                if at == end:
                    break
                stop, mended = self._in_structure(text, at)
            if stop == at:  # needs more, or refused
                break
            if mended is not None:
                if self._strict:
                    self.done, self.refused = False, True
                    break
                self._write(text[mark:at] + mended)
                mark = stop
            at = stop
        if mark < at:
            self._write(text[mark:at])
        return at

    def complete(self) -> bool:
        if self.done:
            return True
        if self._quote or not self._owed or self._expects not in ("after", "first name", "item"):
            return False
        self._write("".join(reversed(self._owed)))
        self._owed.clear()
        self.done = True
        return True

    # Both answer where to go on and what is to be written for text[at:stop], None = as it is. The
    # same position = more text is needed, or `refused`.

    def _in_string(self, text: str, at: int) -> tuple[int, str | None]:
        char = text[at]
        if char == "\\":
            return self._escape(text, at)
        if char == self._quote:
            self._quote = ""
            if self._is_name:
                self._expects = "colon"
            else:
                self._end_value()
            return at + 1, None if char == '"' else '"'
        if char == '"':  # inside '…'
            return at + 1, '\\"'
        return at + 1, _CONTROL.get(char) or f"\\u{ord(char):04x}"

    def _escape(self, text: str, at: int) -> tuple[int, str | None]:
        if _OPEN_ESCAPE.match(text, at):
            return at, None
        if escape := _ESCAPE.match(text, at):
            half = escape[1] is not None
            return escape.end(), "\\ufffd" if half else None
        if text[at + 1] == "'":
            return at + 2, "'"
        return at + 1, "\\\\"

    def _in_structure(self, text: str, at: int) -> tuple[int, str | None]:
        char = text[at]
        if self._expects == "after":
            return self._comma(text, at) if char == "," else self._closer(char, at)
        if self._expects == "colon":
            if char != ":":
                return self._refuse(at)
            self._expects = "value"
            return at + 1, None
        is_name = self._expects in ("name", "first name")
        if char in "\"'":
            self._quote, self._is_name = char, is_name
            return at + 1, None if char == '"' else '"'
        if self._expects in ("first name", "item") and char in "]}":
            return self._closer(char, at)
        if is_name:
            return self._refuse(at)
        if char in "{[":
            if len(self._owed) >= MAX_DEPTH:
                return self._refuse(at)
            self._owed.append("}" if char == "{" else "]")
            self._expects = "first name" if char == "{" else "item"
            return at + 1, None
        return self._word(text, at)

    def _comma(self, text: str, at: int) -> tuple[int, str | None]:
        """What follows decides: before a closer or a tag, a comma is one too many."""
        behind = _end(_COMMA, text, at)
        if behind == len(text) and behind - at <= _LOOKAHEAD_BLANKS:
            return at, None
        if behind < len(text) and text[behind] in (self._owed[-1], "<"):
            return at + 1, ""
        self._expects = "name" if self._owed[-1] == "}" else "value"
        return at + 1, None

    def _closer(self, char: str, at: int) -> tuple[int, str | None]:
        if char != self._owed[-1]:
            return self._refuse(at)
        self._owed.pop()
        self._end_value()
        return at + 1, None

    def _word(self, text: str, at: int) -> tuple[int, str | None]:
        word = _WORD.match(text, at)
        if word is None or word.end() - at > _LONGEST_WORD:
            return self._refuse(at)
        if word.end() == len(text):
            return at, None
        if _VALID_WORD.fullmatch(word[0]):
            self._end_value()
            return word.end(), None
        mended = _PYTHON.get(word[0])
        if mended is None:
            return self._refuse(at)
        self._end_value()
        return word.end(), mended

    def _end_value(self) -> None:
        self._expects = "after"
        self.done = not self._owed

    def _refuse(self, at: int) -> tuple[int, None]:
        self.refused = True
        return at, None


class StringReader(JsonReader):
    """Reads one string and passes on what it says, decoded."""

    def __init__(self, write: Write) -> None:
        super().__init__(self._decode)
        self._say = write
        self._opened = False

    def read(self, text: str, at: int) -> int:
        if not self._quote and text[at : at + 1] not in ('"', "'", ""):
            self.refused = True
            return at
        return super().read(text, at)

    def _decode(self, piece: str) -> None:
        """A piece is a part of one JSON string, with its quotes or without, never in an escape."""
        body = piece[not self._opened : len(piece) - self.done]
        self._opened = True
        if "\\" in body:
            body = json.loads(f'"{body}"')
            if not body.isascii():  # an escape may be half of a pair
                body = body.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if body:
            self._say(body)


class Skipped(JsonReader):
    """Reads any value and forgets it."""

    def __init__(self) -> None:
        super().__init__(_forget)


class Captured(JsonReader):
    """Reads any value and keeps it: `text` is valid JSON once `done`."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        super().__init__(self._pieces.append)

    @property
    def text(self) -> str:
        return "".join(self._pieces)


Choose = Callable[[str, str], Reader | None]


class ObjectReader:
    """Reads one object, member by member, each with the reader that `choose` answers for it.

    choose(name, first character of the value): None = such an object isn't wanted: refused.
    """

    def __init__(self, choose: Choose) -> None:
        self.done = False
        self.refused = False
        self._choose = choose
        self._expects: _Expects | Literal["object"] = "object"
        self._pieces: list[str] = []
        self._name: StringReader | None = None
        self._value: Reader | None = None

    def read(self, text: str, at: int) -> int:
        while not self.done and not self.refused:
            inner = self._name or self._value
            if inner is not None:
                at = inner.read(text, at)
                if inner.refused:
                    self.refused = True
                if not inner.done:
                    return at
                self._expects = "colon" if self._name else "after"
                self._name = self._value = None
                continue
            at = _end(_BLANKS, text, at)
            if at == len(text):
                return at
            at = self._step(text[at], at)
        return at

    def complete(self) -> bool:
        if self._value is not None:
            return self._value.complete()
        if self._name is not None:
            return False
        return self.done or self._expects in ("after", "first name", "name")

    def _step(self, char: str, at: int) -> int:
        match self._expects, char:
            case "object", "{":
                self._expects = "first name"
            case (("name" | "first name"), ('"' | "'")):
                self._pieces = []
                self._name = StringReader(self._pieces.append)
                return at
            case (("name" | "first name" | "after"), "}"):
                self.done = True
            case "colon", ":":
                self._expects = "value"
            case "after", ",":
                self._expects = "name"
            case "value", _:
                self._value = self._choose("".join(self._pieces), char)
                self.refused = self._value is None
                return at
            case _:
                self.refused = True
                return at
        return at + 1


def _forget(_: str) -> None:
    pass


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where a pattern that may match nothing ends."""
    found = pattern.match(text, at)
    return found.end() if found else at


_LOOKAHEAD_BLANKS = 64
_LONGEST_WORD = 1_000  # digits of a number

_BLANKS = re.compile(r"[ \t\r\n]*")
_COMMA = re.compile(rf",[ \t\r\n]{{0,{_LOOKAHEAD_BLANKS}}}")
_PLAIN = {
    '"': re.compile(r'[^"\\\x00-\x1f]*'),
    "'": re.compile(r"[^'\"\\\x00-\x1f]*"),
}
_WORD = re.compile(r"[^\s,:{}\[\]\"'<]+")
_VALID_WORD = re.compile(r"true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_PYTHON = {"True": "true", "False": "false", "None": "null", "NaN": "null"}
_CONTROL = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_ESCAPE = re.compile(
    r"\\(?:[\"\\/bfnrt]"
    r"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|(u[0-9a-fA-F]{4}))"
)
# An escape that the end of the text cuts; of a pair of surrogates both halves are one.
_OPEN_ESCAPE = re.compile(
    r"\\(?:u(?:[0-9a-fA-F]{0,3}"
    r"|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?)?)?\Z"
)
