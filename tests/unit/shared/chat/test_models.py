import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.chat.models import (
    Catalogue,
    Variant,
    anthropic_list,
    anthropic_model,
    openai_list,
    openai_model,
)
from shared.errors import UnknownModel

OMNI: dict[str, Any] = {
    "id": "qwen3-omni-flash-2025-12-01",
    "name": "Qwen3-Omni-Flash",
    "object": "model",
    "created": 1764547200,
    "owned_by": "qwen",
    "info": {
        "id": "qwen3-omni-flash-2025-12-01",
        "meta": {
            "abilities": {"vision": 1, "thinking": 2},
            "chat_type": ["t2t", "search", "t2i", "t2v", "image_edit", "artifacts"],
            "max_context_length": 65536,
            "max_generation_length": 13684,
            "max_thinking_generation_length": 16384,
        },
    },
}
MAX: dict[str, Any] = {
    "id": "qwen3-max-2026-01-23",
    "name": "Qwen3-Max",
    "info": {
        "created_at": 1769126400,
        "meta": {"abilities": {"thinking": 0}, "chat_type": ["t2t"]},
    },
}
CODER = {"id": "qwen3-coder-plus"}
RESEARCH = {"id": "qwen3.6-plus", "info": {"meta": {"chat_type": ["deep_research", "t2i"]}}}

CATALOGUE = Catalogue.from_upstream([MAX, OMNI, CODER, RESEARCH])


def ids(catalogue: Catalogue, *, simple: bool = False) -> list[str]:
    return [entry.id for entry in catalogue.listing(simple=simple)]


def test_every_variant_the_upstream_offers_is_listed_and_no_other() -> None:
    assert ids(CATALOGUE) == [
        "Qwen3-Max",
        "Qwen3-Omni-Flash",
        "Qwen3-Omni-Flash-thinking",
        "Qwen3-Omni-Flash-search",
        "Qwen3-Omni-Flash-thinking-search",
        "Qwen3-Omni-Flash-image",
        "Qwen3-Omni-Flash-video",
        "Qwen3-Omni-Flash-image-edit",
        "qwen3-coder-plus",
        "qwen3.6-plus",
        "qwen3.6-plus-image",
    ]


def test_the_simple_map_lists_base_models_only() -> None:
    assert ids(CATALOGUE, simple=True) == [
        "Qwen3-Max",
        "Qwen3-Omni-Flash",
        "qwen3-coder-plus",
        "qwen3.6-plus",
    ]


@pytest.mark.parametrize("name", ["Qwen3-Omni-Flash", "qwen3-omni-flash-2025-12-01"])
@pytest.mark.parametrize(
    ("suffix", "chat_type", "thinking", "search", "capability"),
    [
        ("", "t2t", None, False, "chat"),
        ("-thinking", "t2t", True, False, "chat"),
        ("-search", "search", None, True, "chat"),
        ("-thinking-search", "search", True, True, "chat"),
        ("-image", "t2i", None, False, "image"),
        ("-image-edit", "image_edit", None, False, "image"),
        ("-video", "t2v", None, False, "video"),
    ],
)
def test_a_name_with_its_suffix_says_what_the_upstream_is_asked_for(
    name: str, suffix: str, chat_type: str, thinking: bool | None, search: bool, capability: str
) -> None:
    for written in (name + suffix, f"  {name.upper()}{suffix.upper()} "):
        variant = CATALOGUE.resolve(written)
        assert variant.model_id == "qwen3-omni-flash-2025-12-01"
        assert variant.display_name == "Qwen3-Omni-Flash"
        assert (variant.suffix, variant.chat_type) == (suffix, chat_type)
        assert (variant.thinking, variant.search) == (thinking, search)
        assert variant.capability == capability
        assert variant.max_context_tokens == 65536
        assert variant.max_output_tokens == 13684
        assert variant.max_thinking_tokens == 16384
        assert variant.standing_in_for is None


def test_deep_research_is_understood_but_not_listed() -> None:
    assert CATALOGUE.resolve("qwen3.6-plus-deep-research").chat_type == "deep_research"
    assert "qwen3.6-plus-deep-research" not in ids(CATALOGUE)
    with pytest.raises(UnknownModel):
        CATALOGUE.entry("qwen3.6-plus-deep-research")


def test_a_whole_name_wins_over_a_name_with_a_suffix_taken_off() -> None:
    own = {"id": "qwen3-omni-flash-2025-12-01-thinking", "name": "Another"}
    catalogue = Catalogue.from_upstream([OMNI, own])
    found = catalogue.resolve("qwen3-omni-flash-2025-12-01-thinking")
    assert (found.model_id, found.thinking) == ("qwen3-omni-flash-2025-12-01-thinking", None)
    assert catalogue.resolve("Qwen3-Omni-Flash-thinking").thinking is True


SEARCHES = {"abilities": {"thinking": 0}, "chat_type": ["t2t", "search"]}
THINKS_AND_SEARCHES = {"abilities": {"thinking": 1}, "chat_type": ["t2t", "search"]}


@pytest.mark.parametrize("first", ["both", "both-thinking"])
def test_the_longest_suffix_is_taken_off_a_name(first: str) -> None:
    entries = [
        {"id": "both", "info": {"meta": THINKS_AND_SEARCHES}},
        {"id": "both-thinking", "info": {"meta": SEARCHES}},
    ]
    entries.sort(key=lambda entry: entry["id"] != first)
    found = Catalogue.from_upstream(entries).resolve("Both-Thinking-Search")
    assert (found.model_id, found.suffix) == ("both", "-thinking-search")


def test_a_model_stands_in_only_with_the_longest_suffix_of_the_missing_one() -> None:
    entries = [
        {"id": "only-searches", "info": {"meta": SEARCHES}},
        {"id": "does-both", "info": {"meta": THINKS_AND_SEARCHES}},
    ]
    found = Catalogue.from_upstream(entries).resolve("any", {"any": "gone-thinking-search"})
    assert (found.model_id, found.thinking) == ("does-both", True)


def test_a_variant_that_a_model_lacks_is_unknown_and_says_what_there_is() -> None:
    with pytest.raises(UnknownModel, match=r"^Qwen3-Max has no -image variant; it has: Qwen3-Max$"):
        CATALOGUE.resolve("qwen3-max-image")
    with pytest.raises(UnknownModel, match=r"^Qwen3-Max has no -thinking-search"):
        CATALOGUE.resolve("qwen3-max-thinking-search")


def test_an_unknown_name_is_told_its_near_matches() -> None:
    with pytest.raises(UnknownModel, match="did you mean Qwen3-Max"):
        CATALOGUE.resolve("qwen3-mxa")
    with pytest.raises(UnknownModel, match="GET /v1/models"):
        CATALOGUE.resolve("something else")


def test_a_monstrous_name_is_refused_at_once_and_not_said_back() -> None:
    started = time.perf_counter()
    with pytest.raises(UnknownModel) as caught:
        CATALOGUE.resolve("qwen" * 1_000_000, {"claude-*": "qwen3-max", "*a*b*": "qwen3-max"})
    assert len(caught.value.message) < 300
    assert time.perf_counter() - started < 2


# -- aliases


def test_an_alias_leads_to_its_target_and_the_first_match_wins() -> None:
    aliases = {"claude-haiku*": "Qwen3-Max", "claude-*": "qwen3-coder-plus"}
    assert CATALOGUE.resolve("Claude-Haiku-4-5", aliases).model_id == "qwen3-max-2026-01-23"
    assert CATALOGUE.resolve("claude-opus-4-5", aliases).model_id == "qwen3-coder-plus"
    assert CATALOGUE.resolve("claude-opus-4-5", aliases).standing_in_for is None


def test_an_alias_may_name_a_variant() -> None:
    aliases = {"gpt-*-search": "qwen3-omni-flash-thinking-search"}
    found = CATALOGUE.resolve("gpt-9-search", aliases)
    assert (found.suffix, found.search) == ("-thinking-search", True)


def test_a_name_of_the_catalogue_wins_over_an_alias() -> None:
    assert CATALOGUE.resolve("qwen3-max", {"*": "qwen3-coder-plus"}).display_name == "Qwen3-Max"


@pytest.mark.parametrize("name", ["claude-?", "claude-[ab]", "claude.x"])
def test_only_the_asterisk_is_special_in_an_alias(name: str) -> None:
    with pytest.raises(UnknownModel):
        CATALOGUE.resolve("claude-a", {name: "qwen3-max"})


def test_an_alias_to_a_missing_model_falls_to_the_first_that_can_do_it() -> None:
    found = CATALOGUE.resolve("claude-x", {"claude-*": "qwen9-ultra"})
    assert (found.display_name, found.standing_in_for) == ("Qwen3-Max", "qwen9-ultra")
    picture = CATALOGUE.resolve("dall-e-3", {"dall-e-*": "qwen9-ultra-image"})
    assert (picture.model_id, picture.chat_type) == ("qwen3-omni-flash-2025-12-01", "t2i")
    assert picture.standing_in_for == "qwen9-ultra-image"


def test_an_alias_that_nothing_can_stand_in_for_is_unknown() -> None:
    catalogue = Catalogue.from_upstream([MAX])
    with pytest.raises(UnknownModel, match="'qwen9-video'"):
        catalogue.resolve("sora", {"sora": "qwen9-video"})
    with pytest.raises(UnknownModel):
        Catalogue.from_upstream([]).resolve("sora", {"sora": "qwen9"})


def test_aliases_are_not_listed() -> None:
    with pytest.raises(UnknownModel):
        CATALOGUE.entry("claude-opus")


# -- the first model that can


def test_the_first_listed_model_that_can_is_found() -> None:
    found = CATALOGUE.first("t2i")
    assert found is not None
    assert (found.model_id, found.suffix) == ("qwen3-omni-flash-2025-12-01", "-image")
    assert Catalogue.from_upstream([MAX]).first("t2v") is None


def test_the_first_that_searches_does_not_think_unasked() -> None:
    entry = {"id": "qwen3.6-plus", "info": {"meta": THINKS_AND_SEARCHES}}
    found = Catalogue.from_upstream([CODER, entry]).first("search")
    assert found is not None
    assert (found.model_id, found.suffix) == ("qwen3.6-plus", "-search")


def test_only_a_name_of_its_own_is_known() -> None:
    assert CATALOGUE.knows("Qwen3-Coder-PLUS ")
    assert not CATALOGUE.knows("claude-opus-5")


# -- entries


@pytest.mark.parametrize(
    "name",
    [
        "Qwen3-Omni-Flash-image",
        "qwen3-omni-flash-2025-12-01-image",
        "QWEN3-OMNI-FLASH-IMAGE",
    ],
)
def test_an_entry_is_found_by_its_names_and_has_all_four(name: str) -> None:
    assert msgspec.json.decode(openai_model(CATALOGUE.entry(name))) == {
        "id": "Qwen3-Omni-Flash-image",
        "name": "qwen3-omni-flash-2025-12-01-image",
        "upstream_id": "qwen3-omni-flash-2025-12-01",
        "display_name": "Qwen3-Omni-Flash",
        "object": "model",
        "created": 1764547200,
        "owned_by": "qwen",
    }


def test_an_unknown_entry_is_unknown() -> None:
    with pytest.raises(UnknownModel):
        CATALOGUE.entry("qwen3-max-image")


def test_the_openai_list_has_openai_shape() -> None:
    page = msgspec.json.decode(openai_list(CATALOGUE.listing()))
    assert page["object"] == "list"
    assert page["data"][0]["created"] == 1769126400
    assert {entry["object"] for entry in page["data"]} == {"model"}


def test_the_anthropic_list_has_anthropic_shape() -> None:
    page = msgspec.json.decode(anthropic_list(CATALOGUE.listing(simple=True)))
    assert page["data"][1] == {
        "type": "model",
        "id": "Qwen3-Omni-Flash",
        "display_name": "Qwen3-Omni-Flash",
        "created_at": "2025-12-01T00:00:00Z",
        "lifecycle": "active",
    }
    assert (page["has_more"], page["first_id"], page["last_id"]) == (
        False,
        "Qwen3-Max",
        "qwen3.6-plus",
    )
    assert msgspec.json.decode(anthropic_model(CATALOGUE.entry("qwen3-max"))) == page["data"][0]


def test_an_empty_list_has_anthropic_shape_too() -> None:
    assert msgspec.json.decode(anthropic_list([])) == {
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


def test_the_official_sdks_read_both_lists_strictly() -> None:
    from anthropic.types import ModelInfo
    from openai.types import Model

    for entry in CATALOGUE.listing():
        Model.model_validate_json(openai_model(entry), strict=True)
        ModelInfo.model_validate_json(anthropic_model(entry), strict=True)


# -- the upstream's entries


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["id", "name", "info", "meta", "abilities", "chat_type", "created"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=3))
def test_any_level_may_be_missing_or_nonsense(entries: list[Any]) -> None:
    catalogue = Catalogue.from_upstream([*entries, MAX])
    assert catalogue.resolve("qwen3-max-2026-01-23").capability == "chat"
    openai_list(catalogue.listing())
    anthropic_list(catalogue.listing())
    for entry in catalogue.listing():
        assert isinstance(catalogue.resolve(entry.id), Variant)


def test_the_entries_survive_a_cache() -> None:
    kept = msgspec.json.encode(CATALOGUE.entries)
    again = Catalogue.from_upstream(msgspec.json.decode(kept))
    assert again.listing() == CATALOGUE.listing()


def test_an_entry_without_an_id_is_left_out() -> None:
    assert ids(Catalogue.from_upstream([{"name": "Nameless"}, None, 7, CODER])) == [
        "qwen3-coder-plus"
    ]


def test_the_id_may_stand_one_level_down() -> None:
    entry = {"info": {"id": "qwen3-max", "name": "Qwen3-Max"}}
    assert ids(Catalogue.from_upstream([entry])) == ["Qwen3-Max"]


def test_the_first_of_two_models_with_one_name_keeps_it() -> None:
    other = {"id": "qwen3-max-preview", "name": "Qwen3-Max"}
    catalogue = Catalogue.from_upstream([MAX, other])
    assert catalogue.resolve("Qwen3-Max").model_id == "qwen3-max-2026-01-23"
    assert catalogue.resolve("qwen3-max-preview").model_id == "qwen3-max-preview"
