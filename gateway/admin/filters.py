"""How numbers and moments are told on the pages. Pure.

Moments are epoch seconds. They come from records that anything may have written, so any number is
told somehow and none raises.
"""

import datetime
from collections.abc import Callable
from typing import Final

# The last second a calendar can tell: 9999-12-31T23:59:59Z.
_LAST_MOMENT: Final = 253_402_300_799.0

# Each unit is used from two of it on: `90 min` and not `2 h`, `36 h` and not `2 d`.
_UNITS: Final = ((365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def relative(moment: float, now: float) -> str:
    """`in 3 h`, `5 min ago`, `now`."""
    seconds = round(_within(moment) - now)
    if seconds == 0:
        return "now"
    told = duration(abs(seconds))
    return f"in {told}" if seconds > 0 else f"{told} ago"


def duration(seconds: int) -> str:
    """`119 s`, `3 h`, `12 d`; rounded to the nearest."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{seconds} s"


def exact(moment: float) -> str:
    """`2026-11-23 08:35:03 UTC`."""
    return _calendar(moment).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine(moment: float) -> str:
    """`2026-11-23T08:35:03Z`, for the `datetime` of a `<time>`."""
    return _calendar(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def count(number: float) -> str:
    """`1,234`."""
    return f"{number:,.0f}"


def plural(number: int, one: str, many: str = "") -> str:
    """`1 account`, `1,234 accounts`, `2 processes`."""
    return f"{count(number)} {one if number == 1 else many or f'{one}s'}"


def _calendar(moment: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(_within(moment), datetime.UTC)


def _within(moment: float) -> float:
    return min(max(moment, 0.0), _LAST_MOMENT)


FILTERS: Final[dict[str, Callable[..., str]]] = {
    name.__name__: name for name in (relative, duration, exact, machine, count, plural)
}
