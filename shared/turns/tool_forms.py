"""The forms in which tool calls are written: the notation we ask for, and what is understood.

Writer (`prompt`, `tool_prompt`) and reader (`tool_reader`, `tool_call`) share these constants. What
Qwen models really write (protocol sheet 5.3 and 15.7):

| form     | begins with                    | one call is                                     |
|----------|--------------------------------|-------------------------------------------------|
| tagged   | `<tool_call>`                  | an object, several, or an array of them; or a   |
|          |                                | function; each with a fence around it, too      |
| function | `<function=NAME>`              | `<parameter=KEY>value</parameter>`…             |
|          |                                | `</function>`, or one object of arguments, or   |
|          |                                | a custom tool's text                            |
| naked    | `{` or `[` where a line begins | an object of nothing but the members below      |
| fenced   | a fence where a line begins    | tagged, function or naked                       |

| an object's member | spelt                                                                      |
|--------------------|----------------------------------------------------------------------------|
| name               | `name`, or `function` when it is a string                                  |
| arguments          | `arguments`, `parameters`, `args`, `input`: an object, `null`, `[]`, or a  |
|                    | string that holds the object                                               |
| both, one deeper   | `function`                                                                 |
| of no account      | `id`, `type`, `index`, `call_id`; in a tagged call anything else, too      |

| closer         | also                                                                           |
|----------------|--------------------------------------------------------------------------------|
| `</tool_call>` | `</tool_call`, `</tool`, `</tool_calls>`, at the answer's end `<tool_call>`;    |
|                | none, when the call is whole                                                   |
| `</function>`  | `</tool_call>` as above; none, when every required parameter is there          |
| `</parameter>` | none, before `</function>`                                                     |

Sans-IO. Knows spellings and what the caller declared; reads nothing.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from shared.chat.request import Tool, ToolChoice

CALL_OPENS: Final = "<tool_call>"
CALL_CLOSES: Final = "</tool_call>"
FUNCTION_CLOSES: Final = "</function>"
PARAMETER_CLOSES: Final = "</parameter>"
CUSTOM_PARAMETER: Final = "input"
THINK_OPENS: Final = "<think>"
THINK_CLOSES: Final = "</think>"
RESULT_OPENS: Final = "<tool_response"

NAME_MEMBERS: Final = frozenset({"name"})
ARGUMENTS_MEMBERS: Final = frozenset({"arguments", "parameters", "args", "input"})
FUNCTION_MEMBER: Final = "function"
IDLE_MEMBERS: Final = frozenset({"id", "type", "index", "call_id"})

# A fence that says itself that it holds a call.
CALL_FENCES: Final = frozenset({"tool_call", "tool_calls", "tool_code", "tool-call", "tool"})

# Words of the line before a fence that make what the fence holds an example.
ANNOUNCES_EXAMPLE: Final = re.compile(
    r"example|for instance|e\.g\.|such as|like (?:this|so|that)\b|looks? like|would|could"
    r"|syntax|notation|例|如下|格式|语法|写法",
    re.IGNORECASE,
)


def function_opening(name: str) -> str:
    return f"<function={name}>"


def parameter_opening(key: str) -> str:
    return f"<parameter={key}>"


# -- patterns of the reader; each is tried at a `<`

LONGEST_TAG: Final = 300
LOOKAHEAD_BLANKS: Final = 64

CALL_OPENING: Final = re.compile(r"<tool_calls?(?:>|(?=[\s{\[]))")
CALL_CLOSING: Final = re.compile(r"</tool(?:_calls?)?(?:>|(?![A-Za-z0-9_]))")
FUNCTION_OPENING: Final = re.compile(
    r"<function(?:[ \t]+name)?[ \t]*=[ \t]*[\"']?([^<>\"'\n]+?)[\"']?[ \t]*>"
)
PARAMETER_OPENING: Final = re.compile(
    r"<parameter(?:[ \t]+name)?[ \t]*=[ \t]*[\"']?([^<>\"'\n]+?)[\"']?[ \t]*>"
)


def _cut(tag: str, rest: str = "") -> re.Pattern[str]:
    """Matches what may still become the tag when more text comes, up to the end of the text."""
    pattern = rest
    for char in reversed(tag):
        pattern = f"{re.escape(char)}(?:{pattern})?"
    return re.compile(pattern + r"\Z")


_CUT_NAME = rf"[ \t=][^<>\n]{{0,{LONGEST_TAG}}}"
CUT_CALL_OPENING: Final = _cut("<tool_calls")
CUT_CALL_CLOSING: Final = _cut("</tool_calls")
CUT_FUNCTION_OPENING: Final = _cut("<function", _CUT_NAME)
CUT_FUNCTION_CLOSING: Final = _cut(FUNCTION_CLOSES[:-1])
CUT_PARAMETER_OPENING: Final = _cut("<parameter", _CUT_NAME)
CUT_PARAMETER_CLOSING: Final = _cut(PARAMETER_CLOSES[:-1])
CUT_THINK: Final = _cut(THINK_OPENS[:-1])
CUT_RESULT: Final = _cut(RESULT_OPENS[:-1])


# -- what the caller declared

Kind = Literal["text", "text or null", "value", "either"]
"""How a parameter of the function form is read: as it is; `null` or as it is; as JSON; as JSON when
it is some that the schema allows, else as it is."""


class DeclaredTool:
    """One tool as the reader needs it; its schema is looked into only when the XML form is used."""

    def __init__(self, tool: Tool) -> None:
        self.name = tool.name
        self.custom = tool.kind == "custom"
        self._raw = bytes(tool.schema)
        self._root: Mapping[str, Any] | None = None  # a JSON Schema: any shape

    def kind(self, key: str) -> Kind:
        """How the value of parameter `key` is read."""
        schema = self._schema
        properties = schema.get("properties")
        if isinstance(properties, dict) and key in properties:
            types = _types(properties[key], schema, 0)
        else:
            others = schema.get("additionalProperties")
            types = _types(others, schema, 0) if isinstance(others, dict) else _TEXT
        if types == _TEXT:
            return "text"
        if types == {"string", "null"}:
            return "text or null"
        return "either" if "string" in types else "value"

    def allows(self, key: str, value: object) -> bool:
        """Whether a JSON value that isn't a string is of a type the schema names for `key`."""
        properties = self._schema.get("properties")
        declared = properties.get(key, True) if isinstance(properties, dict) else True
        types = _types(declared, self._schema, 0)
        return bool(types & _types_of(value))

    @property
    def required(self) -> frozenset[str]:
        required = self._schema.get("required")
        names = required if isinstance(required, list) else []
        return frozenset(name for name in names if isinstance(name, str))

    @property
    def _schema(self) -> Mapping[str, Any]:
        if self._root is None:
            try:
                decoded = msgspec.json.decode(self._raw)
            except (msgspec.DecodeError, RecursionError):
                decoded = None
            self._root = decoded if isinstance(decoded, dict) else {}
            pointed = pointed_at(self._root, str(self._root.get("$ref", "")))
            if isinstance(pointed, dict):
                self._root = {**self._root, **pointed}
        return self._root


def declared_tools(tools: Iterable[Tool], choice: ToolChoice) -> dict[str, DeclaredTool]:
    """The tools that may be called under this choice, by name."""
    return {tool.name: DeclaredTool(tool) for tool in callable_tools(tools, choice)}


def callable_tools(tools: Iterable[Tool], choice: ToolChoice) -> list[Tool]:
    """None of them under `none`, one when it is named."""
    if choice.mode == "none":
        return []
    return [tool for tool in tools if choice.mode != "named" or tool.name == choice.name]


def pointed_at(root: object, reference: str) -> object | None:
    """What `#/$defs/Name` points at inside `root`; None when it points elsewhere or at nothing."""
    if not reference.startswith("#"):
        return None
    found = root
    for step in reference[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


_ALL_TYPES: Final = frozenset({"string", "number", "boolean", "null", "object", "array"})
_TEXT: Final = frozenset({"string"})
_DEEPEST: Final = 8


def _types(schema: object, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    """The JSON types a schema lets through; `integer` counts as number."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return _ALL_TYPES
    types: frozenset[str] = _ALL_TYPES
    if isinstance(reference := schema.get("$ref"), str):
        types &= _types(pointed_at(root, reference), root, depth + 1)
    if "const" in schema:
        types &= _types_of(schema["const"])
    if isinstance(values := schema.get("enum"), list):
        types &= frozenset[str]().union(*map(_types_of, values))
    if named := schema.get("type"):
        names = named if isinstance(named, list) else [named]
        types &= frozenset("number" if name == "integer" else str(name) for name in names)
    for word in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(word), list) and options:
            types &= frozenset().union(*(_types(each, root, depth + 1) for each in options))
    if isinstance(parts := schema.get("allOf"), list):
        for part in parts:
            types &= _types(part, root, depth + 1)
    if types == _ALL_TYPES and "properties" in schema:
        return frozenset({"object"})
    if types == _ALL_TYPES and "items" in schema:
        return frozenset({"array"})
    return types or _ALL_TYPES


def _types_of(value: object) -> frozenset[str]:
    match value:
        case bool():
            return frozenset({"boolean"})
        case str():
            return frozenset({"string"})
        case int() | float():
            return frozenset({"number"})
        case None:
            return frozenset({"null"})
        case list():
            return frozenset({"array"})
        case _:
            return frozenset({"object"})
