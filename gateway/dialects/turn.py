"""What a dialect is, and what it is told about the turn it writes.

A dialect is a module: sans-IO, one per client protocol, found in `gateway.dialects.DIALECTS`.
"""

from typing import Literal, Protocol

import msgspec

from shared.chat.collect import Reply
from shared.chat.events import Event
from shared.chat.request import ChatRequest
from shared.errors import GatewayError


class Rendering(msgspec.Struct, frozen=True):
    """The settings that say how an answer is shown; read anew for every turn."""

    output_think: bool = True
    legacy_reasoning_in_content: bool = False
    search_info_mode: Literal["table", "text"] = "table"


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """`id` from `new_id`; `created` in seconds; `model` = the name that was asked for.

    `thinking`: True or False when the model's name or the request said so, None = the model's own
    choice. `given` = what the dialect's `read_request` left for its writer.
    """

    id: str
    created: int
    model: str
    request_id: str = ""
    thinking: bool | None = None
    include_usage: bool = False
    rendering: Rendering = Rendering()
    given: object = None


class StreamWriter(Protocol):
    """Events of one turn in, bytes for the client out.

    The first frame, the last frames and what stands between blocks come with the events that cause
    them. `TurnEnd` writes a good end. `TurnFailed` closes what is open, says the error, and is the
    last thing written. Whatever is fed after the end is answered with nothing.
    """

    def feed(self, event: Event) -> bytes:
        """The frames of this event; `b""` when it has none."""
        ...


class Dialect(Protocol):
    """What a module offers to be a dialect."""

    KEEPALIVE: bytes
    """What is sent while a stream is silent."""

    def new_id(self, random_hex: str, /) -> str:
        """The id of a reply, in this dialect's spelling."""
        ...

    def read_request(self, body: bytes, /) -> ChatRequest:
        """Read a request body.

        Raises:
            BadRequest: with `param` = path of the field: `messages[1].content[0].type`.
        """
        ...

    def open_writer(self, turn: Turn, /) -> StreamWriter: ...

    def write_reply(self, turn: Turn, reply: Reply, /) -> bytes:
        """The body of a whole answer: what the stream of the same turn says when joined."""
        ...

    def write_error(self, error: GatewayError, request_id: str, /) -> bytes:
        """The body of a failure before the first event; its status is `error.status`."""
        ...
