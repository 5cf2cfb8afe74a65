"""Regular expressions of queries: RE2, so that none of them can hold up the loop."""

from __future__ import annotations

from typing import Any


class InvalidPatternError(ValueError):
    """The expression is none; the text says why."""


def compile_pattern(expression: str) -> Any:
    """The compiled expression. Raises InvalidPatternError."""
    import re2  # 2 MB, of which most have no need

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(expression, options=options)
    except re2.error as error:
        reason = error.args[0]
        raise InvalidPatternError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason) from None
