"""OpenAI Responses: `POST /v1/responses`.

The protocol has a page for each of its nouns: `responses_request` reads, `responses_object` says
what an answer is made of, `responses_stream` writes it while it comes, `responses_kept` shows what
was kept of it.
"""

from gateway.dialects import openai_chat
from gateway.dialects.responses_object import write_reply
from gateway.dialects.responses_request import read_request
from gateway.dialects.responses_stream import EventWriter
from gateway.dialects.turn import Turn

__all__ = ["KEEPALIVE", "new_id", "open_writer", "read_request", "write_error", "write_reply"]

KEEPALIVE = b": keepalive\n\n"

write_error = openai_chat.write_error
"""A failure before the first event looks the same in both OpenAI dialects."""


def new_id(random_hex: str) -> str:
    return "resp_" + random_hex


def open_writer(turn: Turn) -> EventWriter:
    return EventWriter(turn)
