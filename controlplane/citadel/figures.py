"""The authority's figures, in Prometheus' text: `mizzen_*`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane.citadel.audit import NOTHING, AuditLog
from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.expiry import Expiry
from controlplane.model.credentials import Means

_JWT: Final = "jwt-svid"


class Figures(Collector):
    """What the authority has done and how it is. ``server_expiry`` says when the control plane's own certificate ends."""

    def __init__(self, authority: CertificateAuthority, audit: AuditLog, expiry: Expiry) -> None:
        self._authority = authority
        self._audit = audit
        self._expiry = expiry
        self.server_expiry: Callable[[], float] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        yield from self._counted()
        yield from self._expiries()
        state, summary = self._authority.state, self._expiry.summary
        for name, text, value in (
            (
                "root_rotation_gate",
                "The gate at which the rotation of the root is, 0 if none is under way.",
                summary.gate,
            ),
            ("root_rotation_waiting", "Workloads for which that gate waits.", summary.waiting),
            ("revoked_certificates", "Certificates that are revoked and have not ended.", len(state.revoked)),
            ("revoked_identities", "Identities that are revoked.", len(state.banned)),
        ):
            yield GaugeMetricFamily(f"mizzen_{name}", text, value=value)

    def _counted(self) -> Iterator[Metric]:
        certificates = CounterMetricFamily(
            "mizzen_certificates_issued",
            "Workloads' certificates, by what the caller has shown.",
            labels=["authenticated"],
        )
        tokens = CounterMetricFamily("mizzen_jwt_svids_issued", "JWT-SVIDs.")
        refused = CounterMetricFamily(
            "mizzen_certificates_refused",
            "Requests for certificates and JWT-SVIDs that were refused.",
            labels=["authenticated"],
        )
        for event, family in (("issued", certificates), ("refused", refused)):
            for means in (*(one.value for one in Means), NOTHING):
                family.add_metric([means], self._audit.counts[event, means])
            yield family
        jwt_svids = sum(count for (event, _), count in self._audit.counts.items() if event == _JWT)
        tokens.add_metric([], jwt_svids)
        yield tokens

    def _expiries(self) -> Iterator[Metric]:
        own = GaugeMetricFamily(
            "mizzen_authority_certificate_expiry_timestamp_seconds",
            "When a root or an intermediate ends, seconds since 1970.",
            labels=["role", "subject", "serial", "signing"],
        )
        for one in self._authority.issuers():
            own.add_metric([one.role, one.subject, one.serial, str(one.signing).lower()], one.not_after)
        yield own
        if self.server_expiry is not None:
            yield GaugeMetricFamily(
                "mizzen_server_certificate_expiry_timestamp_seconds",
                "When the certificate of the control plane's own servers ends, seconds since 1970.",
                value=self.server_expiry(),
            )
        summary = self._expiry.summary
        yield GaugeMetricFamily("mizzen_workloads", "Workloads with a certificate of here.", value=summary.workloads)
        yield GaugeMetricFamily(
            "mizzen_workload_certificates_overdue",
            "Of those, whose newest certificate is past three quarters of its life.",
            value=len(summary.overdue),
        )
        earliest = GaugeMetricFamily(
            "mizzen_workload_certificate_earliest_expiry_timestamp_seconds",
            "When the first of their newest certificates ends, seconds since 1970.",
        )
        if summary.workloads:
            earliest.add_metric([], summary.earliest)
        yield earliest
