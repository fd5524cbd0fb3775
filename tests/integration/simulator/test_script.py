"""The grammar of directives."""

import base64

import msgspec
import pytest

from tests.simulator.script import ScriptError, find_action, read_directive, write_call

CALL = {"name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("inside", "fields"),
    [
        ("frames=64 delay_ms=20", {"frames": 64, "delay_ms": 20.0}),
        ("think=3", {"think": 3}),
        ('think="a thought"', {"think": "a thought"}),
        ("gzip done finish=false", {"gzip": True, "done": True, "finish": False}),
        ('say="two words"', {"say": "two words"}),
        ('say="quote \\" brackets ]] newline\\n"', {"say": 'quote " brackets ]] newline\n'}),
        ("say=one", {"say": "one"}),
        ("say=64", {"say": "64"}),
        ('say="null"', {"say": "null"}),
        ("say=null", {"say": "null"}),
        ("fail=RateLimited num=4", {"fail": "RateLimited", "num": 4}),
        ("style=crlf,bom", {"style": "crlf,bom"}),
        ("phase=none", {"phase": None}),
        ('{"say": "x", "args": {"a": [1]}}', {"say": "x", "args": {"a": [1]}}),
        ("", {}),
        ("  frames=1   cut=2  ", {"frames": 1, "cut": 2}),
    ],
)
def test_a_directive_is_read(inside: str, fields: dict[str, object]) -> None:
    action = read_directive(inside)
    for name, value in fields.items():
        assert getattr(action, name) == value


@pytest.mark.parametrize(
    "inside", ["bogus=1", "frames=many", "= 3", 'say="open', "{not json}", "style=purple", "frames"]
)
def test_what_cannot_be_read_is_an_error(inside: str) -> None:
    with pytest.raises(ScriptError):
        read_directive(inside)


def test_text_may_be_base64_of_either_alphabet() -> None:
    text = "<tool_call>\n{}\n</tool_call> ]] ??>>"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        packed = encode(text.encode()).decode().rstrip("=")
        action = find_action(f"please [[sim: say64={packed}]]")
        assert action is not None
        assert action.text == text


def test_the_last_directive_that_holds_counts() -> None:
    prompt = '[[sim: say=a]] [[sim: say=b]] [[sim: when="RESULT" say=c]]'
    assert find_action(prompt) == read_directive("say=b")
    after = find_action(prompt + " RESULT")
    assert after is not None
    assert after.say == "c"


def test_what_a_directive_says_is_not_what_when_looks_at() -> None:
    assert find_action('[[sim: when="x" say="x"]]') is None


def test_off_ends_what_an_earlier_turn_asked_for() -> None:
    assert find_action("user:[[sim: say=a]];user:bye [[sim: off]]") is None


def test_a_text_without_directive_has_no_action() -> None:
    assert find_action("plain [[1]] text [[sim without colon]]") is None


@pytest.mark.parametrize(
    "form", ["hermes", "naked", "fenced", "unclosed", "short_closer", "array", "parameters"]
)
def test_a_call_is_written_in_many_forms(form: str) -> None:
    written = write_call("f", {"a": 1}, form)
    at = written.index("{")
    shown = msgspec.json.decode(written[at : written.rindex("}") + 1])
    assert set(shown) == {"name", "parameters" if form == "parameters" else "arguments"}


def test_a_call_is_written_in_openai_form_with_arguments_as_text() -> None:
    written = write_call("f", {"a": 1}, "openai")
    shown = msgspec.json.decode(written[written.index("{") : written.rindex("}") + 1])
    assert shown["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_a_call_is_written_as_xml() -> None:
    written = write_call("f", {"city": "Oslo", "n": 2}, "xml")
    assert written == (
        "<tool_call>\n<function=f>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=n>\n2\n</parameter>\n</function>\n</tool_call>"
    )
    assert write_call("f", {}, "xml_naked").startswith("<function=f>")
