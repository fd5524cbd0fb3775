"""The corpus of tool texts, each read whole and cut in every way."""

import json
import time
from collections.abc import Iterable
from itertools import combinations, pairwise
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.chat.events import (
    Event,
    ReasoningDelta,
    Source,
    SourcesFound,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    TurnStart,
)
from shared.chat.request import ToolChoice
from shared.errors import UpstreamSilent
from shared.turns.tool_reader import MAX_HELD_CHARACTERS, ToolReader
from tests.fakes.tool_texts import TOOLS, ToolText, corpus, events_of, folded

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


FRAGMENTS = (
    "<tool_call>", "</tool_call>", "</tool", "<function=ping>", "<function=get_weather>",
    "<function=apply_patch>", "<function=nope>", "<parameter=city>", "<parameter=days>",
    "</parameter>", "</function>", "<think>", "</think>", "<tool_response>", "```", "```json\n",
    "~~~", "`", "\n", "\n", "\r\n", " ", " " * 70, "{", "}", "}}", "[", "]", ",", '"name": "ping"',
    '"name": "nope"', '"arguments": {', '"city": "Oslo"', '"arguments": "{\\"city\\": \\"x\\"}"',
    '{"name": "ping", "arguments": {}}', '"', "'", "\\", "\\ud83d", "3", "True", "null", "<", "</",
    "text ", "an example: ", "例", "🙂", "&lt;",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14).map("".join),
    st.sampled_from(["auto", "required"]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_any_text_of_our_markup_gives_the_same_at_any_cuts(
    text: str, mode: Literal["auto", "required"], parallel: bool, repeat: bool, data: st.DataObject
) -> None:
    """`read` folds: it asserts that calls are balanced, in order, and their arguments JSON."""
    case = ToolText("", text, (), choice=ToolChoice(mode), parallel=parallel, repeat=repeat)
    whole = case.read([text])
    assert case.read(text) == whole
    borders = [0, *sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=4))), len(text)]
    assert case.read([text[start:end] for start, end in pairwise(borders)]) == whole


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


# -- payloads

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)
json_layouts = st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}])


@given(json_objects, json_layouts, st.booleans(), st.integers(1, 9))
def test_no_repair_changes_a_valid_payload(
    arguments: dict[str, Any], layout: dict[str, Any], ascii_only: bool, size: int
) -> None:
    """Arguments that are valid JSON come out as they were written, to the character."""
    given_text = json.dumps(arguments, ensure_ascii=ascii_only, **layout)
    for text in (
        f'<tool_call>\n{{"name": "run", "arguments": {given_text}}}\n</tool_call>',
        f'<tool_call>{{"arguments": {given_text}, "name": "run"}}</tool_call>',
        f'{{"name": "run", "arguments": {given_text}}}',
        f'<tool_call>{{"name": "run", "arguments": {json.dumps(given_text)}}}</tool_call>',
        f"<function=run>{given_text}</function>",
    ):
        assert arguments_of(text, size) == [given_text]


@given(
    st.fixed_dictionaries(
        {
            # Where it ends with a carriage return, that is one line break with the closer's.
            "command": st.text().filter(lambda text: not text.endswith("\r")),
            "timeout": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
            "env": st.dictionaries(st.text(), st.text(), max_size=3),
            "args": st.lists(st.text(), max_size=3),
        }
    ),
    st.integers(1, 9),
)
def test_a_function_gives_the_values_that_were_written(values: dict[str, Any], size: int) -> None:
    written = "".join(
        f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value)}\n</parameter>\n"
        for key, value in values.items()
    )
    text = f"<tool_call>\n<function=run>\n{written}</function>\n</tool_call>"
    (arguments,) = arguments_of(text, size)
    assert msgspec.json.decode(arguments) == values


def arguments_of(text: str, size: int) -> list[str]:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    events, _ = events_of(CASES[0].reader(), pieces)
    joined: list[str] = []
    for event in events:
        if type(event) is ToolCallStart:
            joined.append("")
        elif type(event) is ToolCallDelta:
            joined[-1] += event.arguments
    return joined


# -- what is held back


def shown_after(reader: Any, text: str) -> str:
    events = reader.feed_all([TextDelta(text)])
    return "".join(event.text for event in events if type(event) is TextDelta)


@pytest.mark.parametrize(
    "text", ["Hello", " world,", "a < b", "x <div>", "`code` x", "Look: {", "1. [x](y)", "**你好**"]
)
def test_prose_goes_out_with_the_delta_it_came_in(text: str) -> None:
    reader = CASES[0].reader()
    assert shown_after(reader, "So") == "So"
    assert shown_after(reader, text) == text


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("a <", "<"),
        ("a <tool", "<tool"),
        ("a <function=pi", "<function=pi"),
        ("a \n ", " \n "),
        ("a\n`", "`"),
        ("a\n```js", "```js"),
        ('a\n{"na', '{"na'),
    ],
)
def test_held_is_only_what_may_begin_a_call(text: str, held: str) -> None:
    reader = CASES[0].reader()
    assert shown_after(reader, text).rstrip() == text.removesuffix(held).rstrip()


@pytest.mark.parametrize(
    ("text", "next_char"),
    [
        ("a <tool", "b"),
        ('{"na": ', "["),
        ('{"name": "nobody', '"'),
        ("a </tool_re", " "),
        ("<f", "o"),
    ],
)
def test_what_turns_out_to_be_prose_goes_out_at_once(text: str, next_char: str) -> None:
    reader = CASES[0].reader()
    shown = shown_after(reader, text)
    assert (shown + shown_after(reader, next_char)).strip() == (text + next_char).strip()


def test_an_object_that_never_says_its_name_is_held_up_to_a_bound() -> None:
    reader = CASES[0].reader()
    text = '{"arguments": {"a": "' + "x" * MAX_HELD_CHARACTERS
    assert shown_after(reader, text) == text
    assert shown_after(reader, "y") == "y"


def test_a_fence_behind_prose_is_held_up_to_a_bound() -> None:
    reader = CASES[0].reader()
    text = "So:\n```\n<function=run>\n<parameter=timeout>\n" + "1" * (MAX_HELD_CHARACTERS + 1)
    assert shown_after(reader, text) == text
    assert reader.fault is None


def test_a_value_that_never_closes_is_held_up_to_a_bound() -> None:
    reader = CASES[0].reader()
    text = "<function=run>\n<parameter=timeout>\n" + "1" * (MAX_HELD_CHARACTERS + 1)
    assert reader.feed_all([TextDelta(text)]) == []
    assert reader.fault is not None
    assert (reader.fault.kind, reader.fault.name) == ("malformed", "run")


def test_values_that_are_no_text_wait_for_their_closer() -> None:
    reader = CASES[0].reader()

    def arrived(text: str) -> str:
        events = reader.feed_all([TextDelta(text)])
        return "".join(event.arguments for event in events if type(event) is ToolCallDelta)

    assert arrived("<function=run>\n<parameter=command>\nls") == '{"command": "ls'
    assert arrived(" -l\n</parameter>\n<parameter=timeout>\n12") == ' -l"'
    assert arrived("3\n</parameter>\n<parameter=args>\n[1") == ', "timeout": 123'


# -- events that are no text


def test_without_tools_everything_passes_as_it_is() -> None:
    reader = ToolText("", "", (), choice=ToolChoice("none")).reader()
    events: list[Event] = [TextDelta('<tool_call>{"name": "ping", "arguments": {}}</tool_call>')]
    assert reader.feed_all(events) is events


def test_calls_in_reasoning_are_no_calls() -> None:
    reader = CASES[0].reader()
    thought = ReasoningDelta('<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>')
    assert reader.feed_all([TurnStart(), thought]) == [TurnStart(), thought]
    assert reader.feed_all([TurnEnd("stop")]) == [TurnEnd("stop")]


def test_other_events_wait_for_the_end_of_an_open_call() -> None:
    reader = CASES[0].reader()
    found = SourcesFound((Source(url="https://example.org"),))
    opened = TextDelta('<tool_call>{"name": "ping", "arguments": {')
    assert reader.feed_all([opened, ReasoningDelta("hm"), found]) == [
        ToolCallStart(0, "call_0", "ping"),
        ToolCallDelta(0, "{"),
    ]
    assert reader.feed_all([TextDelta("}}</tool_call>")]) == [
        ToolCallDelta(0, "}"),
        ToolCallEnd(0),
        ReasoningDelta("hm"),
        found,
    ]


def test_other_events_come_between_the_texts_around_them() -> None:
    reader = CASES[0].reader()
    events: list[Event] = [TextDelta("a"), ReasoningDelta("b"), TextDelta("c"), TurnEnd("stop")]
    assert reader.feed_all(events) == events


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Now", ["Now"]),
        ("Now <fun", ["Now", " <fun"]),
        ("Now <tool_c", ["Now "]),
        ('{"name": ', []),
    ],
)
def test_a_stream_that_fails_shows_what_is_surely_text_and_fails_last(
    text: str, shown: list[str]
) -> None:
    reader = CASES[0].reader()
    failed = TurnFailed(UpstreamSilent("The upstream fell silent"))
    events = reader.feed_all([TextDelta(text)]) + reader.feed_all([failed])
    assert "".join(e.text for e in events if type(e) is TextDelta) == "".join(shown)
    assert events[-1] == failed


def test_a_stream_that_fails_inside_a_call_leaves_the_call_open_and_fails_last() -> None:
    reader = CASES[0].reader()
    failed = TurnFailed(UpstreamSilent("The upstream fell silent"))
    begun = TextDelta('<tool_call>{"name": "run", "arguments": {"command": "l')
    events = reader.feed_all([begun, ReasoningDelta("late"), failed])
    assert events == [
        ToolCallStart(0, "call_0", "run"),
        ToolCallDelta(0, '{"command": "l'),
        ReasoningDelta("late"),
        failed,
    ]


def test_nothing_comes_behind_a_fault() -> None:
    reader = CASES[0].reader()
    faulty = TextDelta('A.\n<tool_call>{"name": "nope", "arguments": {}}</tool_call>\nB.')
    assert reader.feed_all([faulty, TurnEnd("stop")]) == [TextDelta("A.")]
    assert reader.feed_all([TextDelta("C."), TurnEnd("stop")]) == []
    assert reader.fault is not None
    assert (reader.fault.kind, reader.fault.name) == ("undeclared", "nope")
    assert reader.fault.text.startswith('<tool_call>{"name": "nope"')


def test_one_call_at_most_ends_the_turn_and_says_so() -> None:
    reader = ToolText("", "", (), parallel=False).reader()
    call = '<tool_call>{"name": "ping", "arguments": {}}'
    events = reader.feed_all([TextDelta(call + "</tool_call>" + call)])
    assert [type(event) for event in events] == [ToolCallStart, ToolCallDelta, ToolCallEnd, TurnEnd]
    assert events[-1] == TurnEnd("tool_calls")
    assert reader.ended
    assert reader.feed_all([TurnEnd("stop")]) == []


def test_indexes_go_on_after_the_calls_of_an_earlier_answer() -> None:
    texts: Iterable[str] = ['<tool_call>{"name": "ping", "arguments": {}}</tool_call>']
    reader = ToolReader(
        TOOLS, choice=ToolChoice(), parallel=True, call_id="call_{}".format, first_index=2
    )
    events, _ = events_of(reader, texts)
    assert events[0] == ToolCallStart(2, "call_2", "ping")
    assert reader.calls == 3


def test_the_silent_repeat_passes_calls_alone() -> None:
    reader = ToolText("", "", (), repeat=True, silent=True).reader()
    call = TextDelta('So:\n<tool_call>{"name": "ping", "arguments": {}}</tool_call>')
    assert reader.feed_all([TurnStart(), ReasoningDelta("hm"), call, TurnEnd("stop")]) == [
        TurnStart(),
        ToolCallStart(0, "call_0", "ping"),
        ToolCallDelta(0, "{}"),
        ToolCallEnd(0),
        TurnEnd("tool_calls"),
    ]


def test_whether_anything_was_said_is_known() -> None:
    reader = CASES[0].reader()
    reader.feed_all([TextDelta("\n ")])
    assert not reader.said
    reader.feed_all([TextDelta("So")])
    assert reader.said


def test_a_turn_that_ended_for_another_reason_keeps_it() -> None:
    reader = CASES[0].reader()
    events = reader.feed_all([TextDelta("No."), TurnEnd("content_filter")])
    assert events[-1] == TurnEnd("content_filter")
    assert folded(events, reader) == ('text "No."', "end content_filter")


# -- time


@pytest.mark.parametrize(
    "text",
    [
        "<" * 100_000,
        "{\n" * 50_000,
        "a " + "<tool_call>" * 10_000,
        '{"arguments":\n' * 8_000,
        "{\"arguments\":{'x':\n" * 6_000,
        "a\n" + '```json\n{"name": "ping", "arguments": {}}\n```\n' * 2_500 + "b",
        "<function=write_file>\n<parameter=content>\n" + "\n<parameter=x>" * 8_000,
        "<function=write_file>\n<parameter=content>\n" + "\n</parameter>x" * 8_000,
        "<function=run>\n<parameter=timeout>\n" + "1" * 100_000,
        "`<tool_call>" * 9_000,
        "`" * 100_000,
        " " * 100_000 + "a",
    ],
    ids=lambda text: text[:24],
)
def test_no_text_takes_more_than_linear_time(text: str) -> None:
    """100 KB in at most a second or so; a quadratic reader takes minutes, and the loop with it."""
    for size in (7, len(text)):
        started = time.perf_counter()
        events_of(CASES[0].reader(), [text[at : at + size] for at in range(0, len(text), size)])
        assert time.perf_counter() - started < 10
