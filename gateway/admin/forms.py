"""The fields of a posted form.

Our forms are `application/x-www-form-urlencoded`, as browsers send them unless told otherwise;
Starlette's own reader would need one more dependency for just this.
"""

import urllib.parse

from starlette.requests import Request

from gateway.bodies import read_body
from shared.errors import BadRequest

LARGEST_FORM_BYTES = 100_000
_MOST_FIELDS = 100


async def read_form(request: Request, *, max_bytes: int = LARGEST_FORM_BYTES) -> dict[str, str]:
    """Name → value, trimmed; of a name that comes twice the last.

    Raises:
        BadRequest: not a form, or one that nobody of ours sends.
        PayloadTooLarge: longer than `max_bytes`.
    """
    body = await read_body(request.scope, request.receive, max_bytes=max_bytes)
    try:
        pairs = urllib.parse.parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise BadRequest("The form can't be read") from error
    return {name: value.strip() for name, value in pairs}
