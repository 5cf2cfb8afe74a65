"""What the commands of format strings mean: a table from their names to functions that make a `Value` of a command.

The set and the rules on arguments and lengths are Envoy's (its "Substitution Formatter" reference). Commands for what
is not known here yet (the connection pool's times, CEL, ...) are refused by name like any unknown command.
"""

from __future__ import annotations

from ..format_code import Value
from ..format_syntax import Command
from .addresses import ADDRESSES
from .base import FormatContext, Operator
from .failures import FAILURES
from .http import HTTP
from .metadata import METADATA
from .streams import STREAMS
from .times import TIMES
from .tls import TLS

OPERATORS: dict[str, Operator] = {**HTTP, **STREAMS, **ADDRESSES, **TIMES, **METADATA, **TLS, **FAILURES}


def value_of(command: Command, context: FormatContext) -> Value:
    """The value of a command. Raises FormatError for one that is unknown, or whose arguments or length are wrong."""
    operator = OPERATORS.get(command.name)
    if operator is None:
        raise command.error("is not a command that is supported here", _alternative(command.name))
    if operator.arguments == "none" and command.arguments:
        raise command.error("takes no arguments")
    if operator.arguments == "required" and not command.arguments:
        raise command.error("requires arguments")
    if not operator.length and command.length is not None:
        raise command.error("takes no length")
    return operator.make(command, context)


def _alternative(name: str) -> str:
    from difflib import get_close_matches  # only for what is wrong

    close = get_close_matches(name, OPERATORS, n=1)
    return f"did you mean {close[0]!r}?" if close else "remove it"
