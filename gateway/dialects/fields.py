"""Fields that mean the same in more than one dialect: their bounds and how they are read."""

import msgspec

from shared.chat.request import Message, ReasoningPart, TextPart
from shared.errors import BadRequest

# Protocol sheet, section 5: what the upstream's own callers may ask for.
THINKING_BUDGET_MAX = 38_911
EFFORT_BUDGETS = {"low": 2_048, "medium": 8_192, "high": 32_768, "xhigh": THINKING_BUDGET_MAX}
STOP_SEQUENCES_MAX = 64
STOP_SEQUENCE_LENGTH_MAX = 2_000


def at_least_one(tokens: int, path: str) -> int:
    if tokens < 1:
        raise BadRequest(f"{path}: expected an integer >= 1, got {tokens}", param=path)
    return tokens


def thinking_budget(tokens: int, path: str) -> int:
    """Lowered to the upstream's bound where it is above it: it stays an upper bound."""
    return min(at_least_one(tokens, path), THINKING_BUDGET_MAX)


def stop_sequences(given: str | list[str] | None, path: str) -> tuple[str, ...]:
    """More than the APIs' own number is welcome: it is the gateway that looks for them."""
    if not given:
        return ()
    sequences = (given,) if isinstance(given, str) else tuple(given)
    if len(sequences) > STOP_SEQUENCES_MAX:
        raise BadRequest(f"{path}: at most {STOP_SEQUENCES_MAX} sequences", param=path)
    for index, sequence in enumerate(sequences):
        if not 0 < len(sequence) <= STOP_SEQUENCE_LENGTH_MAX:
            at = path if isinstance(given, str) else f"{path}[{index}]"
            raise BadRequest(f"{at}: expected 1 to {STOP_SEQUENCE_LENGTH_MAX} characters", param=at)
    return sequences


def json_schema_object(given: msgspec.Raw, path: str) -> msgspec.Raw:
    """What a tool takes; null and nothing at all mean anything."""
    schema = bytes(given)
    if schema in (b"", b"null"):
        return msgspec.Raw(b"{}")
    if not schema.startswith(b"{"):
        raise BadRequest(f"{path}: expected a JSON Schema", param=path)
    return msgspec.Raw(schema)


def says_something(message: Message) -> bool:
    """Whether the upstream would read anything of it."""
    return any(
        bool(part.text.strip())
        if isinstance(part, TextPart)
        else not isinstance(part, ReasoningPart)
        for part in message.parts
    )


def asks(value: object) -> bool:
    """Whether a field that nobody heeds asked for anything: null, false and empty don't."""
    return value is not None and value is not False and value not in ("", [], {})
