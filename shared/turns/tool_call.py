"""Reads one tool call, as an object or as a function, and collects it as it is written.

A `Call` is what has been read of it: the name, and the arguments as far as they are known. Whoever
drives the reader takes from the call what can go out: nothing before the name is there, because
only then it is known whether the tool was declared.

    ObjectCall      {"name": "f", "arguments": {…}} in all its spellings
    FunctionCall    what follows <function=f>

In the function form nothing is escaped, so a value can hold any markup, this one, too. A
`</parameter>` ends its value when what follows goes on with the call: another parameter, the end of
the function, or the end of the answer. Followed by anything else it is a part of the value. A
value may hold whole calls (somebody edits this file): parameters that open inside a value where a
line begins, close inside it, and a function's end that is followed by `</parameter>` is not ours.

Source: protocol sheet 15.7. Sans-IO.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from shared.chat.request import Tool
from shared.turns.json_text import (
    Captured,
    JsonReader,
    ObjectReader,
    Reader,
    Skipped,
    StringReader,
    Write,
)
from shared.turns.tool_forms import (
    ARGUMENTS_MEMBERS,
    CALL_CLOSING,
    CALL_OPENING,
    CUSTOM_PARAMETER,
    CUT_CALL_CLOSING,
    CUT_CALL_OPENING,
    CUT_FUNCTION_CLOSING,
    CUT_FUNCTION_OPENING,
    CUT_PARAMETER_CLOSING,
    CUT_PARAMETER_OPENING,
    FUNCTION_CLOSES,
    FUNCTION_MEMBER,
    FUNCTION_OPENING,
    IDLE_MEMBERS,
    LOOKAHEAD_BLANKS,
    NAME_MEMBERS,
    PARAMETER_CLOSES,
    PARAMETER_OPENING,
    DeclaredTool,
    Kind,
)


class Call:
    """One call while it is read.

    Args:
        any_name: a tool that wasn't declared may be called too, with arguments of any type.

    Attributes:
        name: None until it was read. `tool` is what was declared under it, None = nothing.
        declared: whether it was declared.
        whole: name and arguments are complete.
    """

    def __init__(
        self,
        tools: Mapping[str, DeclaredTool],
        name: str | None = None,
        *,
        any_name: bool = False,
    ) -> None:
        self.name: str | None = None
        self.declared = False
        self.tool: DeclaredTool | None = None
        self.begun = False
        self.broken = False
        self._tools = tools
        self._any_name = any_name
        self._pieces: list[str] = []
        self._ended = False
        self._written_as: _WrittenAs = "meant"
        if name is not None:
            self.call_it(name)

    def call_it(self, name: str) -> None:
        if self.name is None:
            self.name = name.strip()
            self.tool = self._tools.get(self.name)
            self.declared = self.tool is not None
            if self.tool is None and self._any_name:
                self.tool = DeclaredTool(Tool(self.name))
            self._convert()

    def begin_arguments(self, written_as: "_WrittenAs") -> None:
        self.begun = True
        self._written_as = written_as

    def write(self, piece: str) -> None:
        """Add to the arguments: JSON, or a custom tool's free text."""
        self._pieces.append(piece)

    def end_arguments(self) -> None:
        self._ended = True
        self._convert()

    @property
    def whole(self) -> bool:
        return self._ended and self.name is not None and not self.broken

    def take(self) -> str:
        """What can go out and hasn't. Contract: the tool is known."""
        taken = "".join(self._pieces)
        self._pieces.clear()
        return taken

    def _convert(self) -> None:
        """Arguments that came before the name become what the tool takes, once both are there."""
        if self.tool is None or not (self.begun and self._written_as != "meant"):
            return
        written_as, self._written_as = self._written_as, "meant"
        if self.tool.custom == (written_as == "text"):
            return
        given, self._pieces = "".join(self._pieces), []
        if self.tool.custom:
            self.write(_free_text(given))
        elif self.declared:
            self.broken = not _write_json(given, self.write)
        else:
            self.write(_quoted(given))


_WrittenAs = Literal["meant", "object", "text"]
"""How the arguments are there: as the tool takes them; or, as long as its name isn't known, as the
JSON object they were written as, or as what the string said that they were written as."""


def _write_json(text: str, write: Write) -> bool:
    """Passes on the object that a string held."""
    reader = JsonReader(write)
    text = text.strip() or "{}"
    reader.read(text, 0)
    return text[0] == "{" and (reader.done or (not reader.refused and reader.complete()))


def _free_text(arguments: str) -> str:
    """A custom tool's text out of arguments that were written as JSON before its name was known."""
    given = msgspec.json.decode(arguments)
    texts = [value for value in given.values() if isinstance(value, str)]
    text = given.get(CUSTOM_PARAMETER)
    return text if isinstance(text, str) else texts[0] if texts else arguments


# -- objects


class ObjectCall(ObjectReader):
    """Reads `{"name": …, "arguments": …}` into a call.

    known_only: refused as soon as it can't be a call: another tool's name, another member before
    the arguments have begun. Nothing behind that is read: no cut decides where it is refused.
    """

    def __init__(self, call: Call, *, known_only: bool) -> None:
        super().__init__(self._reader_of)
        self._call = call
        self._known_only = known_only
        self._others = False

    def read(self, text: str, at: int) -> int:
        at = super().read(text, at)
        if self.done:
            self._end()
        return at

    def complete(self) -> bool:
        if not self._call.whole and not super().complete():
            return False
        self._end()
        return not self.refused

    def _end(self) -> None:
        """An object that names its tool and nothing else calls it without arguments."""
        call = self._call
        if not call.begun and call.name and not self._others and not self._known_only:
            call.begin_arguments("meant")
            call.write("" if call.tool and call.tool.custom else "{}")
            call.end_arguments()
        self.refused = not call.whole
        self.done = not self.refused

    def _reader_of(self, member: str, first: str) -> Reader | None:
        if member in NAME_MEMBERS or (member == FUNCTION_MEMBER and first in "\"'"):
            return _Name(self._call, known_only=self._known_only)
        if member == FUNCTION_MEMBER and first == "{":
            return ObjectReader(self._reader_of)
        if member in ARGUMENTS_MEMBERS and not self._call.begun:
            return _Arguments(self._call, first)
        if member in IDLE_MEMBERS:
            return Skipped()
        if self._known_only and not self._call.begun:
            return None
        self._others = True
        return Skipped()


class _Name(StringReader):
    def __init__(self, call: Call, *, known_only: bool) -> None:
        self._call = call
        self._known_only = known_only
        self._said: list[str] = []
        super().__init__(self._said.append)

    def read(self, text: str, at: int) -> int:
        at = super().read(text, at)
        if self.done:
            self._call.call_it("".join(self._said))
            self.refused = self._known_only and not self._call.declared
        return at


class _Arguments:
    """The value of `arguments`, whatever holds it: an object, a string that holds one, nothing."""

    def __init__(self, call: Call, first: str) -> None:
        self.done = False
        self.refused = False
        self._call = call
        quoted = first in "\"'"
        if call.tool is None:
            call.begin_arguments("text" if quoted else "object")
            self._inner = StringReader(call.write) if quoted else _json_reader(call.write, first)
        else:
            call.begin_arguments("meant")
            if not call.declared:
                self._inner = JsonReader(call.write)
            elif call.tool.custom:
                self._inner = _free_reader(call.write, first)
            else:
                self._inner = _json_reader(call.write, first)

    def read(self, text: str, at: int) -> int:
        at = self._inner.read(text, at)
        self.refused = self._inner.refused
        self._settle(self._inner.done)
        return at

    def complete(self) -> bool:
        self._settle(self._inner.complete())
        return self.done

    def _settle(self, done: bool) -> None:
        if done and not self.done:
            self.done = True
            self._call.end_arguments()


def _json_reader(write: Write, first: str) -> Reader:
    if first == "{":
        return JsonReader(write)
    return JsonInString(write) if first in "\"'" else _Nothing(write)


def _free_reader(write: Write, first: str) -> Reader:
    if first != "{":
        return StringReader(write)
    texts: list[str] = []

    def first_text(member: str, value: str) -> Reader:
        if texts or value not in "\"'":
            return Skipped()
        texts.append(member)
        return StringReader(write)

    return ObjectReader(first_text)


class _Nothing(Captured):
    """`null` and `[]` stand for no arguments; anything else is refused."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._say = write

    def read(self, text: str, at: int) -> int:
        stop = super().read(text, at)
        if self.done:
            if "".join(self.text.split()) not in ("null", "[]"):
                self.done, self.refused = False, True
                return stop
            self._say("{}")
        return stop

    def complete(self) -> bool:
        return self.done


class JsonInString:
    """Reads a string that holds an object, and passes the object on as it is written.

    A string that holds something else is refused where it ends: that place depends on no cut.
    """

    def __init__(self, write: Write) -> None:
        self.done = False
        self.refused = False
        self._write = write
        self._outer = StringReader(self._feed)
        self._inner = JsonReader(write)
        self._rest = ""
        self._said = False

    def read(self, text: str, at: int) -> int:
        at = self._outer.read(text, at)
        if self._outer.done:
            self.done = self._end()
            self.refused = not self.done
        return at

    def complete(self) -> bool:
        return self.done

    def _feed(self, said: str) -> None:
        if self._inner.refused or self._inner.done:
            return
        text = self._rest + said
        if not self._said:
            text = text.lstrip()
            if text and text[0] != "{":
                self._inner.refused = True
                return
            self._said = bool(text)
        at = self._inner.read(text, 0)
        self._rest = text[at:]

    def _end(self) -> bool:
        """An empty string stands for no arguments; closers that are missing inside are added."""
        if self._inner.refused:
            return False
        if not self._said:
            self._write("{}")
            return True
        return self._inner.complete()


# -- functions


class FunctionCall:
    """Reads what follows `<function=NAME>`, up to its closer."""

    def __init__(self, call: Call, tool: DeclaredTool) -> None:
        self.done = False
        self.refused = False
        self._call = call
        self._tool = tool
        self._object: JsonReader | None = None
        self._value: _Value | None = None
        self._free: _Value | None = None
        self._seen: set[str] = set()
        call.begin_arguments("meant")

    @property
    def begun(self) -> bool:
        """Whether anything of the call followed its name."""
        return bool(self._seen or self._value or self._free or self._object)

    def read(self, text: str, at: int, *, last: bool = False) -> int:
        """last: no text comes after this one."""
        while not self.done and not self.refused and at < len(text):
            stop = self._step(text, at, last)
            if stop is None:
                return at
            at = stop
        return at

    def complete(self) -> bool:
        """The answer is over: the call is whole when it has all that it must have, and anything."""
        if not self.done and self._seen:
            self._end_unclosed()
        return self.done

    def _end_unclosed(self) -> None:
        if self._value or self._object or self._free or not self._tool.required <= self._seen:
            self.refused = True
        else:
            self._end()

    def _step(self, text: str, at: int, last: bool) -> int | None:
        """Where to go on; None = more text is needed."""
        if self._value is not None:
            return self._in_value(self._value, text, at, last)
        if self._free is not None:
            return self._in_free_text(self._free, text, at, last)
        if self._object is not None:
            return self._in_object(self._object, text, at, last)
        return self._in_body(text, at, last)

    def _in_body(self, text: str, at: int, last: bool) -> int | None:
        begun = at
        at = _after_blanks(text, at)
        if at == len(text):
            return None
        if text.startswith(FUNCTION_CLOSES, at):
            self._end()
            return at + len(FUNCTION_CLOSES)
        opening = PARAMETER_OPENING.match(text, at)
        if opening and not self._call.whole:
            self._begin_value(opening[1].strip())
            return opening.end()
        cut = _is_cut(text, at)
        if cut and not last:
            return None
        if cut or any(
            tag.match(text, at) for tag in (CALL_CLOSING, CALL_OPENING, FUNCTION_OPENING)
        ):
            self._end_unclosed()
            return at
        first = not self._seen and not self._call.whole
        if first and text[at] == "{" and not self._tool.custom:
            self._object = JsonReader(self._call.write)
            return at
        if first and self._tool.custom:
            self._free = _Value(self._call.write, "text", raw=True)
            return begun
        self.refused = True
        return at

    def _begin_value(self, key: str) -> None:
        kind: Kind = "text" if self._tool.custom else self._tool.kind(key)
        if self._tool.custom:
            write = _ignore if self._seen else self._call.write
            self._value = _Value(write, "text", raw=True)
        else:
            name = msgspec.json.encode(key).decode()
            opens = f"{', ' if self._seen else '{'}{name}: "
            self._value = _Value(self._call.write, kind, opens=opens, tool=self._tool, key=key)
        self._seen.add(key)

    def _in_value(self, value: "_Value", text: str, at: int, last: bool) -> int | None:
        stop = value.read(text, at, last)
        if value.done:
            self._value = None
        return stop if stop > at or value.done else None

    def _in_free_text(self, value: "_Value", text: str, at: int, last: bool) -> int | None:
        """A custom tool's text without a parameter around it."""
        stop = value.read(text, at, last)
        if value.done:
            self._free = None
            self._seen.add(CUSTOM_PARAMETER)
        return stop if stop > at or value.done else None

    def _in_object(self, reader: JsonReader, text: str, at: int, last: bool) -> int | None:
        stop = reader.read(text, at)
        if reader.refused:
            if not last and _is_cut(text, stop):
                reader.refused = False
                return stop if stop > at else None
            closes = _is_closer(text, stop) or (last and _is_cut(text, stop))
            self.refused = not (closes and reader.complete())
        if reader.done:
            self._object = None
            self._seen |= self._tool.required
            self._call.end_arguments()
        return stop if stop > at or reader.done or self.refused else None

    def _end(self) -> None:
        self.done = True
        if not self._call.whole:
            if not self._tool.custom:
                self._call.write("}" if self._seen else "{}")
            self._call.end_arguments()


class _Value:
    """A value of the function form, up to its closer, without one line break at each end.

    raw: pass it on as it is (free text); otherwise as a JSON value of the kind, after `opens`.
    """

    def __init__(
        self,
        write: Write,
        kind: Kind,
        *,
        raw: bool = False,
        opens: str = "",
        tool: DeclaredTool | None = None,
        key: str = "",
    ) -> None:
        self.done = False
        self._write = write
        self._kind = kind
        self._raw = raw
        self._opens = opens
        self._tool = tool
        self._key = key
        self._held: list[str] = []
        self._streams = kind == "text"
        self._fresh = True  # the line break at the beginning may still come
        self._empty = True
        self._nested = 0  # parameters that opened in the value, on a line of their own
        self._nested_functions = 0
        if self._streams and not raw:
            self._write(opens + '"')

    def read(self, text: str, at: int, last: bool) -> int:
        if self._fresh:
            skipped = _line_break(text, at)
            if skipped is None and not last:
                return at
            self._fresh = False
            at = skipped or at
        while not self.done:
            tag = text.find("<", at)
            border = _before_line_break(text, at, len(text) if tag < 0 else tag)
            self._say(text[at:border])
            at = border
            if tag < 0:
                break
            verdict = self._judge(text, tag, last, own_line=border < tag or self._empty)
            if verdict is None:
                break
            if verdict < 0:
                self._say(text[at : tag + 1])
                at = tag + 1
            else:
                self._end()
                at = verdict
        return at

    def _judge(self, text: str, tag: int, last: bool, *, own_line: bool) -> int | None:
        """Where the call goes on when the value ends at this `<`; -1 = data; None = needs more."""
        if text.startswith(PARAMETER_CLOSES, tag):
            behind = tag + len(PARAMETER_CLOSES)
            follows = _what_follows(text, behind, last)
            if follows is None:
                return None
            if follows == "end" or (follows != "text" and not self._nested):
                return behind
            self._nested = max(0, self._nested - 1)
            return -1
        if text.startswith(FUNCTION_CLOSES, tag) and own_line and not self._nested:
            if self._nested_functions:
                self._nested_functions -= 1
                return -1
            follows = _what_follows(text, tag, last)
            return None if follows is None else -1 if follows == "text" else tag
        if not last and any(cut.match(text, tag) for cut in _CUT_IN_VALUE):
            return None
        if own_line:
            self._nested += PARAMETER_OPENING.match(text, tag) is not None
            self._nested_functions += FUNCTION_OPENING.match(text, tag) is not None
        return -1

    def _say(self, text: str) -> None:
        if not text:
            return
        self._empty = False
        if self._streams:
            self._write(text if self._raw else _escaped(text))
            return
        self._held.append(text)
        if self._kind == "text or null" and not _may_be_null("".join(self._held)):
            self._streams = True
            self._write(self._opens + '"' + _escaped("".join(self._held)))

    def _end(self) -> None:
        self.done = True
        if self._raw:
            return
        if self._streams:
            self._write('"')
            return
        self._write(self._opens + self._as_json("".join(self._held)))

    def _as_json(self, text: str) -> str:
        """The value as the schema has it; what isn't of such a type stays the text it is."""
        stripped = text.strip()
        if self._kind == "text or null":
            return "null" if stripped == "null" else _quoted(text)
        reader = Captured()
        if reader.read(stripped + " ", 0) >= len(stripped) and reader.done:
            if self._kind == "value":
                return reader.text
            value = msgspec.json.decode(reader.text)
            if not isinstance(value, str) and self._tool and self._tool.allows(self._key, value):
                return reader.text
        return _quoted(text)


_Follows = Literal["next", "last", "end", "text"]
"""Behind a value: another parameter or call; the call's end, and text; that, and the answer's end;
nothing of a call."""


def _what_follows(text: str, at: int, last: bool) -> _Follows | None:
    """None = not to be said yet."""
    at = _after_few_blanks(text, at)
    if at == len(text):
        return "end" if last else None
    if not last and _is_cut(text, at):
        return None
    ended = False
    if text.startswith(FUNCTION_CLOSES, at):
        ended = True
        at = _after_few_blanks(text, at + len(FUNCTION_CLOSES))
        if not last and (at == len(text) or CUT_CALL_CLOSING.match(text, at)):
            return None
    if closing := CALL_CLOSING.match(text, at):
        ended = True
        at = _after_few_blanks(text, closing.end())
    if ended:
        if text.startswith(PARAMETER_CLOSES, at):
            return "text"
        if not last and (at == len(text) or _is_cut(text, at)):
            return None
        goes_on = FUNCTION_OPENING.match(text, at) or CALL_OPENING.match(text, at)
        return "next" if goes_on else "end" if at == len(text) else "last"
    tags = (PARAMETER_OPENING, FUNCTION_OPENING, CALL_OPENING)
    if any(tag.match(text, at) for tag in tags):
        return "next"
    return "end" if last and _is_cut(text, at) else "text"


def _is_closer(text: str, at: int) -> bool:
    return bool(CALL_CLOSING.match(text, at)) or text.startswith(FUNCTION_CLOSES, at)


def _is_cut(text: str, at: int) -> bool:
    """Whether the text ends within a tag that begins here."""
    return text[at : at + 1] == "<" and any(cut.match(text, at) for cut in _CUT_TAGS)


def _may_be_null(text: str) -> bool:
    return len(text) <= LOOKAHEAD_BLANKS and "null".startswith(text.strip())


def _line_break(text: str, at: int) -> int | None:
    """The position behind a line break that stands here, or `at`; None = one may be cut here."""
    if text.startswith("\r\n", at):
        return at + 2
    if text[at : at + 1] == "\n":
        return at + 1
    return None if text[at:] in ("", "\r") else at


def _before_line_break(text: str, start: int, end: int) -> int:
    if end > start and text[end - 1] == "\n":
        end -= 1
        return end - 1 if end > start and text[end - 1] == "\r" else end
    return end - 1 if end == len(text) and end > start and text[end - 1] == "\r" else end


def _after_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def _after_few_blanks(text: str, at: int) -> int:
    found = _FEW_BLANKS.match(text, at)
    return found.end() if found else at


def _escaped(text: str) -> str:
    return _quoted(text)[1:-1]


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _ignore(_: str) -> None:
    pass


_BLANKS: Final = re.compile(r"\s*")
_FEW_BLANKS: Final = re.compile(rf"\s{{0,{LOOKAHEAD_BLANKS}}}")
_CUT_IN_VALUE: Final = (
    CUT_PARAMETER_OPENING,
    CUT_PARAMETER_CLOSING,
    CUT_FUNCTION_OPENING,
    CUT_FUNCTION_CLOSING,
)
_CUT_TAGS: Final = (
    CUT_PARAMETER_OPENING,
    CUT_PARAMETER_CLOSING,
    CUT_FUNCTION_OPENING,
    CUT_FUNCTION_CLOSING,
    CUT_CALL_OPENING,
    CUT_CALL_CLOSING,
)
