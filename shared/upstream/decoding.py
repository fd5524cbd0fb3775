"""Undoes an answer's `Content-Encoding`, piece by piece. Sans-IO."""

import zlib
from typing import Protocol

from shared.errors import UpstreamProtocolError


class Decoding(Protocol):
    def feed(self, chunk: bytes) -> bytes: ...


def open_decoding(encoding: str) -> Decoding | None:
    """A decoder for the encoding; None when there is nothing to undo.

    Raises:
        UpstreamProtocolError: an encoding we did not ask for.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Inflate(zlib.MAX_WBITS | 16)
        case "deflate":
            return _Inflate(zlib.MAX_WBITS)
        case _:
            raise UpstreamProtocolError("The upstream's answer is packed in an unknown way")


class _Inflate:
    """gzip, and deflate in both readings of the word: with zlib's frame and without."""

    def __init__(self, wbits: int) -> None:
        self._inflate = zlib.decompressobj(wbits)
        self._maybe_raw = wbits == zlib.MAX_WBITS
        self._fed = b""  # while it may yet turn out to have no frame: its two bytes tell

    def feed(self, chunk: bytes) -> bytes:
        """What `chunk` lets out.

        Raises:
            UpstreamProtocolError: it isn't packed as it was said.
        """
        try:
            plain = self._inflate.decompress(chunk)
        except zlib.error as error:
            if not self._maybe_raw:
                raise UpstreamProtocolError("The upstream's answer can't be unpacked") from error
            self._inflate, self._maybe_raw = zlib.decompressobj(-zlib.MAX_WBITS), False
            return self.feed(self._fed + chunk)
        if self._maybe_raw:
            self._fed += chunk
            self._maybe_raw = len(self._fed) < 2
        return plain
