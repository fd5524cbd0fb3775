"""Enforces what the upstream can't: stop sequences and the longest answer.

Two stages and the pair of them. A stage is fed events and answers events; it may end the turn
before the upstream does: then `ended` is true, its `TurnEnd` was the last event, and whoever drives
it tells the upstream to stop. That `TurnEnd` holds no usage: the upstream hadn't told the last.

    upstream events → StopSequences → OutputLength → what the caller sees

Only answer text is looked through for stop sequences: what a caller's tool is given is no answer.
Answer, reasoning and the arguments of calls count for the length, which is measured behind the stop
sequences: text that was never shown costs nothing. A call that the length cuts
stays without its end, as nobody may take it for whole, and the turn ends with `length`: both APIs
tell it so.
"""

import re
from collections.abc import Callable, Iterable

from shared.chat.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    TurnEnd,
)
from shared.turns.tokens import Vocabulary, last_border


class OutputLimits:
    """Both stages in their order, as the caller asked for them.

    Args:
        load: answers the model's vocabulary, and may block while it is read. It is called when the
            first tokens have to be counted: see `needs_vocabulary`.
    """

    def __init__(
        self,
        *,
        stop_sequences: tuple[str, ...] = (),
        max_output_tokens: int | None = None,
        load: Callable[[], Vocabulary],
    ) -> None:
        self._stop = StopSequences(stop_sequences) if stop_sequences else None
        self._length = (
            OutputLength(max_output_tokens, load) if max_output_tokens is not None else None
        )

    @property
    def ended(self) -> bool:
        """Whether the turn was ended here."""
        stages = (self._stop, self._length)
        return any(stage.ended for stage in stages if stage is not None)

    def needs_vocabulary(self, events: Iterable[Event]) -> bool:
        """Whether feeding these may count tokens: then have the vocabulary loaded before."""
        return self._length is not None and self._length.may_count(events)

    def feed(self, event: Event) -> list[Event]:
        return self.feed_all([event])

    def feed_all(self, events: list[Event]) -> list[Event]:
        """What the caller sees of these events; nothing after the end."""
        for stage in (self._stop, self._length):
            if stage is not None:
                events = [shown for event in events for shown in stage.feed(event)]
        return events


class StopSequences:
    """Ends the turn before the first stop sequence in the answer, wherever deltas part it.

    Held back is only the longest end of the text that a stop sequence may begin with; it is given
    back before anything that is no answer text. The sequence that is complete first wins, as if the
    text came character by character, so that deltas don't matter; of two, the longer one.
    """

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self.ended = False
        self._sequences = tuple(sorted(sequences, key=len, reverse=True))
        self._beginnings = re.compile("|".join({re.escape(s[0]) for s in sequences}))
        self._held = ""

    def feed(self, event: Event) -> list[Event]:
        """Contract: after `ended`, nothing."""
        if self.ended:
            return []
        if type(event) is TextDelta:
            if not self._held and self._beginnings.search(event.text) is None:
                return [event]
            return self._text(self._held + event.text)
        held, self._held = self._held, ""
        return [TextDelta(held), event] if held else [event]

    def _text(self, text: str) -> list[Event]:
        if match := self._first_match(text):
            self.ended = True
            at, sequence = match
            end = TurnEnd("stop", stop_sequence=sequence)
            return [TextDelta(text[:at]), end] if at else [end]
        border = self._may_begin(text)
        shown, self._held = text[:border], text[border:]
        return [TextDelta(shown)] if shown else []

    def _first_match(self, text: str) -> tuple[int, str] | None:
        found = [(at, s) for s in self._sequences if (at := text.find(s)) >= 0]
        return min(found, key=lambda match: match[0] + len(match[1]), default=None)

    def _may_begin(self, text: str) -> int:
        """Where the longest end of `text` begins that a stop sequence may begin with."""
        return min(_overlap(text, sequence) for sequence in self._sequences)


def _overlap(text: str, sequence: str) -> int:
    at = text.find(sequence[0], max(0, len(text) - len(sequence) + 1))
    while at >= 0 and not sequence.startswith(text[at:]):
        at = text.find(sequence[0], at + 1)
    return at if at >= 0 else len(text)


class OutputLength:
    """Ends the turn with `length` when more than `max_tokens` tokens would be shown.

    A token is at least one byte, so nothing is counted while bytes are within what is left. When
    they are not, everything up to the last border is counted for good, and what is left is fewer
    tokens for far fewer bytes: every text is counted about once, and only near the limit the last
    words are counted again with each delta.
    """

    def __init__(self, max_tokens: int, load: Callable[[], Vocabulary]) -> None:
        self.ended = False
        self._left = max_tokens  # less the tokens counted for good
        self._load = load
        self._uncounted = _Uncounted()

    def may_count(self, events: Iterable[Event]) -> bool:
        at_most_bytes = sum(4 * len(_written(event)) for event in events)
        return self._uncounted.size_bytes + at_most_bytes > self._left

    def feed(self, event: Event) -> list[Event]:
        """Contract: after `ended`, nothing."""
        if self.ended:
            return []
        written = _written(event)
        if not written:
            return [event]
        self._uncounted.add(event, written)
        if self._uncounted.size_bytes <= self._left:
            return [event]
        rest = written[: self._fitting(written, self._load())]
        if rest == written:
            return [event]
        self.ended = True
        return [*_cut(event, rest), TurnEnd("length")]

    def _fitting(self, newest: str, vocabulary: Vocabulary) -> int:
        """How many characters of the newest delta fit; counts what can be counted for good."""
        for text in self._uncounted.take_closed():
            self._left -= vocabulary.count(text)
        text = self._uncounted.open_text()
        before = len(text) - len(newest)
        border = last_border(text) or (len(text) if len(text) > _BORDERLESS_CHARACTERS else 0)
        settled = vocabulary.count(text[:border])
        if settled > self._left:
            return max(0, len(vocabulary.cut(text, self._left)) - before)
        self._left -= settled
        self._uncounted.keep_open(text[border:])
        return max(0, border + len(vocabulary.cut(text[border:], self._left)) - before)


# A text without any border (base64, one endless word) is parted after so many characters all the
# same, or counting it again and again would be quadratic; that costs at most a token each time.
_BORDERLESS_CHARACTERS = 1_000


class _Uncounted:
    """Shown text whose tokens aren't known: ended stretches of one kind, and the one that grows."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._closed: list[str] = []
        self._open: list[str] = []
        self._kind: tuple[type[Event], int] = (TextDelta, 0)

    def add(self, event: Event, written: str) -> None:
        kind = (type(event), event.index if type(event) is ToolCallDelta else 0)
        if kind != self._kind:
            self._kind = kind
            self._closed.append(self.open_text())
            self._open = []
        self._open.append(written)
        self.size_bytes += _size_bytes(written)

    def take_closed(self) -> list[str]:
        taken, self._closed = self._closed, []
        self.size_bytes -= sum(map(_size_bytes, taken))
        return taken

    def open_text(self) -> str:
        return "".join(self._open)

    def keep_open(self, text: str) -> None:
        """Only `text`, the end of the open stretch, is still uncounted; nothing is closed."""
        self._open = [text]
        self.size_bytes = _size_bytes(text)


def _written(event: Event) -> str:
    """What of an event counts."""
    if type(event) is TextDelta or type(event) is ReasoningDelta:
        return event.text
    return event.arguments if type(event) is ToolCallDelta else ""


def _cut(event: Event, rest: str) -> list[Event]:
    """What is shown of the event that doesn't fit."""
    if type(event) is ToolCallDelta:
        return [ToolCallDelta(event.index, rest)] if rest else []
    if type(event) is ReasoningDelta:
        return [ReasoningDelta(rest)] if rest else []
    return [TextDelta(rest)] if rest else []


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
