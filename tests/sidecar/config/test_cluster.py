"""Clusters: defaults, every field, types and their rules, DNS, protocol options, breakers, outlier detection."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.address import SocketAddress
from sidecar.config.circuit_breakers import CircuitBreakers, RetryBudget, Thresholds
from sidecar.config.cluster import Cluster
from sidecar.config.core_types import TcpKeepalive
from sidecar.config.dns import DnsSettings
from sidecar.config.dns_cache import DnsCacheConfig
from sidecar.config.lb_policies import OriginalDstLbConfig
from sidecar.config.outlier_detection import OutlierDetection
from tests.sidecar.config.resources import (
    Document,
    bootstrap,
    cluster,
    endpoints,
    load,
    load_cluster,
    refusals,
    socket_address,
)

STRUCT = "type.googleapis.com/google.protobuf.Struct"
HERE = "static_resources.clusters[0]"
ORIGINAL_DST: Document = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "load_assignment": None}


def assignment(*addresses: Document) -> Document:
    return {"cluster_name": "c", "endpoints": endpoints(*addresses)}


def test_a_cluster_with_little_has_the_defaults_of_envoy() -> None:
    built = load_cluster()
    assert built == Cluster("c", "c", "STATIC", built.load_assignment)
    assert (built.connect_timeout, built.per_connection_buffer_limit_bytes) == (5.0, 1024 * 1024)
    assert built.circuit_breakers == CircuitBreakers(Thresholds(1024, 1024, 1024, 3), Thresholds(1024, 1024, 1024, 3))
    assert built.common_http_protocol_options.idle_timeout == 3600.0
    assert load_cluster(load_assignment=None).load_assignment.endpoints == ()


def test_every_plain_field() -> None:
    built = load_cluster(
        alt_stat_name="other",
        connect_timeout="0.25s",
        per_connection_buffer_limit_bytes=9,
        cleanup_interval="7s",
        upstream_connection_options={"tcp_keepalive": {"keepalive_probes": 3, "keepalive_interval": 4}},
        metadata={"filter_metadata": {"a": {"b": "c"}}},
    )
    assert (built.alt_stat_name, built.connect_timeout, built.per_connection_buffer_limit_bytes) == ("other", 0.25, 9)
    assert (built.cleanup_interval, built.metadata) == (7.0, {"a": {"b": "c"}})
    assert built.tcp_keepalive == TcpKeepalive(3, None, 4)


def test_circuit_breakers_by_priority() -> None:
    built = load_cluster(
        circuit_breakers={
            "thresholds": [
                {"priority": "HIGH", "max_connections": 1, "max_pending_requests": 2, "max_requests": 3},
                {"max_retries": 4, "track_remaining": True, "retry_budget": {"budget_percent": {"value": 25}}},
            ]
        }
    )
    assert built.circuit_breakers == CircuitBreakers(
        Thresholds(max_retries=4, track_remaining=True, retry_budget=RetryBudget(25.0, 3), limits_retries=True),
        Thresholds(1, 2, 3),
    )


def test_outlier_detection() -> None:
    assert load_cluster(outlier_detection={}).outlier_detection == OutlierDetection()
    assert load_cluster(outlier_detection={"base_ejection_time": "400s"}).outlier_detection == OutlierDetection(
        base_ejection_time=400.0, max_ejection_time=400.0
    )
    every = {
        "consecutive_5xx": 1,
        "interval": "2s",
        "base_ejection_time": "3s",
        "max_ejection_percent": 4,
        "enforcing_consecutive_5xx": 5,
        "consecutive_gateway_failure": 6,
        "enforcing_consecutive_gateway_failure": 7,
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 8,
        "enforcing_consecutive_local_origin_failure": 9,
        "max_ejection_time": "10s",
        "max_ejection_time_jitter": "11s",
        "always_eject_one_host": True,
        "enforcing_success_rate": 12,
        "enforcing_local_origin_success_rate": 13,
        "success_rate_minimum_hosts": 14,
        "success_rate_request_volume": 15,
        "success_rate_stdev_factor": 16,
        "enforcing_failure_percentage": 17,
        "enforcing_failure_percentage_local_origin": 18,
        "failure_percentage_threshold": 19,
        "failure_percentage_minimum_hosts": 20,
        "failure_percentage_request_volume": 21,
        "successful_active_health_check_uneject_host": False,
    }
    assert load_cluster(outlier_detection=every).outlier_detection == OutlierDetection(
        1, 2.0, 3.0, 4, 5, 6, 7, True, 8, 9, 10.0, 11.0, True, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, False
    )


def with_runtime(values: Document, **fields: Any) -> Cluster:
    document = bootstrap([], [cluster(**fields)])
    document["layered_runtime"] = {"layers": [{"name": "static", "static_layer": values}]}
    return load(document)[0].static_resources.clusters[0]


def test_the_runtime_goes_before_the_fields_of_outlier_detection() -> None:
    values = {"consecutive_5xx": 2, "interval_ms": 1500, "enforcing_success_rate": 3, "max_ejection_time_ms": 7}
    built = with_runtime({"outlier_detection": values}, outlier_detection={"consecutive_5xx": 9}).outlier_detection
    assert built == OutlierDetection(consecutive_5xx=2, interval=1.5, enforcing_success_rate=3, max_ejection_time=0.007)


def test_the_runtime_goes_before_the_fields_of_circuit_breakers() -> None:
    values = {"default": {"max_requests": 2, "retry_budget": {"budget_percent": 12.5}}, "high": {"max_retries": 0}}
    other = {"circuit_breakers.other.default.max_requests": 1}
    built = with_runtime(
        {"circuit_breakers": {"c": values}, **other},
        circuit_breakers={"thresholds": [{"max_requests": 9, "max_connection_pools": 4}]},
    ).circuit_breakers
    assert built == CircuitBreakers(
        Thresholds(max_requests=2, retry_budget=RetryBudget(12.5, 3), max_connection_pools=4, limits_retries=True),
        Thresholds(max_retries=0, limits_retries=True),
    )
    without_fields = with_runtime({"circuit_breakers": {"c": {"high": {"max_connections": 3}}}}).circuit_breakers
    assert without_fields == CircuitBreakers(Thresholds(), Thresholds(max_connections=3))


def test_limits_of_each_host() -> None:
    breakers = {
        "thresholds": [{"max_connections": 8}],
        "per_host_thresholds": [{"priority": "HIGH", "max_connections": 1}, {"max_connections": 2}],
    }
    assert load_cluster(circuit_breakers=breakers).circuit_breakers == CircuitBreakers(
        Thresholds(max_connections=8, max_connections_per_host=2), Thresholds(max_connections_per_host=1)
    )


def test_dns_settings() -> None:
    assert load_cluster(type="STRICT_DNS").dns == DnsSettings()
    built = load_cluster(
        type="LOGICAL_DNS",
        load_assignment=assignment(socket_address("db.internal", 5432)),
        dns_refresh_rate="3s",
        dns_jitter="1s",
        dns_failure_refresh_rate={"base_interval": "2s"},
        respect_dns_ttl=True,
        dns_lookup_family="V4_ONLY",
        dns_resolution_config={
            "resolvers": [{"socket_address": {"address": "10.0.0.1", "port_value": 53, "protocol": "UDP"}}],
            "dns_resolver_options": {"use_tcp_for_dns_lookups": True, "no_default_search_domain": True},
        },
    )
    settings = DnsSettings(3.0, 1.0, 2.0, 20.0, True, "V4_ONLY", (SocketAddress("10.0.0.1", 53),), True, True)
    assert (built.type, built.dns) == ("LOGICAL_DNS", settings)
    assert built.load_assignment.endpoints[0].lb_endpoints[0].address == SocketAddress("db.internal", 5432)


@pytest.mark.parametrize(("single", "cluster_type"), [(False, "STRICT_DNS"), (True, "LOGICAL_DNS")])
def test_the_dns_cluster_extension(single: bool, cluster_type: str) -> None:
    resolver = {
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [socket_address("::1", 53)],
    }
    extension = {
        "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_refresh_rate": "9s",
        "all_addresses_in_single_endpoint": single,
        "typed_dns_resolver_config": {"name": "cares", "typed_config": resolver},
    }
    built = load_cluster(type=None, cluster_type={"name": "envoy.cluster.dns", "typed_config": extension})
    assert built.type == cluster_type
    assert built.dns == DnsSettings(9.0, resolvers=(SocketAddress("::1", 53),))


def test_original_dst() -> None:
    built = load_cluster(
        **ORIGINAL_DST,
        original_dst_lb_config={"use_http_header": True, "http_header_name": "X-To", "upstream_port_override": 81},
    )
    assert (built.type, built.lb_policy) == ("ORIGINAL_DST", "CLUSTER_PROVIDED")
    assert built.lb_config == OriginalDstLbConfig(True, b"x-to", 81)


def test_two_clusters_of_a_name() -> None:
    assert refusals(bootstrap([], [cluster(), cluster()])) == [
        ("static_resources.clusters[1].name", f"another cluster is called 'c' too ({HERE})")
    ]


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        ({"type": "EDS", "load_assignment": None}, ".eds_cluster_config.eds_config", "is required for EDS"),
        ({"eds_cluster_config": {}}, ".eds_cluster_config", "is for EDS alone"),
        ({"health_checks": None, "lrs_server": {"self": {}}}, ".lrs_server", "is not implemented by Mizzen"),
        (
            {"load_assignment": assignment(socket_address("db.internal", 1))},
            ".load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
            "'db.internal' is no IP address",
        ),
        (
            {"type": "LOGICAL_DNS", "load_assignment": assignment(socket_address("a", 1), socket_address("b", 1))},
            ".load_assignment",
            "must have one locality with one endpoint for LOGICAL_DNS",
        ),
        ({**ORIGINAL_DST, "lb_policy": "RANDOM"}, ".lb_policy", "must be CLUSTER_PROVIDED"),
        (
            {**ORIGINAL_DST, "load_assignment": assignment(socket_address(port=1))},
            ".load_assignment",
            "has no meaning for ORIGINAL_DST",
        ),
        (
            {"lb_policy": "CLUSTER_PROVIDED"},
            ".lb_policy",
            "CLUSTER_PROVIDED is for ORIGINAL_DST and dynamic forward proxies alone",
        ),
        (
            {**ORIGINAL_DST, "original_dst_lb_config": {"http_header_name": "x-to"}},
            ".original_dst_lb_config.http_header_name",
            "has no effect without use_http_header",
        ),
        (
            {"circuit_breakers": {"thresholds": [{}, {}]}},
            ".circuit_breakers.thresholds[1].priority",
            "another one is for the priority DEFAULT too",
        ),
        (
            {"outlier_detection": {"base_ejection_time": "3s", "max_ejection_time": "2s"}},
            ".outlier_detection.max_ejection_time",
            "is shorter than base_ejection_time",
        ),
        (
            {"outlier_detection": {"monitors": [{"name": "m", "typed_config": {"@type": STRUCT}}]}},
            ".outlier_detection.monitors",
            "is not implemented by Mizzen",
        ),
        (
            {"circuit_breakers": {"per_host_thresholds": [{"max_requests": 1}]}},
            ".circuit_breakers.per_host_thresholds[0].max_requests",
            "is not implemented by Mizzen",
        ),
        (
            {"type": "STRICT_DNS", "dns_failure_refresh_rate": {"base_interval": "2s", "max_interval": "1s"}},
            ".dns_failure_refresh_rate.max_interval",
            "is shorter than base_interval",
        ),
        (
            {"upstream_bind_config": {"source_address": {"address": "a.test", "port_value": 0}}},
            ".upstream_bind_config.source_address.address",
            "'a.test' is no IP address",
        ),
        (
            {"upstream_bind_config": {"extra_source_addresses": [{"address": {"address": "::1", "port_value": 0}}]}},
            ".upstream_bind_config.extra_source_addresses",
            "has no effect without source_address",
        ),
        (
            {
                "upstream_bind_config": {
                    "source_address": {"address": "127.0.0.6", "port_value": 0},
                    "extra_source_addresses": [{"address": {"address": "127.0.0.7", "port_value": 0}}],
                }
            },
            ".upstream_bind_config.extra_source_addresses",
            "is of the same IP version as source_address",
        ),
    ],
)
def test_what_is_wrong_is_refused(fields: Document, path: str, problem: str) -> None:
    found = refusals(bootstrap([], [cluster(**fields)]))
    assert [path for path, _ in found] == [HERE + path]
    assert found[0][1].startswith(problem)


def test_equal_parts_of_clusters_are_one_object() -> None:
    breakers = {"thresholds": [{"max_connections": 7}]}
    common = {"healthy_panic_threshold": {"value": 7}}
    documents = [cluster(name=name, circuit_breakers=breakers, common_lb_config=common) for name in ("a", "b")]
    built, _ = load(bootstrap([], documents))
    one, other = built.static_resources.clusters
    assert one.circuit_breakers is other.circuit_breakers
    assert one.common_lb_config is other.common_lb_config
    assert one.dns is other.dns
    assert one.http_protocol_options is other.http_protocol_options


FORWARD_PROXY = "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"


def forward_proxy(cache: Document | None = None, **fields: Any) -> Document:
    said = {"@type": FORWARD_PROXY, "dns_cache_config": {"name": "names", **(cache or {})}, **fields}
    return {
        "type": None,
        "lb_policy": "CLUSTER_PROVIDED",
        "load_assignment": None,
        "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": said},
    }


def test_a_dynamic_forward_proxy_has_the_defaults_of_envoy() -> None:
    built = load_cluster(**forward_proxy())
    assert (built.type, built.dns_cache) == (
        "DYNAMIC_FORWARD_PROXY",
        DnsCacheConfig("names", DnsSettings(dns_refresh_rate=60.0, respect_dns_ttl=True)),
    )
    assert (built.upstream_http_options.auto_sni, built.upstream_http_options.auto_san_validation) == (True, True)


def test_every_field_of_a_cache_of_names() -> None:
    built = load_cluster(
        **forward_proxy(
            {
                "dns_lookup_family": "V4_PREFERRED",
                "dns_refresh_rate": "7s",
                "dns_min_refresh_rate": "2s",
                "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "3s"},
                "host_ttl": "8s",
                "max_hosts": 9,
                "disable_dns_refresh_on_failure": True,
                "dns_cache_circuit_breaker": {"max_pending_requests": 10},
                "dns_query_timeout": "11s",
                "use_tcp_for_dns_lookups": True,
                "preresolve_hostnames": [{"address": "a.test", "port_value": 12}],
            }
        )
    )
    dns = DnsSettings(7.0, 0.0, 1.0, 3.0, True, "V4_PREFERRED", (), True)
    assert built.dns_cache == DnsCacheConfig("names", dns, 2.0, 8.0, 9, 10, 11.0, False, (SocketAddress("a.test", 12),))


@pytest.mark.parametrize(
    ("fields", "place", "problem"),
    [
        ({"lb_policy": None}, "lb_policy", "must be CLUSTER_PROVIDED"),
        (forward_proxy({"key_value_config": {"config": {"name": "x", "typed_config": {"@type": STRUCT}}}}),
         "cluster_type.typed_config.dns_cache_config.key_value_config", "is not implemented"),
        (forward_proxy(allow_coalesced_connections=True), "cluster_type.typed_config.allow_coalesced_connections",
         "is not implemented"),
        (forward_proxy(dns_cache_config=None, sub_clusters_config={"lb_policy": "ROUND_ROBIN"}),
         "cluster_type.typed_config.dns_cache_config", "sub-clusters are not implemented"),
        ({"upstream_http_protocol_options": {"auto_sni": True}}, "cluster_type.typed_config",
         "must have auto_sni and auto_san_validation"),
        ({"load_assignment": {"cluster_name": "c"}}, "load_assignment", "has no meaning for DYNAMIC_FORWARD_PROXY"),
    ],
)  # fmt: skip
def test_what_a_dynamic_forward_proxy_cannot_be(fields: Document, place: str, problem: str) -> None:
    found = refusals(bootstrap(clusters=[cluster(**{**forward_proxy(), **fields})]))
    assert any(path == f"{HERE}.{place}" and problem in why for path, why in found), found


def test_a_dynamic_forward_proxy_may_be_told_not_to_ask_who_its_hosts_are() -> None:
    built = load_cluster(
        **forward_proxy(allow_insecure_cluster_options=True), upstream_http_protocol_options={"auto_sni": True}
    )
    assert not built.upstream_http_options.auto_san_validation
