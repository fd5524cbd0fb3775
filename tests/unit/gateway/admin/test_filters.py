"""How numbers and moments are told."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.filters import count, duration, exact, machine, plural, relative

NOW = 1_795_422_903.0


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "now"),
        (0.4, "now"),
        (-0.4, "now"),
        (1, "in 1 s"),
        (-1, "1 s ago"),
        (119, "in 119 s"),
        (120, "in 2 min"),
        (-5 * 60, "5 min ago"),
        (3 * 3600, "in 3 h"),
        (3 * 3600 - 20, "in 3 h"),
        (47 * 3600, "in 47 h"),
        (30 * 86_400, "in 30 d"),
        (-800 * 86_400, "2 y ago"),
    ],
)
def test_a_moment_is_told_from_now(seconds: float, told: str) -> None:
    assert relative(NOW + seconds, NOW) == told


def test_a_moment_is_told_exactly_for_people_and_machines() -> None:
    assert exact(NOW) == "2026-11-23 08:35:03 UTC"
    assert machine(NOW) == "2026-11-23T08:35:03Z"


@given(st.floats(allow_nan=False))
def test_whatever_a_record_holds_is_told_somehow(moment: float) -> None:
    assert exact(moment).endswith(" UTC")
    assert datetime.datetime.fromisoformat(machine(moment)).tzinfo is not None
    assert relative(moment, NOW)


@given(st.integers(1, 10**11))
def test_a_duration_is_off_by_less_than_a_third(seconds: int) -> None:
    number, unit = duration(seconds).split()
    size = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}[unit]
    assert abs(int(number) * size - seconds) <= seconds / 3


def test_numbers_are_grouped_and_nouns_agree() -> None:
    assert [count(0), count(999), count(12_345.0)] == ["0", "999", "12,345"]
    assert [plural(n, "account") for n in (0, 1, 2000)] == [
        "0 accounts",
        "1 account",
        "2,000 accounts",
    ]
    assert plural(2, "process", "processes") == "2 processes"
