"""The model list with differing capabilities (section 3)."""

from typing import Any

TEXT = ["t2t", "artifacts", "web_dev"]
MEDIA = ["t2i", "t2v", "image_edit"]


def entry(
    model_id: str,
    name: str,
    *,
    thinking: int = 0,
    search: bool = False,
    media: bool = False,
    vision: int = 0,
    context: int = 131072,
) -> dict[str, Any]:
    """One entry of the list, shortened as section 3 shows it."""
    kinds = [*TEXT, *(["search", "deep_research"] if search else []), *(MEDIA if media else [])]
    return {
        "id": model_id,
        "name": name,
        "object": "model",
        "owned_by": "qwen",
        "info": {
            "id": model_id,
            "name": name,
            "is_active": True,
            "meta": {
                "description": f"{name}, as simulated",
                "short_description": name,
                "capabilities": {
                    "vision": bool(vision),
                    "document": True,
                    "video": bool(vision),
                    "audio": bool(vision),
                    "thinking": bool(thinking),
                    "search": search,
                },
                "abilities": {
                    "vision": vision,
                    "document": 1,
                    "thinking": thinking,
                    "thinking_budget": int(bool(thinking)),
                },
                "chat_type": kinds,
                "max_context_length": context,
                "max_generation_length": 13684,
                "max_thinking_generation_length": 16384,
                "modality": ["text", *(["image", "video"] if vision else [])],
            },
        },
    }


DEFAULT_MODELS: list[dict[str, Any]] = [
    entry("qwen3.6-plus", "Qwen3.6-Plus", thinking=3, search=True, vision=1, context=1000000),
    entry("qwen3.5-plus", "Qwen3.5-Plus", thinking=1, search=True, vision=1, context=262144),
    # says its thoughts as a summary whatever was asked (6.2)
    entry("qwen3.5-omni-plus", "Qwen3.5-Omni-Plus", thinking=2, search=True, vision=1),
    entry(
        "qwen3-omni-flash-2025-12-01",
        "Qwen3-Omni-Flash",
        thinking=1,
        search=True,
        media=True,
        vision=1,
        context=65536,
    ),
    entry("qwen3-max-2026-01-23", "Qwen3-Max", search=True, context=262144),
    entry("qwen3-coder-plus", "Qwen3-Coder", context=1048576),
    # any level may be missing (3)
    {"id": "qwen-bare", "name": "Qwen-Bare", "object": "model", "info": {"meta": {}}},
]

SUMMARY_ONLY = {"qwen3.5-omni-plus"}


def find(models: list[dict[str, Any]], model_id: str) -> dict[str, Any] | None:
    return next((model for model in models if model.get("id") == model_id), None)


def meta_of(model: dict[str, Any]) -> dict[str, Any]:
    return (model.get("info") or {}).get("meta") or {}


def can_think(model: dict[str, Any]) -> bool:
    return bool((meta_of(model).get("abilities") or {}).get("thinking"))


def chat_types(model: dict[str, Any]) -> list[str]:
    return meta_of(model).get("chat_type") or ["t2t"]
