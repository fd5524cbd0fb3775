"""How a parameter of the function form is read: by what its schema lets through."""

import json
from typing import Any

import msgspec
import pytest

from shared.chat.request import Tool, ToolChoice
from shared.turns.tool_forms import DeclaredTool, callable_tools, declared_tools, pointed_at

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NULL = {"type": "null"}


def declared(schema: Any) -> DeclaredTool:
    return DeclaredTool(Tool("f", schema=msgspec.Raw(json.dumps(schema).encode())))


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        (STRING, "text"),
        ({"enum": ["a", "b"]}, "text"),
        ({"const": "a"}, "text"),
        ({"type": "string", "format": "date"}, "text"),
        ({"allOf": [STRING, {"maxLength": 3}]}, "text"),
        ({"$ref": "#/$defs/S"}, "text"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"anyOf": [STRING, NULL]}, "text or null"),
        ({"enum": ["a", None]}, "text or null"),
        (INTEGER, "value"),
        ({"type": "number"}, "value"),
        ({"type": "boolean"}, "value"),
        ({"type": "object"}, "value"),
        ({"properties": {}}, "value"),
        ({"items": STRING}, "value"),
        ({"enum": [1, 2.5]}, "value"),
        ({"enum": [True, None]}, "value"),
        ({"const": {"a": 1}}, "value"),
        ({"const": [1]}, "value"),
        ({"type": ["integer", "string"]}, "either"),
        ({"oneOf": [STRING, {"items": STRING, "type": "array"}]}, "either"),
        ({}, "either"),
        (True, "either"),
        ({"$ref": "#/nowhere"}, "either"),
        ({"$ref": "#/$defs/Loop"}, "either"),
        ({"allOf": [STRING, INTEGER]}, "either"),
    ],
)
def test_a_parameter_is_read_as(schema: Any, kind: str) -> None:
    defs = {"S": STRING, "Loop": {"$ref": "#/$defs/Loop"}}
    tool = declared({"properties": {"a": schema}, "$defs": defs})
    assert tool.kind("a") == kind


def test_a_parameter_nobody_declared_is_text_unless_its_type_is_declared() -> None:
    assert declared({"properties": {"a": INTEGER}}).kind("b") == "text"
    assert declared({"additionalProperties": INTEGER}).kind("b") == "value"
    assert declared({"additionalProperties": True}).kind("b") == "text"


@pytest.mark.parametrize("schema", [[], "x", None, 3, {"properties": []}, {"required": {}}])
def test_a_schema_that_is_none_makes_every_parameter_text(schema: Any) -> None:
    tool = declared(schema)
    assert tool.kind("a") == "text"
    assert tool.required == frozenset()
    assert tool.allows("a", 3)


def test_a_schema_that_is_no_json_makes_every_parameter_text() -> None:
    assert DeclaredTool(Tool("f", schema=msgspec.Raw(b"{"))).kind("a") == "text"


def test_what_a_value_may_be_follows_its_schema() -> None:
    tool = declared({"properties": {"a": {"type": ["integer", "string"]}}, "required": ["a", 3]})
    assert tool.allows("a", 3)
    assert not tool.allows("a", True)
    assert not tool.allows("a", None)
    assert tool.required == {"a"}


def test_which_tools_may_be_called_follows_the_choice() -> None:
    tools = (Tool("f"), Tool("g"))
    assert callable_tools(tools, ToolChoice("none")) == []
    assert callable_tools(tools, ToolChoice("auto")) == list(tools)
    assert callable_tools(tools, ToolChoice("required")) == list(tools)
    assert list(declared_tools(tools, ToolChoice("named", "g"))) == ["g"]


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("#", {"a/b": {"~": [1, {"c": 2}]}}),
        ("#/a~1b/~0/1/c", 2),
        ("#/a~1b/~0/9", None),
        ("#/a~1b/~0/x", None),
        ("#/a~1b/~0/0/d", None),
        ("other.json#/a", None),
    ],
)
def test_a_pointer_finds_what_it_names(reference: str, found: object) -> None:
    assert pointed_at({"a/b": {"~": [1, {"c": 2}]}}, reference) == found
