"""JSON Schemas of callers: whether they are schemas at all, and whether a document satisfies one.

A schema never makes us fetch anything: a `$ref` to an address elsewhere is refused.
"""

import functools
from typing import Any

import msgspec

from shared.errors import BadRequest

# Said of a document that fails: enough to mend it, short enough for a prompt.
_MOST_REASONS = 5
_LONGEST_REASON = 300


class SchemaValidator:
    """One schema, compiled."""

    def __init__(self, validator: Any) -> None:  # Any: the library is imported when first needed
        self._validator = validator

    def reasons_against(self, document: object) -> list[str]:
        """Why the document is not what the schema asks for; empty when it is."""
        reasons = []
        for error in self._validator.iter_errors(document):
            path = "".join(f"[{step!r}]" for step in error.instance_path) or "the document"
            reasons.append(f"{path}: {error.message}"[:_LONGEST_REASON])
            if len(reasons) == _MOST_REASONS:
                break
        return reasons


@functools.lru_cache(maxsize=256)
def compile_schema(schema: bytes, *, param: str) -> SchemaValidator:
    """The validator of a schema, given as JSON bytes.

    Raises:
        BadRequest: it is no JSON Schema, or it refers to an address elsewhere; with this `param`.
    """
    import jsonschema_rs  # 10 MB: only processes that see a schema pay for it

    try:
        decoded = msgspec.json.decode(schema)
        if not isinstance(decoded, dict | bool):
            raise BadRequest(f"{param}: a JSON Schema is an object", param=param)
        return SchemaValidator(jsonschema_rs.validator_for(decoded, retriever=_refuse))
    except (ValueError, msgspec.DecodeError) as error:
        reason = str(error).partition("\n")[0][:_LONGEST_REASON]
        raise BadRequest(f"{param}: not a JSON Schema: {reason}", param=param) from error


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} lies outside the schema")
