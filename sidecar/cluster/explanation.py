"""What a cluster has for a request: its endpoints, and which of them can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.host import Host
from sidecar.core.explanation import ENDS, TAKEN, Step

_MOST = 20
"""Endpoints that are listed one by one."""


def explain_cluster(
    name: str, cluster: Cluster | None, spoken_to: Callable[[Host], tuple[str, Mapping[str, Any]]]
) -> Step:
    """``spoken_to`` says how an endpoint is spoken to, in plain text or by TLS: in words, and as facts."""
    if cluster is None:
        return Step("cluster", name, ENDS, f"there is no cluster {name!r}")
    config = cluster.config
    metadata = config.metadata
    title = f"cluster {name!r} ({config.type}, {config.lb_policy})"
    hosts = cluster.hosts
    if config.type == "DYNAMIC_FORWARD_PROXY":
        text = f"{title}: the endpoint is the host that the request names; {len(hosts)} are known"
        return Step("cluster", name, TAKEN, text, metadata=metadata)
    if not hosts:
        if not cluster.initialised:
            text = f"{title}: its endpoints are found when the proxy runs"
            return Step("cluster", name, TAKEN, text, _configured(cluster), metadata)
        return Step("cluster", name, ENDS, f"{title}: has no endpoints: no healthy upstream", metadata=metadata)
    usable = sum(host.usable for host in hosts)
    details = [_host(host, spoken_to) for host in hosts[:_MOST]]
    if len(hosts) > _MOST:
        details.append(f"and {len(hosts) - _MOST} more")
    if not usable and not config.common_lb_config.healthy_panic_threshold:
        return Step("cluster", name, ENDS, f"{title}: none of its endpoints is healthy", tuple(details), metadata)
    text = f"{title}: one of {usable} healthy endpoints of {len(hosts)}"
    facts = [{"address": one.address.text, "healthy": one.usable, **spoken_to(one)[1]} for one in hosts]
    return Step("cluster", name, TAKEN, text, tuple(details), metadata, {"endpoints": facts})


def _host(host: Host, spoken_to: Callable[[Host], tuple[str, Mapping[str, Any]]]) -> str:
    state = "healthy" if host.usable else f"not chosen: {host.health_flags()}"
    return f"{host.address.text} {spoken_to(host)[0]}: {state}"


def _configured(cluster: Cluster) -> tuple[str, ...]:
    return tuple(
        str(endpoint.address)
        for locality in cluster.config.load_assignment.endpoints
        for endpoint in locality.lb_endpoints
    )[:_MOST]
