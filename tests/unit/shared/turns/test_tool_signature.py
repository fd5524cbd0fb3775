"""Schemas as the model reads them: shorter, and nothing that decides about a value is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.turns.tool_signature import tidy, write_signature


def signature(*required: str, defs: dict[str, Any] | None = None, **properties: Any) -> str:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if defs:
        schema["$defs"] = defs
    return written(schema)


def written(schema: Any) -> str:
    return write_signature(json.dumps(schema).encode())


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (STRING, "- a"),
        ({}, "- a: any"),
        (True, "- a: any"),
        (False, "- a: never"),
        ({"type": "integer"}, "- a: int"),
        ({"type": "number"}, "- a: number"),
        ({"type": "boolean"}, "- a: bool"),
        ({"type": "null"}, "- a: null"),
        ({"type": "object"}, "- a: object"),
        ({"type": "array"}, "- a: any[]"),
        ({"type": ["string", "null"]}, "- a: string|null"),
        ({"type": "string", "nullable": True}, "- a: string|null"),
        ({"enum": ["x", "y", 3, None]}, '- a: "x"|"y"|3|null'),
        ({"const": "x"}, '- a: "x"'),
        ({"type": "array", "items": STRING}, "- a: string[]"),
        ({"type": "array", "items": {"enum": ["x", "y"]}}, '- a: ("x"|"y")[]'),
        ({"type": "array", "items": {"type": "array", "items": STRING}}, "- a: string[][]"),
        ({"anyOf": [STRING, {"type": "integer"}]}, "- a: string|int"),
        ({"oneOf": [STRING, {"type": "array", "items": STRING}]}, "- a: string|string[]"),
        ({"allOf": [STRING, {"minLength": 2}]}, "- a: string & string(≥2 chars)"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, "- a: int(1..9)"),
        ({"type": "number", "exclusiveMinimum": 0}, "- a: number(>0)"),
        ({"type": "integer", "multipleOf": 5}, "- a: int(multiple of 5)"),
        ({"type": "string", "format": "date-time"}, "- a: string(date-time)"),
        ({"type": "string", "pattern": "^a+$", "maxLength": 5}, "- a: string(≤5 chars, /^a+$/)"),
        ({"type": "array", "items": STRING, "minItems": 1}, "- a: string[](≥1 items)"),
        ({"type": "array", "items": STRING, "uniqueItems": True}, "- a: string[](unique)"),
        ({"prefixItems": [STRING, {"type": "integer"}]}, "- a: [string, int]"),
        (
            {"type": "array", "prefixItems": [STRING], "minItems": 1, "maxItems": 1},
            "- a: [string]",
        ),
        ({"prefixItems": [STRING], "items": {"type": "integer"}}, "- a: [string, ...int]"),
        ({"type": "object", "additionalProperties": STRING}, "- a: {[key]: string}"),
        ({"type": "object", "additionalProperties": True}, "- a: {[key]: any}"),
        (
            {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}},
            "- a: {[/^x-/]: int}",
        ),
        ({"type": "string", "not": {"const": ""}}, '- a: string & schema {"not":{"const":""}}'),
        ({"$ref": "https://example.org/s.json"}, '- a: schema {"$ref":"https://example.org/s.json"}'),
        ({"minimum": 3}, "- a: number(≥3)"),
        ({"$ref": "#/$defs/S", "minLength": 2}, "- a: string & string(≥2 chars)"),
    ],
)  # fmt: skip
def test_a_required_parameter_is_written_as(schema: Any, expected: str) -> None:
    assert signature("a", a=schema, defs={"S": STRING}) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (STRING, "- a?"),
        ({"type": "string", "default": None}, "- a?"),
        ({"type": "integer", "default": 3}, "- a?: int = 3"),
        ({"type": "string", "default": "x"}, '- a? = "x"'),
        ({"type": "boolean", "default": False, "description": "Why"}, "- a?: bool = false // Why"),
        ({"anyOf": [STRING, {"type": "null"}], "default": None}, "- a?"),
        ({"type": ["integer", "null"], "default": None}, "- a?: int"),
        ({"type": ["integer", "boolean", "null"], "default": None}, "- a?: int|bool"),
        (
            {"anyOf": [STRING, {"type": "integer"}, {"type": "null"}], "default": None},
            "- a?: string|int",
        ),
        ({"anyOf": [STRING, {"type": "null"}]}, "- a?: string|null"),
        ({"anyOf": [STRING, {"type": "null"}], "default": "x"}, '- a?: string|null = "x"'),
    ],
)
def test_an_optional_parameter_is_written_as(schema: Any, expected: str) -> None:
    assert signature(a=schema) == expected


def test_a_required_parameter_may_need_its_null_all_the_same() -> None:
    """Strict mode has every parameter required; null is how one is left out there."""
    nullable = {"anyOf": [STRING, {"type": "null"}], "default": None}
    assert signature("a", a=nullable) == "- a: string|null = null"


def test_descriptions_are_kept_everywhere() -> None:
    schema = {
        "type": "object",
        "description": "All of it.",
        "properties": {
            "a": {"type": "string", "description": "One\n  two"},
            "b": {
                "type": "object",
                "description": "Three",
                "properties": {"c": {"type": "integer", "description": "Four"}},
                "required": ["c"],
            },
            "d": {"anyOf": [{"type": "string", "description": "Five"}, {"type": "integer"}]},
            "e": {"type": "array", "items": {"type": "string", "description": "Six"}},
            "f": {
                "type": "array",
                "minItems": 1,
                "items": {"properties": {"g": {"description": "Seven"}}, "description": "Eight"},
            },
        },
        "required": ["a", "b", "d", "e", "f"],
    }
    text = written(schema)
    numbers = ("One", "two", "Three", "Four", "Five", "Six", "Seven", "Eight")
    for said in ("All of it.", *numbers):
        assert text.count(said) == 1, said


def test_nested_objects_are_lists_below_their_parameter() -> None:
    edits = {
        "type": "array",
        "description": "In this order",
        "items": {
            "type": "object",
            "properties": {"old": STRING, "new": STRING, "where": {"type": "integer"}},
            "required": ["old", "new"],
            "additionalProperties": False,
        },
    }
    at = {"type": "object", "properties": {"line": {"type": "integer"}}, "required": ["line"]}
    assert signature("edits", edits=edits, at=at) == (
        "- edits: {…}[] // In this order\n"
        "  - old\n"
        "  - new\n"
        "  - where?: int\n"
        "- at?: {…}\n"
        "  - line: int"
    )


def test_objects_inside_a_union_are_written_in_a_line() -> None:
    circle = {"properties": {"r": {"type": "number"}, "note": STRING}, "required": ["r"]}
    text = {"properties": {"kind": {"const": "text"}}, "required": ["kind"]}
    assert signature("shape", shape={"oneOf": [circle, text]}) == (
        '- shape: {r: number, note?}|{kind: "text"}'
    )


def test_a_reference_used_once_stands_in_its_place() -> None:
    defs = {"Mode": {"type": "string", "enum": ["r", "w"], "description": "How"}}
    assert signature("mode", mode={"$ref": "#/$defs/Mode"}, defs=defs) == '- mode: "r"|"w" // How'


def test_what_stands_beside_a_reference_wins() -> None:
    defs = {"Mode": {"enum": ["r", "w"], "description": "How"}}
    mode = {"$ref": "#/$defs/Mode", "description": "Which", "default": "r"}
    assert signature(mode=mode, defs=defs) == '- mode?: "r"|"w" = "r" // Which'


def test_a_reference_used_twice_is_told_once() -> None:
    defs = {"Point": {"properties": {"x": {"type": "number"}}, "required": ["x"]}}
    point = {"$ref": "#/$defs/Point"}
    assert signature("a", "b", a=point, b={"type": "array", "items": point}, defs=defs) == (
        "- a: Point\n- b: Point[]\nPoint = {…}\n  - x: number"
    )


def test_a_recursive_schema_ends() -> None:
    node = {"properties": {"next": {"$ref": "#/$defs/Node"}, "value": STRING}}
    root = {"properties": {"again": {"$ref": "#"}, "name": STRING}, "required": ["name"]}
    assert signature("node", node={"$ref": "#/$defs/Node"}, defs={"Node": node}) == (
        "- node: Node\nNode = {…}\n  - next?: Node\n  - value?"
    )
    assert written(root) == "- again?: Arguments\n- name\nArguments = {…}\n" + (
        "  - again?: Arguments\n  - name"
    )


def test_definitions_of_one_name_stay_two() -> None:
    schema = {
        "properties": {name: {"$ref": f"#/{where}/T"} for name, where in _WHERE.items()},
        "$defs": {"T": {"type": "integer"}},
        "definitions": {"T": {"type": "boolean"}},
        "required": list(_WHERE),
    }
    assert written(schema) == "- a: T\n- b: T\n- c: T_\n- d: T_\nT = int\nT_ = bool"


_WHERE = {"a": "$defs", "b": "$defs", "c": "definitions", "d": "definitions"}


def test_a_root_that_is_a_reference_is_followed() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"n": STRING}}}}
    assert written(schema) == "- n?"


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {}, "additionalProperties": False},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": []},
    ],
)
def test_a_tool_that_takes_nothing_has_no_lines(schema: Any) -> None:
    assert written(schema) == ""


def test_what_says_nothing_to_a_model_is_left_out() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "x",
        "title": "ReadFileArguments",
        "type": "object",
        "additionalProperties": False,
        "properties": {"file_path": {"type": "string", "title": "File Path"}},
        "required": ["file_path"],
    }
    assert written(schema) == "- file_path"
    assert signature("a", a={"type": "string", "title": "Where to"}) == "- a // Where to"


def test_examples_and_deprecation_are_told() -> None:
    schema = {"type": "string", "description": "City.", "examples": ["Oslo"], "deprecated": True}
    assert signature("a", a=schema) == '- a // (deprecated) City. E.g. "Oslo"'


def test_names_that_are_no_words_are_quoted() -> None:
    assert signature("a b", **{"a b": STRING, "c-d.e": STRING}) == '- "a b"\n- c-d.e?'


def test_a_required_name_that_is_not_described_is_told() -> None:
    assert signature("a", "b", a=STRING) == "- a\n- b: any"


def test_open_objects_say_so() -> None:
    schema = {"properties": {"a": STRING}, "additionalProperties": {"type": "integer"}}
    assert written(schema) == "- a?\n- [key]: int"


def test_a_root_that_is_more_than_an_object_is_a_type() -> None:
    schema = {"oneOf": [{"properties": {"a": STRING}}, {"properties": {"b": STRING}}]}
    assert written(schema) == "arguments: {a?}|{b?}"
    assert written({"type": "string"}) == "arguments: string"
    assert written([1]) == "arguments: [1]"


@pytest.mark.parametrize("text", [b"no json", b'{"type": "object"', b"\xff"])
def test_a_schema_that_is_no_json_stands_as_it_is(text: bytes) -> None:
    assert write_signature(text) == text.decode("utf-8", "replace")


def test_a_schema_of_great_depth_stands_as_it_is() -> None:
    deep = b'{"items":' * 5_000 + b"{}" + b"}" * 5_000
    assert write_signature(deep)


words = st.sampled_from(
    [
        "type",
        "items",
        "properties",
        "$ref",
        "anyOf",
        "enum",
        "required",
        "default",
        "minimum",
        "description",
        "title",
        "prefixItems",
        "allOf",
        "additionalProperties",
        "const",
        "examples",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["string", "object", "array", "#", "#/items", "#/properties/a", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.sampled_from(["a", "b"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_any_json_is_written_somehow(schema: Any) -> None:
    """A caller's schema is whatever it is: the tool is described all the same."""
    assert isinstance(written(schema), str)


def test_a_description_is_tidied() -> None:
    assert tidy("  One.\n\n\n\n    Two.  \n    Three.\n") == "One.\n\nTwo.\nThree."
    assert tidy(None) == ""
    assert tidy(7) == ""
