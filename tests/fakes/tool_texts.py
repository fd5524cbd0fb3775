"""The corpus of tool texts: what a model writes, and what must be read out of it.

A file of `tests/golden/tools` is a list of cases:

    === what names the case among those of its file
    @ choice required          (none, or several: choice · parallel no · repeat · silent …)
    <<<
    the text of the answer; `as json`: one JSON string
    >>>
    text "I look."
    call get_weather {"city": "Oslo"}

Expected are the events folded, one a line: `text`, `reasoning` and `free NAME` (a custom tool) with
a JSON string, `call NAME` with the arguments as they come (as a JSON string where they aren't one
printable line), `broken NAME` with what went out of a call that never ended; then `end`, `failed` or
`fault` where it isn't what follows from the others.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shared.chat.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
)
from shared.chat.request import Tool, ToolChoice
from shared.turns.tool_reader import ToolReader

FOLDER = Path(__file__).parent.parent / "golden" / "tools"


class ToolText(msgspec.Struct, frozen=True):
    name: str
    text: str
    expected: tuple[str, ...]
    choice: ToolChoice = ToolChoice()
    parallel: bool = True
    repeat: bool = False
    silent: bool = False

    def reader(self) -> ToolReader:
        return ToolReader(
            TOOLS,
            choice=self.choice,
            parallel=self.parallel,
            call_id=lambda index: f"call_{index}",
            repeat=self.repeat,
            silent=self.silent,
        )

    def read(self, pieces: Iterable[str]) -> tuple[str, ...]:
        return folded(*events_of(self.reader(), pieces))


def corpus() -> list[ToolText]:
    return [case for file in sorted(FOLDER.glob("*.txt")) for case in read_cases(file)]


def read_cases(file: Path) -> list[ToolText]:
    blocks = file.read_text().split("\n=== ")[1:]
    return [_case(f"{file.stem}: {block}") for block in blocks]


def _case(block: str) -> ToolText:
    head, _, rest = block.partition("\n<<<\n")
    text, _, expected = rest.partition("\n>>>\n")
    name, *options = head.split("\n")
    values = dict(option.removeprefix("@ ").partition(" ")[::2] for option in options if option)
    mode, _, named = values.get("choice", "auto").partition(" ")
    return ToolText(
        name=name,
        text=json.loads(text) if "as" in values else text,
        expected=tuple(line for line in expected.split("\n") if line and line[0] != "#"),
        choice=msgspec.convert({"mode": mode, "name": named}, ToolChoice),
        parallel=values.get("parallel") != "no",
        repeat="repeat" in values,
        silent="silent" in values,
    )


def events_of(reader: ToolReader, pieces: Iterable[str]) -> tuple[list[Event], ToolReader]:
    """Every event the reader makes of an answer that comes in these pieces and ends well."""
    events: list[Event] = []
    for piece in pieces:
        events += reader.feed_all([TextDelta(piece)])
    return events + reader.feed_all([TurnEnd("stop")]), reader


def folded(events: Sequence[Event], reader: ToolReader) -> tuple[str, ...]:
    """The events as the corpus writes them; asserts that they are balanced and end once."""
    lines: list[list[str]] = []
    calls = 0
    open_call = False
    end = ""

    def add(kind: str, text: str) -> None:
        assert not open_call, "something else between a call's start and its end"
        if lines and lines[-1][0] == kind:
            lines[-1][1] += text
        else:
            lines.append([kind, text])

    for event in events:
        assert not end, "an event behind the end"
        match event:
            case TextDelta(text):
                add("text", text)
            case ReasoningDelta(text):
                add("reasoning", text)
            case ToolCallStart(index, call_id, name, custom):
                assert (index, call_id, open_call) == (calls, f"call_{calls}", False)
                open_call = True
                lines.append([f"free {name}" if custom else f"call {name}", ""])
            case ToolCallDelta(index, arguments):
                assert (index, open_call) == (calls, True)
                lines[-1][1] += arguments
            case ToolCallEnd(index):
                assert (index, open_call) == (calls, True)
                open_call = False
                calls += 1
                if lines[-1][0].startswith("call "):
                    assert isinstance(msgspec.json.decode(lines[-1][1]), dict)
                lines.append(["", ""])  # two calls of one tool stay two
            case TurnEnd(reason):
                end = f"end {reason}"
            case TurnFailed():
                end = "failed"
            case _:
                raise AssertionError(event)
    if open_call:
        assert end == "failed", "a call that never ended"
        lines[-1][0] = "broken " + lines[-1][0].partition(" ")[2]
    if reader.fault is not None:
        assert not end, "a fault and an end"
        end = f"fault {reader.fault.kind} {reader.fault.name}".strip()
    return (*(_line(*line) for line in lines if line[0]), *_unusual(end, calls))


def _line(kind: str, text: str) -> str:
    as_it_is = kind.startswith("call ") and text.isprintable()
    return f"{kind} {text if as_it_is else json.dumps(text, ensure_ascii=False)}"


def _unusual(end: str, calls: int) -> tuple[str, ...]:
    return () if end == ("end tool_calls" if calls else "end stop") else (end,)


def tool(name: str, *required: str, **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(name, schema=msgspec.Raw(msgspec.json.encode(schema)))


STRING = {"type": "string"}

TOOLS = (
    tool(
        "get_weather",
        "city",
        city=STRING,
        days={"type": "integer"},
        units={"enum": ["C", "F"]},
        metric={"type": "boolean"},
    ),
    tool("write_file", "path", "content", path=STRING, content=STRING),
    tool(
        "run",
        "command",
        command=STRING,
        timeout={"type": "number"},
        env={"type": "object", "additionalProperties": STRING},
        args={"type": "array", "items": STRING},
    ),
    tool(
        "note",
        text={"type": ["string", "null"]},
        level={"anyOf": [{"type": "integer"}, STRING]},
        meta={},
        edits={"type": "array", "items": {"type": "object"}},
    ),
    tool("ping"),
    Tool("mcp__files.read:v2", schema=msgspec.Raw(b'{"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"n": {"type": "integer"}}}}}')),
    Tool("apply_patch", kind="custom"),
)  # fmt: skip
