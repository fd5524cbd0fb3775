"""Writes a JSON Schema as a short typed signature, which a model reads as well for a third of the
tokens. Sans-IO.

    {"type": "object", "properties": {                        - path // Absolute path
       "path": {"type": "string", "description":              - lines?: int(1..2000) = 200
                "Absolute path"},                    →        - mode: "text"|"binary"
       "lines": {"type": "integer", "minimum": 1,             - edits: {…}[] // In this order
                 "maximum": 2000, "default": 200},              - old: string
       …                                                        - new

Nothing that decides whether a value is valid is left out: what has no short spelling (`not`, `if`,
`dependentRequired` …) stands as JSON behind the type. Left out is what says nothing to a model:
`$schema`, `$id`, `$comment`, `additionalProperties: false`, titles that repeat the name, and that
what may be left out and is null then may be written as null.

| schema                                 | signature                                           |
|----------------------------------------|-----------------------------------------------------|
| not in `required`                      | `name?`                                             |
| a plain string                         | no type at all                                      |
| `default`                              | ` = value`                                          |
| `enum`, `const`                        | `"a"|"b"|3`                                         |
| `anyOf`, `oneOf`, several types        | `A|B`                                               |
| `allOf`                                | `A & B`                                             |
| `items`, `prefixItems`                 | `T[]`, `[A, B, ...T]`                               |
| bounds, `format`, `pattern`            | `int(1..9)`, `string(email, ≤64 chars)`             |
| `additionalProperties`, pattern…       | `{[key]: T}`, `{[/^x-/]: T}`                        |
| `$ref` used once / again, recursive    | in its place / by name, told once at the end        |
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from shared.turns.tool_forms import pointed_at

_Schema = Mapping[str, Any]  # a JSON Schema: any shape


def write_signature(schema: bytes) -> str:
    """The parameters of a tool, one a line; empty when it takes none.

    A schema that is no JSON object, or not one of an object, is written as the type it is.
    """
    try:
        return _Signature(msgspec.json.decode(schema)).write()
    except (msgspec.DecodeError, RecursionError):
        return schema.decode("utf-8", "replace").strip()


def tidy(description: object) -> str:
    """A description without common indentation, blanks at line ends and runs of empty lines."""
    if not isinstance(description, str):
        return ""
    lines = [line.rstrip() for line in inspect.cleandoc(description).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Signature:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._named = _named_references(root)
        self._told: dict[str, str] = {}  # reference → the name it is told under
        self._untold: list[str] = []

    def write(self) -> str:
        root = self._root
        if isinstance(root, dict) and set(root) <= {"$ref", *_SAYS_NOTHING}:
            root, _ = self._unfolded(root, definition=False)
        lines = [note] if isinstance(root, dict) and (note := _note(root, "")) else []
        if isinstance(root, dict) and set(root) <= _PLAIN_OBJECT and root.get("properties"):
            lines += self._members(root, "")
        elif not isinstance(root, dict) or not _takes_nothing(root):
            lines.append(f"arguments: {self._type(root)}")
        return "\n".join([*lines, *self._definitions()])

    def _definitions(self) -> Iterator[str]:
        while self._untold:
            reference = self._untold.pop(0)
            schema = pointed_at(self._root, reference)
            name = self._told[reference]
            yield from self._line(name, schema, "", definition=True)

    # -- members, one a line

    def _members(self, schema: _Schema, indent: str) -> Iterator[str]:
        required, properties = _required(schema), schema.get("properties")
        for name, member in properties.items() if isinstance(properties, dict) else ():
            shown = name if _SIMPLE_NAME.fullmatch(name) else _json(name)
            if name in required:
                yield from self._line(f"- {shown}", member, indent, name=name)
            else:
                yield from self._line(f"- {shown}?", _without_null(member), indent, name=name)
        for name in required:
            if not isinstance(properties, dict) or name not in properties:
                yield f"{indent}- {name}: any"
        for key in self._maps(schema):
            yield f"{indent}- {key}"

    def _line(
        self, head: str, schema: Any, indent: str, *, name: str = "", definition: bool = False
    ) -> Iterator[str]:
        """`- name: type = default // description`, and below it the members of an object.

        definition: `name = type` of what was pointed at.
        """
        schema, stars = self._unfolded(schema, definition=definition)
        inner, suffix = _element(schema)
        inner, more = self._unfolded(inner, definition=False) if suffix else (inner, {})
        folds = isinstance(inner, dict) and inner.get("properties") and set(inner) <= _PLAIN_OBJECT
        shown = "{…}" + suffix if folds else self._type(schema)
        about = {**more, **stars, **(schema if isinstance(schema, dict) else {})}
        default = f" = {_json(about['default'])}" if "default" in about else ""
        typed = f" = {shown}" if definition else _typed(shown)
        note = _note(about, name)
        if folds and suffix and not note and isinstance(inner, dict):
            note = _note(inner, name)
        comment = " // " + note.replace("\n", f"\n{indent}  ") if note else ""
        yield f"{indent}{head}{typed}{default}{comment}"
        if folds and isinstance(inner, dict):
            yield from self._members(inner, indent + "  ")

    def _unfolded(self, schema: Any, *, definition: bool) -> tuple[Any, _Schema]:
        """A schema that is a reference told nowhere else, replaced by what it points at.

        The second is what stood beside the reference: it wins over what stands there.
        """
        if definition or not isinstance(schema, dict) or not _is_reference(schema):
            return schema, {}
        reference = schema["$ref"]
        target = pointed_at(self._root, reference)
        if reference in self._named or not isinstance(target, dict):
            return schema, {}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return self._unfolded({**target, **beside}, definition=False)[0], beside

    # -- types, in one line

    def _type(self, schema: Any) -> str:
        """`{a: string, b?: int}[]`."""
        if schema is True or schema == {}:
            return "any"
        if schema is False:
            return "never"
        if not isinstance(schema, dict):
            return _json(schema)
        parts = [part for part in self._parts(schema) if part]
        exotic = {key: value for key, value in schema.items() if key not in _KNOWN}
        if not parts:
            parts = ["any"]
        written = " & ".join(_grouped(part) for part in parts) if len(parts) > 1 else parts[0]
        if schema.get("nullable") is True and "null" not in written.split("|"):
            written = f"{written}|null"
        if not exotic:
            return written
        shown = f"schema {_json(exotic)}"
        return shown if written == "any" else f"{_grouped(written)} & {shown}"

    def _parts(self, schema: _Schema) -> Iterator[str]:
        """What all must be true of the value."""
        if isinstance(reference := schema.get("$ref"), str):
            yield self._reference(reference)
        if "const" in schema:
            yield _json(schema["const"])
        elif isinstance(values := schema.get("enum"), list):
            yield "|".join(map(_json, values)) or "never"
        else:
            yield self._plain(schema)
        for word in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(word), list) and options:
                yield "|".join(dict.fromkeys(self._option(each) for each in options))
        if isinstance(parts := schema.get("allOf"), list):
            yield from map(self._option, parts)

    def _option(self, schema: Any) -> str:
        note = _note(schema, "") if isinstance(schema, dict) else ""
        schema, _ = self._unfolded(schema, definition=False)
        written = self._type(schema)
        return f"{written} /* {note} */" if note else written

    def _reference(self, reference: str) -> str:
        target = pointed_at(self._root, reference)
        if target is None:
            return f"schema {_json({'$ref': reference})}"
        if reference not in self._named:
            return self._type(target)
        if reference not in self._told:
            name = re.sub(r"\W", "_", reference.rpartition("/")[2]) or "Arguments"
            while name in self._told.values():
                name += "_"
            self._told[reference] = "Arguments" if reference == "#" else name
            self._untold.append(reference)
        return self._told[reference]

    def _plain(self, schema: _Schema) -> str:
        """What `type` and the words that belong to a type say."""
        named = schema.get("type")
        types = named if isinstance(named, list) else [named] if named else _implied(schema)
        return "|".join(self._of_type(str(each), schema) for each in types)

    def _of_type(self, name: str, schema: _Schema) -> str:
        match name:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema) + _limits(_without_length(schema), _ARRAY_LIMITS)
            case "string":
                return "string" + _limits(schema, _STRING_LIMITS)
            case "integer" | "number":
                shown = "int" if name == "integer" else "number"
                return shown + _limits(schema, _NUMBER_LIMITS)
            case "boolean":
                return "bool"
            case _:
                return name

    def _object(self, schema: _Schema) -> str:
        members = list(self._inline_members(schema))
        shown = "{" + ", ".join(members) + "}" if members else "object"
        return shown + _limits(schema, _OBJECT_LIMITS)

    def _inline_members(self, schema: _Schema) -> Iterator[str]:
        required, properties = _required(schema), schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        for name, member in properties.items():
            shown = name if _SIMPLE_NAME.fullmatch(name) else _json(name)
            member = member if name in required else _without_null(member)
            about, _ = self._unfolded(member, definition=False)
            about = about if isinstance(about, dict) else {}
            default = f" = {_json(about['default'])}" if "default" in about else ""
            note = _note(about, name).replace("*/", "* /")
            comment = f" /* {note} */" if note else ""
            optional = "" if name in required else "?"
            yield f"{shown}{optional}{_typed(self._type(about or member))}{default}{comment}"
        yield from (f"{name}: any" for name in required if name not in properties)
        yield from self._maps(schema)

    def _maps(self, schema: _Schema) -> Iterator[str]:
        patterns = schema.get("patternProperties")
        for pattern, member in patterns.items() if isinstance(patterns, dict) else ():
            yield f"[/{pattern}/]: {self._option(member)}"
        others = schema.get("additionalProperties")
        if isinstance(others, dict) and others:
            yield f"[key]: {self._option(others)}"
        elif others is not None and others is not False:
            yield "[key]: any"

    def _array(self, schema: _Schema) -> str:
        items = schema.get("items")
        first = schema.get("prefixItems", items if isinstance(items, list) else None)
        if isinstance(first, list):
            shown = [self._option(each) for each in first]
            rest = schema.get("additionalItems") if isinstance(items, list) else items
            if isinstance(rest, dict):
                shown.append(f"...{self._option(rest)}")
            return f"[{', '.join(shown)}]"
        return "any[]" if items is None else _grouped(self._option(items)) + "[]"


def _named_references(root: Any) -> frozenset[str]:
    """The references that are told by name: used more than once, or inside what they point at."""
    uses: dict[str, int] = {}
    named: set[str] = set()

    def walk(schema: Any, inside: frozenset[str]) -> None:
        if isinstance(schema, list):
            for each in schema:
                walk(each, inside)
            return
        if not isinstance(schema, dict):
            return
        reference = schema.get("$ref")
        if isinstance(reference, str) and (target := pointed_at(root, reference)) is not None:
            uses[reference] = uses.get(reference, 0) + 1
            if reference in inside:
                named.add(reference)
            elif uses[reference] == 1:
                walk(target, inside | {reference})
        for key, value in schema.items():
            if key not in ("$defs", "definitions", "default", "enum", "const", "examples"):
                walk(value, inside)

    walk(root, frozenset({"#"}))
    return frozenset(named | {reference for reference, times in uses.items() if times > 1})


def _element(schema: Any) -> tuple[Any, str]:
    """What an array holds, and the brackets that say so; anything else is itself."""
    suffix = ""
    while (
        isinstance(schema, dict)
        and schema.get("type") == "array"
        and isinstance(schema.get("items"), dict)
        and set(schema) <= _PLAIN_ARRAY
    ):
        suffix = "[]" + _limits(schema, _ARRAY_LIMITS) + suffix
        schema = schema["items"]
    return schema, suffix


def _required(schema: _Schema) -> list[str]:
    required = schema.get("required")
    return (
        [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    )


def _typed(shown: str) -> str:
    return "" if shown == "string" else f": {shown}"


def _without_null(schema: Any) -> Any:
    """What may be left out, and is null then: nobody has to write the null."""
    if not isinstance(schema, dict) or schema.get("default", ...) is not None:
        return schema
    rest = {key: value for key, value in schema.items() if key != "default"}
    for word in ("anyOf", "oneOf"):
        if isinstance(options := rest.get(word), list) and len(options) > 1:
            others = [option for option in options if option != {"type": "null"}]
            alone = others[0] if len(others) == 1 else None
            beside = {key: value for key, value in rest.items() if key != word}
            if isinstance(alone, dict) and set(beside) <= _SAYS_NOTHING:
                return {**alone, **beside}
            return {**rest, word: others}
    if isinstance(types := rest.get("type"), list) and len(types) > 1:
        others = [each for each in types if each != "null"]
        return {**rest, "type": others[0] if len(others) == 1 else others}
    return rest


def _without_length(schema: _Schema) -> _Schema:
    """The length of a tuple that says itself how long it is."""
    first = schema.get("prefixItems")
    if not isinstance(first, list) or schema.get("maxItems") != len(first):
        return schema
    return {key: value for key, value in schema.items() if key not in ("minItems", "maxItems")}


def _is_reference(schema: _Schema) -> bool:
    return isinstance(schema.get("$ref"), str) and set(schema) <= {"$ref", *_SAYS_NOTHING}


def _takes_nothing(root: _Schema) -> bool:
    said = set(root) - _SAYS_NOTHING - {"type", "properties", "required"}
    return not said and root.get("type", "object") == "object" and not root.get("properties")


def _note(schema: _Schema, name: str) -> str:
    """The description; a title stands in for it unless it only repeats the name."""
    note = tidy(schema.get("description"))
    title = schema.get("title")
    if not note and isinstance(title, str) and _squeezed(title) != _squeezed(name) and name:
        note = tidy(title)
    if schema.get("deprecated") is True:
        note = f"(deprecated) {note}".strip()
    if isinstance(examples := schema.get("examples"), list) and examples:
        note = f"{note} E.g. {', '.join(map(_json, examples))}".strip()
    return note


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _implied(schema: _Schema) -> list[str]:
    """The type that a schema without `type` speaks of."""
    for name, words in _IMPLIES.items():
        if words & set(schema):
            return [name]
    return []


def _limits(schema: _Schema, words: Mapping[str, str]) -> str:
    """`(1..9, email)`: lower and upper bound as one where both are there."""
    shown: list[str] = []
    low, high, unit = words.get("low", ""), words.get("high", ""), words.get("unit", "")
    if low in schema and high in schema:
        shown.append(f"{_json(schema[low])}..{_json(schema[high])}{unit}")
    elif low in schema:
        shown.append(f"≥{_json(schema[low])}{unit}")
    elif high in schema:
        shown.append(f"≤{_json(schema[high])}{unit}")
    for word, spelt in words.items():
        if word in ("low", "high", "unit") or word not in schema or schema[word] is False:
            continue
        value = schema[word]
        shown.append(spelt.format(value if isinstance(value, str) else _json(value)))
    return f"({', '.join(shown)})" if shown else ""


def _grouped(written: str) -> str:
    """In brackets when it is a union or an intersection."""
    depth = 0
    quoted = False
    for at, char in enumerate(written):
        if char == '"' and (at == 0 or written[at - 1] != "\\"):
            quoted = not quoted
        elif not quoted:
            depth += (char in "([{") - (char in ")]}")
            if depth == 0 and char in "|&/":
                return f"({written})"
    return written


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


_SIMPLE_NAME: Final = re.compile(r"[A-Za-z_$][\w$.-]*")

_NUMBER_LIMITS: Final = {
    "low": "minimum",
    "high": "maximum",
    "exclusiveMinimum": ">{}",
    "exclusiveMaximum": "<{}",
    "multipleOf": "multiple of {}",
    "format": "{}",
}
_STRING_LIMITS: Final = {
    "low": "minLength",
    "high": "maxLength",
    "unit": " chars",
    "format": "{}",
    "pattern": "/{}/",
    "contentEncoding": "{}",
    "contentMediaType": "{}",
}
_ARRAY_LIMITS: Final = {
    "low": "minItems",
    "high": "maxItems",
    "unit": " items",
    "uniqueItems": "unique",
}
_OBJECT_LIMITS: Final = {"low": "minProperties", "high": "maxProperties", "unit": " members"}


def _words(limits: Mapping[str, str]) -> frozenset[str]:
    return frozenset(
        limits[word] if word in ("low", "high") else word for word in limits if word != "unit"
    )


_IMPLIES: Final = {
    "object": frozenset(
        {"properties", "additionalProperties", "patternProperties", "required"}
        | _words(_OBJECT_LIMITS)
    ),
    "array": frozenset({"items", "prefixItems"} | _words(_ARRAY_LIMITS)),
    "string": _words(_STRING_LIMITS) - {"format"},
    "number": _words(_NUMBER_LIMITS) - {"format"},
}
_ABOUT: Final = frozenset({"description", "title", "default", "examples", "deprecated"})
_SAYS_NOTHING: Final = _ABOUT | {
    "$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "additionalProperties",
    "readOnly", "writeOnly", "strict",
}  # fmt: skip
_PLAIN_OBJECT: Final = _SAYS_NOTHING | {"type", "properties", "required", "patternProperties"}
_PLAIN_ARRAY: Final = _SAYS_NOTHING | {"type", "items"} | _words(_ARRAY_LIMITS)
_KNOWN: Final = (
    _SAYS_NOTHING
    | {"$ref", "type", "const", "enum", "anyOf", "oneOf", "allOf", "nullable"}
    | {"properties", "required", "patternProperties", "items", "prefixItems", "additionalItems"}
    | _words(_NUMBER_LIMITS)
    | _words(_STRING_LIMITS)
    | _words(_ARRAY_LIMITS)
    | _words(_OBJECT_LIMITS)
)
