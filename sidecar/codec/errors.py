"""Errors of the wire: each carries what the peer is told and what the log says."""

from __future__ import annotations

from sidecar.core.head import RequestHead


class ProtocolError(Exception):
    """The peer broke the protocol. ``status`` is the answer to a client; ``details`` is Envoy's response detail.

    ``head`` is the request's, where it could be read and only its meaning is wrong.
    """

    def __init__(self, details: str, status: int = 400, head: RequestHead | None = None) -> None:
        super().__init__(details)
        self.details = details
        self.status = status
        self.head = head
