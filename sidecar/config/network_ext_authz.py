"""Asking an authorization service about connections: `extensions.filters.network.ext_authz.v3.ExtAuthz`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.config.fields import Node
from sidecar.config.grpc_service import GrpcService
from sidecar.config.matcher import MetadataMatcher, parse_metadata_matcher

if TYPE_CHECKING:
    from sidecar.config.filters.ext_authz import GrpcAuthorization

TYPE = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"


@dataclass(frozen=True, slots=True)
class NetworkExtAuthz:
    """Ask `service` whether a connection may come. Without an answer it may not, unless `failure_mode_allow`.

    `filter_enabled_metadata` is a condition on the connection's metadata (None: none): without it nobody is asked. The labels
    of this sidecar stand in its node's metadata under `bootstrap_metadata_labels_key`.
    """

    stat_prefix: str
    service: GrpcAuthorization
    failure_mode_allow: bool = False
    include_peer_certificate: bool = False
    include_tls_session: bool = False
    filter_enabled_metadata: MetadataMatcher | None = None
    bootstrap_metadata_labels_key: str = ""
    metadata_context_namespaces: tuple[str, ...] = ()


def parse_network_ext_authz(node: Node) -> NetworkExtAuthz:
    """`ext_authz.v3.ExtAuthz` of a filter chain."""
    from sidecar.config.filters.ext_authz import (  # only for those who use it
        GrpcAuthorization,
        parse_grpc_authorization,
    )

    if node.enum("transport_api_version") == "V2":
        node.refuse("names a version that is no more", "transport_api_version", "set it to V3")
    service, matcher = node.child("grpc_service"), node.child("filter_enabled_metadata")
    if service is None:
        node.refuse("is required", "grpc_service", "name the service to ask")
    return NetworkExtAuthz(
        node.get("stat_prefix"),
        GrpcAuthorization(GrpcService("")) if service is None else parse_grpc_authorization(service),
        node.get("failure_mode_allow"),
        node.get("include_peer_certificate"),
        node.get("include_tls_session"),
        None if matcher is None else parse_metadata_matcher(matcher),
        node.get("bootstrap_metadata_labels_key"),
        node.get("metadata_context_namespaces"),
    )
