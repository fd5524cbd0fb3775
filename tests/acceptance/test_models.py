"""The model list in both shapes, its names, aliases, and what keeps it when the upstream fails."""

import re
import time
from typing import Any

import pytest

from tests.fakes.chat import ask, assert_error, get, text_of
from tests.fakes.stack import Stack, eventually

ANTHROPIC = {"anthropic-version": "2023-06-01"}


def listed(stack: Stack, path: str = "/v1/models", **more: Any) -> list[dict[str, Any]]:
    answer = get(stack, path, **more)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert body["object"] == "list"
    data: list[dict[str, Any]] = body["data"]
    return data


def test_the_list_has_every_variant_the_upstream_offers(stack: Stack) -> None:
    ids = [one["id"] for one in listed(stack)]
    assert len(ids) == len(set(ids))
    assert [one for one in ids if one.startswith("Qwen3-Omni-Flash")] == [
        "Qwen3-Omni-Flash",
        "Qwen3-Omni-Flash-thinking",
        "Qwen3-Omni-Flash-search",
        "Qwen3-Omni-Flash-thinking-search",
        "Qwen3-Omni-Flash-image",
        "Qwen3-Omni-Flash-video",
        "Qwen3-Omni-Flash-image-edit",
    ]
    assert [one for one in ids if one.startswith("Qwen3-Max")] == ["Qwen3-Max", "Qwen3-Max-search"]
    assert "Qwen-Bare" in ids
    assert not [one for one in ids if one.startswith("claude") or "deep-research" in one]


def test_an_entry_has_all_its_names(stack: Stack) -> None:
    [entry] = [one for one in listed(stack) if one["id"] == "Qwen3-Omni-Flash-image"]
    assert isinstance(entry.pop("created"), int)
    assert entry == {
        "id": "Qwen3-Omni-Flash-image",
        "name": "qwen3-omni-flash-2025-12-01-image",
        "upstream_id": "qwen3-omni-flash-2025-12-01",
        "display_name": "Qwen3-Omni-Flash",
        "object": "model",
        "owned_by": "qwen",
    }


def test_the_open_list_needs_no_key_and_says_the_same(stack: Stack) -> None:
    assert listed(stack, "/models", headers={"authorization": ""}) == listed(stack)
    assert listed(stack, "/models", headers={"authorization": "Bearer wrong"}) == listed(stack)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Qwen3-Max", "Qwen3-Max"),
        ("QWEN3-max", "Qwen3-Max"),
        ("qwen3-max-2026-01-23", "Qwen3-Max"),
        ("Qwen3-Max-2026-01-23-SEARCH", "Qwen3-Max-search"),
        ("Qwen3-Omni-Flash-Image-Edit", "Qwen3-Omni-Flash-image-edit"),
        ("%20Qwen3-Max%20", "Qwen3-Max"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(stack: Stack, name: str, found: str) -> None:
    answer = get(stack, f"/v1/models/{name}")
    assert (answer.status_code, answer.json()["id"]) == (200, found)
    assert answer.json() in listed(stack)


@pytest.mark.parametrize("name", ["nobody", "claude-sonnet-4", "Qwen3-Max-thinking", "a/b", "%00"])
def test_a_model_nobody_has_is_a_404(stack: Stack, name: str) -> None:
    answer = get(stack, f"/v1/models/{name}")
    assert_error(answer, 404, "invalid_request_error", "model_not_found")


def test_anthropic_clients_get_their_own_shape(stack: Stack) -> None:
    page = get(stack, "/v1/models", headers=ANTHROPIC).json()
    ids = [one["id"] for one in listed(stack)]
    assert [one["id"] for one in page["data"]] == ids
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[0], ids[-1], False)
    one = get(stack, f"/v1/models/{ids[0]}", headers=ANTHROPIC).json()
    assert one == page["data"][0]
    assert one["type"] == "model"
    assert one["display_name"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", one["created_at"])


# -- names in requests


@pytest.mark.parametrize(
    "name",
    ["Qwen3-Max", "qwen3-max-2026-01-23", " QWEN3-MAX ", "Qwen3-Max-search", "qwen3-MAX-Search"],
)
def test_any_name_is_accepted_in_requests(stack: Stack, name: str) -> None:
    answer = ask(stack, model=name)
    assert text_of(answer)
    assert answer.headers["x-gateway-model"] == "qwen3-max-2026-01-23"
    assert answer.json()["model"] == name


@pytest.mark.parametrize("name", ["claude-sonnet-4-5", "CLAUDE-3-opus", "claude-"])
def test_a_foreign_name_works_through_its_alias(stack: Stack, name: str) -> None:
    answer = ask(stack, model=name)
    assert text_of(answer)
    assert answer.headers["x-gateway-model"] == "qwen3-coder-plus"
    assert answer.json()["model"] == name


def test_aliases_come_from_the_settings(adjusted: Stack) -> None:
    answer = ask(adjusted, model="gpt-4o")
    assert answer.headers["x-gateway-model"] == "qwen3-max-2026-01-23"


def test_an_alias_whose_target_is_missing_falls_to_the_first_that_can_and_is_logged_once(
    adjusted: Stack,
) -> None:
    for _ in range(6):
        thinking = ask(adjusted, model="lost-model")
        assert thinking.headers["x-gateway-model"] == "qwen3.6-plus"
        plain = ask(adjusted, model="claude-opus-4")
        assert plain.headers["x-gateway-model"] == "qwen3.6-plus"
    said = [line for line in adjusted.logs().splitlines() if "alias target" in line]
    assert len(said) == len({re.sub(r"^at=\S+ ", "", line) for line in said})
    for target in ("no-such-model-thinking", "absent"):
        about = [line for line in said if target in line]
        assert 1 <= len(about) <= 2  # once per process


def test_only_base_models_are_listed_when_the_operator_says_so(adjusted: Stack) -> None:
    entries = listed(adjusted)
    assert [one["id"] for one in entries] == [
        "Qwen3.6-Plus",
        "Qwen3.5-Plus",
        "Qwen3.5-Omni-Plus",
        "Qwen3-Omni-Flash",
        "Qwen3-Max",
        "Qwen3-Coder",
        "Qwen-Bare",
    ]
    assert text_of(ask(adjusted, model="Qwen3-Max-search")), "variants still work"


# -- the list over time (MODELS_CACHE_TTL=1 in the adjusted product)


def test_the_list_is_kept_while_its_refresh_fails(adjusted: Stack) -> None:
    before = listed(adjusted)
    adjusted.sim.next(operation="models", fail="html_502", times=0)
    eventually(lambda: (listed(adjusted), adjusted.sim.recorded("models"))[1], within_seconds=15)
    assert listed(adjusted) == before
    assert text_of(ask(adjusted, model="Qwen3-Coder"))


def test_a_changed_list_of_the_upstream_is_taken_over(adjusted: Stack) -> None:
    models = [{"id": "qwen9", "name": "Qwen9", "info": {"meta": {"chat_type": ["t2t"]}}}]
    adjusted.sim.config(models=models)
    eventually(
        lambda: [one["id"] for one in listed(adjusted)],
        until=lambda ids: ids == ["Qwen9"],
        within_seconds=20,
    )
    adjusted.sim.clear()
    eventually(
        lambda: [one["id"] for one in listed(adjusted)],
        until=lambda ids: "Qwen3-Max" in ids,
        within_seconds=20,
    )


def test_a_fresh_list_is_read_once_for_all_processes(stack: Stack) -> None:
    for _ in range(10):
        listed(stack)
    assert stack.sim.recorded("models") == []
    assert stack.sim.stats()["requests"]["models"]["total"] == 1


def test_nobody_waits_for_a_refresh(adjusted: Stack) -> None:
    adjusted.sim.next(operation="models", hang="before", times=0)

    def slowest_list() -> float:
        begun = time.monotonic()
        assert listed(adjusted)
        return time.monotonic() - begun

    slowest = 0.0
    while not adjusted.sim.recorded("models"):
        slowest = max(slowest, slowest_list())
    assert max(slowest, slowest_list()) < 1
