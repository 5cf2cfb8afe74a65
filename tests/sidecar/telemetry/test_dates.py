"""Times in the formats of START_TIME."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from sidecar.telemetry.dates import DEFAULT, DateFormat

MOMENT = 1700000000_012345000


@pytest.fixture
def in_kathmandu() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "NPT-5:45"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("format", "expected", "digits"),
    [
        (DEFAULT, b"2023-11-14T22:13:20.012Z", 3),
        ("%s", b"1700000000", 0),
        ("%s.%3f", b"1700000000.012", 3),
        ("%f|%1f|%3f|%6f|%9f", b"012345000|0|012|012345|012345000", 9),
        ("%E3S %E6S %E0S %E*S", b"20.012 20.012345 20 20.012345", 9),
        ("%E3f %E*f", b"012 012345", 9),
        ("%Ez %z %Z %E*z", b"+00:00 +0000 UTC +00:00:00", 0),
        ("%Y/%m/%dT%H:%M:%S%z %j %a %b %e %%f %E4Y%ET", b"2023/11/14T22:13:20+0000 318 Tue Nov 14 %f 2023T", 0),
        ("", b"", 0),
        ("no specifier", b"no specifier", 0),
    ],
)
def test_specifiers(format: str, expected: bytes, digits: int) -> None:
    date = DateFormat(format)
    assert date(MOMENT) == expected
    assert date.digits == digits


def test_trailing_zeros_go_with_a_star() -> None:
    assert DateFormat("%E*S|%E*f")(1700000000_000000000) == b"20|0"
    assert DateFormat("%E*S|%E*f")(1700000000_500000000) == b"20.5|5"


def test_the_second_is_made_anew_when_it_changes() -> None:
    date = DateFormat("%S.%3f")
    assert [date(1700000000_000000000 + step * 400_000_000) for step in (0, 1, 2, 3, 0)] == [
        b"20.000",
        b"20.400",
        b"20.800",
        b"21.200",
        b"20.000",
    ]


def test_local_time(in_kathmandu: None) -> None:
    assert DateFormat("%H:%M %z %Ez", local=True)(MOMENT) == b"03:58 +0545 +05:45"
    assert DateFormat("%H:%M %z")(MOMENT) == b"22:13 +0000"
