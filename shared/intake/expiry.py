"""When a token that was brought along lapses."""

import math
from typing import Final

# Nobody's token lived in 5138: larger numbers are milliseconds.
_MILLISECONDS_FROM: Final = 100_000_000_000


def epoch_seconds(value: float | str | None) -> float:
    """The moment in epoch seconds, from seconds or milliseconds, as number or text; 0 = unknown."""
    try:
        moment = float(value or 0)
    except (ValueError, OverflowError):
        return 0.0
    if not math.isfinite(moment) or moment < 0:
        return 0.0
    return moment / 1000 if moment >= _MILLISECONDS_FROM else moment
