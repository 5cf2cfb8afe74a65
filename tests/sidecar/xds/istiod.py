"""A small mesh in the manner in which istiod tells a sidecar of it: its bootstrap, and what comes over ADS.

Written for these tests after what istiod's reference says that it generates: ``shop``'s workload calls ``reviews`` and is
``reviews`` too, so that requests go out and come back in through one sidecar, with mutual TLS between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.cluster.v3.filter_pb2 import Filter as UpstreamFilter
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_components_pb2 import Filter
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import ParseDict
from udpa.type.v1.typed_struct_pb2 import TypedStruct

from sidecar.config.extensions import message_class
from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, SECRET
from tests.sidecar.bootstraps import address
from tests.sidecar.transport.serving import AUTHORITY, inline
from tests.sidecar.xds.driving import types_in

TYPE = "type.googleapis.com/"
_FILTERS = TYPE + "envoy.extensions.filters."
_TLS = TYPE + "envoy.extensions.transport_sockets.tls.v3."
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
IDENTITY = AUTHORITY.issue("workload", ["spiffe://cluster.local/ns/shop/sa/reviews"])
HOST = "reviews.shop.svc.cluster.local"
OUTBOUND = f"outbound|9080||{HOST}"
INBOUND = "inbound|9080||"
STATS = Packed(type_url=TYPE + "stats.PluginConfig", value=b"\x30\x01")  # reporter: SERVER_GATEWAY
ALPN = Packed(
    type_url=TYPE + "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    value=b"\x0a\x19\x08\x01\x12\x0eistio-http/1.1\x12\x05istio",
)


def struct(type_name: str, value: Mapping[str, Any]) -> Packed:
    """A TypedStruct in an Any."""
    made = Packed()
    made.Pack(ParseDict({"type_url": TYPE + type_name, "value": value}, TypedStruct()))
    return made


def exchange() -> Packed:
    """The filter of metadata exchange over TCP."""
    return struct(
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        {"protocol": "istio-peer-exchange", "enable_discovery": True},
    )


def peer_metadata(side: str) -> Packed:
    """The filter that writes and reads the headers about peers."""
    methods = [{"istio_headers": {}}, {"workload_discovery": {}}]
    return struct(
        "io.istio.http.peer_metadata.Config", {f"{side}_discovery": methods, f"{side}_propagation": methods[:1]}
    )


def read(document: Any, message: Any) -> Any:
    """The message from a document in protobuf's JSON mapping."""
    for inner in types_in(document):
        message_class(inner)
    return ParseDict(document, message)


def manager(routes: Mapping[str, Any], side: str, *more: HttpFilter) -> Filter:
    """A connection manager with the filters that every one of istiod's has."""
    made = read(
        {
            "stat_prefix": f"{side}_0.0.0.0_9080",
            "use_remote_address": False,
            "generate_request_id": True,
            "forward_client_cert_details": "APPEND_FORWARD" if side == "downstream" else "SANITIZE",
            "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "stream_idle_timeout": "0s",
            "normalize_path": True,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            "request_id_extension": {
                "typed_config": {
                    "@type": TYPE + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    "use_request_id_for_trace_sampling": True,
                }
            },
            "http_filters": [
                {"name": "envoy.filters.http.grpc_stats", "typed_config": {
                    "@type": _FILTERS + "http.grpc_stats.v3.FilterConfig",
                    "emit_filter_state": True, "stats_for_all_methods": False,
                }},
                {"name": "envoy.filters.http.fault", "typed_config": {"@type": _FILTERS + "http.fault.v3.HTTPFault"}},
                {"name": "envoy.filters.http.cors", "typed_config": {"@type": _FILTERS + "http.cors.v3.Cors"}},
            ],
            **routes,
        },
        HttpConnectionManager(),
    )  # fmt: skip
    made.http_filters.insert(0, HttpFilter(name="istio.metadata_exchange", typed_config=peer_metadata(side)))
    made.http_filters.extend(more)
    made.http_filters.append(HttpFilter(name="istio.stats", typed_config=STATS))
    router = read({"@type": _FILTERS + "http.router.v3.Router"}, Packed())
    made.http_filters.append(HttpFilter(name="envoy.filters.http.router", typed_config=router))
    packed = Packed()
    packed.Pack(made)
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed)


def proxied(cluster: str, *before: Filter) -> list[Filter]:
    """TCP to a cluster, with Istio's statistics."""
    typed = {"@type": _FILTERS + "network.tcp_proxy.v3.TcpProxy", "stat_prefix": cluster, "cluster": cluster}
    proxy = Filter(name="envoy.filters.network.tcp_proxy", typed_config=read(typed, Packed()))
    return [*before, Filter(name="istio.stats", typed_config=STATS), proxy]


def sds(name: str) -> dict[str, Any]:
    source = {"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": True}
    api = {**source, "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}
    return {
        "name": name,
        "sds_config": {"api_config_source": api, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
    }


def tls(kind: str, alpn: list[str], *, names: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Mutual TLS with the workload's certificate, which the agent gives."""
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": alpn,
        "tls_certificate_sds_secret_configs": [sds("default")],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [names]} if names else {},
            "validation_context_sds_secret_config": sds("ROOTCA"),
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}{kind}TlsContext", "common_tls_context": common, **more},
    }


def _cluster(document: Mapping[str, Any], *, exchanging: bool = True) -> Any:
    made = read(
        {
            "connect_timeout": "10s",
            "circuit_breakers": {"thresholds": [{
                "max_connections": 4294967295, "max_pending_requests": 4294967295, "max_requests": 4294967295,
                "max_retries": 4294967295, "track_remaining": True,
            }]},
            "common_lb_config": {},
            **document,
        },
        Cluster(),
    )  # fmt: skip
    if exchanging:
        made.filters.append(UpstreamFilter(name="istio.metadata_exchange", typed_config=exchange()))
    return made


def clusters(app: int) -> dict[str, Any]:
    """What istiod sends of ``reviews``, whose application is on this port of 127.0.0.1, and what it sends to everyone."""
    mutual = tls(
        "Upstream",
        ["istio-peer-exchange", "istio"],
        names={"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/shop/sa/reviews"}},
        sni=f"outbound_.9080_._.{HOST}",
    )
    plain = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
        "@type": TYPE + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    }}  # fmt: skip
    service = {"services": [{"host": HOST, "name": "reviews", "namespace": "shop"}]}
    downstream = {"@type": TYPE + _HTTP_OPTIONS, "use_downstream_protocol_config": {
        "http_protocol_options": {}, "http2_protocol_options": {"max_concurrent_streams": 1073741824},
    }}  # fmt: skip
    provided = {"lb_policy": "CLUSTER_PROVIDED", "type": "ORIGINAL_DST"}
    source = {"source_address": {"address": "127.0.0.6", "port_value": 0}}
    made = [
        _cluster({
            "name": OUTBOUND, "type": "EDS", "lb_policy": "LEAST_REQUEST",
            "eds_cluster_config": {"eds_config": ADS, "service_name": OUTBOUND},
            "metadata": {"filter_metadata": {"istio": {"default_original_port": 9080, **service}}},
            "transport_socket_matches": [
                {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": mutual},
                {"name": "tlsMode-disabled", "match": {}, "transport_socket": plain},
            ],
        }),
        _cluster({
            "name": INBOUND, "type": "STATIC",
            "load_assignment": {"cluster_name": INBOUND, "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(app)}}]},
            ]},
            "upstream_bind_config": {"source_address": {"address": "127.0.0.1", "port_value": 0}},
            "metadata": {"filter_metadata": {"istio": service}},
            "typed_extension_protocol_options": {_HTTP_OPTIONS: downstream},
        }, exchanging=False),
        _cluster({"name": "BlackHoleCluster", "type": "STATIC"}),
        _cluster({"name": "PassthroughCluster", **provided, "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {**downstream, "common_http_protocol_options": {"idle_timeout": "300s"}},
        }}),
        _cluster({"name": "InboundPassthroughCluster", "upstream_bind_config": source, **provided}, exchanging=False),
    ]  # fmt: skip
    return {one.name: one for one in made}


def _listener(chains: list[tuple[Mapping[str, Any], list[Filter]]], **document: Any) -> Any:
    made = read({**document, "filter_chains": [dict(chain) for chain, _ in chains]}, Listener())
    for chain, (_, filters) in zip(made.filter_chains, chains, strict=True):
        chain.filters.extend(filters)
    return made


def listeners(outward: int, inward: int) -> dict[str, Any]:
    """``reviews`` outbound, its inbound listener, and virtualOutbound; the last binds to no port here."""
    alpn = HttpFilter(name="istio.alpn", typed_config=ALPN)
    inspectors = [
        {"name": f"envoy.filters.listener.{name}", "typed_config": {"@type": f"{_FILTERS}listener.{name}.v3.{kind}"}}
        for name, kind in (("tls_inspector", "TlsInspector"), ("http_inspector", "HttpInspector"))
    ]
    served = {"virtual_hosts": [{"name": "inbound|http|9080", "domains": ["*"], "routes": [{
        "name": "default", "match": {"prefix": "/"}, "decorator": {"operation": f"{HOST}:9080/*"},
        "route": {"cluster": INBOUND, "timeout": "0s", "max_stream_duration": {
            "max_stream_duration": "0s", "grpc_timeout_header_max": "0s",
        }},
    }]}], "name": INBOUND, "validate_clusters": False}  # fmt: skip
    by_rds = {"rds": {"route_config_name": "9080", "config_source": ADS}}
    offered = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
    mtls = tls("Downstream", ["istio-peer-exchange", "h2", "http/1.1"], require_client_certificate=True)
    inbound = Filter(name="istio.metadata_exchange", typed_config=exchange())
    made = [
        _listener(
            [({}, [manager(by_rds, "upstream", alpn)])],
            name="0.0.0.0_9080", address=address(outward), traffic_direction="OUTBOUND",
            listener_filters=inspectors, listener_filters_timeout="0s", continue_on_listener_filters_timeout=True,
        ),
        _listener(
            [
                (
                    {
                        "name": "mtls",
                        "filter_chain_match": {"transport_protocol": "tls", "application_protocols": offered},
                        "transport_socket": mtls,
                    },
                    [inbound, manager({"route_config": served}, "downstream")],
                ),
                (
                    {"name": "plain", "filter_chain_match": {"transport_protocol": "raw_buffer"}},
                    proxied("InboundPassthroughCluster", inbound),
                ),
            ],
            name="virtualInbound", address=address(inward), traffic_direction="INBOUND",
            listener_filters=inspectors, listener_filters_timeout="0s", continue_on_listener_filters_timeout=True,
        ),
        _listener(
            [({"name": "virtualOutbound-catchall-tcp"}, proxied("PassthroughCluster"))],
            name="virtualOutbound", address=address(15001), use_original_dst=True, bind_to_port=False,
            traffic_direction="OUTBOUND",
        ),
    ]  # fmt: skip
    return {one.name: one for one in made}


def routes() -> dict[str, Any]:
    """The routes of port 9080: ``reviews``, and anything else passes through."""
    retries = {
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2,
        "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": TYPE + _PREVIOUS_HOSTS}}
        ],
        "host_selection_retry_max_attempts": "5",
    }  # fmt: skip
    made = {
        "name": "9080", "validate_clusters": False, "max_direct_response_body_size_bytes": 1048576,
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [
            {"name": f"{HOST}:9080", "domains": [HOST, "reviews", "reviews.shop.svc", "reviews.shop"], "routes": [{
                "name": "default", "match": {"prefix": "/"}, "decorator": {"operation": f"{HOST}:9080/*"},
                "route": {"cluster": OUTBOUND, "timeout": "0s", "retry_policy": retries, "max_grpc_timeout": "0s"},
            }], "include_request_attempt_count": True},
            {"name": "allow_any", "domains": ["*"], "routes": [{
                "name": "allow_any", "match": {"prefix": "/"},
                "route": {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"},
            }], "include_request_attempt_count": True},
        ],
    }  # fmt: skip
    return {"9080": read(made, RouteConfiguration())}


def endpoints(inward: int) -> dict[str, Any]:
    """``reviews`` at the inbound listener, with mutual TLS."""
    endpoint = {
        "endpoint": {"address": address(inward)}, "health_status": "HEALTHY", "load_balancing_weight": 1,
        "metadata": {"filter_metadata": {
            "envoy.transport_socket_match": {"tlsMode": "istio"}, "istio": {"workload": "reviews-v1;shop;reviews;v1;"},
        }},
    }  # fmt: skip
    locality = {"locality": {}, "lb_endpoints": [endpoint], "load_balancing_weight": 1}
    return {OUTBOUND: read({"cluster_name": OUTBOUND, "endpoints": [locality]}, ClusterLoadAssignment())}


def secrets() -> dict[str, Any]:
    """What the agent beside the sidecar would give."""
    made = [read({"name": "default", "tls_certificate": inline(IDENTITY)}, Secret()), Secret(name="ROOTCA")]
    made[1].validation_context.trusted_ca.inline_bytes = AUTHORITY.pem
    return {one.name: one for one in made}


def resources(app: int, outward: int, inward: int) -> dict[str, dict[str, Any]]:
    """All of it."""
    return {
        CLUSTER: clusters(app),
        LISTENER: listeners(outward, inward),
        ROUTE_CONFIGURATION: routes(),
        CLUSTER_LOAD_ASSIGNMENT: endpoints(inward),
        SECRET: secrets(),
    }


def bootstrap(xds: int, admin: int) -> dict[str, Any]:
    """The file that the agent writes for the proxy, with what concerns the proxy's configuration."""
    http2 = {"@type": TYPE + _HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    grpc = {
        "type": "STATIC", "connect_timeout": "1s", "max_requests_per_connection": 1,
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
        "typed_extension_protocol_options": {_HTTP_OPTIONS: http2},
    }  # fmt: skip
    made = []
    for name in ("xds-grpc", "sds-grpc"):
        at = [{"lb_endpoints": [{"endpoint": {"address": address(xds)}}]}]
        assignment = {"load_assignment": {"cluster_name": name, "endpoints": at}}
        made.append({"name": name, "alt_stat_name": f"{name};", **grpc, **assignment})
    tags = {
        "cluster_name": r"^cluster(\.(.+);)",
        "http_conn_manager_listener_prefix": r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*))\.)",
        "response_code": r"_rq(_(\d{3}))$",
    }
    return {
        "application_log_config": {"log_format": {"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}},
        "node": {
            "id": "sidecar~127.0.0.1~reviews-1.shop~shop.svc.cluster.local",
            "cluster": "reviews.shop",
            "locality": {},
            "metadata": {"NAMESPACE": "shop", "INTERCEPTION_MODE": "NONE", "ISTIO_VERSION": "1.24.0"},
        },
        "layered_runtime": {"layers": [
            {"name": "global config", "static_layer": {
                "envoy.reloadable_features.http_reject_path_with_fragment": False,
                "re2.max_program_size.error_level": "32768",
                "overload.global_downstream_max_connections": "2147483647",
            }},
            {"name": "admin", "admin_layer": {}},
        ]},
        "bootstrap_extensions": [
            {"name": "envoy.bootstrap.internal_listener", "typed_config": {
                "@type": TYPE + "udpa.type.v1.TypedStruct",
                "type_url": TYPE + "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                "value": {"buffer_size_kb": 64},
            }},
            {"name": "metadata_discovery", "typed_config": {
                "@type": TYPE + "udpa.type.v1.TypedStruct",
                "type_url": TYPE + "istio.workload.BootstrapExtension",
                "value": {"config_source": {"ads": {}}},
            }},
        ],
        "stats_config": {
            "use_all_default_tags": False,
            "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in tags.items()],
            "stats_matcher": {"inclusion_list": {"patterns": [{"prefix": "cluster."}, {"prefix": "listener"}]}},
        },
        "admin": {"profile_path": "/var/lib/istio/data/envoy.prof", "address": address(admin)},
        "dynamic_resources": {
            "lds_config": ADS,
            "cds_config": ADS,
            "ads_config": {
                "api_type": "DELTA_GRPC", "set_node_on_first_message_only": True, "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": made},
        "cluster_manager": {
            "enable_deferred_cluster_creation": True, "outlier_detection": {"event_log_path": "/dev/stdout"},
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }  # fmt: skip
