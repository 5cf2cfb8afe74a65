"""Commands about time: when a request began, and how long its parts took."""

from __future__ import annotations

import time

from sidecar.core.stream_info import StreamInfo

from ..dates import DEFAULT, DateFormat
from ..format_code import Kind, Value, any_value, keyed
from ..format_syntax import Command
from .base import FormatContext, Make, Operator, plain

_POINTS = {
    "DS_RX_BEG": "start",
    "DS_RX_END": "request_complete",
    "US_TX_BEG": "upstream_first_tx",
    "US_TX_END": "upstream_last_tx",
    "US_RX_BEG": "upstream_first_rx",
    "US_RX_END": "upstream_last_rx",
    "DS_TX_BEG": "downstream_first_tx",
    "DS_TX_END": "downstream_first_tx and stream.end",  # what never began to be sent has no end
}
_PRECISIONS = {"": 1_000, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _between(begin: str, end: str, scale: int = 1000) -> Value:
    """The whole 1/scale seconds between two of the points, missing unless both have come."""
    first, last = f"(stream.{_POINTS[begin]})", f"(stream.{_POINTS[end]})"
    return any_value(f"(int(({last} - {first}) * {scale}) if {last} and {first} else None)")


def running_time(stream: StreamInfo) -> float:
    """The seconds since the start of a stream that has not ended."""
    now: float = getattr(stream, "now", stream.start)
    return now - stream.start


def _common_duration(command: Command, context: FormatContext) -> Value:
    points = command.arguments.split(":")
    if len(points) not in (2, 3):
        raise command.error("the arguments are BEGIN:END or BEGIN:END:PRECISION")
    for point in points[:2]:
        if point not in _POINTS:
            raise command.error(f"{point!r} is not one of the points in time {', '.join(_POINTS)}")
    precision = points[2] if len(points) == 3 else ""
    if precision not in _PRECISIONS:
        raise command.error("the precision is ms, us or ns")
    return _between(points[0], points[1], _PRECISIONS[precision])


def date_format(command: Command, local: bool) -> DateFormat:
    """The format that is the argument of a command."""
    if "%n" in command.arguments.replace("%%", ""):
        raise command.error("a time may not hold a line break")
    return DateFormat(command.arguments or DEFAULT, local)


def _start_time(local: bool) -> Make:
    def make(command: Command, context: FormatContext) -> Value:
        date = date_format(command, local)
        if date.digits == 0:
            return keyed("int(stream.start_time)", lambda second: date(second * 1_000_000_000))
        if date.digits <= 3:
            return keyed("int(stream.start_time * 1e3 + 5e-4)", lambda milli: date(milli * 1_000_000))
        return any_value("$0(int(stream.start_time * 1e6 + 0.5) * 1000)", date)

    return make


def _emit_time(local: bool) -> Make:
    def make(command: Command, context: FormatContext) -> Value:
        return any_value("$0($1())", date_format(command, local), time.time_ns)

    return make


TIMES = {
    "START_TIME": Operator(_start_time(local=False), "optional"),
    "START_TIME_LOCAL": Operator(_start_time(local=True), "optional"),
    "EMIT_TIME": Operator(_emit_time(local=False), "optional"),
    "EMIT_TIME_LOCAL": Operator(_emit_time(local=True), "optional"),
    "DURATION": plain(
        Value(
            Kind.NUMBER,
            "int((stream.end - stream.start if stream.end else $0(stream)) * 1000)",
            (running_time,),
        )
    ),
    "REQUEST_DURATION": plain(_between("DS_RX_BEG", "DS_RX_END")),
    "REQUEST_TX_DURATION": plain(_between("DS_RX_BEG", "US_TX_END")),
    "RESPONSE_DURATION": plain(_between("DS_RX_BEG", "US_RX_BEG")),
    "RESPONSE_TX_DURATION": plain(_between("US_RX_BEG", "DS_TX_END")),
    "COMMON_DURATION": Operator(_common_duration, "required"),
}
