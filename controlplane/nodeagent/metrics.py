"""The agent's figures, in Prometheus' text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """`mizzen_agent_*`. The label ``workload`` is NAMESPACE/ACCOUNT."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        workload = ("workload",)
        self.expiry = Gauge(
            "mizzen_agent_certificate_expiry_timestamp_seconds",
            "When the certificate ends that is served, seconds since 1970.",
            workload,
            registry=registry,
        )
        self.good = Gauge(
            "mizzen_agent_certificate_good", "Whether there is a certificate to serve.", workload, registry=registry
        )
        self.renewals = Counter("mizzen_agent_renewals", "Certificates that were renewed.", workload, registry=registry)
        self.renewal_failures = Counter(
            "mizzen_agent_renewal_failures", "Attempts to renew that failed.", workload, registry=registry
        )
        self.write_failures = Counter(
            "mizzen_agent_write_failures", "Certificates that could not be kept on disk.", workload, registry=registry
        )
        self.bundle_failures = Counter(
            "mizzen_agent_bundle_failures", "Attempts to get the trust bundle that failed.", workload, registry=registry
        )
        self.streams = Gauge(
            "mizzen_agent_streams", "Streams that are served.", ("workload", "kind"), registry=registry
        )
        self.pushes = Counter(
            "mizzen_agent_pushes", "Responses that were sent.", ("workload", "kind"), registry=registry
        )
        self.acknowledged = Counter(
            "mizzen_agent_sds_acks", "SDS responses that proxies took.", workload, registry=registry
        )
        self.refused = Counter(
            "mizzen_agent_sds_nacks", "SDS responses that proxies refused.", workload, registry=registry
        )
        self.refused_peers = Counter(
            "mizzen_agent_refused_peers", "Calls of processes with another user id.", workload, registry=registry
        )
        self.tokens = Counter("mizzen_agent_jwt_svids", "JWT-SVIDs that were fetched.", workload, registry=registry)
        self.clock_jumps = Counter("mizzen_agent_clock_jumps", "Times that the clock was set.", registry=registry)
        self.bad_identities = Gauge(
            "mizzen_agent_bad_identities", "Identity directories that cannot be served.", registry=registry
        )

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)

    def forget(self, workload: str) -> None:
        """A workload that is gone has no expiry any more."""
        for gauge in (self.expiry, self.good):
            try:
                gauge.remove(workload)
            except KeyError:
                continue
