"""Where proxies fetch the keys of issuers: `jwksUri`, over a cluster of the mesh or one that is made for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from controlplane.model.encoded import Encoded, encode
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.values import is_ip
from controlplane.pilot.client_tls import SYSTEM_ROOTS
from controlplane.pilot.memo import Same
from controlplane.pilot.names import outbound_cluster
from controlplane.pilot.scope import Generated, Scope
from controlplane.pilot.security.policies import Policies

Cluster = cluster_pb2.Cluster


class KeySource(NamedTuple):
    """A server that has keys."""

    host: str
    port: int
    is_secure: bool

    @property
    def name(self) -> str:
        """The name of a cluster for it alone."""
        return f"jwks|{self.port}|{'https' if self.is_secure else 'http'}|{self.host}"


def source_of(uri: str) -> KeySource:
    """The server of an address that begins with http:// or https://."""
    parts = urlsplit(uri)
    secure = parts.scheme == "https"
    return KeySource((parts.hostname or "").lower(), parts.port or (443 if secure else 80), secure)


def cluster_for(scope: Scope, uri: str) -> str:
    """The name of the cluster over which to fetch: plain HTTP to a service of the mesh goes as all that is sent to it."""
    source = source_of(uri)
    if not source.is_secure:
        service = scope.service(source.host)
        if service is not None and service.hostname == source.host and service.port(source.port) is not None:
            return outbound_cluster(source.port, "", source.host)
    return source.name


def key_clusters(scope: Scope, policies: Policies) -> Iterator[Generated]:
    """The clusters that are made for keys alone."""
    wanted: dict[KeySource, list[ResourceKey]] = {}
    for policy, uri in _addresses(policies.requests):
        source = source_of(uri)
        if cluster_for(scope, uri) == source.name:
            wanted.setdefault(source, []).append(policy.key)
    for source, causes in wanted.items():
        kept = scope.memo.get(
            ("key cluster", source, Same(scope.mesh)),
            lambda source=source: _made(scope, source),  # type: ignore[misc]
        )
        yield Generated(kept, tuple(causes))


def _addresses(policies: Iterable[Resource]) -> Iterator[tuple[Resource, str]]:
    for policy in policies:
        for rule in policy.spec.jwt_rules:
            if rule.jwks_uri:
                yield policy, rule.jwks_uri


def _made(scope: Scope, source: KeySource) -> Encoded:
    made = Cluster(name=source.name, type=Cluster.STATIC if is_ip(source.host) else Cluster.STRICT_DNS)
    made.connect_timeout.FromNanoseconds(round(scope.mesh.connect_timeout * 1e9))
    made.load_assignment.cluster_name = source.name
    address = made.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address = source.host
    address.port_value = source.port
    if source.is_secure:
        context = tls_pb2.UpstreamTlsContext(sni="" if is_ip(source.host) else source.host)
        validation = context.common_tls_context.validation_context
        validation.trusted_ca.filename = SYSTEM_ROOTS
        kind = common_pb2.SubjectAltNameMatcher
        matcher = validation.match_typed_subject_alt_names.add()
        matcher.san_type = kind.IP_ADDRESS if is_ip(source.host) else kind.DNS
        matcher.matcher.exact = source.host
        made.transport_socket.name = "envoy.transport_sockets.tls"
        made.transport_socket.typed_config.Pack(context, deterministic=True)
    return encode(made.name, made)
