"""What TLS counts, under `listener.ADDRESS.ssl.` or `cluster.NAME.ssl.`. Source: Envoy's TLS statistics."""

from __future__ import annotations

from typing import Protocol


class TlsStats(Protocol):
    """The counters of one listener or cluster."""

    connection_error: int
    handshake: int
    session_reused: int
    no_certificate: int
    fail_verify_no_cert: int
    fail_verify_error: int
    fail_verify_san: int
    fail_verify_cert_hash: int

    def count(self, group: str, name: str) -> None:
        """One more of `GROUP.NAME`, where the group is `ciphers`, `versions` or `curves`."""
        ...
