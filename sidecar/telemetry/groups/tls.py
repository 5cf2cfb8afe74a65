"""Statistics of TLS: `listener.<address>.ssl.` and `cluster.<name>.ssl.`."""

from __future__ import annotations

from typing import Any, ClassVar

from ..stats import Counter, Derived, Kind, NameCounts, Sample, StatGroup, stat_group
from ..tags import SSL_CIPHER, SSL_CURVE, SSL_VERSION


def _by_name(leaf: str, tag: str) -> Derived:
    """`ciphers.TLS_AES_256_GCM_SHA384` for each name that was seen."""

    def expand(group: Any) -> list[Sample]:
        counts: NameCounts = getattr(group, leaf)
        return [Sample(f"{leaf}.{name}", count, ((tag, name),), True) for name, count in sorted(counts.items())]

    return Derived(leaf, Kind.COUNTER, expand)


@stat_group
class TlsStats(StatGroup):
    """Connections with TLS. The staples are those that servers send, which Mizzen does not."""

    connection_error: Counter
    fail_verify_cert_hash: Counter
    fail_verify_error: Counter
    fail_verify_no_cert: Counter
    fail_verify_san: Counter
    handshake: Counter
    no_certificate: Counter
    ocsp_staple_failed: Counter
    ocsp_staple_omitted: Counter
    ocsp_staple_requests: Counter
    ocsp_staple_responses: Counter
    session_reused: Counter
    ciphers: NameCounts
    curves: NameCounts
    versions: NameCounts

    DERIVED: ClassVar[tuple[Derived, ...]] = (
        _by_name("ciphers", SSL_CIPHER),
        _by_name("curves", SSL_CURVE),
        _by_name("versions", SSL_VERSION),
    )

    def count(self, group: str, name: str) -> None:
        """One more of ``name`` in ``ciphers``, ``curves`` or ``versions``."""
        counts: NameCounts = getattr(self, group)
        counts[name] += 1


@stat_group
class SslSocketFactoryStats(StatGroup):
    """Secrets that are discovered.

    `listener.<address>.server_ssl_socket_factory.` and `cluster.<name>.client_ssl_socket_factory.`: either has the
    counters of both, as in Envoy.
    """

    downstream_context_secrets_not_ready: Counter
    ssl_context_update_by_sds: Counter
    upstream_context_secrets_not_ready: Counter
