"""Format strings with `%COMMANDS%`, compiled to functions from a stream to bytes: for logs, headers and local replies.

Source: Envoy's "Substitution Formatter" reference. The compiled function also takes the body of a local reply as its
second argument, which `%LOCAL_REPLY_BODY%` shows.
"""

from __future__ import annotations

from functools import lru_cache

from .format_code import Formatter, Line
from .format_syntax import FormatError, parse
from .operators import value_of
from .operators.base import NO_CONTEXT, FormatContext

__all__ = [
    "DEFAULT_LOG_FORMAT",
    "FormatContext",
    "FormatError",
    "Formatter",
    "compile_header_value",
    "compile_text",
    "format_problems",
]

DEFAULT_LOG_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)
"""Envoy's line when a log has no format of its own."""


def compile_text(format: str, *, omit_empty_values: bool = False, context: FormatContext = NO_CONTEXT) -> Formatter:
    """A text format, line breaks included where it has them. A missing value is `-`, or nothing.

    Raises FormatError.
    """
    line = Line()
    missing = b"" if omit_empty_values else b"-"
    for piece in parse(format):
        if isinstance(piece, str):
            line.literal(piece.encode())
        else:
            line.text(value_of(piece, context), piece.length, missing)
    return line.function()


def compile_header_value(format: str, context: FormatContext = NO_CONTEXT) -> Formatter:
    """The value of a header to add, where a missing value is nothing. Raises FormatError."""
    return compile_text(format, omit_empty_values=True, context=context)


@lru_cache(maxsize=1024)
def format_problems(format: str) -> tuple[FormatError, ...]:
    """Everything that is wrong with a format string: for configuration, which tells all its problems with their places.

    Behind a percent sign that begins no command nothing is looked at.
    """
    problems = []
    try:
        for piece in parse(format):
            if not isinstance(piece, str):
                try:
                    value_of(piece, NO_CONTEXT)
                except FormatError as error:
                    problems.append(error)
    except FormatError as error:
        problems.append(error)
    return tuple(problems)
