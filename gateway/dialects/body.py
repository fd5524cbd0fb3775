"""Request bodies: JSON → a dialect's Struct; what is wrong is said with the path of the field.

An optional field that is null or an empty list counts as absent, unknown fields are accepted
(contract, section 3). Bodies without such a field are decoded once; the rest pays for its own.
"""

import re
from typing import TypeVar

import msgspec

from shared.errors import BadRequest

T = TypeVar("T")

_decode_any = msgspec.json.Decoder().decode


def read_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode `body` into the decoder's type.

    Raises:
        BadRequest: malformed JSON, or a field of the wrong type, `param` = its path.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        return _read_without_empty_fields(body, decoder.type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error


def _read_without_empty_fields(body: bytes, kind: type[T]) -> T:
    try:
        given = _decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from error
    if isinstance(given, dict):
        given = {name: value for name, value in given.items() if value not in (None, [])}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error)) from error


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
