import itertools
from collections.abc import Sequence

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
)
from shared.errors import UpstreamUnavailable
from shared.turns import tokens
from shared.turns.stop import OutputLength, OutputLimits, StopSequences

SOURCES = SourcesFound((Source("t", "https://example.org"),))
END = TurnEnd("stop")


def run(stage: StopSequences | OutputLength | OutputLimits, events: Sequence[Event]) -> list[Event]:
    return [shown for event in events for shown in stage.feed(event)]


def text_of(events: Sequence[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta))


def first_complete(text: str, sequences: Sequence[str]) -> tuple[str, str | None]:
    """The rule, spelled out: read character by character, stop when a sequence is complete."""
    for end in range(len(text) + 1):
        ending = [s for s in sequences if text[:end].endswith(s)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def split(text: str, cuts: Sequence[int]) -> list[str]:
    borders = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(borders)]


few_letters = st.text(alphabet="abc", max_size=30)
sequences = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), min_size=1, max_size=4)


@given(few_letters, sequences, st.lists(st.integers(0, 30), max_size=8))
def test_any_split_stops_where_reading_by_character_stops(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    stage = StopSequences(tuple(stops))
    shown = run(stage, [*map(TextDelta, split(text, cuts)), END])
    before, sequence = first_complete(text, stops)
    assert text_of(shown) == before
    assert shown[-1] == TurnEnd("stop", stop_sequence=sequence)
    assert stage.ended == (sequence is not None)


@given(few_letters, sequences)
def test_held_back_is_only_what_may_begin_a_stop_sequence(text: str, stops: list[str]) -> None:
    if first_complete(text, stops)[1] is not None:
        return
    held = text[len(text_of(run(StopSequences(tuple(stops)), [TextDelta(text)]))) :]
    ends = [text[at:] for at in range(len(text))]
    longest = next((end for end in ends if any(s.startswith(end) for s in stops)), "")
    assert held == longest


@pytest.mark.parametrize(
    "event", [ReasoningDelta("hm"), SOURCES, END, TurnFailed(UpstreamUnavailable())]
)
def test_held_text_is_given_back_before_anything_else(event: Event) -> None:
    assert run(StopSequences(("END",)), [TextDelta("the EN"), event]) == [
        TextDelta("the "),
        TextDelta("EN"),
        event,
    ]


def test_reasoning_is_not_looked_through_for_stop_sequences() -> None:
    events: list[Event] = [ReasoningDelta("END"), TextDelta("x"), END]
    assert run(StopSequences(("END",)), events) == events


def test_nothing_comes_after_a_stop_sequence() -> None:
    stage = StopSequences(("END",))
    shown = run(stage, [TextDelta("aENDb"), TextDelta("c"), SOURCES, END])
    assert shown == [TextDelta("a"), TurnEnd("stop", stop_sequence="END")]


def test_a_stop_sequence_at_the_very_beginning_leaves_no_text() -> None:
    assert run(StopSequences(("END",)), [TextDelta("EN"), TextDelta("D")]) == [
        TurnEnd("stop", stop_sequence="END")
    ]


# -- length


def never() -> tokens.Vocabulary:
    raise AssertionError("nothing had to be counted")


def test_nothing_is_counted_while_the_bytes_are_within_the_limit() -> None:
    events: list[Event] = [ReasoningDelta("grüße"), TextDelta("abc"), END]
    assert run(OutputLength(10, never), events) == events


def test_needing_the_vocabulary_is_said_before_it_is_loaded() -> None:
    limits = OutputLimits(max_output_tokens=10, load=never)
    assert not limits.needs_vocabulary([TextDelta("ab"), SOURCES, END])
    assert limits.needs_vocabulary([TextDelta("ab"), ReasoningDelta("a longer text")])
    limits.feed(TextDelta("abcdefgh"))
    assert limits.needs_vocabulary([TextDelta("i")])


def test_without_a_length_the_vocabulary_is_never_needed() -> None:
    assert not OutputLimits(stop_sequences=("x",), load=never).needs_vocabulary([TextDelta("abc")])


SLACK_TOKENS = 4

pieces = st.lists(
    st.one_of(
        st.sampled_from(
            ["Hello", " world", ",", "\n", "  ", "你好", "世界。", "123", "'s", "🙂", "é"]
        ),
        st.text(max_size=8),
    ),
    max_size=30,
)


@given(pieces, st.integers(1, 60))
def test_the_answer_is_cut_at_the_limit_and_not_before(texts: list[str], limit: int) -> None:
    vocabulary = tokens.load()
    stage = OutputLength(limit, tokens.load)
    shown = run(stage, [*map(TextDelta, texts), END])
    whole, kept = "".join(texts), text_of(shown)
    assert whole.startswith(kept)
    assert vocabulary.count(kept) <= limit
    if stage.ended:
        assert shown[-1] == TurnEnd("length")
        assert vocabulary.count(whole) > limit
        # Short of the limit only by what parts of a character or a merge with later text may cost.
        assert vocabulary.count(kept) >= limit - SLACK_TOKENS
    else:
        assert shown == [*map(TextDelta, texts), END]
        assert vocabulary.count(whole) <= limit


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 50, 399])
def test_an_english_answer_is_cut_at_exactly_the_limit(limit: int) -> None:
    words = ("The quick brown fox jumps over the lazy dog, " * 40).split(" ")
    deltas: list[Event] = [TextDelta((" " if at else "") + word) for at, word in enumerate(words)]
    shown = run(OutputLength(limit, tokens.load), [*deltas, END])
    assert tokens.load().count(text_of(shown)) == limit
    assert shown[-1] == TurnEnd("length")


def test_reasoning_counts_for_the_length_too() -> None:
    events: list[Event] = [
        ReasoningDelta("one two three four"),
        TextDelta("five six seven"),
        ReasoningDelta("eight"),
        TextDelta("nine"),
    ]
    shown = run(OutputLength(6, tokens.load), events)
    assert shown == [events[0], TextDelta("five six"), TurnEnd("length")]


def test_the_arguments_of_calls_count_for_the_length() -> None:
    """What doesn't fit is cut; the call has no end, and the reason says why."""
    arguments = '{"content": "' + "one two three four " * 220
    events: list[Event] = [
        TextDelta("I write."),
        ToolCallStart(0, "call_0", "write"),
        *(ToolCallDelta(0, arguments[at : at + 9]) for at in range(0, len(arguments), 9)),
        ToolCallEnd(0),
        TurnEnd("tool_calls"),
    ]
    stage = OutputLength(50, tokens.load)
    shown = run(stage, events)
    said = "".join(event.arguments for event in shown if type(event) is ToolCallDelta)
    assert shown[:2] == events[:2]
    assert shown[-1] == TurnEnd("length")
    assert ToolCallEnd(0) not in shown
    assert arguments.startswith(said)
    counted = tokens.load().count("I write.") + tokens.load().count(said)
    assert 50 - SLACK_TOKENS <= counted <= 50
    assert stage.ended


def test_calls_within_the_length_pass_unchanged() -> None:
    events: list[Event] = [
        ToolCallStart(0, "call_0", "f"),
        ToolCallDelta(0, '{"a": 1}'),
        ToolCallEnd(0),
        ToolCallStart(1, "call_1", "f"),
        ToolCallDelta(1, '{"b": 2}'),
        ToolCallEnd(1),
        TurnEnd("tool_calls"),
    ]
    assert run(OutputLength(16, tokens.load), events) == events
    cut = run(OutputLength(6, tokens.load), events)
    assert cut[:3] == events[:3]
    assert cut[-1] == TurnEnd("length")
    assert ToolCallEnd(1) not in cut


def test_stop_sequences_are_not_looked_for_in_the_arguments_of_calls() -> None:
    events: list[Event] = [
        TextDelta("So"),
        ToolCallStart(0, "call_0", "f"),
        ToolCallDelta(0, '{"a": "END'),
        ToolCallDelta(0, ' END"}'),
        ToolCallEnd(0),
        TurnEnd("tool_calls"),
    ]
    assert run(StopSequences(("END",)), events) == events


def test_reasoning_is_cut_at_the_limit_too() -> None:
    shown = run(OutputLength(2, tokens.load), [ReasoningDelta("one two three"), TextDelta("x")])
    assert shown == [ReasoningDelta("one two"), TurnEnd("length")]


def test_an_answer_of_exactly_the_limit_ends_by_itself() -> None:
    events: list[Event] = [TextDelta("one two three four"), END]
    assert run(OutputLength(4, tokens.load), events) == events


def test_an_endless_word_is_cut_near_the_limit() -> None:
    stage = OutputLength(1_000, tokens.load)
    shown = run(stage, [TextDelta("qxz") for _ in range(5_000)])
    assert 980 <= tokens.load().count(text_of(shown)) <= 1_000


class CountingVocabulary(tokens.Vocabulary):
    """Adds up how many characters were looked at."""

    def __init__(self) -> None:
        super().__init__(tokens.load()._encoding)
        self.characters = 0

    def count(self, text: str) -> int:
        self.characters += len(text)
        return super().count(text)

    def cut(self, text: str, tokens: int) -> str:
        self.characters += len(text)
        return super().cut(text, tokens)


@pytest.mark.parametrize("word", ["word ", "你好，", "qxz", "  ", "\n", "9"])
def test_counting_is_never_quadratic(word: str) -> None:
    vocabulary = CountingVocabulary()
    deltas = [TextDelta(word) for _ in range(20_000)]
    stage = OutputLength(20_000 if word != "qxz" else 30_000, lambda: vocabulary)
    run(stage, deltas)
    assert vocabulary.characters < 40 * len(word) * len(deltas)


# -- both


def test_text_behind_a_stop_sequence_does_not_count() -> None:
    limits = OutputLimits(stop_sequences=("END",), max_output_tokens=3, load=tokens.load)
    shown = limits.feed_all([TextDelta("one two threeEND four five six"), END])
    assert shown == [TextDelta("one two three"), TurnEnd("stop", stop_sequence="END")]
    assert limits.ended


def test_the_length_ends_the_turn_before_a_later_stop_sequence() -> None:
    limits = OutputLimits(stop_sequences=("END",), max_output_tokens=2, load=tokens.load)
    shown = limits.feed_all([TextDelta("one two threeEND"), END])
    assert shown == [TextDelta("one two"), TurnEnd("length")]
    assert limits.feed(END) == []


def test_without_limits_events_pass_unchanged() -> None:
    events: list[Event] = [ReasoningDelta("r"), TextDelta("t"), SOURCES, END]
    limits = OutputLimits(load=never)
    assert limits.feed_all(events) == events
    assert not limits.ended
