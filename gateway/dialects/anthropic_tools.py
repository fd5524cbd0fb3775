"""The tools of an Anthropic request: the caller's own, those Anthropic defines, those it hosts.

- A tool with a schema is the caller's (`type` is `custom`, or missing).
- `bash`, `text_editor` and `memory` are defined by Anthropic and executed by the caller: the model
  there knows them by heart, ours is shown the schemas below.
- `web_search` runs on the server, ours is the upstream's own search.
- What else runs on Anthropic's servers (`web_fetch`, `code_execution`, MCP servers …) or lives on
  pictures (`computer`, `browser`) doesn't exist here: left out and named in `x-gateway-ignored`
  when other tools are offered, else a 400.

Source: Anthropic API reference, tool use, and its Python SDK's types, read 2026-11.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.dialects.fields import asks, json_schema_object
from shared.chat.request import Tool, ToolChoice
from shared.errors import BadRequest


class GivenTool(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw()
    # Wishes of a web search that the upstream's can't honour. Any: named when they are there.
    max_uses: Any = None
    allowed_domains: Any = None
    blocked_domains: Any = None
    user_location: Any = None


class GivenChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OfferedTools(msgspec.Struct, frozen=True):
    """`web_search`: the upstream is to search. `ignored` = names for `x-gateway-ignored`.

    A plain turn of the upstream never searches on its own, so an offered search is one that is made
    (unless the choice excludes it): nothing in between can be asked for.
    """

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()
    parallel: bool = True
    web_search: bool = False
    ignored: tuple[str, ...] = ()


def read_tools(given: list[GivenTool] | None, choice: GivenChoice | None) -> OfferedTools:
    """`tools` and `tool_choice`.

    Raises:
        BadRequest: a tool without name or schema, a choice that can't be made, or nothing is
            offered but what runs on Anthropic's servers.
    """
    tools: list[Tool] = []
    searches: list[str] = []
    hosted: dict[str, str] = {}
    ignored: list[str] = []
    for index, tool in enumerate(given or ()):
        path = f"tools[{index}]"
        kind = tool.type or "custom"
        defined = _defined(kind)
        if kind == "custom" or bytes(tool.input_schema):
            tools.append(_read_own(tool, path))
        elif defined is not None:
            tools.append(_with_name(defined, tool))
        elif kind.startswith("web_search"):
            searches.append(tool.name or "web_search")
            ignored += (f"{path}.{name}" for name in _unheard_wishes(tool))
        else:
            hosted[tool.name or kind] = f"{path}.{_spelled(kind)}"
    if hosted and not tools and not searches:
        names = ", ".join(map(_spelled, hosted))
        raise BadRequest(
            f"tools: {names} can't be had here, and nothing else is offered", param="tools"
        )
    offered = OfferedTools(
        tools=tuple(tools),
        parallel=not (choice and choice.disable_parallel_tool_use),
        web_search=bool(searches),
        ignored=(*hosted.values(), *ignored),
    )
    return _choose(offered, choice, searches, hosted) if choice else offered


def _choose(
    offered: OfferedTools, given: GivenChoice, searches: list[str], hosted: dict[str, str]
) -> OfferedTools:
    replace = msgspec.structs.replace
    if given.type == "auto":
        return offered
    if given.type == "none":
        choice = ToolChoice("none" if offered.tools else "auto")
        return replace(offered, choice=choice, web_search=False)
    if given.type == "any" and offered.tools:
        return replace(offered, choice=ToolChoice("required"))
    if given.type == "any" and searches:
        return offered
    if given.type == "any":
        raise BadRequest("tool_choice: there are no tools in this request", param="tool_choice")
    if given.type != "tool":
        raise BadRequest(
            "tool_choice.type: expected auto, any, tool or none", param="tool_choice.type"
        )
    path, name = "tool_choice.name", given.name or ""
    if any(tool.name == name for tool in offered.tools):
        return replace(offered, choice=ToolChoice("named", name), web_search=False)
    if name in searches:
        choice = ToolChoice("none" if offered.tools else "auto")
        return replace(offered, choice=choice)
    if name in hosted:
        raise BadRequest(f"{path}: {_spelled(name)} can't be had here", param=path)
    raise BadRequest(f"{path}: there is no tool {name!r} in this request", param=path)


def _read_own(given: GivenTool, path: str) -> Tool:
    for field in ("name", "input_schema"):
        if not getattr(given, field):
            raise BadRequest(f"{path}.{field} is missing", param=f"{path}.{field}")
    schema = json_schema_object(given.input_schema, f"{path}.input_schema")
    return Tool(given.name or "", given.description or "", schema)


def _unheard_wishes(given: GivenTool) -> Iterator[str]:
    for name in ("max_uses", "allowed_domains", "blocked_domains", "user_location"):
        if asks(getattr(given, name)):
            yield name


def _spelled(kind: str) -> str:
    """A caller's word as it may stand in a header."""
    return re.sub(r"[^\w.:-]", "?", kind[:64], flags=re.ASCII)


# -- tools that Anthropic defines and the caller executes


def _defined(kind: str) -> Tool | None:
    """`text_editor_20250728` → the tool. Versions differ in the editor's `insert` alone."""
    family, _, version = kind.rpartition("_")
    if not version.isdigit():
        return None
    if family == "text_editor" and version < "20250728":
        return _OLDER_TEXT_EDITOR
    return _DEFINED.get(family)


def _with_name(tool: Tool, given: GivenTool) -> Tool:
    return msgspec.structs.replace(tool, name=given.name or tool.name)


def _tool(name: str, description: str, properties: dict[str, Any], *required: str) -> Tool:
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(name, description, msgspec.Raw(msgspec.json.encode(schema)))


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


def _one_of(*commands: str) -> dict[str, Any]:
    return {"type": "string", "enum": commands}


_LINES = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "view: first and last line, counted from 1; -1 is the file's end",
}
_AFTER_LINE = {
    "type": "integer",
    "description": "insert: the line behind which it goes; 0 is the file's beginning",
}


def _text_editor(end_of_description: str, **new: dict[str, str]) -> Tool:
    return _tool(
        "str_replace_based_edit_tool",
        "Looks at, makes and edits text files. view: a file with line numbers, or a folder's list. "
        "create: a file with file_text. str_replace: puts new_str in the place of old_str, which "
        + end_of_description,
        {
            "command": _one_of("view", "create", "str_replace", "insert"),
            "path": _text("of the file or folder"),
            "view_range": _LINES,
            "file_text": _text("create: the whole file"),
            "old_str": _text("str_replace: what goes, with every blank"),
            **new,
            "insert_line": _AFTER_LINE,
        },
        "command",
        "path",
    )


_DEFINED: dict[str, Tool] = {
    "bash": _tool(
        "bash",
        "Runs a command in a bash session that lasts, and answers what it printed. `restart` "
        "begins a new session instead.",
        {"command": _text("the command"), "restart": {"type": "boolean"}},
    ),
    "text_editor": _text_editor(
        "must occur exactly once. insert: puts insert_text behind a line.",
        new_str=_text("str_replace: what comes"),
        insert_text=_text("insert: what comes"),
    ),
    "memory": _tool(
        "memory",
        "Keeps notes in files under /memories, from one conversation to the next. view: a file or "
        "a folder's list. create, str_replace, insert: write. delete, rename: a file or folder.",
        {
            "command": _one_of("view", "create", "str_replace", "insert", "delete", "rename"),
            "path": _text("all but rename: of the file or folder, beginning with /memories"),
            "view_range": _LINES,
            "file_text": _text("create: the whole file"),
            "old_str": _text("str_replace: what goes"),
            "new_str": _text("str_replace: what comes"),
            "insert_line": _AFTER_LINE,
            "insert_text": _text("insert: what comes"),
            "old_path": _text("rename: the path until now"),
            "new_path": _text("rename: the path from now on"),
        },
        "command",
    ),
}
_OLDER_TEXT_EDITOR = _text_editor(
    "must occur exactly once. insert: puts new_str behind a line.",
    new_str=_text("str_replace, insert: what comes"),
)
