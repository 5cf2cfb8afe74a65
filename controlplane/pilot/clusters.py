"""Clusters of the services that a proxy reaches, one for each port and subset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.clusters.common.dns.v3 import dns_pb2
from envoy.extensions.clusters.dns.v3 import dns_cluster_pb2

from controlplane.model.encoded import encode
from controlplane.model.istio.tls import ClientTLSSettings
from controlplane.model.proxy import ProxyType
from controlplane.model.resource import ResourceKey
from controlplane.model.service import Endpoint, Port, PortProtocol, Resolution, Service, identities
from controlplane.pilot import client_tls, names
from controlplane.pilot.balancing import apply_balancer, apply_outlier_detection, locality_settings, set_duration
from controlplane.pilot.connection_pool import apply_limits, apply_protocol, speaks_http2
from controlplane.pilot.endpoints import MUTUAL_TLS_MATCH, fill_load_assignment, is_address
from controlplane.pilot.forward_proxy import end_circles, find_by_requests, named_by_requests, strangers_pass
from controlplane.pilot.memo import Same
from controlplane.pilot.scope import Generated, Rule, Scope
from controlplane.pilot.security.inbound_tls import trust_domains
from controlplane.pilot.security.peer_authentication import Mode
from controlplane.pilot.traffic_policy import Policy, policy_for

Cluster = cluster_pb2.Cluster
_V3 = 2
ISTIO_MUTUAL = ClientTLSSettings(mode="ISTIO_MUTUAL")


def outbound_clusters(scope: Scope) -> Iterator[Generated]:
    """The clusters that the proxies of a scope get, without those of inbound traffic."""
    mesh = Same(scope.mesh)
    for_sni = passes_through_tls(scope)
    traits = _traits(scope)
    for service in scope.services.values():
        rule = scope.destination_rule(service.hostname)
        # Of endpoints that are a part of the cluster policies say whether they take mutual TLS.
        endpoints = (Same(scope.endpoints(service)), Same(scope.peers(service.namespace))) if is_dns(service) else None
        who = secured(scope, service) if scope.proxy.has_identity else None
        key = ("clusters", service, rule, mesh, endpoints, traits, for_sni, who)
        yield from scope.memo.get(key, lambda s=service, r=rule: tuple(_service_clusters(scope, s, r, for_sni)))  # type: ignore[misc]
    by_name = strangers_pass(scope)
    yield from scope.memo.get(("fixed clusters", mesh, by_name), lambda: tuple(_fixed(scope, by_name=by_name)))


def _traits(scope: Scope) -> tuple[Any, ...]:
    """What of the proxies decides what their clusters are."""
    proxy = scope.proxy
    return proxy.type, proxy.intercepts, proxy.has_identity, proxy.locality


def is_dns(service: Service) -> bool:
    """Whether proxies look its endpoints up themselves, so that these are a part of the cluster."""
    return service.resolution in (Resolution.DNS, Resolution.DNS_ROUND_ROBIN)


def passes_through_tls(scope: Scope) -> bool:
    """Whether a gateway of AUTO_PASSTHROUGH wants clusters by server name."""
    return any(
        server.tls is not None and str(server.tls.mode) == "AUTO_PASSTHROUGH"
        for gateway in scope.gateways
        for server in gateway.spec.servers
    )


def cluster_type(service: Service, port: Port, scope: Scope) -> Any:
    """How endpoints are found: `Cluster.EDS`, STATIC, STRICT_DNS, LOGICAL_DNS or ORIGINAL_DST.

    Where connections are captured, those to a service without resolution keep the address that they have, and so do those
    to a headless service, whose names are its endpoints'. Elsewhere a connection has no address but the proxy's: it goes to
    the service's own addresses, or its name is looked up (of a wildcard, those that requests have: `forward_proxy`).
    """
    if service.resolution is Resolution.DNS:
        return Cluster.STRICT_DNS
    if service.resolution is Resolution.DNS_ROUND_ROBIN:
        return Cluster.LOGICAL_DNS
    if service.resolution is Resolution.NONE:
        if captures(scope):
            return Cluster.ORIGINAL_DST
        if _own_addresses(service):
            return Cluster.STATIC
        return Cluster.ORIGINAL_DST if service.wildcard else Cluster.STRICT_DNS
    return Cluster.ORIGINAL_DST if service.headless and captures(scope) and not port.protocol.is_http else Cluster.EDS


def captures(scope: Scope) -> bool:
    """Whether connections come with the address that they were meant for."""
    return scope.proxy.intercepts and scope.proxy.type is ProxyType.SIDECAR


def _own_addresses(service: Service) -> list[str]:
    """The service's addresses, without ranges."""
    return [address for address in service.addresses if is_address(address)]


def _service_clusters(scope: Scope, service: Service, rule: Rule | None, for_sni: bool) -> Iterator[Generated]:
    causes = (*service.origins, *(source.key for source in rule.sources)) if rule is not None else service.origins
    for port in service.ports:
        if port.protocol is PortProtocol.UDP:
            continue
        for subset in ("", *(rule.subsets if rule is not None else ())):
            yield _generated(_outbound(scope, service, port, subset, rule), causes)
            if for_sni:
                yield _generated(_for_server_name(scope, service, port, subset, rule), causes)


def _generated(cluster: Any, causes: tuple[ResourceKey, ...]) -> Generated:
    return Generated(encode(cluster.name, cluster), causes)


def _outbound(scope: Scope, service: Service, port: Port, subset: str, rule: Rule | None) -> Any:
    policy = policy_for(rule, subset, port.number)
    cluster = Cluster(name=names.outbound_cluster(port.number, subset, service.hostname))
    _common(cluster, scope, service, port, subset, policy, rule)
    tls = policy.tls
    automatic = tls is None and automatic_tls(scope, service, policy, cluster)
    http = policy.connection_pool.http if policy.connection_pool is not None else None
    http2 = port.protocol.is_http2 or speaks_http2(port.protocol, http, scope.mesh)
    by_requests = named_by_requests(service, scope)
    verified = client_tls.needs_server_name(
        tls, service, verify_by_default=scope.mesh.verify_certificate_at_client
    ) and (port.protocol.is_http or port.protocol is PortProtocol.AUTO)
    apply_protocol(
        cluster,
        port.protocol,
        policy.connection_pool,
        scope.mesh,
        auto_sni=verified or (by_requests and client_tls.has_no_server_name(tls)),
        auto_san_validation=verified,
    )
    possible = client_tls.apply_tls(
        cluster,
        ISTIO_MUTUAL if automatic else tls,
        scope.proxy,
        http2=http2,
        protocols=client_tls.offered(
            port.protocol, http2=http2, of_clients=http is not None and bool(http.use_client_protocol)
        ),
        server_name=names.sni_cluster(port.number, subset, service.hostname),
        service_names=secured(scope, service).names if scope.proxy.has_identity else (),
        entry=service,
        verify_by_default=scope.mesh.verify_certificate_at_client,
    )
    if automatic and cluster.type != Cluster.ORIGINAL_DST:  # which has no endpoints to tell apart
        client_tls.only_where_taken(cluster, MUTUAL_TLS_MATCH)
    if not possible:
        _closed(cluster, "mutual TLS is asked for, and this proxy has no identity")
    elif by_requests:
        find_by_requests(cluster, verified=verified)
    client_tls.apply_proxy_protocol(cluster, policy.proxy_protocol)
    return cluster


class Secured(NamedTuple):
    """What mutual TLS with a service depends on: the ``names`` that its servers may have, whether all its endpoints take it
    (``mutual``), and whether its namespace does."""

    names: tuple[str, ...]
    mutual: bool
    taken: bool


def secured(scope: Scope, service: Service) -> Secured:
    """What mutual TLS with a service depends on. The names are those of its endpoints' accounts, in the mesh's trust domain and
    under its aliases, and those that a ServiceEntry gives; without any, all identities of the mesh are believed.
    """
    endpoints = scope.endpoints(service)

    def make() -> tuple[tuple[str, ...], bool]:
        who = identities(endpoints)
        return service_names(service, who.accounts, trust_domains(scope.mesh)), who.mutual

    found = scope.memo.brief.get(("identities", service, Same(endpoints), Same(scope.mesh)), make)
    return Secured(*found, scope.peers(service.namespace).mode is not Mode.DISABLE)


def service_names(service: Service, accounts: Iterable[str], domains: Sequence[str]) -> tuple[str, ...]:
    """The subject alternative names that servers of a service may have."""
    spiffe = (f"spiffe://{domain}/ns/{service.namespace}/sa/{account}" for domain in domains for account in accounts)
    return tuple(sorted({*service.subject_alt_names, *spiffe}))


def automatic_tls(scope: Scope, service: Service, policy: Policy, cluster: Any) -> bool:
    """Whether a cluster, for which nobody has said anything, uses mutual TLS with the endpoints that take it: automatic
    mutual TLS, as in Istio. Where endpoints are not chosen by the proxy they must all take it.

    Source: https://istio.io/latest/docs/ops/configuration/traffic-management/tls-configuration/#auto-mtls
    """
    if not scope.mesh.enable_auto_mtls or not scope.proxy.has_identity or service.mesh_external:
        return False
    who = secured(scope, service)
    passed_on = (
        cluster.type == Cluster.ORIGINAL_DST
        or service.resolution is Resolution.NONE
        or (policy.load_balancer is not None and policy.load_balancer.simple == "PASSTHROUGH")
    )
    return who.taken and (who.mutual or not passed_on)


def _closed(cluster: Any, why: str) -> None:
    """Nothing is sent rather than in plain text: the cluster has no endpoints, and says why."""
    for field in ("eds_cluster_config", "load_assignment", "original_dst_lb_config"):
        cluster.ClearField(field)
    cluster.type = Cluster.STATIC
    if cluster.lb_policy == Cluster.CLUSTER_PROVIDED:
        cluster.lb_policy = Cluster.ROUND_ROBIN
    cluster.load_assignment.cluster_name = cluster.name
    cluster.metadata.filter_metadata["istio"].update({"closed": why})


def _for_server_name(scope: Scope, service: Service, port: Port, subset: str, rule: Rule | None) -> Any:
    """The cluster that a gateway picks by the server name of a connection, whose TLS it does not touch."""
    policy = policy_for(rule, subset, port.number)
    cluster = Cluster(name=names.sni_cluster(port.number, subset, service.hostname))
    _common(cluster, scope, service, port, subset, policy, rule)
    return cluster


def _common(
    cluster: Any, scope: Scope, service: Service, port: Port, subset: str, policy: Policy, rule: Rule | None
) -> None:
    if scope.mesh.outbound_cluster_stat_name:
        cluster.alt_stat_name = names.stat_name(scope.mesh.outbound_cluster_stat_name, service, port, subset)
    cluster.type = cluster_type(service, port, scope)
    balancer = policy.load_balancer
    if balancer is not None and balancer.simple == "PASSTHROUGH" and captures(scope):
        cluster.type = Cluster.ORIGINAL_DST
    if cluster.type == Cluster.EDS:
        cluster.eds_cluster_config.eds_config.ads.SetInParent()
        cluster.eds_cluster_config.eds_config.resource_api_version = _V3
        set_duration(cluster.eds_cluster_config.eds_config.initial_fetch_timeout, 0)
        cluster.eds_cluster_config.service_name = cluster.name
    apply_balancer(cluster, policy, scope.mesh)
    apply_outlier_detection(cluster, policy.outlier_detection)
    apply_limits(cluster, policy.connection_pool, policy.retry_budget, scope.mesh)
    if cluster.type == Cluster.ORIGINAL_DST:
        cluster.lb_policy = Cluster.CLUSTER_PROVIDED
        cluster.ClearField("common_lb_config")
        for config in ("ring_hash_lb_config", "maglev_lb_config", "round_robin_lb_config", "least_request_lb_config"):
            cluster.ClearField(config)
    elif cluster.type != Cluster.EDS:
        _inline(cluster, scope, service, port, subset, policy, rule)
    _metadata(cluster, service, rule, subset)


def _inline(
    cluster: Any, scope: Scope, service: Service, port: Port, subset: str, policy: Policy, rule: Rule | None
) -> None:
    """Endpoints as a part of the cluster: names that are looked up, or the service's own addresses."""
    endpoints: Sequence[Endpoint] = () if service.resolution is Resolution.NONE else scope.endpoints(service)
    if not endpoints:
        found = (
            _own_addresses(service) if cluster.type == Cluster.STATIC else [service.external_name or service.hostname]
        )
        target = port.target if isinstance(port.target, int) and port.target else port.number
        endpoints = [Endpoint(address, {port.number: target}) for address in found]
    labels = rule.subsets[subset].labels if rule is not None and subset in rule.subsets else {}
    chosen = [each for each in endpoints if selected(each, labels) and port.number in each.ports]
    if cluster.type == Cluster.LOGICAL_DNS:
        chosen = chosen[:1]  # Envoy wants exactly one name
        if not chosen:
            cluster.type = Cluster.STATIC
    fill_load_assignment(
        cluster.load_assignment,
        cluster.name,
        port.number,
        chosen,
        scope.proxy,
        locality_settings(policy, scope.mesh),
        scope.peers(service.namespace),
        failover=policy.outlier_detection is not None and cluster.type != Cluster.LOGICAL_DNS,
    )
    if cluster.type != Cluster.STATIC:
        _look_up(cluster, scope)


def _look_up(cluster: Any, scope: Scope) -> None:
    """How names are looked up: as the extension for it, which the fields of clusters are deprecated for."""
    single = cluster.type == Cluster.LOGICAL_DNS
    lookup = dns_cluster_pb2.DnsCluster(
        respect_dns_ttl=True,
        all_addresses_in_single_endpoint=single,
        dns_lookup_family=dns_pb2.V4_PREFERRED if single else dns_pb2.ALL,
    )
    set_duration(lookup.dns_refresh_rate, scope.mesh.dns_refresh_rate)
    cluster.cluster_type.name = "envoy.clusters.dns"
    cluster.cluster_type.typed_config.Pack(lookup, deterministic=True)


def selected(endpoint: Endpoint, labels: Any) -> bool:
    """Whether an endpoint is in the subset of these labels."""
    return all(endpoint.labels.get(name) == value for name, value in labels.items())


def _metadata(cluster: Any, service: Service, rule: Rule | None, subset: str) -> None:
    """What Istio tells about a cluster: the rule that it comes from, and its services."""
    istio: dict[str, Any] = {
        "services": [{"host": service.hostname, "name": service.name, "namespace": service.namespace}]
    }
    if rule is not None:
        source = rule.sources[0]
        istio["config"] = f"/apis/networking.istio.io/v1/namespaces/{source.namespace}/destination-rule/{source.name}"
    if subset:
        istio["subset"] = subset
    cluster.metadata.filter_metadata["istio"].update(istio)


def _fixed(scope: Scope, *, by_name: bool) -> Iterable[Generated]:
    black_hole = Cluster(name=names.BLACK_HOLE, type=Cluster.STATIC)
    set_duration(black_hole.connect_timeout, scope.mesh.connect_timeout)
    yield _generated(black_hole, ())
    for name in (names.PASSTHROUGH, names.PASSTHROUGH_BY_AUTHORITY):
        passthrough = Cluster(name=name, type=Cluster.ORIGINAL_DST, lb_policy=Cluster.CLUSTER_PROVIDED)
        apply_limits(passthrough, None, None, scope.mesh)
        if name == names.PASSTHROUGH_BY_AUTHORITY:
            # A connection to the forward proxy has the proxy's own address: where it is meant to go the request says.
            passthrough.original_dst_lb_config.use_http_header = True
            passthrough.original_dst_lb_config.http_header_name = ":authority"
            end_circles(passthrough)
        apply_protocol(passthrough, PortProtocol.AUTO, None, scope.mesh)
        yield _generated(passthrough, ())
    if by_name:
        strangers = Cluster(name=names.PASSTHROUGH_BY_NAME)
        apply_limits(strangers, None, None, scope.mesh)
        apply_protocol(strangers, PortProtocol.AUTO, None, scope.mesh)
        find_by_requests(strangers, verified=False)  # what is sent to them in TLS, clients sent so
        yield _generated(strangers, ())
