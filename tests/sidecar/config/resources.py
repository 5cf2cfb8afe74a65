"""Small good resources to change in one place, and what loading a bootstrap of them gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.bootstrap import Bootstrap, parse_bootstrap
from sidecar.config.cluster import Cluster
from sidecar.config.listener import Listener
from sidecar.config.problems import ConfigurationError

Document = dict[str, Any]

NETWORK = "type.googleapis.com/envoy.extensions.filters.network."
LISTENER_FILTER = "type.googleapis.com/envoy.extensions.filters.listener."
HTTP = "type.googleapis.com/envoy.extensions.filters.http."
POLICY = "type.googleapis.com/envoy.extensions.load_balancing_policies."
LOGGER = "type.googleapis.com/envoy.extensions.access_loggers."

ROUTER: Document = {"name": "router", "typed_config": {"@type": f"{HTTP}router.v3.Router"}}
CORS: Document = {"name": "cors", "typed_config": {"@type": f"{HTTP}cors.v3.Cors"}}
SNI_CLUSTER: Document = {"name": "sni", "typed_config": {"@type": f"{NETWORK}sni_cluster.v3.SniCluster"}}


def socket_address(address: str = "127.0.0.1", port: int = 0) -> Document:
    return {"socket_address": {"address": address, "port_value": port}}


def endpoints(*addresses: Document) -> list[Document]:
    return [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}]


def cluster(**fields: Any) -> Document:
    """A good STATIC cluster called `c` with these fields changed; None removes one."""
    assignment = {"cluster_name": "c", "endpoints": endpoints(socket_address(port=80))}
    return _without_none({"name": "c", "type": "STATIC", "load_assignment": assignment, **fields})


def network_filter(kind: str, **fields: Any) -> Document:
    return {"name": kind.partition(".")[0], "typed_config": _without_none({"@type": NETWORK + kind, **fields})}


def tcp_proxy(**fields: Any) -> Document:
    return network_filter("tcp_proxy.v3.TcpProxy", **{"stat_prefix": "tcp", "cluster": "c", **fields})


def hcm(**fields: Any) -> Document:
    """A good HTTP connection manager without routes, with these fields changed; None removes one."""
    good = {"stat_prefix": "http", "route_config": {"name": "routes"}, "http_filters": [ROUTER]}
    return network_filter("http_connection_manager.v3.HttpConnectionManager", **{**good, **fields})


def chain(match: Document | None = None, *filters: Document, **fields: Any) -> Document:
    return _without_none({"filter_chain_match": match, "filters": list(filters) or [tcp_proxy()], **fields})


def listener(**fields: Any) -> Document:
    """A good listener called `l` on any port with these fields changed; None removes one."""
    return _without_none({"name": "l", "address": socket_address(), "filter_chains": [chain()], **fields})


def bootstrap(
    listeners: Sequence[Document] = (), clusters: Sequence[Document] | None = None, **fields: Any
) -> Document:
    resources = {"listeners": list(listeners), "clusters": [cluster()] if clusters is None else list(clusters)}
    return {"static_resources": resources, **fields}


def load(document: Mapping[str, Any]) -> tuple[Bootstrap, list[str]]:
    """The Bootstrap and the warnings. Raises ConfigurationError."""
    root, context = load_bootstrap(document)
    with context:
        built = parse_bootstrap(root)
    return built, context.warnings


def refusals(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The (path, problem) pairs for which the document is refused."""
    with pytest.raises(ConfigurationError) as raised:
        load(document)
    return [(problem.path, problem.problem) for problem in raised.value.problems]


def load_listener(**fields: Any) -> Listener:
    """The listener with these fields, which must give no warning."""
    built, warnings = load(bootstrap([listener(**fields)]))
    assert warnings == []
    return built.static_resources.listeners[0]


def load_cluster(**fields: Any) -> Cluster:
    """The cluster with these fields, which must give no warning."""
    built, warnings = load(bootstrap([], [cluster(**fields)]))
    assert warnings == []
    return built.static_resources.clusters[0]


def _without_none(document: Document) -> Document:
    return {name: value for name, value in document.items() if value is not None}
