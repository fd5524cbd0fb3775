"""The corpus of tool texts, each read whole and cut in every way."""

import json
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.chat.events import TextDelta, ToolCallDelta, ToolCallStart
from tests.fakes.tool_texts import ToolText, corpus, events_of

CASES = corpus()
each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
SIZES = (1, 2, 3, 5, 7, 11)
NEAR = 3  # characters between two cuts: shorter than any tag


def test_the_corpus_holds_at_least_150_texts_with_names_of_their_own() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)


@each_case
def test_a_text_gives_what_the_corpus_says(case: ToolText) -> None:
    assert case.read([case.text]) == case.expected


@each_case
def test_a_text_gives_the_same_at_every_cut(case: ToolText) -> None:
    text = case.text
    for cut in range(1, len(text)):
        assert case.read([text[:cut], text[cut:]]) == case.expected, text[:cut]


@each_case
def test_a_text_gives_the_same_in_pieces_of_any_size(case: ToolText) -> None:
    text = case.text
    for size in SIZES:
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        assert case.read(pieces) == case.expected, size


@each_case
def test_a_text_gives_the_same_with_a_small_piece_anywhere(case: ToolText) -> None:
    text = case.text
    for cut in range(1, len(text) - NEAR):
        assert case.read([text[:cut], text[cut : cut + NEAR], text[cut + NEAR :]]) == case.expected


@given(st.sampled_from(CASES), st.data())
def test_a_text_gives_the_same_at_any_cuts(case: ToolText, data: st.DataObject) -> None:
    cuts = data.draw(st.sets(st.integers(0, len(case.text)), max_size=12))
    borders = [0, *sorted(cuts), len(case.text)]
    pieces = [case.text[start:end] for start, end in pairwise(borders)]
    assert case.read(pieces) == case.expected


def test_short_texts_give_the_same_at_every_pair_of_cuts() -> None:
    for case in CASES:
        text = case.text
        if len(text) <= 45:
            for first, second in combinations(range(1, len(text)), 2):
                pieces = [text[:first], text[first:second], text[second:]]
                assert case.read(pieces) == case.expected, pieces


@each_case
def test_what_is_no_call_comes_out_unchanged(case: ToolText) -> None:
    """Nothing is lost: without calls, reasoning and faults the text is the model's own."""
    if all(line.startswith("text ") for line in case.expected) and not case.repeat:
        said = "".join(json.loads(line.removeprefix("text ")) for line in case.expected)
        assert said == case.text or case.name == LOSES_A_TAG


LOSES_A_TAG = "prose: a closing tag alone on its line belongs to no text"


def long_call(form: str, argument: str) -> str:
    quoted = json.dumps(argument)
    inner = json.dumps('{"command": ' + quoted + "}")
    return {
        "tagged": f'<tool_call>\n{{"name": "run", "arguments": {{"command": {quoted}}}}}\n</tool_call>',
        "function": f"<tool_call>\n<function=run>\n<parameter=command>\n{argument}\n</parameter>\n</function>\n</tool_call>",
        "function without wrapper": f"<function=run>\n<parameter=command>\n{argument}\n</parameter>\n</function>",
        "naked": f'{{"name": "run", "arguments": {{"command": {quoted}}}}}',
        "naked array": f'[{{"name": "run", "arguments": {{"command": {quoted}}}}}]',
        "fenced": f'```json\n{{"name": "run", "arguments": {{"command": {quoted}}}}}\n```',
        "array": f'<tool_call>[{{"name": "run", "arguments": {{"command": {quoted}}}}}]</tool_call>',
        "OpenAI's shape": f'<tool_call>{{"type": "function", "function": {{"name": "run", "arguments": {inner}}}}}</tool_call>',
        "parameters": f'<tool_call>{{"name": "run", "parameters": {{"command": {quoted}}}}}</tool_call>',
        "behind text": f'I run it.\n<tool_call>\n{{"name": "run", "arguments": {{"command": {quoted}}}}}\n</tool_call>',
        "free text": f"<function=apply_patch>\n<parameter=input>\n{argument}\n</parameter>\n</function>",
        "free text as an object": f'<tool_call>{{"name": "apply_patch", "arguments": {{"input": {quoted}}}}}</tool_call>',
    }[form]  # fmt: skip


FORMS = (
    "tagged", "function", "function without wrapper", "naked", "naked array", "fenced", "array",
    "OpenAI's shape", "parameters", "behind text", "free text", "free text as an object",
)  # fmt: skip
LONGEST_SILENCE = 16  # characters: a naked call's name must be known, an escape be whole
LINE = "echo \"line\" > 'a\\b' && x <y\n"


@pytest.mark.parametrize("form", FORMS)
def test_arguments_of_4_kb_arrive_while_they_are_written(form: str) -> None:
    """They begin within a few characters, and from then on something always comes."""
    argument = (LINE * 200)[:4096]
    text = long_call(form, argument)
    begins = text.index("echo")
    ends = text.rindex("echo")
    reader = CASES[0].reader()
    silence = longest_silence = arrived = 0
    for at, char in enumerate(text):
        events = reader.feed_all([TextDelta(char)])
        piece = "".join(event.arguments for event in events if type(event) is ToolCallDelta)
        arrived += len(piece)
        if begins <= at < ends:
            silence = 0 if piece else silence + 1
            longest_silence = max(longest_silence, silence)
    assert longest_silence <= LONGEST_SILENCE
    assert arrived >= len(argument)


def test_a_call_starts_as_soon_as_its_arguments_begin() -> None:
    reader = CASES[0].reader()
    begun = '<tool_call>\n{"name": "run", "arguments": '
    assert reader.feed_all([TextDelta(begun)]) == []
    assert reader.feed_all([TextDelta("{")]) == [
        ToolCallStart(0, "call_0", "run"),
        ToolCallDelta(0, "{"),
    ]


def test_arguments_are_held_only_until_the_name_behind_them_is_known() -> None:
    reader = CASES[0].reader()
    assert (
        reader.feed_all([TextDelta('<tool_call>{"arguments": {"command": "ls"}, "name": "ru')])
        == []
    )
    started = reader.feed_all([TextDelta('n"')])
    assert started[:2] == [ToolCallStart(0, "call_0", "run"), ToolCallDelta(0, '{"command": "ls"}')]


@pytest.mark.parametrize("case", [case for case in CASES if "fault" not in str(case.expected)])
def test_joined_arguments_are_json_wherever_a_call_ends(case: ToolText) -> None:
    """`events_of` folds: it asserts balance, order and the validity of every whole call."""
    for cut in range(len(case.text)):
        events, reader = events_of(case.reader(), [case.text[:cut]])
        assert reader.fault is not None or events
