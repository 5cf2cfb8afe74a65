"""Which hosts a retry avoids."""

from __future__ import annotations

from typing import Any

from sidecar.cluster.host import Host
from sidecar.config.retry_policy import OmitCanaryHosts, OmitHostMetadata, PreviousHosts
from sidecar.core.address import Address
from sidecar.router.host_predicates import HostPredicates
from tests.sidecar.http.running import HELLO, Sidecar, bootstrap

_PREDICATES = "type.googleapis.com/envoy.extensions.retry.host."


def host(port: int, **labels: Any) -> Host:
    return Host(Address("127.0.0.1", port), metadata={"envoy.lb": labels} if labels else None)


def test_hosts_that_were_tried() -> None:
    one, other = host(1), host(2)
    predicates = HostPredicates([PreviousHosts()])
    tried = predicates.after((), one)
    assert one in tried and other not in tried
    assert other in predicates.after(tried, other) and one in predicates.after(tried, other)


def test_canaries_and_labels() -> None:
    plain, canary, old = host(1), host(2, canary=True), host(3, version="1", zone="a")
    tried = HostPredicates([OmitCanaryHosts(), OmitHostMetadata({"envoy.lb": {"version": "1"}})]).after((), plain)
    assert tried
    assert [each in tried for each in (plain, canary, old, host(4, version="2"))] == [False, True, True, False]
    assert plain not in HostPredicates([OmitHostMetadata({})]).after((), host(9)), "without labels nothing is omitted"
    both = HostPredicates([PreviousHosts(), OmitHostMetadata({"envoy.lb": {"version": "1", "zone": "b"}})])
    tried = both.after(both.after((), plain), canary)
    assert [each in tried for each in (plain, canary, old)] == [True, True, False]


def test_a_retry_goes_past_hosts_with_the_labels() -> None:
    endpoints = [
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "metadata": {"filter_metadata": {"envoy.lb": {"version": version}}},
        }
        for port, version in ((7001, "old"), (7002, "old"), (7003, "new"))
    ]
    predicate = {
        "name": "omit",
        "typed_config": {
            "@type": _PREDICATES + "omit_host_metadata.v3.OmitHostMetadataConfig",
            "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "old"}}},
        },
    }
    retry = {"retry_on": "5xx", "retry_host_predicate": [predicate], "host_selection_retry_max_attempts": 50}
    assignment = {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]}
    sidecar = Sidecar(
        bootstrap(
            routes=[{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": retry}}],
            clusters={"up": {"load_assignment": assignment, "lb_policy": "RANDOM"}},
        )
    )
    for _ in range(12):
        client = sidecar.client().send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        ((first, _),) = sidecar.asked()
        first.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        sidecar.advance(0.3)
        ((second, _),) = sidecar.asked()
        assert second.transport.protocol.pool.host.address.port == 7003
        second.send(HELLO)
        assert client.receive().endswith(b"hello")
