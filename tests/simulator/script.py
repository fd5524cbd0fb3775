"""Scripted behaviour: the `Action`, the directive inside a prompt, and the queue of the control route.

An action is one flat set of fields, spelled the same in a prompt (`[[sim: frames=64 delay_ms=20]]`), in the
body of `POST /_sim/next`, and as keyword arguments of `Simulator.next`. README.md has the table.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from tests.simulator.frames import Style, UsageFamily

Flag = bool
Shape = Literal["sse", "json", "markdown", "url", "fields", "detail", "none"]


class Action(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to do with the next matching request. Times are milliseconds, positions count frames from 0."""

    # -- which request (control route only)
    operation: str = "*"
    email: str | None = None
    match: str | None = None  # a piece of text the request's body holds
    chat_type: str | None = None
    times: int = 1  # 0 = until reset

    # -- which directive of a prompt (directives only)
    when: str | None = None  # text that the prompt outside directives must hold
    off: Flag = False  # as if there were no directive
    script: str | None = None  # the next step of a script registered by POST /_sim/scripts

    # -- the answer of a text generation
    say: str | None = None
    say64: str | None = None  # the same, base64 of UTF-8 (URL-safe or not)
    call: str | None = None  # a tool call by this name, written as `call_form` says, after `say`
    args: dict[str, Any] | str | None = None  # its arguments (a string is taken as JSON text)
    call_form: str = "hermes"
    frames: int | None = None  # number of answer frames
    think: int | str | None = None  # number of reasoning frames, or the reasoning itself
    think_phase: str = "think"
    think_format: Literal["detail", "summary"] | None = None
    search: int | None = None  # number of search results
    images: int | None = None  # pictures by the server's own tool, or number of pictures of t2i
    usage: UsageFamily = "input"
    candidates: int = 1
    phase: str | None = "answer"
    situation: str | None = None  # a golden stream of this name, byte for byte
    raw64: str | None = None  # the stream's bytes, base64
    finish: bool = True  # false: no finished frame
    done: Flag = False  # `data: [DONE]` at the end
    style: str = ""  # crlf,cr,bom,no_blank,multi_data,comments,blank_before_eol
    canned: Flag = False

    # -- media
    shape: Shape | None = None
    task_status: str | None = None  # what the video's task ends with; `success` by default
    polls: int | None = None  # how often the task says `running` first

    # -- failures
    fail: str | None = None  # a name of failures.FAILURES, or any code
    form: Literal["json", "frame", "error", "error_text"] | None = None
    after: int | None = None  # the failure comes after so many frames
    num: int | None = None
    details: str | None = None

    # -- any answer
    status: int | None = None
    body: str | None = None
    content_type: str | None = None
    headers: dict[str, str] | None = None
    set: dict[str, Any] | None = None  # members that replace those of the JSON answer; null removes

    # -- timing and transport
    latency_ms: float = 0  # before anything else
    first_ms: float = 0  # between the headers and the first frame
    delay_ms: float | None = None  # before every further frame
    cut: int = 0  # bytes per piece
    burst: int = 1  # frames per piece
    hang: Literal["before", "after"] | None = None  # before or after the headers, for ever
    reset: Literal["before"] | None = None
    reset_after: int | None = None
    close_after: int | None = None  # the connection closes without the chunked body's end
    cut_after: int | None = None  # the body ends properly, too early
    stall_after: int | None = None
    stall_ms: float | None = None  # how long `stall_after` lasts; for ever when missing
    silence_ms: float = 0  # before the first content frame, with keep_alive frames
    keep_alive_ms: float = 100  # between two of them
    keep_open_ms: float = 0  # the body stays open after the last frame; -1 = for ever
    gzip: Flag = False
    empty: Flag = False  # status 200 and no byte of body

    @property
    def text(self) -> str | None:
        """The exact answer text this action asks for, tool call included; `None` when it does not say."""
        spoken = self.say if self.say64 is None else decode64(self.say64).decode()
        if self.call is None:
            return spoken
        return (f"{spoken}\n" if spoken else "") + write_call(self.call, self.args, self.call_form)

    @property
    def wire_style(self) -> Style:
        fields: dict[str, Any] = {}
        for word in filter(None, re.split(r"[,+ ]+", self.style)):
            fields |= {"eol": word} if word in ("lf", "crlf", "cr") else {word: True}
        return msgspec.convert(fields, Style)


class ScriptError(ValueError):
    """A directive or action that the grammar does not know; the text says which field."""


def decode64(text: str) -> bytes:
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "==="[: -len(text) % 4])
    except binascii.Error as error:
        raise ScriptError(f"not base64: {error}") from error


def write_call(name: str, args: dict[str, Any] | str | None, form: str) -> str:
    """A tool call in one of the notations models really write (5.3, 15.7)."""
    arguments = args if isinstance(args, str) else msgspec.json.encode(args or {}).decode()
    plain = f'{{"name": "{name}", "arguments": {arguments}}}'
    if form == "hermes":
        return f"<tool_call>\n{plain}\n</tool_call>"
    if form == "naked":
        return plain
    if form == "fenced":
        return f"```json\n{plain}\n```"
    if form == "unclosed":
        return f"<tool_call>\n{plain}"
    if form == "short_closer":
        return f"<tool_call>\n{plain}\n</tool_call"
    if form == "array":
        return f"<tool_call>\n[{plain}]\n</tool_call>"
    if form in ("parameters", "args", "input"):
        return (
            f"<tool_call>\n{plain.replace(chr(34) + 'arguments', chr(34) + form, 1)}\n</tool_call>"
        )
    if form == "openai":
        inner = msgspec.json.encode({"name": name, "arguments": arguments}).decode()
        return f'<tool_call>\n{{"type": "function", "function": {inner}}}\n</tool_call>'
    if form in ("xml", "xml_naked"):
        values = msgspec.json.decode(arguments)
        lines = [f"<function={name}>"]
        for key, value in values.items():
            shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            lines.append(f"<parameter={key}>\n{shown}\n</parameter>")
        lines.append("</function>")
        inner = "\n".join(lines)
        return inner if form == "xml_naked" else f"<tool_call>\n{inner}\n</tool_call>"
    raise ScriptError(f"unknown call_form {form!r}")


# -- directives

_DIRECTIVE = re.compile(r'\[\[sim:((?:"(?:[^"\\]|\\.)*"|[^"\]]|\](?!\]))*)\]\]', re.DOTALL)
_WORD = re.compile(r'\s*([a-z0-9_]+)(?:=("(?:[^"\\]|\\.)*"|[^\s"\]]*))?', re.DOTALL)


def read_directive(inside: str) -> Action:
    """The text between `[[sim:` and `]]` as an action.

    `key=value`, `key="JSON string"`, a bare `key` means true; or one JSON object: `{"say": "…"}`.
    """
    inside = inside.strip()
    if inside.startswith("{"):
        return to_action(_decode(inside))
    fields: dict[str, Any] = {}
    at = 0
    while at < len(inside):
        found = _WORD.match(inside, at)
        if found is None:
            raise ScriptError(f"cannot read the directive from {inside[at : at + 30]!r}")
        key, value = found.groups()
        fields[key] = True if value is None else _value(key, value)
        at = found.end()
        while at < len(inside) and inside[at].isspace():
            at += 1
    return to_action(fields)


def find_action(prompt: str) -> Action | None:
    """The action of the last directive whose `when` holds; `None` without one, or when it says `off`."""
    if "[[sim:" not in prompt:
        return None
    rest = _DIRECTIVE.sub("", prompt)
    chosen: Action | None = None
    for found in _DIRECTIVE.finditer(prompt):
        action = read_directive(found.group(1))
        if action.when is None or action.when in rest:
            chosen = action
    return None if chosen is None or chosen.off else chosen


def without_directives(prompt: str) -> str:
    return _DIRECTIVE.sub("", prompt).strip()


def to_action(fields: dict[str, Any]) -> Action:
    try:
        action = msgspec.convert(fields, Action, strict=False)
        _ = action.wire_style
    except msgspec.ValidationError as error:
        raise ScriptError(str(error)) from error
    return action


def _value(key: str, text: str) -> Any:
    if text.startswith('"'):
        return _decode(text)
    if key == "think" and text.isdigit():
        return int(text)
    if key == "phase" and text == "none":
        return None
    return text


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ScriptError(f"not JSON: {error}: {text[:60]!r}") from error


# -- the queue and the named scripts


class Playbook:
    """Queued actions in order, and scripts whose steps are taken one per request."""

    def __init__(self) -> None:
        self.queue: list[Action] = []
        self.scripts: dict[str, list[Action]] = {}
        self.steps_taken: dict[str, int] = {}

    def add(self, action: Action) -> None:
        self.queue.append(action)

    def take(
        self, operation: str, *, email: str, body: bytes, chat_type: str | None = None
    ) -> Action | None:
        """The first queued action that fits; it is used up after `times` requests."""
        for index, action in enumerate(self.queue):
            if not _fits(action, operation, email, body, chat_type):
                continue
            if action.times:
                action.times -= 1
                if not action.times:
                    del self.queue[index]
            return action
        return None

    def write(self, name: str, steps: Iterable[dict[str, Any]]) -> None:
        self.scripts[name] = [to_action(step) for step in steps]
        self.steps_taken[name] = 0

    def step(self, name: str) -> Action:
        """The next step of script `name`; the last one repeats."""
        steps = self.scripts.get(name)
        if not steps:
            raise ScriptError(f"no script named {name!r}")
        taken = self.steps_taken[name]
        self.steps_taken[name] = taken + 1
        return steps[min(taken, len(steps) - 1)]


def _fits(action: Action, operation: str, email: str, body: bytes, chat_type: str | None) -> bool:
    if action.operation not in ("*", operation):
        return False
    if action.email is not None and action.email.lower() != email.lower():
        return False
    if action.chat_type is not None and action.chat_type != chat_type:
        return False
    return action.match is None or action.match.encode() in body
