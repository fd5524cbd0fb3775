r"""The inside of a string of JSON → the text it says, as it arrives.

    a@example.org:p\"w\nb…   →   a@example.org:p"w⏎b…

Escapes may be cut anywhere, between the halves of a character, too. What is no escape, and a half
that stays alone, becomes U+FFFD, which no account may hold.
"""

import re
from typing import Final

import msgspec

_TOKEN = re.compile(rb'[^"\\]++|(?:\\u[0-9a-fA-F]{4})++|\\[^u]|"', re.DOTALL)
_HIGH_HALF = re.compile(rb"\\u[dD][89abAB]..")
_ESCAPE_BYTES: Final = 6
_ESCAPED: Final = dict(zip(b'ntrbf"\\/', b'\n\t\r\b\f"\\/', strict=True))
_UNREADABLE: Final = "\ufffd".encode()


class Reading(msgspec.Struct, frozen=True):
    """What was read: UTF-8, how many of the given bytes that took, whether the string has ended."""

    text: bytes
    used: int
    ended: bool


class JsonText:
    """One string, from behind its first quote."""

    def __init__(self) -> None:
        self._rest = b""  # an escape that was cut

    def read(self, given: bytes) -> Reading:
        """What these bytes say, up to the quote that ends the string."""
        before, data = len(self._rest), self._rest + given
        self._rest = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            token = _TOKEN.match(data, at)
            if token is None and len(data) - at < _ESCAPE_BYTES:
                self._rest = data[at:]
                break
            if token is None:
                pieces.append(_UNREADABLE)
                at += 2
                continue
            at = token.end()
            match token[0][:2]:
                case b'"':
                    return Reading(b"".join(pieces), at - before, ended=True)
                case b"\\u":
                    cut = self._cut(token[0], data[at : at + _ESCAPE_BYTES])
                    pieces.append(_characters(token[0][:-_ESCAPE_BYTES] if cut else token[0]))
                    if cut:
                        self._rest = data[at - _ESCAPE_BYTES :]
                        break
                case escape if escape[:1] == b"\\":
                    pieces.append(_escaped(escape))
                case _:
                    pieces.append(token[0])
        return Reading(b"".join(pieces), len(given), ended=False)

    def _cut(self, escapes: bytes, behind: bytes) -> bool:
        """Whether the other half of the last character may still come."""
        last = escapes[-_ESCAPE_BYTES:]
        return bool(_HIGH_HALF.match(last)) and len(behind) < 6 and behind[:2] in b"\\u"


def _escaped(escape: bytes) -> bytes:
    byte = _ESCAPED.get(escape[1])
    return _UNREADABLE if byte is None else bytes([byte])


def _characters(escapes: bytes) -> bytes:
    r"""`\u00e5\u0062` → `åb`."""
    units = bytes.fromhex(escapes.replace(b"\\u", b"").decode())
    return units.decode("utf-16-be", "replace").encode()
