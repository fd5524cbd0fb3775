"""`ToolReader`: reads tool calls out of the answer's text, while it is written. Sans-IO.

The upstream knows no tools (protocol sheet 5.3): they are described in the prompt, and the model
writes its calls into the text. This stage stands behind the decoder. It passes text on as it comes,
and makes events of what is a call:

    TextDelta("I look.\\n<tool_call>\\n{"name": "f", "arguments": {"a…)
    → TextDelta("I look.")  ToolCallStart(f)  ToolCallDelta("{"a…)  …  ToolCallEnd

Any cut of the text gives the same result: what may be the beginning of something is kept until more
text decides it, and looked at anew then. What is kept is short (a tag, some blanks); a whole object
is kept only while it is naked or fenced and its name isn't known. The forms: `tool_forms`.

Where the text is (`_state`):

    prose     text; a tag, or `{` `[` or a fence where a line begins, may begin a call
    opening   behind `<tool_call>` or inside a fence: what comes decides whether it is a call
    object    inside a call written as an object
    refused   the object goes on with what can't follow: its block's closer, or it is broken
    function  inside a call written as a function
    between   behind a call: more calls, closers, or prose again
    fence     code in prose: nothing in it is a call
    data      an object in prose that is no call: nothing in it is one, either
    think     `<think>` where a line begins: reasoning, no call inside counts
    waiting   behind a fenced call that followed prose: a call only when the answer ends here

What is a call, what isn't
- Only what names a declared tool. In a tag, another name is the fault `undeclared` (in the repeat,
  it is shown as text, without the tags); naked and fenced objects with other names are text.
- Inline code is text, and so is a fence that follows prose and is followed by prose, or by whose
  line before it says that an example comes. A fence at the beginning of the answer is a call if it
  holds one, as is one that says so itself (```tool_call), or any when a call is required.
- `<tool_call>` in a line of prose that doesn't go on like a call is text.
- Blank text around calls isn't passed on.

What happens to a call that isn't whole
- Cut off inside a string, or broken: while nothing of it went out it is the fault `malformed`;
  after that the turn fails, in band and last. A whole call without its closing tag is a call.
- From a call's start to its end come only its own events; others wait.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from shared.chat.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnFailed,
    TurnStart,
)
from shared.chat.request import Tool, ToolChoice
from shared.errors import UnusableAnswer
from shared.turns.code_fence import FENCE_TICKS, fence_at, run_of
from shared.turns.fault import Fault
from shared.turns.json_text import JsonReader
from shared.turns.tool_call import Call, FunctionCall, ObjectCall
from shared.turns.tool_forms import (
    ANNOUNCES_EXAMPLE,
    CALL_CLOSING,
    CALL_FENCES,
    CALL_OPENING,
    CALL_OPENS,
    CUT_CALL_CLOSING,
    CUT_CALL_OPENING,
    CUT_FUNCTION_CLOSING,
    CUT_FUNCTION_OPENING,
    CUT_RESULT,
    CUT_THINK,
    FUNCTION_CLOSES,
    FUNCTION_OPENING,
    LOOKAHEAD_BLANKS,
    RESULT_OPENS,
    THINK_CLOSES,
    THINK_OPENS,
    declared_tools,
)

MAX_HELD_CHARACTERS: Final = 1_000_000
"""The longest beginning of a call whose name isn't known; a longer one is none."""

FAULT_CHARACTERS: Final = 4_000
"""How much of a faulty call a `Fault` shows."""

_State = Callable[[str, int, bool], int]


class ToolReader:
    """`feed_all` events until `fault` or `ended` is set, or the terminal event has come.

    Args:
        call_id: the id of the call with this index.
        first_index: of the first call; those before it went out in an earlier attempt.
        repeat: the model was asked to mend its calls, and there is no third time: an undeclared
            name is shown as text, and no call is no fault.
        silent: only calls pass, since the text was shown before.

    Attributes:
        fault: why the answer must be written again. Nothing of that call went out, and nothing
            comes any more, not even the end of the turn.
        ended: the turn was ended here; the upstream is still writing.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        choice: ToolChoice,
        parallel: bool,
        call_id: Callable[[int], str],
        first_index: int = 0,
        repeat: bool = False,
        silent: bool = False,
    ) -> None:
        self.fault: Fault | None = None
        self.ended = False
        self._tools = declared_tools(tools, choice)
        self._required = choice.mode in ("required", "named")
        self._parallel = parallel
        self._call_id = call_id
        self._index = first_index
        self._repeat = repeat
        self._silent = silent
        self._out: list[Event] = []
        self._text: list[str] = []  # goes out before anything else that is added to `_out`
        self._later: list[Event] = []  # what came while a call was open

        self._state: _State = self._prose
        self._tail = ""  # read, and not yet understood
        # prose
        self._line_begins = True
        self._ticks = ""  # those that opened the inline code we are in
        self._fence = ""
        self._recent = ""  # the newest text
        self._said = False  # whether there was any text but blanks
        self._blanks = ""  # behind the newest text: dropped when a call follows
        self._gap = ""  # the blanks that were dropped before the newest call
        self._after_call = False  # nothing but blanks since the newest call
        self._data = JsonReader(_forget, strict=True)
        self._again = ""  # read before, to be read once more in another state
        self._again_ends = 0  # where that ends in the text being read: no object in it is a call
        # the block of calls that is being read
        self._opener = ""  # what began it
        self._raw: list[str] = []  # what came behind the opener, until a call starts
        self._raw_size = 0
        self._tagged = False
        self._fenced = False
        self._tentative = False  # it is text when it is no call
        self._in_line = False  # the tag stood in a line of prose
        self._array = False
        self._waits = False  # its calls count only when the answer ends behind it
        self._waiting: list[tuple[str, bool, str]] = []  # they: name, custom, arguments
        # the call that is being read
        self._call = Call({})
        self._object_reader = ObjectCall(self._call, known_only=True)
        self._function_reader: FunctionCall | None = None
        self._started = False
        self._aside: list[str] | None = None  # arguments that don't stream
        self._as_text = False

    def feed_all(self, events: list[Event]) -> list[Event]:
        """Contract: after `fault` or `ended`, nothing."""
        if not self._tools:
            return events
        if (
            len(events) == 1
            and type(event := events[0]) is TextDelta
            and self._is_quiet(event.text)
        ):
            return events
        for event in events:
            if self._is_over:
                break
            self._take(event)
        self._flush_text()
        out, self._out = self._out, []
        return out

    @property
    def calls(self) -> int:
        """Calls of the turn until now, those before this answer included."""
        return self._index

    @property
    def said(self) -> bool:
        """Whether any text but blanks was passed on."""
        return self._said

    # -- events

    @property
    def _is_over(self) -> bool:
        return self.ended or self.fault is not None

    def _is_quiet(self, text: str) -> bool:
        """Whether nothing in this text is of any account: the short way for nearly all deltas."""
        if (
            self._line_begins
            or self._tail
            or self._blanks
            or self._silent
            or self._is_over
            or self._state != self._prose
            or _SPECIAL.search(text)
            or not text
            or text[-1].isspace()
        ):
            return False
        self._recent = (self._recent + text)[-_RECENT_CHARACTERS:]
        return True

    def _take(self, event: Event) -> None:
        if type(event) is TextDelta:
            self._read(event.text, last=False)
        elif type(event) is TurnEnd:
            self._end_turn(event)
        elif type(event) is TurnFailed:
            self._fail_turn(event)
        elif self._silent and type(event) is not TurnStart:
            pass
        elif self._started:
            self._later.append(event)
        else:
            self._put(event)

    def _end_turn(self, end: TurnEnd) -> None:
        self._read("", last=True)
        self._finish()
        if self._again:
            self._tail, self._again, self._again_ends = self._again, "", len(self._again)
            self._read("", last=True)
            self._finish()
        if self._is_over:
            return
        if self._required and not self._index and not self._repeat and end.reason == "stop":
            self.fault = Fault("not_called")
            return
        self._flush_blanks()
        if self._index and end.reason == "stop":
            end = msgspec.structs.replace(end, reason="tool_calls")
        self._put(end)

    def _fail_turn(self, failed: TurnFailed) -> None:
        """The stream was cut: what was kept is shown when it is surely text."""
        if self._state in (self._prose, self._in_fence, self._in_data) and not _tells(self._tail):
            self._say(self._tail)
        self._flush_blanks()
        self._put(*self._later, failed)

    def _read(self, delta: str, *, last: bool) -> None:
        text = self._tail + delta
        at = 0
        while not self._is_over and (at < len(text) or last):
            state = self._state
            stop = state(text, at, last)
            if self._again:
                text, at = self._again + text[stop:], 0
                self._again, self._again_ends = "", len(self._again)
                continue
            if stop == at and self._state == state:
                break
            at = stop
        self._tail = text[at:]
        self._again_ends = max(0, self._again_ends - at)

    def _finish(self) -> None:
        """The answer is over: what is open is whole as it stands, or it is broken."""
        if self._is_over:
            return
        state, tail = self._state, self._tail
        self._tail = ""
        if state == self._in_object and self._call.whole:
            self._end_call()
        elif state == self._in_function and self._function.complete():
            self._pass_on()
            self._end_call()
        elif state == self._opening and self._after_call and self._is_empty():
            pass  # an opening tag behind a call, and nothing in it: the call's closer
        elif state in (self._opening, self._in_object, self._in_function):
            self._keep(tail)
            if self._in_line and (state == self._opening or not self._function_begun):
                self._tentative = True  # the last word of a line that speaks of the tag
            self._break_call()
        elif state == self._think:
            self._reason(tail)
        else:
            self._say(tail)
        if self._waiting:
            self._emit_waiting()

    # -- prose

    def _prose(self, text: str, at: int, last: bool) -> int:
        end = len(text)
        while at < end:
            if self._line_begins:
                behind = _end(_BLANKS, text, at)
                if behind > at:
                    self._say(text[at:behind])
                    at = behind
                    continue
                if text[at] in "{[" and at >= self._again_ends:
                    self._begin_block("", tentative=True)
                    return at
                if text[at] in "`~":
                    stop = self._fence_opens(text, at, last)
                    if stop is not None:
                        return stop
            found = _SPECIAL.search(text, at)
            special = found.start() if found else end
            if special > at:
                self._say(text[at:special])
                self._line_begins = False
                at = special
            elif text[at] == "\n":
                self._say("\n")
                self._line_begins = True
                self._ticks = ""
                at += 1
            elif text[at] == "`":
                run = run_of(text, at)
                if at + len(run) == end and not last:
                    return at
                self._say(run)
                self._line_begins = False
                self._ticks = "" if self._ticks == run else self._ticks or run
                at += len(run)
            else:
                stop = self._tag(text, at, last)
                if stop == at or self._state != self._prose or self._is_over:
                    return stop
                at = stop
        return at

    def _tag(self, text: str, at: int, last: bool) -> int:
        """At a `<` in prose: the position behind what it was; the same = more is needed."""
        if any(cut.match(text, at) for cut in _CUT_IN_PROSE):
            if not last:
                return at
            if self._after_call and any(cut.match(text, at) for cut in _CUT_CLOSERS):
                return len(text)  # the rest of the call's closer
            if not self._ticks and _tells(text[at:]) and text[at + 1] != "/":
                self._blame("malformed", text[at:])
                return len(text)
        if self._ticks and (
            CALL_OPENING.match(text, at)
            or FUNCTION_OPENING.match(text, at)
            or text.startswith(THINK_OPENS, at)
        ):
            closes = _CODE_OR_LINE_END.search(text, at, at + _LONGEST_CODE)
            if closes is None and not last and len(text) - at < _LONGEST_CODE:
                return at
            if closes is not None and closes[0] == "\n":
                self._ticks = ""  # that tick opened nothing
        if not self._ticks:
            if opening := CALL_OPENING.match(text, at):
                self._begin_block(opening[0], tagged=True)
                return opening.end()
            if opening := FUNCTION_OPENING.match(text, at):
                name = opening[1].strip()
                if name in self._tools or self._line_begins:
                    self._begin_block("")
                    self._keep(opening[0])
                    self._begin_function(name)
                    return opening.end()
            if self._line_begins and text.startswith(THINK_OPENS, at):
                self._state = self._think
                return at + len(THINK_OPENS)
            if closing := CALL_CLOSING.match(text, at):
                if self._after_call:
                    return closing.end()
                alone = _LINE_REST.match(text, closing.end()) if self._line_begins else None
                if alone is not None and alone.end() == len(text) and not last:
                    return at
                if alone is not None and (alone[1] or alone.end() == len(text)):
                    return alone.end()  # on a line of its own, it belongs to no text either
            if self._after_call:
                if text.startswith(FUNCTION_CLOSES, at):
                    return at + len(FUNCTION_CLOSES)
                if text.startswith(RESULT_OPENS, at) and self._index:
                    self._end_here()  # what follows is a result the model made up
                    return len(text)
        self._say("<")
        self._line_begins = False
        return at + 1

    def _fence_opens(self, text: str, at: int, last: bool) -> int | None:
        """At ticks or tildes where a line begins: None = no fence; the same position = not yet."""
        fence = fence_at(text, at, last)
        if fence is None or fence == "cut":
            return None if fence is None else at
        inside = fence.inside
        self._fence = fence.run
        how = self._how_fence_counts(fence.info)
        if not fence.may_call or how == "never":
            self._say(text[at:inside])
            self._state = self._in_fence
            self._line_begins = fence.has_line
            return inside
        self._begin_block(text[at:inside], tentative=True, fenced=True, waits=how == "at the end")
        return inside

    def _how_fence_counts(self, info: str) -> str:
        if not self._said or self._required or info in CALL_FENCES:
            return "at once"
        line = self._recent.rstrip().rpartition("\n")[2]
        return "never" if ANNOUNCES_EXAMPLE.search(line) else "at the end"

    def _in_fence(self, text: str, at: int, last: bool) -> int:
        while at < len(text):
            if self._line_begins:
                behind = _end(_LINE_BLANKS, text, at)
                run = run_of(text, behind) if text[behind : behind + 1] == self._fence[0] else ""
                if behind + len(run) == len(text) and not last:
                    self._say(text[at:behind])
                    return behind
                self._say(text[at : behind + len(run)])
                at = behind + len(run)
                self._line_begins = False
                if len(run) >= len(self._fence):
                    self._state = self._prose
                    return at
            line_end = text.find("\n", at) + 1
            self._line_begins = line_end > 0
            self._say(text[at : line_end or len(text)])
            at = line_end or len(text)
        return at

    def _in_data(self, text: str, at: int, last: bool) -> int:
        stop = self._data.read(text, at)
        self._say(text[at:stop])
        if self._data.done or self._data.refused:
            self._state = self._prose
            self._line_begins = False
        return stop

    def _think(self, text: str, at: int, last: bool) -> int:
        closes = text.find(THINK_CLOSES, at)
        if closes < 0:
            border = len(text) if last else _before_cut(text, at, THINK_CLOSES)
            self._reason(text[at:border])
            return border
        self._reason(text[at:closes])
        self._behind_call()
        return closes + len(THINK_CLOSES)

    # -- blocks of calls

    def _begin_block(
        self,
        opener: str,
        *,
        tagged: bool = False,
        tentative: bool = False,
        fenced: bool = False,
        waits: bool = False,
    ) -> None:
        self._opener = opener
        self._raw = []
        self._raw_size = 0
        self._tagged = tagged
        self._tentative = tentative
        self._fenced = fenced
        self._waits = waits
        self._in_line = not self._line_begins
        self._array = False
        self._state = self._opening

    def _opening(self, text: str, at: int, last: bool) -> int:
        begun = at
        at = _end(_BLANKS, text, at)
        self._keep(text[begun:at])
        if at == len(text) or self._is_over:
            return at
        char = text[at]
        if char == "{":
            self._begin_object()
            return at
        if char == "[" and not self._array:
            self._array = True
            return self._consume(text, at, at + 1)
        if char == "<":
            if not last and any(cut.match(text, at) for cut in _CUT_IN_BLOCK):
                return at
            if opening := CALL_OPENING.match(text, at):
                self._tagged = True
                return self._consume(text, at, opening.end())
            if opening := FUNCTION_OPENING.match(text, at):
                self._keep(opening[0])
                self._begin_function(opening[1].strip())
                return opening.end()
        if char == "`" and self._tagged:
            if line := _INNER_FENCE.match(text, at):
                return self._consume(text, at, line.end())
            if not last and _CUT_INNER_FENCE.match(text, at):
                return at
        if self._tentative or self._is_mention():
            self._disprove()
        else:
            self._keep(text[at : at + FAULT_CHARACTERS])
            self._blame("malformed")
        return at

    def _is_empty(self) -> bool:
        """Whether a tag was opened, and nothing but blanks came."""
        return self._tagged and not "".join(self._raw).replace(CALL_OPENS, "").strip()

    def _is_mention(self) -> bool:
        """Whether the tag that was read is only spoken of: in a line, or with a word behind it."""
        between = "".join(self._raw)
        return self._in_line or (bool(between) and "\n" not in between and between.isspace())

    def _consume(self, text: str, at: int, stop: int) -> int:
        self._keep(text[at:stop])
        return stop

    def _in_object(self, text: str, at: int, last: bool) -> int:
        reader = self._object_reader
        stop = reader.read(text, at)
        self._keep(text[at:stop])
        if self._state != self._in_object:  # held for too long
            return stop
        self._pass_on()
        if self._state != self._in_object or self._is_over:
            return stop
        if reader.done:
            self._end_call()
        elif reader.refused:
            self._state = self._refused
        return stop

    def _refused(self, text: str, at: int, last: bool) -> int:
        """Where an object can't go on: its block's closer ends it, if nothing but closers lack."""
        if not last and any(cut.match(text, at) for cut in _CUT_CLOSERS):
            return at
        closes = CALL_CLOSING.match(text, at) or text.startswith(FUNCTION_CLOSES, at)
        if (closes or self._call.whole) and self._object_reader.complete():
            self._pass_on()
            self._end_call()
        else:
            self._keep(text[at : at + FAULT_CHARACTERS] if not self._tentative else "")
            self._break_call()
        return at

    def _in_function(self, text: str, at: int, last: bool) -> int:
        reader = self._function
        stop = reader.read(text, at, last=last)
        self._keep(text[at:stop])
        if self._state != self._in_function:
            return stop
        self._pass_on()
        if reader.done:
            self._end_call()
        elif reader.refused:
            self._tentative |= self._in_line and not reader.begun  # a tag that is only spoken of
            self._break_call()
        return stop

    def _between(self, text: str, at: int, last: bool) -> int:
        blanks = text[at : _end(_BLANKS, text, at)]
        at += len(blanks)
        if self._waits:
            self._keep(blanks)
        else:
            self._say(blanks)
        if at == len(text) or self._state != self._between:
            return at
        char = text[at]
        goes_on = self._tagged or self._array or self._fenced
        if char == "{" and goes_on:
            self._begin_object()
            return at
        if char in ",]}" and goes_on:
            self._array = self._array and char != "]"
            return self._consume(text, at, at + 1)
        if char == "<":
            stop = self._tag_between(text, at, last)
            if stop is not None:
                return stop
        elif char in "`~" and (self._tagged or self._fenced):
            run = run_of(text, at)
            if at + len(run) == len(text) and not last:
                return at
            if len(run) >= FENCE_TICKS:
                self._end_fence()
                return self._consume(text, at, at + len(run))
        if self._waits:
            self._disprove()
        else:
            self._behind_call()
        return at

    def _tag_between(self, text: str, at: int, last: bool) -> int | None:
        """A tag behind a call; the same position = more is needed, None = it is of no account."""
        if not last and any(cut.match(text, at) for cut in _CUT_IN_BLOCK):
            return at
        if closing := CALL_CLOSING.match(text, at) or _FUNCTION_CLOSING.match(text, at):
            self._tagged = self._tagged and closing.re is _FUNCTION_CLOSING
            if not self._tagged and not self._fenced:
                self._behind_call()
            return self._consume(text, at, closing.end())
        if opening := CALL_OPENING.match(text, at):
            self._forget_raw()
            self._tagged, self._array, self._in_line = True, False, False
            self._state = self._opening
            return self._consume(text, at, opening.end())
        if opening := FUNCTION_OPENING.match(text, at):
            self._forget_raw()
            self._keep(opening[0])
            self._begin_function(opening[1].strip())
            return opening.end()
        return None

    def _end_fence(self) -> None:
        if self._waits:
            self._state = self._waiting_for_end
        elif self._fenced:
            self._behind_call()

    def _waiting_for_end(self, text: str, at: int, last: bool) -> int:
        """Behind a fence: another one that may hold calls belongs to it, anything else decides."""
        begun = at
        at = _end(_BLANKS, text, at)
        self._keep(text[begun:at])
        if at == len(text) or self._state != self._waiting_for_end:
            return at
        fence = fence_at(text, at, last) if text[at] in "`~" else None
        if fence == "cut":
            return at
        if fence is None or not fence.may_call:
            self._disprove(closed=True)
            return at
        self._fence = fence.run
        self._tagged = self._array = False
        self._state = self._opening
        return self._consume(text, at, fence.inside)

    def _forget_raw(self) -> None:
        """What is kept from here on belongs to the next call."""
        if not self._waits:
            self._opener = ""
            self._raw = []
            self._raw_size = 0

    # -- one call

    def _begin_object(self) -> None:
        self._begin_call(Call(self._tools, any_name=self._repeat))
        self._object_reader = ObjectCall(self._call, known_only=not self._tagged)
        self._state = self._in_object

    def _begin_function(self, name: str) -> None:
        self._begin_call(Call(self._tools, name, any_name=self._repeat))
        self._state = self._in_function
        self._check_name()
        if self._state == self._in_function and self._call.tool is not None:
            self._function_reader = FunctionCall(self._call, self._call.tool)

    @property
    def _function(self) -> FunctionCall:
        assert self._function_reader is not None  # noqa: S101  # the state says so
        return self._function_reader

    @property
    def _function_begun(self) -> bool:
        return self._state != self._in_function or self._function.begun

    def _begin_call(self, call: Call) -> None:
        self._call = call
        self._started = False
        self._as_text = False
        self._aside = [] if self._waits else None

    def _check_name(self) -> None:
        """An undeclared name: text, the fault, or in the repeat a text of its own."""
        call = self._call
        if call.name is None or call.declared or self._as_text:
            return
        if self._tentative:
            self._disprove()
        elif not self._repeat:
            self._blame("undeclared")
        else:
            self._aside = []
            self._as_text = True

    def _pass_on(self) -> None:
        """What the newest text adds to the call goes out."""
        self._check_name()
        call = self._call
        if call.tool is None or self._is_over:
            return
        piece = call.take()
        if self._aside is not None:
            self._aside.append(piece)
        elif piece:
            self._start_call()
            self._put(ToolCallDelta(self._index, piece))

    def _start_call(self) -> None:
        if self._started or self._call.tool is None:
            return
        self._started = True
        self._tentative = False
        self._forget_raw()
        self._gap, self._blanks = self._blanks or self._gap, ""
        name, custom = self._call.tool.name, self._call.tool.custom
        self._put(ToolCallStart(self._index, self._call_id(self._index), name, custom))

    def _end_call(self) -> None:
        self._state = self._between
        if self._as_text:
            self._show_call("".join(self._aside or []))
        elif self._aside is not None and self._call.tool is not None:
            tool = self._call.tool
            self._waiting.append((tool.name, tool.custom, "".join(self._aside)))
        else:
            self._start_call()
            self._count_call()

    def _count_call(self) -> None:
        self._started = False
        self._put(ToolCallEnd(self._index), *self._later)
        self._later = []
        self._index += 1
        self._after_call = True
        if not self._parallel:
            self._end_here()

    def _show_call(self, arguments: str) -> None:
        """A call of an undeclared tool, in the repeat: text without its tags."""
        name = msgspec.json.encode(self._call.name).decode()
        self._text.append(f'{{"name": {name}, "arguments": {arguments}}}\n')
        self._as_text = False
        self._aside = None

    def _emit_waiting(self) -> None:
        """The answer ended behind a fence that holds calls: they are meant."""
        self._gap, self._blanks = self._blanks, ""
        waiting, self._waiting = self._waiting, []
        for name, custom, arguments in waiting:
            call_id = self._call_id(self._index)
            self._put(ToolCallStart(self._index, call_id, name, custom))
            self._put(ToolCallDelta(self._index, arguments))
            self._count_call()
            if self._is_over:
                break

    def _end_here(self) -> None:
        self.ended = True
        self._put(TurnEnd("tool_calls"))

    def _behind_call(self) -> None:
        self._state = self._prose
        self._line_begins = True
        self._ticks = ""
        self._gap, self._blanks = self._blanks or self._gap, ""
        self._after_call = True

    # -- what is no call

    def _keep(self, text: str) -> None:
        """Remember what a block holds, for as long as it may turn out to be text or a fault."""
        if self._started or not text:
            return
        self._raw.append(text)
        self._raw_size += len(text)
        if self._raw_size > MAX_HELD_CHARACTERS:
            self._break_call()

    def _break_call(self) -> None:
        if self._started:
            name = self._call.name
            error = UnusableAnswer(f"The model's call of {name} can't be read to its end")
            self._put(*self._later, TurnFailed(error))
            self.ended = True
        elif self._tentative:
            self._disprove()
        else:
            self._blame("malformed")

    def _blame(self, kind: "_Kind", text: str = "") -> None:
        written = text or self._opener + "".join(self._raw)
        self.fault = Fault(kind, name=self._call.name or "", text=written[:FAULT_CHARACTERS])

    def _disprove(self, *, closed: bool = False) -> None:
        """What looked like calls is text. `closed`: its fence, too."""
        raw = "".join(self._raw)
        self._waiting = []
        opener = self._opener
        self._tentative = self._waits = False
        self._forget_raw()
        self._call = Call({})
        self._line_begins = False
        if not opener and raw[0] in "{[":
            self._data = JsonReader(_forget, strict=True)
            self._again = raw
            self._state = self._in_data
            return
        self._say(opener + raw)
        if self._fenced and not closed:
            self._line_begins = raw.endswith("\n") or not raw
            self._state = self._in_fence
        else:
            self._state = self._prose

    # -- text

    def _say(self, text: str) -> None:
        """Pass text on; the blanks at its end wait for what follows."""
        if not text:
            return
        said = text.rstrip()
        if not said:
            self._blanks += text
        else:
            before = self._blanks
            if self._after_call:
                before = (before or self._gap) if self._said else ""
                self._after_call = False
            self._said = True
            self._emit(before + said)
            self._blanks = text[len(said) :]
        if len(self._blanks) > LOOKAHEAD_BLANKS:
            if not self._after_call:
                self._emit(self._blanks[:-LOOKAHEAD_BLANKS])
            self._blanks = self._blanks[-LOOKAHEAD_BLANKS:]

    def _emit(self, text: str) -> None:
        self._recent = (self._recent + text[-_RECENT_CHARACTERS:])[-_RECENT_CHARACTERS:]
        if not self._silent:
            self._text.append(text)

    def _put(self, *events: Event) -> None:
        self._flush_text()
        self._out += events

    def _flush_text(self) -> None:
        if self._text:
            self._out.append(TextDelta("".join(self._text)))
            self._text.clear()

    def _flush_blanks(self) -> None:
        blanks, self._blanks = self._blanks, ""
        if blanks and not self._after_call:
            self._emit(blanks)

    def _reason(self, text: str) -> None:
        if text and not self._silent:
            self._put(ReasoningDelta(text))


def _tells(tail: str) -> bool:
    """Whether a cut tag is long enough to be surely one."""
    return len(tail) >= _TELLING and tail[0] == "<"


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _before_cut(text: str, at: int, tag: str) -> int:
    """Where the longest end of `text` begins that may become `tag`."""
    start = text.find(tag[0], max(at, len(text) - len(tag) + 1))
    while start >= 0 and not tag.startswith(text[start:]):
        start = text.find(tag[0], start + 1)
    return start if start >= 0 else len(text)


def _forget(_: str) -> None:
    pass


_Kind = Literal["malformed", "undeclared", "not_called"]

_RECENT_CHARACTERS: Final = 200
_LONGEST_CODE: Final = 200  # of inline code that may hide a tag
_TELLING: Final = len("<tool_")

_SPECIAL: Final = re.compile(r"[<`\n]")
_BLANKS: Final = re.compile(r"\s*")
_LINE_REST: Final = re.compile(r"[ \t\r]{0,64}(\n?)")
_LINE_BLANKS: Final = re.compile(r"[ \t]{0,64}")
_CODE_OR_LINE_END: Final = re.compile(r"[`\n]")
_INNER_FENCE: Final = re.compile(r"`{3,}[a-zA-Z_]{0,20}[ \t\r]{0,20}\n")
_CUT_INNER_FENCE: Final = re.compile(r"`{1,64}(?:[a-zA-Z_]{0,20}[ \t\r]{0,20})?\Z")
_FUNCTION_CLOSING: Final = re.compile(re.escape(FUNCTION_CLOSES))

_CUT_CLOSERS: Final = (CUT_CALL_CLOSING, CUT_FUNCTION_CLOSING)
_CUT_IN_BLOCK: Final = (CUT_CALL_OPENING, CUT_FUNCTION_OPENING, *_CUT_CLOSERS)
_CUT_IN_PROSE: Final = (*_CUT_IN_BLOCK, CUT_THINK, CUT_RESULT)
