"""Writes tools into the prompt: what there is to call, and how a call is written. Sans-IO."""

import msgspec

from shared.chat.request import ChatRequest, Tool
from shared.turns.fault import Fault
from shared.turns.tool_forms import callable_tools


def describe_tools(request: ChatRequest) -> str:
    """What the model is told of the tools; empty when none may be called."""
    tools = callable_tools(request.tools, request.tool_choice)
    if not tools:
        return ""
    return "\n\n".join(["# Tools", *map(_tool, tools), _HOW])


def correction(request: ChatRequest, fault: Fault, said: str) -> str:
    """The extra text for the corrective repeat; `said` = what the model wrote before."""
    quoted = msgspec.json.encode(fault.text or said).decode()
    return f"Your last answer was: {quoted}\nIt held no call that can be run. {_HOW}"


def _tool(tool: Tool) -> str:
    return f"## {tool.name}\n{tool.description}\n{bytes(tool.schema).decode()}"


_HOW = (
    "To call a tool, write\n<tool_call>\n"
    '{"name": "…", "arguments": {…}}\n</tool_call>\nand wait for the result.'
)
