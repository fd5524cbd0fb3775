"""Tells the model that its answer is to be JSON; the upstream knows no formats. Sans-IO."""

from typing import Final

from shared.chat.request import ChatRequest

JSON_ALONE: Final = (
    "The message is one JSON document alone: no other text around it, no code fence."
)


def describe_format(request: ChatRequest) -> str:
    """What the model is told of the format; empty when any text will do.

    The schema stands there as the caller wrote it: what it is validated by is what it is asked by.
    """
    wanted = request.output_format
    if wanted is None:
        return ""
    unless = " A message that calls tools isn't bound by this." if request.tools else ""
    if wanted.schema is None:
        return f"# Format\n{JSON_ALONE} It is a JSON object.{unless}"
    schema = bytes(wanted.schema).decode()
    return f"# Format\n{JSON_ALONE} It validates against this JSON Schema:{unless}\n{schema}"
