"""What was wrong with an answer that may be written again, once."""

from typing import Literal

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """`text` = what the model wrote, bounded; `name` = the tool it named; `reasons` in words.

    `malformed`: a call that can't be read · `undeclared`: a call of a tool nobody declared ·
    `not_called`: no call although one was required · `format`: not the JSON that was asked for.
    """

    kind: Literal["malformed", "undeclared", "not_called", "format"]
    name: str = ""
    text: str = ""
    reasons: tuple[str, ...] = ()
