"""The syntax of Envoy's format strings: `text %COMMAND(arguments):length% text`, where `%%` is a percent sign.

Source: Envoy's "Substitution Formatter" reference. What each command means stands in `operators`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class FormatError(ValueError):
    """A format string that is wrong; `position` is the offset of the offending command in `format`.

    `what_to_do` is an instruction, for reports that show it beside the reason.
    """

    def __init__(self, format: str, position: int, reason: str, what_to_do: str = "correct it") -> None:
        super().__init__(f"format string {format!r}, position {position}: {reason}; {what_to_do}")
        self.format = format
        self.position = position
        self.reason = reason
        self.what_to_do = what_to_do


@dataclass(frozen=True, slots=True)
class Command:
    """One `%NAME(arguments):length%`; `arguments` is empty and `length` None where they are not given."""

    name: str
    arguments: str
    length: int | None
    format: str
    position: int

    def error(self, reason: str, what_to_do: str = "correct it") -> FormatError:
        """The error to raise when this command is refused."""
        return FormatError(self.format, self.position, f"{self.name}: {reason}", what_to_do)


_COMMAND = re.compile(r"%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%")


def parse(format: str) -> list[str | Command]:
    """The literal texts (unescaped, none empty) and the commands of `format`, in order.

    Raises FormatError where a `%` starts no command.
    """
    pieces: list[str | Command] = []
    literal = ""
    at = 0
    while (percent := format.find("%", at)) >= 0:
        literal += format[at:percent]
        if format.startswith("%%", percent):
            literal += "%"
            at = percent + 2
            continue
        found = _COMMAND.match(format, percent)
        if found is None:
            raise FormatError(
                format, percent, "a command such as %PROTOCOL% must begin here", "write %% for a percent sign"
            )
        if literal:
            pieces.append(literal)
            literal = ""
        name, arguments, length = found.groups()
        pieces.append(Command(name, arguments or "", None if length is None else int(length), format, percent))
        at = found.end()
    literal += format[at:]
    if literal:
        pieces.append(literal)
    return pieces
