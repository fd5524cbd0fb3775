"""Request bodies: JSON → a dialect's Struct; what is wrong is said with the path of the field.

An optional field that is null or an empty list counts as absent, unknown fields are accepted
(contract, section 3). JavaScript cuts text between the halves of a character and sends the lone
half as an escape, `"\\ud83d"`, which JSON's grammar allows and no decoder can read: it becomes
U+FFFD. Bodies without any of this are decoded once; the rest pays for its own.
"""

import re
from typing import TypeVar

import msgspec

from shared.errors import BadRequest

T = TypeVar("T")

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode `body` into the decoder's type.

    Raises:
        BadRequest: malformed JSON, or a field of the wrong type, `param` = its path.
    """
    try:
        return _read(body, decoder)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    except msgspec.DecodeError as error:
        whole = _without_lone_surrogates(body)
        if whole == body:
            raise _malformed(error) from error
        return read_body(whole, decoder)


def is_empty(value: bytes) -> bool:
    """`null`, or `[]` with any blanks in it."""
    return value == b"null" or value.split() in ([b"[]"], [b"[", b"]"])


def _read(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        fields = _decode_fields(body)
        given = {name: value for name, value in fields.items() if not is_empty(bytes(value))}
        return decoder.decode(msgspec.json.encode(given))


# Every escape is taken as a whole, so that the `\\ud83d` of an escaped backslash stays what it is.
_HIGH, _LOW = rb"u[dD][89abAB][0-9a-fA-F]{2}", rb"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rb"\\(?:%b\\%b|(?P<lone>%b|%b)|.)" % (_HIGH, _LOW, _HIGH, _LOW), re.DOTALL)


def _without_lone_surrogates(body: bytes) -> bytes:
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape["lone"] else escape[0], body)


def _malformed(error: Exception) -> BadRequest:
    if isinstance(error, UnicodeDecodeError):
        return BadRequest("the body is not valid UTF-8")
    if isinstance(error, RecursionError):
        return BadRequest("the body is nested too deeply")
    return BadRequest(f"the body is not valid JSON: {error}")


_JSON_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _wrong_field(message: str) -> BadRequest:
    """`Expected `int | null`, got `str` - at `$.n`` → `n: expected integer, got string`."""
    what, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", what):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return BadRequest(f"{path} is missing", param=path)
    what = re.sub(r" \| null\b", "", what).replace("`", "").replace(" | ", " or ")
    what = re.sub(r"\b(str|int|float|bool)\b", lambda name: _JSON_NAMES[name[0]], what)
    what = what[:1].lower() + what[1:]
    return BadRequest(f"{path or 'the body'}: {what}", param=path or None)
