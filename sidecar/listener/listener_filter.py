"""What a listener filter is: something that looks at a connection's first bytes before its filter chain is chosen."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Protocol

from sidecar.config.listener_filters import AndMatch, AnyMatch, DestinationPortRange, NotMatch, OrMatch, Predicate
from sidecar.core.stream_info import ConnectionInfo

MORE: Final = -1
"""The bytes so far do not tell; look again when there are more."""

CLOSE: Final = -2
"""This connection must not go on."""


class ListenerFilter(Protocol):
    """One listener filter; it serves all connections of its listener and keeps nothing of any."""

    @property
    def peek(self) -> int:
        """The most bytes that it looks at; 0 if it only asks the socket."""
        ...

    def inspect(self, sock: socket.socket, info: ConnectionInfo, data: bytes) -> int:
        """Look at all that has arrived, up to ``peek`` bytes, and write what it says into ``info``.

        Returns MORE (never for ``peek`` bytes), CLOSE, or how many bytes are to be taken out of the connection.
        """
        ...


Condition = Callable[[ConnectionInfo], bool]


def compile_predicate(predicate: Predicate) -> Condition:
    """A `ListenerFilterChainMatchPredicate` as a condition on a connection; a Unix socket has no destination port."""
    if isinstance(predicate, DestinationPortRange):
        start, end = predicate.start, predicate.end
        return lambda info: info.local_address.ip is not None and start <= info.local_address.port < end
    if isinstance(predicate, NotMatch):
        inner = compile_predicate(predicate.rule)
        return lambda info: not inner(info)
    if isinstance(predicate, AnyMatch):
        return lambda info: True
    rules = tuple(map(compile_predicate, predicate.rules))
    if isinstance(predicate, OrMatch):
        return lambda info: any(rule(info) for rule in rules)
    assert isinstance(predicate, AndMatch)
    return lambda info: all(rule(info) for rule in rules)
