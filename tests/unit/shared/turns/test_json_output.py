"""The answer's text is the JSON that was asked for, or it is written again, or there is none."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from shared.chat.request import ChatRequest, Message, OutputFormat, TextPart, Tool
from shared.errors import UpstreamSilent
from shared.turns.correction import write_correction
from shared.turns.fault import Fault
from shared.turns.format_prompt import JSON_ALONE, describe_format
from shared.turns.json_output import JsonOutput, unfenced
from shared.turns.prompt import write_prompt

ANY_OBJECT = OutputFormat()
SCHEMA = (
    b'{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],'
    b' "additionalProperties": false}'
)
WANTED = OutputFormat(msgspec.Raw(SCHEMA), "answer")
STRICT = OutputFormat(msgspec.Raw(SCHEMA), "answer", strict=True)
END = TurnEnd("stop")


def run(stage: JsonOutput, *events: Event) -> list[Event]:
    return stage.feed_all(list(events))


@given(st.sets(st.integers(0, 20)))
def test_a_document_comes_whole_and_last_however_it_is_cut(cuts: set[int]) -> None:
    document = '{"n": 1}'
    borders = [0, *sorted(cut for cut in cuts if cut < len(document)), len(document)]
    pieces = [TextDelta(document[start:end]) for start, end in pairwise(borders)]
    stage = JsonOutput(WANTED)
    assert run(stage, *pieces, END) == [TextDelta(document), END]
    assert stage.fault is None


def test_reasoning_goes_on_as_it_comes() -> None:
    stage = JsonOutput(WANTED)
    assert run(stage, ReasoningDelta("hm"), TextDelta('{"n"')) == [ReasoningDelta("hm")]


@pytest.mark.parametrize(
    "text",
    [
        '{"n": 1}',
        ' \n{"n": 1}\n',
        '```json\n{"n": 1}\n```',
        '```\n{"n": 1}\n```\n',
        '```JSON\r\n{"n": 1}\r\n```',
    ],
)
def test_a_fence_around_the_document_is_taken_off(text: str) -> None:
    assert unfenced(text) == '{"n": 1}'
    assert run(JsonOutput(WANTED), TextDelta(text), END) == [TextDelta('{"n": 1}'), END]


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x, max_size=3)))
def test_what_is_one_document_is_never_changed(value: object) -> None:
    text = msgspec.json.encode({"a": value}).decode()
    assert run(JsonOutput(ANY_OBJECT), TextDelta(text), END) == [TextDelta(text), END]


@pytest.mark.parametrize(
    ("wanted", "text", "reason"),
    [
        (WANTED, "Sure!", "not one JSON document"),
        (WANTED, 'Here:\n```json\n{"n": 1}\n```', "not one JSON document"),
        (WANTED, '{"n": 1', "not one JSON document"),
        (WANTED, "", "not one JSON document"),
        (WANTED, '"\ud800"', "not one JSON document"),
        (WANTED, '{"n": "1"}', "integer"),
        (WANTED, "{}", "required"),
        (WANTED, '{"n": 1, "m": 2}', "m"),
        (ANY_OBJECT, "[1]", "not a JSON object"),
    ],
)
def test_what_was_not_asked_for_is_a_fault_and_nothing_of_it_is_shown(
    wanted: OutputFormat, text: str, reason: str
) -> None:
    stage = JsonOutput(wanted)
    assert run(stage, TextDelta(text), END, TextDelta("more")) == []
    assert stage.fault is not None
    assert (stage.fault.kind, stage.fault.text) == ("format", text)
    assert reason in " ".join(stage.fault.reasons)


def test_the_second_time_a_lenient_format_shows_what_was_written() -> None:
    stage = JsonOutput(WANTED, repeat=True)
    assert run(stage, TextDelta(" Sure! "), END) == [TextDelta(" Sure! "), END]
    assert stage.fault is None


@pytest.mark.parametrize("wanted", [STRICT, OutputFormat(strict=True)])
def test_the_second_time_a_strict_format_is_an_error(wanted: OutputFormat) -> None:
    (failed,) = run(JsonOutput(wanted, repeat=True), TextDelta("Sure!"), END)
    assert isinstance(failed, TurnFailed)
    assert "is not" in failed.error.message


def test_an_answer_that_ended_for_another_reason_is_shown_as_it_is() -> None:
    end = TurnEnd("content_filter")
    assert run(JsonOutput(STRICT), TextDelta('{"n'), end) == [TextDelta('{"n'), end]
    assert run(JsonOutput(STRICT), end) == [end]


def test_calls_instead_of_a_document_let_the_text_through() -> None:
    call: list[Event] = [ToolCallStart(0, "c", "f"), ToolCallDelta(0, "{}"), ToolCallEnd(0)]
    stage = JsonOutput(STRICT)
    end = TurnEnd("tool_calls")
    assert run(stage, TextDelta("I look."), *call, TextDelta("Now."), end) == [
        TextDelta("I look."),
        *call,
        TextDelta("Now."),
        end,
    ]
    assert stage.called


def test_a_failure_passes() -> None:
    failed = TurnFailed(UpstreamSilent("The upstream fell silent"))
    assert run(JsonOutput(STRICT), TextDelta('{"n'), failed) == [failed]


# -- what the model is told


def request(wanted: OutputFormat | None, *tools: Tool) -> ChatRequest:
    messages = (Message("user", (TextPart("hi"),)),)
    return ChatRequest(model="m", messages=messages, output_format=wanted, tools=tools)


def test_the_schema_stands_in_the_prompt_as_the_caller_wrote_it() -> None:
    assert describe_format(request(None)) == ""
    told = describe_format(request(WANTED))
    assert told.startswith(f"# Format\n{JSON_ALONE}")
    assert told.endswith(SCHEMA.decode())
    assert told in write_prompt(request(WANTED))


def test_an_object_of_any_kind_needs_no_schema() -> None:
    assert describe_format(request(ANY_OBJECT)).endswith("It is a JSON object.")


def test_beside_tools_the_format_is_that_of_answers_alone() -> None:
    assert "A message that calls tools isn't bound by this." in describe_format(
        request(WANTED, Tool("f"))
    )


def test_the_correction_gives_the_reasons() -> None:
    fault = Fault("format", text="Sure!", reasons=('"n" is required', "x"))
    written = write_correction(request(WANTED), fault, "")
    assert 'was "Sure!", but "n" is required; x. Write the message again.' in written
    assert written.endswith(JSON_ALONE)


def test_the_correction_says_which_calls_were_good() -> None:
    fault = Fault("malformed", text="<tool_call>{")
    written = write_correction(request(None, Tool("f")), fault, "", calls_taken=2)
    assert "Its first 2 tool calls were good: don't write those again." in written
