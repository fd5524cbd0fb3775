"""What stands behind the prompt when it is sent once more, because the answer was at fault."""

from typing import Final, assert_never

import msgspec

from shared.chat.request import ChatRequest
from shared.turns.fault import Fault
from shared.turns.format_prompt import JSON_ALONE
from shared.turns.tool_forms import callable_tools
from shared.turns.tool_prompt import example_call

QUOTED_CHARACTERS: Final = 4_000
"""How much of its own faulty answer the model is shown."""


def write_correction(request: ChatRequest, fault: Fault, said: str, *, calls_taken: int = 0) -> str:
    """Says what was wrong, and what to write now.

    said: everything the model wrote. It is shown as a JSON string: on one line, whatever it holds,
    so that nothing in it can pass for a line of the prompt.
    calls_taken: calls of that message which the caller has already.
    """
    tools = callable_tools(request.tools, request.tool_choice)
    names = ", ".join(tool.name for tool in tools)
    now = "Write the tool call again, and nothing else:\n" + example_call(tools) if tools else ""
    match fault.kind:
        case "undeclared":
            wrong = f"it calls {_json(fault.name)}, and the only tools are: {names}"
        case "not_called":
            wrong = "it calls no tool, and one must be called"
        case "malformed":
            wrong = "its tool call isn't written as it has to be, or is cut off"
        case "format":
            wrong = "; ".join(fault.reasons)
            now = f"Write the message again. {JSON_ALONE}"
        case _:
            assert_never(fault.kind)
    if calls_taken:
        now = f"Its first {calls_taken} tool calls were good: don't write those again. {now}"
    written = _json((said or fault.text)[-QUOTED_CHARACTERS:])
    return f"\n\nThe assistant's next message was {written}, but {wrong}. {now}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
