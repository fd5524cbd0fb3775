"""Web search as an Anthropic server tool: its blocks in an answer, and read back from the history.

    server_tool_use         {"id": "srvtoolu_1", "name": "web_search", "input": {"query": "fjord"}}
    web_search_tool_result  {"tool_use_id": "srvtoolu_1", "content": [{"url", "title", …}, …]}
    text                    {"text": "Inlets [[1]].", "citations": [{"url", "cited_text", …}]}

Only who offered the tool gets these blocks; for everybody else sources follow the text, as in the
other dialects. The upstream cites as `[[n]]`, which stays in the text.

What the API calls encrypted is opaque to callers, not secret: ours holds the snippet, so that a
search that is handed back is whole again.

Source: Anthropic API reference, web search tool, and its Python SDK's types, read 2026-11.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from shared.chat.events import Source, SourcesFound
from shared.chat.request import TextPart, ToolResultPart

NAME = "web_search"

_CITED_CHARACTERS = 150  # the API's own bound of a cited text
_OPAQUE = "snippet:"


class SearchUse(msgspec.Struct, kw_only=True):
    """`input` = `{"query"}`; in a stream empty at first, as a tool's."""

    type: Literal["server_tool_use"] = "server_tool_use"
    id: str
    name: str = NAME
    input: msgspec.Raw


class SearchHit(msgspec.Struct, kw_only=True):
    type: Literal["web_search_result"] = "web_search_result"
    url: str
    title: str
    encrypted_content: str
    page_age: str | None


class SearchResult(msgspec.Struct, kw_only=True):
    type: Literal["web_search_tool_result"] = "web_search_tool_result"
    tool_use_id: str
    content: list[SearchHit]


class Citation(msgspec.Struct, kw_only=True):
    type: Literal["web_search_result_location"] = "web_search_result_location"
    url: str
    title: str
    encrypted_index: str
    cited_text: str


# -- writing


def write_search(found: SourcesFound, use_id: str) -> tuple[SearchUse, SearchResult]:
    """What was searched for, and what came back."""
    asked = msgspec.Raw(msgspec.json.encode({"query": "; ".join(found.queries)}))
    hits = [_hit(source) for source in found.sources]
    return SearchUse(id=use_id, input=asked), SearchResult(tool_use_id=use_id, content=hits)


def use_id_of(message_id: str, number: int) -> str:
    """The id of a turn's search, counted from 0."""
    return f"srvtoolu_{message_id.removeprefix('msg_')}{number:02d}"


def cite(text: str, sources: Sequence[Source], *, all_of_them: bool = False) -> list[Citation]:
    """The sources that the text names as `[[n]]`, each once, in its order.

    all_of_them: a text that names none rests on all of them.
    """
    named = dict.fromkeys(int(number) for number in _MARKER.findall(text))
    numbers = [number for number in named if 0 < number <= len(sources)]
    if not numbers and all_of_them:
        numbers = list(range(1, len(sources) + 1))
    return [
        _citation(number, sources[number - 1])
        for number in numbers
        if sources[number - 1].url.startswith(("http://", "https://"))
    ]


_MARKER = re.compile(r"\[\[([0-9]{1,4})\]\]")


def _hit(source: Source) -> SearchHit:
    return SearchHit(
        url=source.url,
        title=_title(source),
        encrypted_content=_OPAQUE + base64.b64encode(source.snippet.encode()).decode(),
        page_age=source.date or None,
    )


def _citation(number: int, source: Source) -> Citation:
    return Citation(
        url=source.url,
        title=_title(source),
        encrypted_index=str(number),
        cited_text=source.snippet[:_CITED_CHARACTERS],
    )


def _title(source: Source) -> str:
    return source.title or source.hostname or source.url


# -- reading


class GivenHit(msgspec.Struct):
    """`{"type": "web_search_result", …}`, or `{"type": "web_search_tool_result_error", …}`."""

    type: str
    url: str | None = None
    title: str | None = None
    encrypted_content: str | None = None
    error_code: str | None = None


def read_search(hits: Sequence[GivenHit], use_id: str, *, numbered_from: int) -> ToolResultPart:
    """A search of an earlier turn, as the model is told of it again.

    numbered_from: the number as which the text behind it cites its first hit.
    """
    lines: list[str] = []
    for number, hit in enumerate(hits, start=numbered_from):
        if hit.error_code:
            lines.append(f"error: {hit.error_code}")
            continue
        lines.append(f"[[{number}]] {hit.title or ''} {hit.url or ''}".rstrip())
        if snippet := _snippet(hit.encrypted_content or ""):
            lines.append(snippet)
    failed = any(hit.error_code for hit in hits)
    return ToolResultPart(use_id, (TextPart("\n".join(lines)),), name=NAME, is_error=failed)


def _snippet(opaque: str) -> str:
    """Empty for what another service wrote."""
    if not opaque.startswith(_OPAQUE):
        return ""
    try:
        return base64.b64decode(opaque.removeprefix(_OPAQUE), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
