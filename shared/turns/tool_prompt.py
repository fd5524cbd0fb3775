"""Tells the model of its tools: what there is to call, how a call is written, when to call.

The upstream has no tools of its own kind (protocol sheet 5): this text is all the model learns of
them. Tools are written as signatures (`tool_signature`), calls in the notation of `tool_forms`,
which `tool_reader` reads back. Sans-IO.

    # Tools
    …
    ## get_weather
    The weather of the next days.
    - city
    - days?: int(1..7) = 1
"""

from collections.abc import Sequence

import msgspec

from shared.chat.request import ChatRequest, Tool, ToolCallPart
from shared.turns.tool_forms import (
    CALL_CLOSES,
    CALL_OPENS,
    CUSTOM_PARAMETER,
    FUNCTION_CLOSES,
    PARAMETER_CLOSES,
    callable_tools,
    function_opening,
    parameter_opening,
)
from shared.turns.tool_signature import tidy, write_signature


def describe_tools(request: ChatRequest) -> str:
    """What the model is told of the tools; empty when none may be called."""
    tools = callable_tools(request.tools, request.tool_choice)
    if not tools:
        return ""
    return "\n\n".join([_how_to_call(tools, request), *map(_tool, tools)])


def reminder(request: ChatRequest) -> str:
    """What the last line of a prompt says where a call is required; else empty."""
    if not callable_tools(request.tools, request.tool_choice):
        return ""
    match request.tool_choice.mode:
        case "required":
            return "The next message must call at least one tool."
        case "named":
            return f"The next message must call {request.tool_choice.name}."
        case _:
            return ""


def example_call(tools: Sequence[Tool]) -> str:
    """How a call of one of these is written."""
    if tools and all(tool.kind == "custom" for tool in tools):
        return _tagged(_function(tools[0].name, "the text"))
    name = _json(tools[0].name if len(tools) == 1 else "tool name")
    return _tagged(f'{{"name": {name}, "arguments": {{"parameter": "value"}}}}')


def write_call(part: ToolCallPart) -> str:
    """A call of the history, as the model is asked to write one.

    Arguments that are no JSON object can't stand there as they are: they become a string. So does a
    custom tool's text that holds what would end it.
    """
    name = _json(part.name)
    if part.custom and _is_free(part.arguments) and not set(part.name) & set("<>\"'\n"):
        return _tagged(_function(part.name, part.arguments))
    if part.custom:
        given = _json({CUSTOM_PARAMETER: part.arguments})
    else:
        given = part.arguments.strip() or "{}"
        given = given if _is_object(given) else _json(given)
    return _tagged(f'{{"name": {name}, "arguments": {given}}}')


def _how_to_call(tools: Sequence[Tool], request: ChatRequest) -> str:
    several = (
        "For calls that don't depend on each other, write several such blocks in a row."
        if request.parallel_tool_calls
        else "Write one such block at most."
    )
    when = reminder(request) or "Call a tool when it helps; otherwise answer in text."
    told = ["# Tools", f"{when} To call one, write, outside of any code fence:"]
    if any(tool.kind == "function" for tool in tools):
        told.append(_tagged('{"name": "tool name", "arguments": {"parameter": "value"}}'))
        told.append("(valid JSON, the name first)")
    if custom := [tool.name for tool in tools if tool.kind == "custom"]:
        told.append(f"{', '.join(custom)}: plain text, unescaped, instead of JSON:")
        told.append(_tagged(_function(custom[0], "the text")))
    told.append(
        f"{several} End the message with the last one; the results come in the next messages. "
        "In the lists of parameters `?` is optional, `= x` the default, and no type means string."
    )
    return "\n".join(told)


def _tool(tool: Tool) -> str:
    lines = [f"## {tool.name}", tidy(tool.description)]
    if tool.kind == "custom":
        lines += ["(plain text)", tool.grammar.strip()]
    else:
        lines.append(write_signature(bytes(tool.schema)))
    return "\n".join(line for line in lines if line)


def _tagged(call: str) -> str:
    return f"{CALL_OPENS}\n{call}\n{CALL_CLOSES}"


def _function(name: str, text: str) -> str:
    opening = f"{function_opening(name)}\n{parameter_opening(CUSTOM_PARAMETER)}"
    return f"{opening}\n{text}\n{PARAMETER_CLOSES}\n{FUNCTION_CLOSES}"


def _is_free(text: str) -> bool:
    """Whether a custom tool's text can stand between the tags, and be read back, as it is."""
    if text.endswith("\r"):  # with the line break of the closer it would be one
        return False
    return not any(tag in text for tag in ("</parameter", "<parameter", "</function", "<function"))


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(arguments), dict)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return False


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
