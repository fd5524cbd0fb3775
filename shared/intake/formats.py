"""Which form a file has that somebody brings: its first bytes say it.

    intake = Intake()                  or Intake("csv") where somebody has said it
    for chunk in …:
        for line in intake.feed(chunk): …
    for line in intake.close(): …

    begins with [ or {                     JSON               shared/intake/documents.py
    its first line names the columns       CSV                shared/intake/rows.py
    anything else                          e-mail:password    shared/intake/lines.py

UTF-8 with or without a byte order mark, or UTF-16 with one (a spreadsheet's "Unicode text").

Knows: forms and encodings. Does not know: where the bytes come from.
"""

import codecs
from collections.abc import Callable, Iterator
from typing import Final, Literal, Protocol

from shared.intake.documents import JsonDocument
from shared.intake.lines import LONGEST_LINE_BYTES, Line, PlainLines
from shared.intake.rows import CsvRows, is_header

Form = Literal["lines", "csv", "json"]

_MARKS_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MARK_BYTES: Final = 2
_BEFORE: Final = b" \t\r\n" + codecs.BOM_UTF8


class Reader(Protocol):
    """What every form has: bytes in, lines out, never an exception."""

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""

    def close(self) -> Iterator[Line]:
        """What is left at the end."""


class Intake:
    """A file of any form. `feed` bytes as they come, then `close`.

    Args:
        form: what somebody has said it is; None looks.
    """

    def __init__(self, form: Form | None = None) -> None:
        self._form = form
        self._encoding = _Encoding()
        self._head = b""  # until it has said what this is
        self._reader: Reader | None = None

    @property
    def settings(self) -> bytes:
        """The `settings` of a Qwen2API data.json, as they stand there."""
        return self._reader.settings if isinstance(self._reader, JsonDocument) else b""

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that these bytes complete."""
        yield from self._feed(self._encoding.read(data), ended=False)

    def close(self) -> Iterator[Line]:
        """What is left at the end."""
        yield from self._feed(self._encoding.read(b"", ended=True), ended=True)
        if self._reader is not None:
            yield from self._reader.close()

    def _feed(self, data: bytes, *, ended: bool) -> Iterator[Line]:
        if self._reader is None:
            data = self._head + data
            form = self._form or form_of(data, ended=ended)
            if form is None:
                self._head = data
                return
            self._reader, self._head = _READERS[form](), b""
        yield from self._reader.feed(data)


def form_of(head: bytes, *, ended: bool) -> Form | None:
    """What a file is that begins so; None while that can't be said."""
    begun = head.lstrip(_BEFORE)
    if begun[:1] in (b"[", b"{"):
        return "json"
    line, end, _ = begun.partition(b"\n")
    if not (end or ended or len(head) > LONGEST_LINE_BYTES):
        return None
    return "csv" if is_header(line.decode(errors="replace")) else "lines"


_READERS: Final[dict[Form, Callable[[], Reader]]] = {
    "lines": PlainLines,
    "csv": CsvRows,
    "json": JsonDocument,
}


class _Encoding:
    """Whatever comes → UTF-8. What is none stays as it is: its line says so."""

    def __init__(self) -> None:
        self._head: bytes | None = b""  # until it has said what this is
        self._decoder: codecs.IncrementalDecoder | None = None

    def read(self, data: bytes, *, ended: bool = False) -> bytes:
        if self._head is not None:
            data = self._head + data
            if len(data) < _MARK_BYTES and not ended:
                self._head = data
                return b""
            self._head = None
            if data[:_MARK_BYTES] in _MARKS_UTF_16:
                self._decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
        if self._decoder is None:
            return data
        return self._decoder.decode(data, ended).encode()
