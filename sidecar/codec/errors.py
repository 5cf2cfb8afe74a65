"""Errors of the wire: each carries what the peer is told and what the log says."""

from __future__ import annotations


class ProtocolError(Exception):
    """The peer broke the protocol. ``status`` is the answer to a client; ``details`` is Envoy's response detail."""

    def __init__(self, details: str, status: int = 400) -> None:
        super().__init__(details)
        self.details = details
        self.status = status
