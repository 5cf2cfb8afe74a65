"""Times in the formats of `%START_TIME(...)%`: strftime's specifiers and those of Envoy, at nanosecond precision.

What does not change within a second is made once for the second.
Source: Envoy's "Substitution Formatter" reference (`START_TIME`) and the specifiers of Abseil's `FormatTime`.
"""

from __future__ import annotations

import re
import time

DEFAULT = "%Y-%m-%dT%H:%M:%E3SZ"

_FRACTION = re.compile(r"%([1-9]?)f|%E([0-9]+|\*)([Sf])")
_OTHER = re.compile(r"%(s|Ez|E\*z|ET|E4Y|.)", re.DOTALL)


class DateFormat:
    """A compiled format. `digits` is how much of the second it shows: 0 nothing, 3 milliseconds, 9 nanoseconds."""

    __slots__ = ("_clock", "_fractions", "_literals", "_second", "_texts", "digits")

    def __init__(self, format: str, local: bool = False) -> None:
        self._literals: list[str] = []
        self._fractions: list[tuple[int, bool, str]] = []  # digits, whether zeros at the end go, what stands before
        self._clock = time.localtime if local else time.gmtime
        self._second: int | None = None
        self._texts: list[str] = []
        at = 0
        literal = ""
        for found in _FRACTION.finditer(format.replace("%%", "%\0")):
            digits, precision, kind = found.groups()
            literal += format[at : found.start()] + ("%S" if kind == "S" else "")
            at = found.end()
            shown = 9 if precision == "*" else min(int(precision or digits or 9), 9)
            if shown:
                self._literals.append(literal)
                self._fractions.append((shown, precision == "*", "." if kind == "S" else ""))
                literal = ""
        self._literals.append(literal + format[at:])
        self.digits = max((digits for digits, _, _ in self._fractions), default=0)

    def __call__(self, nanoseconds: int) -> bytes:
        """The text for a time in nanoseconds since the epoch."""
        second, fraction = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            moment = self._clock(second)
            self._texts = [_strftime(literal, moment, second) for literal in self._literals]
            self._second = second
        text = self._texts[0]
        for (digits, trim, before), after in zip(self._fractions, self._texts[1:], strict=True):
            shown = f"{fraction:09d}"[:digits]
            if trim:
                shown = shown.rstrip("0") or ("" if before else "0")
            text += (before + shown if shown else "") + after
        return text.encode()


def _strftime(format: str, moment: time.struct_time, second: int) -> str:
    minutes = (moment.tm_gmtoff or 0) // 60
    sign, (hours, minutes) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)

    def expand(found: re.Match[str]) -> str:
        match found[1]:
            case "s":
                return str(second)
            case "Ez":
                return f"{sign}{hours:02d}:{minutes:02d}"
            case "E*z":
                return f"{sign}{hours:02d}:{minutes:02d}:00"
            case "ET":
                return "T"
            case "Z":
                return "UTC" if moment.tm_zone == "GMT" else moment.tm_zone
            case "E4Y":
                return f"{moment.tm_year:04d}"
            case _:
                return time.strftime(found[0], moment)

    return _OTHER.sub(expand, format)
