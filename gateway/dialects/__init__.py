"""The client protocols we speak: one module and one line of the table each. Sans-IO."""

from gateway.dialects import anthropic_messages, openai_chat, openai_responses
from gateway.dialects.turn import Dialect, Rendering, StreamWriter, Turn

DIALECTS: dict[str, Dialect] = {
    "openai_chat": openai_chat,
    "openai_responses": openai_responses,
    "anthropic_messages": anthropic_messages,
}

__all__ = ["DIALECTS", "Dialect", "Rendering", "StreamWriter", "Turn"]
