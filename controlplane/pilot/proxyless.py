"""What gRPC clients without a proxy get (`GENERATOR: grpc` in the node's metadata), by the names that they ask for.

They take less than a sidecar: one listener for each target (`xds:///HOST:PORT`), routes with few of their fields, clusters
with endpoints over EDS alone, balanced by ROUND_ROBIN or a ring, endpoints with locality and weight.

Sources: gRPC's proposals A27 (xDS), A28 (routing), A31 (timeouts), A33 (faults), A42 (ring hash), A44 (retries), A50 (outliers),
A32 (circuit breaking); https://istio.io/latest/blog/2021/proxyless-grpc/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import SubjectAltNameMatcher

from controlplane.model.encoded import encode
from controlplane.model.resource import ResourceKey
from controlplane.model.service import Port, PortProtocol, Resolution, Service
from controlplane.pilot import names
from controlplane.pilot.balancing import DEFAULT_RING_SIZE, apply_outlier_detection
from controlplane.pilot.clusters import secured
from controlplane.pilot.endpoints import load_assignment
from controlplane.pilot.memo import Same
from controlplane.pilot.routes.filter_config import FAULT
from controlplane.pilot.routes.outbound import service_routes
from controlplane.pilot.scope import EgressListener, Generated, Rule, Scope
from controlplane.pilot.security.filters import grpc_filters
from controlplane.pilot.security.inbound_tls import trust_domains
from controlplane.pilot.security.peer_authentication import Mode
from controlplane.pilot.traffic_policy import Policy, policy_for

Cluster = cluster_pb2.Cluster
INBOUND = "xds.istio.io/grpc/lds/inbound/"
_LAST_PORT = 65535
_V3 = 2
_TLS = "envoy.transport_sockets.tls"
_PROVIDER = "default"  # of `certificate_providers` in the bootstrap, as Istio's agent writes it
_RETRIES = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})
_HEADER_MATCHES = frozenset(
    {
        "exact_match",
        "safe_regex_match",
        "range_match",
        "present_match",
        "prefix_match",
        "suffix_match",
        "contains_match",
        "string_match",
    }
)


def listener(scope: Scope, name: str) -> Generated | None:
    """The listener of a target `HOST:PORT`; HOST may be short, from the client's namespace. None if there is no such.

    A server asks for the listener of its own address, by the template in its bootstrap, which is Istio's:
    `xds.istio.io/grpc/lds/inbound/ADDRESS:PORT`.
    """
    if name.startswith(INBOUND):
        return _server_listener(scope, name)
    found = _target(scope, name)
    if found is None:
        return None
    service, port = found

    def make() -> Generated:
        manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix=name)
        manager.rds.route_config_name = names.outbound_cluster(port.number, "", service.hostname)
        manager.rds.config_source.ads.SetInParent()
        manager.rds.config_source.resource_api_version = _V3
        manager.http_filters.add(name=FAULT).typed_config.Pack(fault_pb2.HTTPFault())
        manager.http_filters.add(name="envoy.filters.http.router").typed_config.Pack(router_pb2.Router())
        message = listener_pb2.Listener(name=name)
        message.api_listener.api_listener.Pack(manager)
        return Generated(encode(name, message), service.origins)

    return scope.memo.get(("proxyless listener", name, service, port), make)


def _server_listener(scope: Scope, name: str) -> Generated | None:
    """A listener of a gRPC server: all requests are its own."""
    address, _, number = name.removeprefix(INBOUND).rpartition(":")
    if not address or not number.isdigit() or int(number) > _LAST_PORT:
        return None

    modes = scope.peers(scope.proxy.namespace).of(scope.proxy.labels)
    mode = modes.of_port(int(number))

    def make() -> Generated:
        manager = http_connection_manager_pb2.HttpConnectionManager(stat_prefix=name)
        host = manager.route_config.virtual_hosts.add(name="inbound", domains=["*"])
        host.routes.add(match=route_components_pb2.RouteMatch(prefix="/")).non_forwarding_action.SetInParent()
        manager.route_config.name = "inbound"
        manager.http_filters.extend(grpc_filters(scope, scope.policies))
        manager.http_filters.add(name="envoy.filters.http.router").typed_config.Pack(router_pb2.Router())
        message = listener_pb2.Listener(name=name)
        message.address.socket_address.address = address.strip("[]")
        message.address.socket_address.port_value = int(number)
        message.default_filter_chain.name = "inbound"
        message.default_filter_chain.filters.add(name="inbound").typed_config.Pack(manager)
        if mode is Mode.STRICT:  # gRPC's servers do not tell mutual TLS from plain text: PERMISSIVE is plain text
            context = tls_pb2.DownstreamTlsContext()
            context.require_client_certificate.value = True
            _certificates(context.common_tls_context)
            message.default_filter_chain.transport_socket.name = _TLS
            message.default_filter_chain.transport_socket.typed_config.Pack(context, deterministic=True)
        return Generated(encode(name, message), (*modes.keys, *scope.policies.keys))

    return scope.memo.get(("proxyless server", name, mode, modes.keys, scope.policies, trust_domains(scope.mesh)), make)


def route_configuration(scope: Scope, name: str) -> Generated | None:
    """The routes to a service's port: those of a sidecar, without what gRPC does not know."""
    found = _named(scope, name)
    if found is None:
        return None
    service, port = found
    egress = _egress(scope, service)
    if egress is None:
        return None
    full = service_routes(scope, egress, service, port)

    def make() -> Generated:
        message = route_pb2.RouteConfiguration.FromString(full.resource.value)
        message.name = name
        for host in message.virtual_hosts:
            kept = [reduced for route in host.routes if (reduced := _reduced(route)) is not None]
            del host.routes[:]
            host.routes.extend(kept)
        return Generated(encode(name, message), full.causes)

    return scope.memo.brief.get(("proxyless routes", name, Same(full.resource)), make)


def _reduced(route: Any) -> Any:
    """A route as gRPC takes it; None for one that would never hold there (by query) or that does not forward."""
    match, action = route.match, route.route
    if match.query_parameters or route.WhichOneof("action") != "route":
        return None
    if match.WhichOneof("path_specifier") not in ("prefix", "path", "safe_regex"):
        return None
    made = route_components_pb2.Route(name=route.name)
    made.match.CopyFrom(match)
    del made.match.headers[:]
    for header in match.headers:
        if header.WhichOneof("header_match_specifier") not in _HEADER_MATCHES:
            return None
        kept = made.match.headers.add()
        kept.CopyFrom(header)
        kept.ClearField("treat_missing_header_as_empty")
    target = made.route
    specifier = action.WhichOneof("cluster_specifier")
    if specifier == "cluster":
        target.cluster = action.cluster
    elif specifier == "weighted_clusters":
        for cluster in action.weighted_clusters.clusters:
            target.weighted_clusters.clusters.add(name=cluster.name).weight.value = cluster.weight.value
    else:
        return None
    if action.HasField("timeout") and action.timeout.ToNanoseconds():
        target.max_stream_duration.max_stream_duration.CopyFrom(action.timeout)
    for policy in action.hash_policy:
        if policy.WhichOneof("policy_specifier") == "header":
            target.hash_policy.add().header.header_name = policy.header.header_name
    _retries(action, target)
    fault = route.typed_per_filter_config.get(FAULT)
    if fault is not None:
        made.typed_per_filter_config[FAULT].CopyFrom(fault)
    return made


def _retries(action: Any, target: Any) -> None:
    """gRPC repeats by the statuses of gRPC alone; what cannot have been processed it repeats by itself."""
    if not action.HasField("retry_policy"):
        return
    conditions = [word for word in action.retry_policy.retry_on.split(",") if word in _RETRIES]
    if conditions:
        target.retry_policy.retry_on = ",".join(conditions)
        target.retry_policy.num_retries.value = action.retry_policy.num_retries.value


def cluster(scope: Scope, name: str) -> Generated | None:
    """A cluster of a service whose endpoints are known here; None for what gRPC would have to look up itself."""
    parts = names.parse_cluster(name)
    found = _named(scope, name)
    if parts is None or found is None:
        return None
    service, port = found
    rule = scope.destination_rule(service.hostname)
    if parts.subset and (rule is None or parts.subset not in rule.subsets):
        return None

    policy = policy_for(rule, parts.subset, port.number)
    secure = _wants_mutual_tls(scope, service, port, policy)

    def make() -> Generated:
        made = Cluster(name=name, type=Cluster.EDS)
        made.eds_cluster_config.eds_config.ads.SetInParent()
        made.eds_cluster_config.eds_config.resource_api_version = _V3
        made.eds_cluster_config.service_name = name
        made.lb_policy = Cluster.ROUND_ROBIN
        balancer = policy.load_balancer
        if balancer is not None and balancer.consistent_hash is not None:
            made.lb_policy = Cluster.RING_HASH
            ring = balancer.consistent_hash.ring_hash
            size = ring.minimum_ring_size if ring is not None else balancer.consistent_hash.minimum_ring_size
            made.ring_hash_lb_config.minimum_ring_size.value = size or DEFAULT_RING_SIZE
        apply_outlier_detection(made, policy.outlier_detection)
        made.ClearField("common_lb_config")
        if secure:
            pinned = policy.tls.subject_alt_names if policy.tls is not None else ()
            _mutual_tls(made, pinned or secured(scope, service).names)
        http = policy.connection_pool.http if policy.connection_pool is not None else None
        if http is not None and http.http2_max_requests:
            made.circuit_breakers.thresholds.add().max_requests.value = http.http2_max_requests
        causes = (*service.origins, *(source.key for source in rule.sources)) if rule is not None else service.origins
        return Generated(encode(name, made), causes)

    return scope.memo.get(("proxyless cluster", name, service, rule, secured(scope, service) if secure else None), make)


def _wants_mutual_tls(scope: Scope, service: Service, port: Port, policy: Policy) -> bool:
    """gRPC has one way of connecting for all endpoints of a cluster: without a rule that says it, all must take mutual TLS, and
    from clients that offer no protocols of the mesh: under PERMISSIVE sidecars take that for the application's own TLS, unless
    the port's protocol is known.
    """
    if policy.tls is not None:
        return bool(policy.tls.mode == "ISTIO_MUTUAL")
    who = secured(scope, service)
    peers = scope.peers(service.namespace)
    told_apart = port.protocol.is_http or peers.mode is Mode.STRICT
    automatic = scope.mesh.enable_auto_mtls and scope.proxy.has_identity and not service.mesh_external
    return automatic and told_apart and who.taken and who.mutual and not peers.plain


def _mutual_tls(cluster: Any, names: Iterable[str]) -> None:
    """Mutual TLS by the certificate provider `default` of the client's bootstrap.

    Source: gRPC's proposal A29 (xDS-based security).
    """
    context = tls_pb2.UpstreamTlsContext()
    trusted = _certificates(context.common_tls_context)
    for name in names:
        trusted.match_typed_subject_alt_names.add(
            san_type=SubjectAltNameMatcher.URI if "://" in name else SubjectAltNameMatcher.DNS
        ).matcher.exact = name
    cluster.transport_socket.name = _TLS
    cluster.transport_socket.typed_config.Pack(context, deterministic=True)


def _certificates(common: Any) -> Any:
    """Lets a TLS context have its certificates from the provider `default`; its validation context, to say more of it."""
    common.tls_certificate_provider_instance.instance_name = _PROVIDER
    common.tls_certificate_provider_instance.certificate_name = "default"
    trusted = common.validation_context
    trusted.ca_certificate_provider_instance.instance_name = _PROVIDER
    trusted.ca_certificate_provider_instance.certificate_name = "ROOTCA"
    return trusted


def left_out(scope: Scope) -> Iterator[tuple[str, tuple[ResourceKey, ...]]]:
    """What a gRPC program without a proxy does not get although resources ask for it, in words, and those resources."""
    asked = tuple(policy.key for policy in scope.policies.authorization if policy.spec.action == "CUSTOM")
    if asked:
        yield (
            "gRPC without a proxy asks no provider: what the rules of CUSTOM are for is denied to its clients."
            " Give it a sidecar, or write ALLOW or DENY",
            asked,
        )
    tokens = tuple(policy.key for policy in scope.policies.requests)
    if tokens:
        yield "gRPC without a proxy looks at no tokens: give it a sidecar, or verify them in the program itself", tokens
    for service in scope.services.values():
        rule = scope.destination_rule(service.hostname)
        if rule is not None and any(_speaks(service, port) and _forbidden(rule, port) for port in service.ports):
            yield (
                f"gRPC without a proxy gets no endpoints of {service.hostname}: it has no TLS but the mesh's own."
                " Write ISTIO_MUTUAL or DISABLE, or give it a sidecar",
                tuple(source.key for source in rule.sources),
            )


def _forbidden(rule: Rule, port: Port) -> bool:
    return any(_cannot_speak(policy_for(rule, subset, port.number).tls) for subset in ("", *rule.subsets))


def _cannot_speak(tls: Any) -> bool:
    """Whether TLS is asked for that gRPC cannot be told over xDS. Rather than plain text nothing is sent."""
    return tls is not None and str(tls.mode) in ("SIMPLE", "MUTUAL")


def endpoints(scope: Scope, name: str) -> Generated | None:
    """A sidecar's endpoints, each locality with a name: gRPC refuses what has none. None of them, if it could not speak to them
    as a rule says.
    """
    full = load_assignment(scope, name)
    parts = names.parse_cluster(name)
    if full is None or parts is None:
        return None
    closed = _cannot_speak(policy_for(scope.destination_rule(parts.hostname), parts.subset, parts.port).tls)

    def make() -> Generated:
        message = endpoint_pb2.ClusterLoadAssignment.FromString(full.resource.value)
        if closed:
            message.ClearField("endpoints")
        for locality in message.endpoints:
            locality.locality.SetInParent()
        return Generated(encode(name, message), full.causes)

    return scope.memo.brief.get(("proxyless endpoints", name, closed, Same(full.resource)), make)


def _target(scope: Scope, name: str) -> tuple[Service, Port] | None:
    host, _, number = name.rpartition(":")
    if not host or not number.isdigit():
        return None
    service = scope.services.get(scope.resolve(host, scope.proxy.namespace))
    port = service.port(int(number)) if service is not None else None
    return (service, port) if service is not None and port is not None and _speaks(service, port) else None


def _named(scope: Scope, name: str) -> tuple[Service, Port] | None:
    parts = names.parse_cluster(name)
    service = scope.services.get(parts.hostname) if parts is not None else None
    port = service.port(parts.port) if service is not None and parts is not None else None
    return (service, port) if service is not None and port is not None and _speaks(service, port) else None


def _speaks(service: Service, port: Port) -> bool:
    routable = port.protocol.is_http or port.protocol is PortProtocol.AUTO
    return routable and service.resolution is Resolution.STATIC and not service.wildcard


def _egress(scope: Scope, service: Service) -> EgressListener | None:
    for egress in scope.egress:
        if egress.services.get(service.hostname) is service:
            return egress
    return None


def _targets(scope: Scope) -> Iterator[tuple[Service, Port]]:
    for service in scope.services.values():
        for port in service.ports:
            if _speaks(service, port):
                yield service, port


def listener_names(scope: Scope) -> Iterator[str]:
    """All targets by their full names."""
    return (f"{service.hostname}:{port.number}" for service, port in _targets(scope))


def cluster_names(scope: Scope) -> Iterator[str]:
    """All clusters, those of subsets among them; endpoints have the same names."""
    for service, port in _targets(scope):
        rule = scope.destination_rule(service.hostname)
        for subset in ("", *(rule.subsets if rule is not None else ())):
            yield names.outbound_cluster(port.number, subset, service.hostname)


def route_names(scope: Scope) -> Iterable[str]:
    """All route configurations."""
    return (names.outbound_cluster(port.number, "", service.hostname) for service, port in _targets(scope))
