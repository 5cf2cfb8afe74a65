"""What TLS counts: Envoy's TLS statistics."""

from __future__ import annotations

from typing import Protocol


class TlsStats(Protocol):
    """The counters of one listener or cluster, under `listener.ADDRESS.ssl.` or `cluster.NAME.ssl.`."""

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


class FactoryStats(Protocol):
    """What is counted of a context whose secrets are discovered, under `server_ssl_socket_factory.` of a listener or
    `client_ssl_socket_factory.` of a cluster."""

    ssl_context_update_by_sds: int
    downstream_context_secrets_not_ready: int
    upstream_context_secrets_not_ready: int
