"""Reasoning and search: what callers ask for, what the upstream is asked, what callers see."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.chat import ask, assert_error, directive, frames_of, reasoning_of, text_of
from tests.fakes.stack import Stack

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

THINKER = "Qwen3.6-Plus"
THOUGHT = "First this,\nthen that."
THINKING = directive(think=THOUGHT, say="So it is.")


def features(stack: Stack) -> dict[str, Any]:
    """What the newest completion asked of the upstream."""
    message: dict[str, Any] = stack.sim.recorded("completions")[-1]["body"]["messages"][0]
    return {**message["feature_config"], "chat_type": message["chat_type"]}


# -- asking for reasoning


@BOTH
@pytest.mark.parametrize(
    ("model", "fields", "budget"),
    [
        (f"{THINKER}-thinking", {}, None),
        (f"{THINKER}-THINKING", {}, None),
        ("qwen3.6-plus-thinking", {}, None),
        (THINKER, {"enable_thinking": True}, None),
        (THINKER, {"reasoning_effort": "low"}, "some"),
        (THINKER, {"reasoning_effort": "high"}, "some"),
        (THINKER, {"enable_thinking": True, "thinking_budget": 4000}, 4000),
        (f"{THINKER}-thinking", {"thinking_budget": 1}, 1),
        (f"{THINKER}-thinking", {"thinking_budget": 10**6}, 38_911),
        (f"{THINKER}-thinking-search", {}, None),
    ],
)
def test_reasoning_that_was_asked_for_comes_beside_the_content(
    stack: Stack, model: str, fields: dict[str, Any], budget: int | str | None, stream: bool
) -> None:
    prompt = directive(think=THOUGHT, say="So it is.", search=0)
    answer = ask(stack, prompt, model=model, stream=stream, **fields)
    assert reasoning_of(answer) == THOUGHT
    assert text_of(answer) == "So it is."
    asked = features(stack)
    assert asked["thinking_enabled"] is True
    assert asked["output_schema"] == "phase"
    if budget == "some":
        assert asked["thinking_budget"] > 0
    else:
        assert asked.get("thinking_budget") == budget


def test_more_effort_is_a_larger_budget(stack: Stack) -> None:
    budgets = []
    for effort in ("low", "medium", "high"):
        ask(stack, model=THINKER, reasoning_effort=effort)
        budgets.append(features(stack)["thinking_budget"])
    assert budgets == sorted(set(budgets))


@pytest.mark.parametrize("fields", [{"enable_thinking": False}, {"reasoning_effort": "none"}])
def test_reasoning_can_be_turned_off(stack: Stack, fields: dict[str, Any]) -> None:
    ask(stack, model=THINKER, **fields)
    assert features(stack)["thinking_enabled"] is False
    assert features(stack)["thinking_mode"] == "Fast"


def test_without_a_word_about_it_the_model_decides(stack: Stack) -> None:
    ask(stack, model=THINKER)
    assert features(stack)["auto_thinking"] is True


@BOTH
@pytest.mark.parametrize("phase", ["think", "thinking", "thought"])
def test_every_spelling_of_the_reasoning_phase_is_reasoning(
    stack: Stack, phase: str, stream: bool
) -> None:
    prompt = directive(think=THOUGHT, think_phase=phase, say="So it is.")
    answer = ask(stack, prompt, model=f"{THINKER}-thinking", stream=stream)
    assert (reasoning_of(answer), text_of(answer)) == (THOUGHT, "So it is.")


@BOTH
def test_a_model_that_summarises_its_thoughts_says_each_of_them_once(
    stack: Stack, stream: bool
) -> None:
    prompt = directive(think=3, think_format="summary", say="So it is.")
    answer = ask(stack, prompt, model="Qwen3.5-Omni-Plus-thinking", stream=stream)
    assert text_of(answer) == "So it is."
    reasoning = reasoning_of(answer)
    assert reasoning.count("The caller wrote something") == 1
    assert reasoning.count("No model is at work here") == 1


def test_reasoning_precedes_the_content_of_a_stream(stack: Stack) -> None:
    prompt = directive(think=4, say="So it is.")
    frames = frames_of(ask(stack, prompt, model=f"{THINKER}-thinking", stream=True))
    kinds = [
        "reasoning" if "reasoning_content" in delta else "content"
        for frame in frames
        for choice in frame["choices"]
        if (delta := choice["delta"]).get("reasoning_content") or delta.get("content")
    ]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count("reasoning") > 1


@BOTH
def test_a_model_without_reasoning_has_no_thinking_variant(stack: Stack, stream: bool) -> None:
    answer = ask(stack, model="Qwen3-Max-thinking", stream=stream)
    error = assert_error(answer, 404, "invalid_request_error", "model_not_found")
    assert "-thinking" in error["message"]


@BOTH
def test_reasoning_is_left_out_when_the_operator_says_so(adjusted: Stack, stream: bool) -> None:
    answer = ask(adjusted, THINKING, model=f"{THINKER}-thinking", stream=stream)
    assert (reasoning_of(answer), text_of(answer)) == ("", "So it is.")
    assert "First this" not in answer.text


@pytest.fixture(scope="module")
def legacy_stack() -> Iterator[Stack]:
    with Stack(environment={"LEGACY_REASONING_IN_CONTENT": "true"}, accounts=1) as stack:
        yield stack


@BOTH
def test_the_legacy_form_puts_reasoning_into_the_content(legacy_stack: Stack, stream: bool) -> None:
    answer = ask(legacy_stack, THINKING, model=f"{THINKER}-thinking", stream=stream)
    assert text_of(answer) == f"<think>\n{THOUGHT}\n</think>\n\nSo it is."
    assert "reasoning_content" not in answer.text


def test_the_legacy_form_is_closed_before_a_failure_is_told(legacy_stack: Stack) -> None:
    prompt = directive(think=THOUGHT, fail="internal_error", after=3)
    answer = ask(legacy_stack, prompt, model=f"{THINKER}-thinking", stream=True)
    assert text_of(answer).startswith("<think>\n")
    assert "</think>" in text_of(answer)
    assert "error" in frames_of(answer)[-1]


# -- searching


@BOTH
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("Qwen3-Max-search", {}),
        ("qwen3-max-2026-01-23-search", {}),
        ("Qwen3-Max", {"web_search_options": {}}),
        (f"{THINKER}-thinking-search", {}),
    ],
)
def test_sources_are_a_table_and_annotations(
    stack: Stack, model: str, fields: dict[str, Any], stream: bool
) -> None:
    answer = ask(stack, directive(say="It rains [[1]."), model=model, stream=stream, **fields)
    content = text_of(answer)
    assert content.startswith(
        "It rains [[1].\n\n| # | Source | Site |\n| --- | --- | --- |\n| 1 | "
    )
    assert content.count("\n| ") == 5
    cited = [one["url_citation"] for one in annotations(answer)]
    assert [one["url"] for one in cited] == [f"https://example.org/{n}" for n in (1, 2, 3)]
    assert [one["title"] for one in cited] == [f"Result {n}" for n in (1, 2, 3)]
    for one in cited:
        assert content[one["start_index"] : one["end_index"]] == f"[{one['title']}]({one['url']})"
    assert features(stack)["chat_type"] == "search"


@BOTH
def test_sources_are_plain_lines_when_the_operator_says_so(adjusted: Stack, stream: bool) -> None:
    answer = ask(adjusted, directive(say="It rains."), model="Qwen3-Max-search", stream=stream)
    content = text_of(answer)
    assert content.startswith(
        "It rains.\n\n1. [Result 1](https://example.org/1) — example.org\n2. "
    )
    assert "|" not in content
    assert len(annotations(answer)) == 3


@BOTH
def test_an_answer_without_sources_has_no_table(stack: Stack, stream: bool) -> None:
    prompt = directive(say="Nothing found.", search=0)
    answer = ask(stack, prompt, model="Qwen3-Max-search", stream=stream)
    assert text_of(answer) == "Nothing found."
    assert annotations(answer) == []


def test_a_plain_turn_does_not_search(stack: Stack) -> None:
    ask(stack)
    assert features(stack)["chat_type"] == "t2t"
    assert features(stack)["auto_search"] is False


@BOTH
def test_only_the_first_candidate_is_the_answer(stack: Stack, stream: bool) -> None:
    answer = ask(
        stack, directive(say="The first one alone.", frames=6, candidates=2), stream=stream
    )
    assert text_of(answer) == "The first one alone."


def annotations(answer: Any) -> list[dict[str, Any]]:
    if answer.headers["content-type"] == "application/json":
        return answer.json()["choices"][0]["message"].get("annotations") or []
    return [
        one
        for frame in frames_of(answer)
        for choice in frame["choices"]
        for one in choice["delta"].get("annotations") or ()
    ]
