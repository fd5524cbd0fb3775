"""The stage of `response_format`: the answer's text is one JSON document, or there is no answer.

A document can be judged only when it is whole, so text is held back until the turn ends; reasoning
goes on as it comes. A fence around the document is taken off, nothing else is ever changed. A
document that is none, or not the schema's, is a `fault`: the driver lets the model write it again,
once. After that a strict format is an error, and a lenient one shows what the model wrote.

With tools an answer may be calls instead: then its text is let through as it is.
"""

import re

import msgspec

from shared.chat.events import Event, TextDelta, ToolCallStart, TurnEnd, TurnFailed
from shared.chat.json_schema import compile_schema
from shared.chat.request import OutputFormat
from shared.errors import UnusableAnswer
from shared.turns.fault import Fault

_FENCED = re.compile(r"\s*```[a-zA-Z]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)


class JsonOutput:
    """`feed_all` events; when `fault` is set, the answer is to be written again.

    Args:
        repeat: this is the second time; there is no third.

    Attributes:
        called: the answer is tool calls; its text isn't looked at, and shown.
    """

    def __init__(self, wanted: OutputFormat, *, repeat: bool = False) -> None:
        self.fault: Fault | None = None
        self._wanted = wanted
        self._repeat = repeat
        self._held: list[str] = []
        self.called = False

    def feed_all(self, events: list[Event]) -> list[Event]:
        """Contract: after `fault`, nothing."""
        passed: list[Event] = []
        for event in events:
            if self.fault is not None:
                break
            passed += self._feed(event)
        return passed

    def _feed(self, event: Event) -> list[Event]:
        if type(event) is TextDelta and not self.called:
            self._held.append(event.text)
            return []
        if type(event) is ToolCallStart and not self.called:
            self.called = True
            return [*self._let_go("".join(self._held)), event]
        if type(event) is TurnEnd and not self.called:
            return self._judge(event)
        return [event]

    def _judge(self, end: TurnEnd) -> list[Event]:
        written = "".join(self._held)
        document = unfenced(written)
        reasons = self._reasons_against(document)
        if not reasons:
            return [*self._let_go(document), end]
        if end.reason == "stop" and not self._repeat:
            self.fault = Fault("format", text=written, reasons=tuple(reasons))
            return []
        if self._wanted.strict and end.reason == "stop":
            return [TurnFailed(UnusableAnswer(f"The model's answer is not {_asked(self)}"))]
        return [*self._let_go(written), end]

    def _reasons_against(self, document: str) -> list[str]:
        try:
            decoded = msgspec.json.decode(document.encode())
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            return [f"it is not one JSON document: {error}"]
        if self._wanted.schema is None:
            return [] if isinstance(decoded, dict) else ["it is not a JSON object"]
        schema = compile_schema(bytes(self._wanted.schema), param="response_format")
        return schema.reasons_against(decoded)

    def _let_go(self, text: str) -> list[Event]:
        self._held = []
        return [TextDelta(text)] if text else []


def unfenced(text: str) -> str:
    """The document inside a Markdown fence around the whole text; else the text, trimmed."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1].strip() if fenced else text.strip()


def _asked(stage: JsonOutput) -> str:
    return "the JSON it was asked for" if stage._wanted.schema else "a JSON object"
