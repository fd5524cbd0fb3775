"""What a Qwen2API instance keeps besides its accounts: settings and API keys.

    {"apiKeys": ["sk-admin", "sk-1"], "chatRetryCount": 1, "chatRetryBackoffMs": 400}

It lies in its data.json under `settings`, in its Redis as JSON in `qwen2api:settings` (field
`json`; older versions have one field per setting, every value a text). The first key is its admin
key. Source: what it writes, read on 2026-11-23.

Knows: their names here and there. Does not know: whether they are accepted.
"""

from typing import Any, Final

import msgspec

# Theirs → ours; whatever else they keep has no meaning here.
_NAMES: Final = {
    "batchLoginConcurrency": "batch_login_concurrency",
    "chatRetryCount": "chat_retry_count",
    "chatRetryBackoffMs": "chat_retry_backoff_ms",
    "autoRefresh": "auto_refresh",
    "outThink": "output_think",
    "legacyReasoningInContent": "legacy_reasoning_in_content",
    "searchInfoMode": "search_info_mode",
    "simpleModelMap": "simple_model_map",
}
_BOOLEANS: Final = {"true": True, "false": False}


class Kept(msgspec.Struct, frozen=True):
    """Settings by our names, and the API keys, in clear."""

    settings: dict[str, object]
    api_keys: list[str]

    def __repr__(self) -> str:
        return f"Kept(settings={list(self.settings)})"


def read_kept(text: bytes) -> Kept:
    """What is of use in it; nothing where it can't be read."""
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])  # Any: what others wrote
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Kept({}, [])
    settings = {
        ours: _value(found[theirs])
        for theirs, ours in _NAMES.items()
        if found.get(theirs) is not None
    }
    return Kept(settings, _api_keys(found.get("apiKeys")))


def _api_keys(found: object) -> list[str]:
    if isinstance(found, str):
        found = found.split(",")
    if not isinstance(found, list):
        return []
    stripped = (key.strip() for key in found if isinstance(key, str))
    return list(dict.fromkeys(key for key in stripped if key))


def _value(found: object) -> object:
    """`"3"` → 3, `"true"` → True: in Redis every value was a text."""
    if isinstance(found, str):
        return int(found) if found.isascii() and found.isdigit() else _BOOLEANS.get(found, found)
    return found
