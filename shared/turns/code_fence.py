"""Reads the line that opens a code fence, and whether what it holds begins like a call. Sans-IO."""

import re
from typing import Final, Literal

import msgspec

from shared.turns.tool_forms import (
    CALL_OPENING,
    CUT_CALL_OPENING,
    CUT_FUNCTION_OPENING,
    FUNCTION_OPENING,
    LOOKAHEAD_BLANKS,
)

FENCE_TICKS: Final = 3


class Fence(msgspec.Struct, frozen=True):
    """What opens a fence: its ticks or tildes, and the word behind them.

    inside: where begins what it holds.
    may_call: whether that begins like a call.
    has_line: whether its line ends; one that is too long to wait for holds no call.
    """

    run: str
    info: str
    inside: int
    may_call: bool
    has_line: bool = True


def fence_at(text: str, at: int, last: bool) -> Fence | Literal["cut"] | None:
    """The fence that opens at these ticks or tildes, if one does; `cut` = not to be said yet."""
    run = run_of(text, at)
    behind = at + len(run)
    if behind == len(text) and not last:
        return "cut"
    if len(run) < FENCE_TICKS:
        return None
    line = _FENCE_LINE.match(text, behind)
    if line is not None:
        blanks = _FEW_BLANKS.match(text, line.end())
        inside = blanks.end() if blanks else line.end()
        may_call = _may_be_call(text, inside, last)
        if may_call is None:
            return "cut"
        return Fence(run, line[1].strip().lower(), inside, may_call)
    if not last and _CUT_FENCE_LINE.match(text, behind):
        return "cut"
    if last or _NO_FENCE_LINE.match(text, behind):
        return None
    return Fence(run, "", behind, may_call=False, has_line=False)


def run_of(text: str, at: int) -> str:
    """The ticks (or tildes) that stand here, the longest run that counts."""
    found = _RUN.match(text, at)
    return found[0] if found else ""


def _may_be_call(text: str, at: int, last: bool) -> bool | None:
    """Whether what a fence holds begins like a call; None = not to be said yet."""
    if at == len(text):
        return False if last else None
    if text[at] in "{[":
        return True
    if not last and (CUT_CALL_OPENING.match(text, at) or CUT_FUNCTION_OPENING.match(text, at)):
        return None
    return bool(CALL_OPENING.match(text, at) or FUNCTION_OPENING.match(text, at))


_FEW_BLANKS: Final = re.compile(rf"\s{{0,{LOOKAHEAD_BLANKS}}}")
_RUN: Final = re.compile(r"`{1,64}|~{1,64}")
_FENCE_LINE: Final = re.compile(r"([^`\n]{0,100})\n")
_CUT_FENCE_LINE: Final = re.compile(r"[^`\n]{0,100}\Z")
_NO_FENCE_LINE: Final = re.compile(r"[^`\n]{0,100}`")
