"""What follows the text of an answer: pictures and search sources, as Markdown.

Both readings of a turn, the stream and the whole reply, put it behind the text, so that they say
the same. Titles and addresses come from the web: nothing in them may break the table or make a link
of its own, and only http(s) addresses become links.
"""

import re
import urllib.parse
from collections.abc import Sequence
from typing import Literal

import msgspec

from shared.chat.events import Source


class Citation(msgspec.Struct, frozen=True):
    """A source that is linked: where its link stands, in characters from the appendix's start."""

    start: int
    end: int
    url: str
    title: str


class Appendix(msgspec.Struct, frozen=True):
    text: str = ""
    citations: tuple[Citation, ...] = ()


def write_appendix(
    media: Sequence[tuple[str, str]],
    sources: Sequence[Source],
    *,
    search_info_mode: Literal["table", "text"],
    after_text: bool,
) -> Appendix:
    """Pictures, then sources.

    Args:
        media: (kind, url) pairs.
        after_text: whether text stands before it, from which an empty line parts it.
    """
    pictures = "\n\n".join(_picture(kind, url) for kind, url in media)
    text = "\n\n" + pictures if pictures and after_text else pictures
    if not sources:
        return Appendix(text)
    pieces = [text, "\n\n" if text or after_text else ""]
    if search_info_mode == "table":
        pieces.append("| # | Source | Site |\n| --- | --- | --- |")
    citations: list[Citation] = []
    length = sum(map(len, pieces))
    for number, source in enumerate(sources, start=1):
        before, link, behind = _row(number, source, search_info_mode)
        if number > 1 or search_info_mode == "table":
            before = "\n" + before
        start = length + len(before)
        if url := _address(source.url):
            citations.append(Citation(start, start + len(link), url, _title(source)))
        pieces += (before, link, behind)
        length = start + len(link) + len(behind)
    return Appendix("".join(pieces), tuple(citations))


def _picture(kind: str, url: str) -> str:
    link = _address(url)
    if not link:
        return _escaped(url)
    return f"![image]({link})" if kind == "image" else f"[{kind}]({link})"


def _row(number: int, source: Source, mode: Literal["table", "text"]) -> tuple[str, str, str]:
    """What stands before the link, the link, and what stands behind it."""
    url, title, site = _address(source.url), _escaped(_title(source)), _escaped(_site(source))
    link = f"[{title}]({url})" if url else title
    if mode == "table":
        return f"| {number} | ", link, f" | {site} |"
    return f"{number}. ", link, f" — {site}" if site else ""


def _title(source: Source) -> str:
    return " ".join((source.title or source.hostname or source.url).split())


def _site(source: Source) -> str:
    return source.hostname or urllib.parse.urlsplit(_address(source.url)).hostname or ""


# Everything that could end a cell or a link, open another one, or pass for markup.
_SPECIAL = re.compile(r"[\\|\[\]<>`*_~!]")


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


# Kept as they are in an address: RFC 3986 without brackets, quotes and asterisks.
_SAFE_IN_ADDRESS = ":/?#@&=+$,;%-._~!"


def _address(url: str) -> str:
    """`url` with everything quoted that Markdown could trip over; empty unless it is http(s)."""
    url = url.strip()
    if not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
        return ""
    return urllib.parse.quote(url, safe=_SAFE_IN_ADDRESS, errors="replace")
