"""The catalogue: base models of the upstream and the variants callers may name.

A variant is a base model with its switches: `Qwen3-Omni-Flash-image` is the model that the upstream
calls `qwen3-omni-flash-2025-12-01`, asked for a picture. Which variants exist is read from the
upstream's own list and never hard-coded.

Source: protocol sheet, section 3. Knows: names and what they need. Does not know: where the list
comes from, how long it is kept, who may see it.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from shared.errors import UnknownModel

Capability = Literal["chat", "image", "video"]
ChatType = Literal["t2t", "search", "t2i", "image_edit", "t2v", "deep_research"]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A name callers may use and what it asks of the upstream.

    `thinking`: True = the name asks for reasoning, None = the name says nothing about it.
    `search`: the name asks for web search; `can_search`: a request may.
    `standing_in_for`: the alias target this variant replaces because the catalogue lacks it; the
    caller of `resolve` logs that once. The limits are tokens, None where the upstream tells none.
    """

    model_id: str
    display_name: str
    suffix: str = ""
    chat_type: ChatType = "t2t"
    thinking: bool | None = None
    search: bool = False
    can_search: bool = True
    capability: Capability = "chat"
    max_context_tokens: int | None = None
    max_output_tokens: int | None = None
    max_thinking_tokens: int | None = None
    standing_in_for: str | None = None


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `GET /v1/models`. `id` is what callers are told to use; `created` = seconds."""

    id: str
    name: str
    upstream_id: str
    display_name: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "qwen"


class Catalogue:
    """Every model and variant, found by any of its names.

    `entries` are the upstream's own: what a cache keeps and `from_upstream` reads again.
    """

    def __init__(self, entries: Sequence[object], models: Sequence["_Model"]) -> None:
        self.entries = entries
        self._models = models
        self._variants: dict[str, Variant] = {}
        self._listed: dict[str, ModelEntry] = {}
        self._index()

    @classmethod
    def from_upstream(cls, entries: Sequence[object]) -> "Catalogue":
        """Read `[{"id", "name", "info": {"meta": {…}}}, …]`; any level may be missing.

        An entry without an id can't be asked for and is left out.
        """
        models = [model for entry in entries if (model := _read_model(entry))]
        return cls(entries, models)

    def resolve(self, name: str, aliases: Mapping[str, str] | None = None) -> Variant:
        """The variant `name` means; a name of the catalogue wins over an alias.

        Args:
            name: id, name, display name or upstream id, each with its suffix, in any case.
            aliases: foreign name → ours, `*` allowed, first match wins.

        Raises:
            UnknownModel: no such model, or the model has no such variant.
        """
        key = _key(name)
        if variant := self._variants.get(key):
            return variant
        target = _alias_target(key, aliases or {})
        if target is None:
            raise UnknownModel(self._explain(name))
        return self._variants.get(_key(target)) or self._stand_in(target)

    def knows(self, name: str) -> bool:
        """Whether it is a name of our own; only such a one is no alias."""
        return _key(name) in self._variants

    def first(self, chat_type: ChatType) -> Variant | None:
        """The first listed model that does this, and nothing more; for who names no model."""
        found = (v for v in self._variants.values() if v.chat_type == chat_type and not v.thinking)
        return next(found, None)

    def entry(self, name: str) -> ModelEntry:
        """The line of the listing that `name` means.

        Raises:
            UnknownModel: no such model or variant; aliases are not listed.
        """
        if entry := self._listed.get(_key(name)):
            return entry
        raise UnknownModel(self._explain(name))

    def listing(self, *, simple: bool = False) -> list[ModelEntry]:
        """The public entries in the upstream's order; `simple` = base models only."""
        return [
            _entry(model, suffix)
            for model in self._models
            for suffix in ([""] if simple else model.listed_suffixes)
        ]

    def _index(self) -> None:
        """Every name → its variant. A whole name wins over a name with a suffix taken off."""
        for model in self._models:
            self._add(model, "")
        for suffix in _SUFFIXES:
            for model in self._models:
                if suffix and suffix in model.suffixes:
                    self._add(model, suffix)

    def _add(self, model: "_Model", suffix: str) -> None:
        variant = _variant(model, suffix)
        for name in (model.model_id, model.display_name):
            self._variants.setdefault(_key(name + suffix), variant)
            if suffix in model.listed_suffixes:
                self._listed.setdefault(_key(name + suffix), _entry(model, suffix))

    def _stand_in(self, target: str) -> Variant:
        """The first model that can do what the missing `target` was to do."""
        _, suffix = _split(target)
        for model in self._models:
            if suffix in model.suffixes:
                return msgspec.structs.replace(_variant(model, suffix), standing_in_for=target)
        raise UnknownModel(
            f"The model {_shown(target)} and any that could stand in for it are missing"
        )

    def _explain(self, name: str) -> str:
        stem, suffix = _split(name)
        if base := self._variants.get(_key(stem)):
            offered = ", ".join(self._offered(base.model_id))
            return f"{base.display_name} has no {suffix} variant; it has: {offered}"
        ids = [entry.id for entry in self.listing()]
        keys = {_key(known): known for known in ids}
        near = difflib.get_close_matches(_key(name)[:_NAME_SHOWN], keys, n=3)
        hint = f"; did you mean {' or '.join(keys[key] for key in near)}?" if near else ""
        return f"The model {_shown(name)} does not exist{hint or '; GET /v1/models lists all'}"

    def _offered(self, model_id: str) -> list[str]:
        return [entry.id for entry in self.listing() if entry.upstream_id == model_id]


def openai_list(entries: Iterable[ModelEntry]) -> bytes:
    """`{"object": "list", "data": [{"id", "object", "created", "owned_by", …}]}`."""
    return msgspec.json.encode({"object": "list", "data": list(entries)})


def openai_model(entry: ModelEntry) -> bytes:
    return msgspec.json.encode(entry)


def anthropic_list(entries: Iterable[ModelEntry]) -> bytes:
    """`{"data": [{"type": "model", "id", "display_name", "created_at", …}], "has_more", …}`.

    Source: Anthropic Models API, list and retrieve, read 2026-11.
    """
    data = [_anthropic(entry) for entry in entries]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    page = {"data": data, "has_more": False, "first_id": first, "last_id": last}
    return msgspec.json.encode(page)


def anthropic_model(entry: ModelEntry) -> bytes:
    return msgspec.json.encode(_anthropic(entry))


def _anthropic(entry: ModelEntry) -> dict[str, str]:
    created_at = datetime.fromtimestamp(entry.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": entry.id,
        "display_name": entry.id,
        "created_at": created_at,
        "lifecycle": "active",
    }


# -- reading the upstream's entries


class _Model(msgspec.Struct, frozen=True, kw_only=True):
    model_id: str
    display_name: str
    created: int
    owned_by: str
    suffixes: tuple[str, ...]
    max_context_tokens: int | None
    max_output_tokens: int | None
    max_thinking_tokens: int | None

    @property
    def listed_suffixes(self) -> list[str]:
        return [suffix for suffix in _LISTED if suffix in self.suffixes]


class _Switches(msgspec.Struct, frozen=True):
    """What a suffix asks for; it exists when the upstream's entry has the chat type, and thinks."""

    chat_type: ChatType = "t2t"
    thinking: bool | None = None
    capability: Capability = "chat"


# In the order in which a suffix is taken off a name: longest first.
_SUFFIXES: dict[str, _Switches] = {
    "-thinking-search": _Switches("search", thinking=True),
    "-image-edit": _Switches("image_edit", capability="image"),
    "-deep-research": _Switches("deep_research"),
    "-thinking": _Switches("t2t", thinking=True),
    "-search": _Switches("search"),
    "-video": _Switches("t2v", capability="video"),
    "-image": _Switches("t2i", capability="image"),
    "": _Switches(),
}

# In the order of the listing: that of the protocol sheet.
_LISTED = ("", "-thinking", "-search", "-thinking-search", "-image", "-video", "-image-edit")

_NAME_SHOWN = 100  # a name is the caller's text: only this much of it is compared or said back


def _read_model(entry: object) -> _Model | None:
    model_id = _text(entry, "id") or _text(_member(entry, "info"), "id")
    if not model_id:
        return None
    info = _member(entry, "info")
    meta = _member(info, "meta")
    return _Model(
        model_id=model_id,
        display_name=_text(entry, "name") or _text(info, "name") or model_id,
        created=_count(entry, "created") or _count(info, "created_at") or 0,
        owned_by=_text(entry, "owned_by") or "qwen",
        suffixes=_read_suffixes(meta),
        max_context_tokens=_count(meta, "max_context_length"),
        max_output_tokens=_count(meta, "max_generation_length"),
        max_thinking_tokens=_count(meta, "max_thinking_generation_length"),
    )


def _read_suffixes(meta: object) -> tuple[str, ...]:
    """The variants a model has. The plain one always exists, whatever `chat_type` says."""
    told = _member(meta, "chat_type")
    named = (t for t in told if isinstance(t, str)) if isinstance(told, list) else ()
    chat_types = {"t2t", *named}
    thinks = bool(_member(_member(meta, "abilities"), "thinking"))
    return tuple(
        suffix
        for suffix, switches in _SUFFIXES.items()
        if switches.chat_type in chat_types and (thinks or not switches.thinking)
    )


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: object, name: str) -> str:
    found = _member(value, name)
    return found.strip() if isinstance(found, str) else ""


def _count(value: object, name: str) -> int | None:
    found = _member(value, name)
    return int(found) if isinstance(found, int | float) and 0 < found < _SANE else None


_SANE = 10**11  # tokens, or seconds until the year 5138; more is nonsense and breaks dates


# -- names


def _variant(model: _Model, suffix: str) -> Variant:
    switches = _SUFFIXES[suffix]
    return Variant(
        model_id=model.model_id,
        display_name=model.display_name,
        suffix=suffix,
        chat_type=switches.chat_type,
        thinking=switches.thinking,
        search=switches.chat_type == "search",
        can_search="-search" in model.suffixes,
        capability=switches.capability,
        max_context_tokens=model.max_context_tokens,
        max_output_tokens=model.max_output_tokens,
        max_thinking_tokens=model.max_thinking_tokens,
    )


def _entry(model: _Model, suffix: str) -> ModelEntry:
    return ModelEntry(
        id=model.display_name + suffix,
        name=model.model_id + suffix,
        upstream_id=model.model_id,
        display_name=model.display_name,
        created=model.created,
        owned_by=model.owned_by,
    )


def _key(name: str) -> str:
    return name.strip().lower()


def _split(name: str) -> tuple[str, str]:
    """`Qwen3-Max-thinking-search` → (`Qwen3-Max`, `-thinking-search`)."""
    name = name.strip()
    suffix = next(suffix for suffix in _SUFFIXES if name.lower().endswith(suffix))
    return name[: len(name) - len(suffix)], suffix


def _shown(name: str) -> str:
    return repr(name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "…")


def _alias_target(key: str, aliases: Mapping[str, str]) -> str | None:
    matching = (target for name, target in aliases.items() if _alias_pattern(name).fullmatch(key))
    return next(matching, None)


@functools.lru_cache(maxsize=1024)
def _alias_pattern(name: str) -> re.Pattern[str]:
    """`claude-*` as a pattern; `*` is any text, every other character is itself."""
    return re.compile(".*".join(map(re.escape, _key(name).split("*"))), re.DOTALL)
