"""ORIGINAL_DST: where the connection was going, what the header says, and how hosts are forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import Host
from sidecar.cluster.manager import make_cluster
from sidecar.cluster.slices import Slices
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.endpoint import ClusterLoadAssignment
from sidecar.config.lb_policies import OriginalDstLbConfig
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.stream_info import ConnectionInfo
from tests.sidecar.cluster.surroundings import Clock, Context, Stages, seeded


def redirected(ip: str, port: int) -> ConnectionInfo:
    """A connection that was on its way to another address."""
    connection = ConnectionInfo(1, Address("127.0.0.1", 15001), Address("127.0.0.1", 9), 0.0)
    connection.local_address = Address(ip, port)
    return connection


def cluster_of(clock: Clock, **config: Any) -> tuple[Cluster, Any]:
    stages = Stages()
    configured = ClusterConfig(
        "passthrough",
        "passthrough",
        "ORIGINAL_DST",
        ClusterLoadAssignment("passthrough"),
        lb_policy="CLUSTER_PROVIDED",
        lb_config=OriginalDstLbConfig(**config),
    )
    cluster = make_cluster(configured, stages, clock.wheel, Slices(clock.wheel), seeded())
    cluster.start()
    assert cluster.initialised
    return cluster, stages.stats["passthrough"]


def picked(cluster: Cluster, context: Context) -> str | None:
    host = cluster.pick(context)
    return None if host is None else host.address.text


def with_header(value: bytes, name: bytes = b"x-envoy-original-dst-host") -> Context:
    request = RequestHead(b"GET", b"/", b"a", [(name, value)])
    return Context(request=request, connection=redirected("10.0.0.1", 80))


def test_the_original_destination_is_the_host(clock: Clock) -> None:
    cluster, stats = cluster_of(clock)
    context = Context(connection=redirected("10.0.0.1", 80))
    host = cluster.pick(context)
    assert host is not None and host.address.text == "10.0.0.1:80"
    assert cluster.pick(context) is host
    assert picked(cluster, Context(connection=redirected("fd00::1", 443))) == "[fd00::1]:443"
    assert (stats.membership_total, stats.membership_change) == (2, 2)


def test_a_connection_that_was_not_redirected_has_no_host(clock: Clock) -> None:
    cluster, stats = cluster_of(clock)
    assert picked(cluster, Context()) is None
    assert stats.membership_total == 0


def test_the_header_is_heard_only_when_configured(clock: Clock) -> None:
    cluster, _ = cluster_of(clock)
    assert picked(cluster, with_header(b"10.9.9.9:99")) == "10.0.0.1:80"
    cluster, _ = cluster_of(clock, use_http_header=True)
    assert picked(cluster, with_header(b"10.9.9.9:99")) == "10.9.9.9:99"
    assert picked(cluster, with_header(b"[fd00::0:1]:99")) == "[fd00::1]:99"
    assert picked(cluster, Context(connection=redirected("10.0.0.2", 80))) == "10.0.0.2:80"
    cluster, _ = cluster_of(clock, use_http_header=True, http_header_name=b"x-other")
    assert picked(cluster, with_header(b"10.9.9.9:99")) == "10.0.0.1:80"
    assert picked(cluster, with_header(b"10.9.9.9:99", b"x-other")) == "10.9.9.9:99"
    cluster, _ = cluster_of(clock, use_http_header=True, http_header_name=b":authority")
    proxied = Context(request=RequestHead(b"GET", b"/", b"10.8.8.8:88", []), connection=redirected("10.0.0.1", 80))
    assert picked(cluster, proxied) == "10.8.8.8:88"


@pytest.mark.parametrize(
    "value",
    [b"", b"10.0.0.5", b"10.0.0.5:", b"10.0.0.5:65536", b"10.0.0.5:8_0", b"host:80", b"fd00::1:80", b"[10.0.0.5]:80"],
)
def test_a_header_that_is_no_address_is_counted_and_passed_over(value: bytes, clock: Clock) -> None:
    cluster, stats = cluster_of(clock, use_http_header=True)
    assert picked(cluster, with_header(value)) == "10.0.0.1:80"
    assert stats.original_dst_host_invalid == 1


def test_the_port_may_be_overridden(clock: Clock) -> None:
    cluster, _ = cluster_of(clock, upstream_port_override=15006)
    assert picked(cluster, Context(connection=redirected("10.0.0.1", 80))) == "10.0.0.1:15006"


def test_unused_hosts_are_forgotten_and_used_ones_stay(clock: Clock) -> None:
    cluster, stats = cluster_of(clock)
    gone: list[Host] = []
    cluster.on_membership = (lambda added, removed: gone.extend(removed),)
    idle, active, connected, popular = (
        cluster.pick(Context(connection=redirected(f"10.0.0.{number}", 80))) for number in range(4)
    )
    assert idle and active and connected and popular
    active.rq_active = connected.cx_active = 1
    for _ in range(3):
        clock.advance(4.0)
        cluster.pick(Context(connection=redirected("10.0.0.3", 80)))
    assert gone == [idle] and idle.removed
    assert stats.membership_total == 3
    active.rq_active = connected.cx_active = 0
    clock.advance(20.0)
    assert stats.membership_total == 0
    assert len(clock.wheel) == 0
    assert picked(cluster, Context(connection=redirected("10.0.0.0", 80))) == "10.0.0.0:80"
    cluster.close()
    assert len(clock.wheel) == 0
