"""The terminal of a filter chain with TLS around it, as listeners see it."""

from __future__ import annotations

from typing import Protocol

from sidecar.core.stream_info import ConnectionInfo
from sidecar.transport.downstream import DownstreamConnection, DownstreamTls


class Drains(Protocol):
    """The terminal behind TLS."""

    def drain(self) -> None: ...


class TlsTerminal:
    """The terminal of a filter chain with TLS around it."""

    __slots__ = ("inner", "tls")

    def __init__(self, inner: Drains, tls: DownstreamTls) -> None:
        self.inner = inner
        self.tls = tls

    def accept(self, info: ConnectionInfo) -> DownstreamConnection:
        """The protocol for a new connection: TLS, with the inner terminal's protocol inside when it is open."""
        return self.tls.accept(info)

    def drain(self) -> None:
        """Let every connection finish what it does; handshakes go on, and meet a terminal that drains."""
        self.inner.drain()

    def __repr__(self) -> str:
        return f"<TlsTerminal {self.tls!r} around {self.inner!r}>"
