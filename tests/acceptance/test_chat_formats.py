"""`response_format`: JSON that is asked for, judged, mended once, and never shown when it is wrong."""

import json
from typing import Any

import openai
import pydantic
import pytest

from tests.fakes.chat import MODEL, answer_with, ask, assert_error, finish_of, text_of
from tests.fakes.stack import Stack

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
GOOD = '{"city": "Oslo", "days": 3}'
WRONG = '{"city": "Oslo", "days": 0}'


def wanted(*, strict: bool = True) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "trip", "strict": strict, "schema": SCHEMA},
    }


class Trip(pydantic.BaseModel):
    city: str
    days: int


@BOTH
def test_a_document_of_the_schema_is_passed_on_as_it_is(stack: Stack, stream: bool) -> None:
    answer_with(stack, say=GOOD)
    answer = ask(stack, response_format=wanted(), stream=stream)
    assert (text_of(answer), finish_of(answer)) == (GOOD, "stop")
    [prompt] = stack.sim.prompts()
    assert json.dumps(SCHEMA, separators=(",", ":")) in prompt


@BOTH
def test_a_fence_around_the_document_is_taken_off(stack: Stack, stream: bool) -> None:
    answer_with(stack, say=f"```json\n{GOOD}\n```")
    assert text_of(ask(stack, response_format=wanted(), stream=stream)) == GOOD


@BOTH
@pytest.mark.parametrize("first", [WRONG, "Oslo, three days.", '{"city": "Os'])
def test_a_wrong_document_is_asked_for_once_more(stack: Stack, first: str, stream: bool) -> None:
    answer_with(stack, {"say": first}, {"say": GOOD})
    answer = ask(stack, response_format=wanted(), stream=stream)
    assert text_of(answer) == GOOD, "nothing of the first one was shown"
    one, two = stack.sim.recorded("completions")
    assert one["email"] == two["email"]
    correction = stack.sim.prompts()[1].removeprefix(stack.sim.prompts()[0])
    assert json.dumps(first) in correction
    assert "tool" not in correction


@BOTH
def test_a_strict_document_that_stays_wrong_is_an_error(stack: Stack, stream: bool) -> None:
    answer_with(stack, {"say": WRONG}, {"say": WRONG})
    answer = ask(stack, response_format=wanted(), stream=stream)
    assert_error(answer, 502, "server_error", "upstream_error")
    assert len(stack.sim.prompts()) == 2


@BOTH
def test_a_lenient_document_that_stays_wrong_is_shown(stack: Stack, stream: bool) -> None:
    answer_with(stack, {"say": WRONG}, {"say": "Oslo."})
    answer = ask(stack, response_format=wanted(strict=False), stream=stream)
    assert text_of(answer) == "Oslo."


@BOTH
def test_a_json_object_is_any_object(stack: Stack, stream: bool) -> None:
    answer_with(stack, {"say": "[1, 2]"}, {"say": '{"a": [1, 2]}'})
    answer = ask(stack, response_format={"type": "json_object"}, stream=stream)
    assert text_of(answer) == '{"a": [1, 2]}'


def test_a_schema_that_is_none_is_the_callers_fault(stack: Stack) -> None:
    broken = wanted()
    broken["json_schema"]["schema"] = {"type": "objekt"}
    answer = ask(stack, response_format=broken)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("response_format")
    assert stack.sim.prompts() == []


def test_the_sdks_parse_gives_an_object(stack: Stack, client: openai.OpenAI) -> None:
    answer_with(stack, say=GOOD)
    parsed = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "where?"}], response_format=Trip
    )
    assert parsed.choices[0].message.parsed == Trip(city="Oslo", days=3)


@BOTH
def test_a_call_before_the_document_goes_through(stack: Stack, stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    answer_with(stack, say='<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>')
    answer = ask(stack, response_format=wanted(), tools=[tool], stream=stream)
    assert finish_of(answer) == "tool_calls"


@BOTH
def test_a_cut_document_says_that_it_was_cut(stack: Stack, stream: bool) -> None:
    answer_with(stack, say=json.dumps({"city": "word " * 300, "days": 1}))
    answer = ask(stack, response_format=wanted(), max_tokens=20, stream=stream)
    assert finish_of(answer) == "length"
