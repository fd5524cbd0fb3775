"""The Lua scripts: one atomic step per file, loaded once, checked against their heads.

A file in `lua/` begins with its documentation:

    -- <Sentence.>
    -- include: pool.lua                    (optional: its text comes first)
    -- KEYS[1] <type>: <meaning>            (one line per key)
    -- ARGV[1] <name>: <meaning, unit>      (one line per argument; ARGV[n...] = any number from n)
    -- returns <case>: <shape>              (one line per case)

`K_READY` in a script stands for the prefix of `keys.ready` (`gw:{pool}:ready:`), `K_LEASES` for the
whole name of a key without parts, `C_WAKE` and `C_LOGINS` for the channels: names are written once,
in `keys.py`. A script that touches the pool gets `keys.POOL` as KEYS[1] (it decides the node in a
cluster) and builds the rest itself.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

from shared.store import keys

_FOLDER = Path(__file__).parent / "lua"
# Included by others, run by nobody.
_PRELUDES = frozenset({"batches", "credentials", "login_slot", "pool", "responses"})
_HEAD_KEY = re.compile(r"-- KEYS\[(\d+)\] \S+: \S")
_HEAD_ARGUMENT = re.compile(r"-- ARGV\[(\d+)(\.\.\.)?\] \S+: \S")
_USED_KEY = re.compile(r"KEYS\[(\d+)\]")
_USED_ARGUMENT = re.compile(r"ARGV\[(\d+)\]")
_KEY_CONSTANT = re.compile(r"\bK_([A-Z_]+)\b")


class ScriptError(ValueError):
    """A script file's head is missing or contradicts its body."""


class Script:
    """One script, ready to be sent: its text, its digest, what its head declares."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.text = text


@cache
def load(name: str) -> Script:
    """The script `lua/<name>.lua` with its include and its key names in place.

    Raises:
        ScriptError: no head, or the head and the body disagree about KEYS and ARGV.
    """
    return Script(name, assemble(name, (_FOLDER / f"{name}.lua").read_text()))


def assemble(name: str, source: str) -> str:
    """The text that is sent to Redis.

    Raises:
        ScriptError: see `load`; or it names a key that there isn't.
    """
    check_head(name, source)
    body = "".join(
        (_FOLDER / included).read_text()
        for included in re.findall(r"^-- include: (\S+)$", source, re.MULTILINE)
    )
    body += source
    return _constants(name, body) + body


def check_head(name: str, source: str) -> None:
    """
    Raises:
        ScriptError: see `load`.
    """
    lines = source.splitlines()
    head = []
    for line in lines:
        if not line.startswith("--"):
            break
        head.append(line)
    if not head or not re.match(r"-- [A-Z][a-z ]", head[0]):
        raise ScriptError(f"{name}: the first line says in a sentence what the script does")
    if not any(line.startswith("-- returns ") for line in head):
        raise ScriptError(f"{name}: the head does not say what it returns")
    body = "\n".join(lines[len(head) :])
    declared_keys = {int(m[1]) for line in head if (m := _HEAD_KEY.match(line))}
    if {int(n) for n in _USED_KEY.findall(body)} - declared_keys or not declared_keys:
        raise ScriptError(f"{name}: KEYS in the head and in the body differ")
    declared = [m for line in head if (m := _HEAD_ARGUMENT.match(line))]
    fixed = {int(m[1]) for m in declared}
    if {int(n) for n in _USED_ARGUMENT.findall(body)} - fixed:
        raise ScriptError(f"{name}: ARGV in the head and in the body differ")
    if fixed != set(range(1, len(fixed) + 1)):
        raise ScriptError(f"{name}: ARGV in the head has a gap")


def names() -> list[str]:
    """Every script there is, without the preludes."""
    return sorted(path.stem for path in _FOLDER.glob("*.lua") if path.stem not in _PRELUDES)


def _constants(name: str, body: str) -> str:
    lines = []
    for word in sorted(set(_KEY_CONSTANT.findall(body))):
        key = getattr(keys, word.lower(), None)
        if not isinstance(key, keys.Key):
            raise ScriptError(f"{name}: K_{word} is no key of keys.py")
        lines.append(f"local K_{word} = '{key.prefix}'\n")
    lines.append(f"local C_WAKE, C_LOGINS = '{keys.WAKE_CHANNEL}', '{keys.LOGIN_CHANNEL}'\n")
    return "".join(lines)
