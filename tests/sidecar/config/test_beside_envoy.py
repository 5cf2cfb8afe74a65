"""Real Envoy in validation mode beside the builders: what it accepts we accept, what it refuses we refuse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sidecar.config.problems import ConfigurationError
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.config.resources import (
    CORS,
    HTTP,
    LISTENER_FILTER,
    LOGGER,
    POLICY,
    ROUTER,
    SNI_CLUSTER,
    Document,
    bootstrap,
    chain,
    cluster,
    endpoints,
    hcm,
    listener,
    load,
    network_filter,
    socket_address,
    tcp_proxy,
)

SESSION_STATE = "type.googleapis.com/envoy.extensions.http.stateful_session."
COOKIE_STATE = "cookie.v3.CookieBasedSessionState"
HEADER_STATE = "header.v3.HeaderBasedSessionState"
WEIGHTED = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
STDOUT: Document = {"@type": f"{LOGGER}stream.v3.StdoutAccessLog"}


def http(**fields: object) -> Document:
    return listener(filter_chains=[chain(None, hcm(**fields))])


def filters(*chosen: Document) -> Document:
    return listener(filter_chains=[{"filters": list(chosen)}])


def matches(*criteria: Document) -> Document:
    return listener(filter_chains=[chain(each) for each in criteria])


def log(condition: Document | None = None, **fields: object) -> Document:
    entry: Document = {"name": "log", "typed_config": {**STDOUT, **fields}}
    return listener(access_log=[entry if condition is None else {**entry, "filter": condition}])


def addresses(*chosen: Document, **fields: object) -> Document:
    return cluster(load_assignment={"cluster_name": "c", "endpoints": endpoints(*chosen)}, **fields)


def session(state: str, *, called: str = "", **fields: object) -> Document:
    extension = {
        "name": called or f"envoy.http.stateful_session.{state.partition('.')[0]}",
        "typed_config": {"@type": f"{SESSION_STATE}{state}", **fields},
    }
    return http(http_filters=[*stateful(session_state=extension), http_filter("router", "router.v3.Router")])


def stateful(**fields: object) -> list[Document]:
    return [http_filter("stateful_session", "stateful_session.v3.StatefulSession", **fields)]


def http_filter(name: str, kind: str, **fields: object) -> Document:
    config = {"@type": f"type.googleapis.com/envoy.extensions.filters.http.{kind}", **fields}
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def policy(kind: str, **fields: object) -> Document:
    extension = {"name": "lb", "typed_config": {"@type": POLICY + kind, **fields}}
    return {"policies": [{"typed_extension_config": extension}]}


def options(**fields: object) -> Document:
    return {HTTP_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", **fields}}


def settings(*pairs: tuple[int, int], **fields: object) -> Document:
    """HTTP/2 to a cluster, with parameters of SETTINGS."""
    custom = [{"identifier": identifier, "value": value} for identifier, value in pairs]
    http2 = {"custom_settings_parameters": custom, **fields}
    return cluster(typed_extension_protocol_options=options(explicit_http_config={"http2_protocol_options": http2}))


TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
TLS: Document = {"name": "tls", "typed_config": {"@type": TLS_CONTEXT}}
SAN: Document = {"upstream_http_protocol_options": {"auto_san_validation": True}}
BOTH: Document = {"http_protocol_options": {}, "http2_protocol_options": {}}
EXPLICIT: Document = options(explicit_http_config={"http_protocol_options": {}})
NAMED, ANY = socket_address("db.internal", 80), {"any": True}
SELECTORS = {"subset_selectors": [{"keys": ["a", "b"]}]}
REPLY: Document = {"filter": {"not_health_check_filter": {}}}

NONE = {"default_value": 0, "runtime_key": "none"}
ZONES = {"force_local_zone": {"min_size": 2}, "locality_basis": "HEALTHY_HOSTS_WEIGHT"}
GOOD_LISTENERS = [
    listener(filter_chains=[], default_filter_chain=chain({"destination_port": 1})),
    listener(filter_chains=[{"filters": []}]),
    listener(address={"pipe": {"path": "@" + "x" * 106}}),
    listener(bind_to_port=False, address=socket_address("::", 80), use_original_dst=True, transparent=True),
    matches({"destination_port": 1}, {"destination_port": 2}, {}),
    matches({"server_names": ["*.a"]}, {"server_names": ["b.a"]}, {"server_names": ["*.b.a", "c"]}),
    matches({"prefix_ranges": [{"address_prefix": "1.2.3.4", "prefix_len": 8}]}, {"source_type": "EXTERNAL"}),
    listener(filter_chains=[chain({"source_ports": [1]}, name="x"), chain({"source_ports": [2]}, name="x")]),
    listener(
        listener_filters=[{"name": "a", "typed_config": {"@type": f"{LISTENER_FILTER}original_dst.v3.OriginalDst"}}]
    ),
    filters(network_filter("direct_response.v3.Config", response={"inline_string": "x"})),
    filters(SNI_CLUSTER, tcp_proxy(idle_timeout="0s", max_connect_attempts=2)),
    filters(
        network_filter(
            "local_ratelimit.v3.LocalRateLimit",
            stat_prefix="l",
            token_bucket={"max_tokens": 1, "fill_interval": "0.05s"},
        ),
        network_filter("connection_limit.v3.ConnectionLimit", stat_prefix="c", max_connections=1),
        network_filter(
            "rbac.v3.RBAC",
            stat_prefix="r",
            rules={"policies": {"all": {"permissions": [ANY], "principals": [ANY]}}},
        ),
        tcp_proxy(),
    ),
    http(http_filters=[CORS, ROUTER]),
    http(http_filters=[]),
    http(common_http_protocol_options={"idle_timeout": "0s"}, stream_idle_timeout="0s", max_request_headers_kb=8192),
    http(upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT", "filters": [CORS, ROUTER]}]),
    http(local_reply_config={"mappers": [{**REPLY, "status_code": 500, "body": {"inline_string": "x"}}]}),
    http(http_protocol_options={"accept_http_10": True, "header_key_format": {"proper_case_words": {}}}),
    http(codec_type="HTTP2", stream_error_on_invalid_http_message=True, http2_protocol_options={"allow_connect": True}),
    http(codec_type="HTTP1", http2_protocol_options={"max_concurrent_streams": 2147483647}),
    log({"response_flag_filter": {"flags": ["UH"]}}),
    log({"header_filter": {"header": {"name": "x"}}}, log_format={"json_format": {"a": "%START_TIME%"}}),
    log({"metadata_filter": {}}, log_format={"text_format_source": {"inline_string": ""}}),
]

GOOD_LISTENERS += [
    http(http_filters=[*stateful(), http_filter("router", "router.v3.Router")]),
    session(COOKIE_STATE, cookie={"name": "a", "ttl": "1.5s", "path": "/x", "attributes": [{"name": "Secure"}]}),
    session(HEADER_STATE, name="x-a"),
]

GOOD_CLUSTERS = [
    cluster(round_robin_lb_config={"slow_start_config": {}}),
    cluster(round_robin_lb_config={"slow_start_config": {"slow_start_window": "1s", "aggression": NONE}}),
    cluster(lb_policy="LEAST_REQUEST", least_request_lb_config={"slow_start_config": {"slow_start_window": "9s"}}),
    cluster(load_balancing_policy=policy("least_request.v3.LeastRequest", selection_method="FULL_SCAN")),
    cluster(
        load_balancing_policy=policy("round_robin.v3.RoundRobin", locality_lb_config={"zone_aware_lb_config": ZONES})
    ),
    cluster(load_balancing_policy=policy(WEIGHTED, weight_update_period="0s", slow_start_config={})),
    cluster(load_balancing_policy=policy("wrr_locality.v3.WrrLocality", endpoint_picking_policy=policy(WEIGHTED))),
    cluster(common_lb_config={"zone_aware_lb_config": {"routing_enabled": {"value": 20}, "min_cluster_size": 0}}),
    cluster(common_lb_config={"override_host_status": {"statuses": ["DRAINING", "HEALTHY"]}}),
    cluster(common_lb_config={"close_connections_on_host_set_change": True, "override_host_status": {}}),
    cluster(load_assignment={"cluster_name": "c", "policy": {"weighted_priority_health": True}}),
    cluster(load_assignment=None),
    cluster(type=None),
    addresses({"pipe": {"path": "/run/x"}}),
    addresses(NAMED, socket_address("10.0.0.1", 1), type="STRICT_DNS"),
    addresses({"pipe": {"path": "/run/x"}}, type="STRICT_DNS"),
    addresses(NAMED, type="LOGICAL_DNS"),
    cluster(type="STRICT_DNS", load_assignment=None, dns_failure_refresh_rate={"base_interval": "2s"}),
    cluster(type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", load_assignment=None),
    cluster(lb_policy="MAGLEV", maglev_lb_config={"table_size": 11}, lb_subset_config=SELECTORS),
    cluster(lb_policy="RING_HASH", common_lb_config={"locality_weighted_lb_config": {}}),
    cluster(ring_hash_lb_config={"maximum_ring_size": 5000}),
    cluster(lb_policy="RANDOM", load_balancing_policy=policy("round_robin.v3.RoundRobin")),
    cluster(lb_subset_config={"subset_selectors": [{"keys": ["a", "b"], "single_host_per_subset": True}]}),
    cluster(lb_subset_config={**SELECTORS, "fallback_policy": "DEFAULT_SUBSET", "scale_locality_weight": True}),
    cluster(outlier_detection={"base_ejection_time": "400s", "enforcing_success_rate": 0}),
    cluster(
        outlier_detection={"success_rate_minimum_hosts": 0, "failure_percentage_threshold": 0, "interval": "0.0001s"}
    ),
    cluster(
        circuit_breakers={"per_host_thresholds": [{"max_connections": 0}], "thresholds": [{"max_connection_pools": 0}]}
    ),
    cluster(circuit_breakers={"thresholds": [{"max_retries": 1, "retry_budget": {}}, {"priority": "HIGH"}]}),
    cluster(typed_extension_protocol_options=EXPLICIT),
    cluster(typed_extension_protocol_options=options(use_downstream_protocol_config=BOTH)),
    cluster(typed_extension_protocol_options=options(auto_config=BOTH), transport_socket=TLS),
    cluster(http2_protocol_options={"initial_stream_window_size": 65535, "connection_keepalive": {"timeout": "1s"}}),
    cluster(**BOTH, protocol_selection="USE_DOWNSTREAM_PROTOCOL", upstream_http_protocol_options={"auto_sni": True}),
    settings((2, 0), (9, 1), (9, 1), hpack_table_size=0, max_outbound_frames=1),
    cluster(common_http_protocol_options={"idle_timeout": "1s"}, max_requests_per_connection=3),
]

BAD: dict[str, Document] = {
    name: bootstrap([document])
    for name, document in {
        "no address": listener(address=None),
        "a name for an address": listener(address=socket_address("localhost")),
        "a long path": listener(address={"pipe": {"path": "x" * 108}}),
        "UDP": listener(address={"socket_address": {"address": "::1", "port_value": 1, "protocol": "UDP"}}),
        "a named port": listener(address={"socket_address": {"address": "127.0.0.1", "named_port": "http"}}),
        "no filter chain": listener(filter_chains=[]),
        "the same match": matches({"destination_port": 1}, {"destination_port": 1}),
        "two matches for all": matches({}, {}),
        "overlapping ports": matches({"source_ports": [1, 2]}, {"source_ports": [2, 3]}),
        "overlapping ranges": matches(
            {"prefix_ranges": [{"address_prefix": "1.2.3.4", "prefix_len": 8}]},
            {"prefix_ranges": [{"address_prefix": "1.2.3.5", "prefix_len": 8}]},
        ),
        "the same suffix": matches({"server_names": ["*.com"]}, {"server_names": [".com"]}),
        "a wildcard alone": matches({"server_names": ["*"]}),
        "a wildcard inside": matches({"server_names": ["a*.b"]}),
        "an address suffix": matches({"address_suffix": "1", "suffix_len": 4}),
        "a range of no addresses": matches({"prefix_ranges": [{"address_prefix": "foo", "prefix_len": 4}]}),
        "port 0": matches({"destination_port": 0}),
        "a chain without an end": filters(SNI_CLUSTER),
        "a chain with two ends": filters(tcp_proxy(), tcp_proxy()),
        "a filter by its name alone": filters({"name": "envoy.filters.network.tcp_proxy"}),
        "a TCP proxy to nowhere": filters(tcp_proxy(cluster=None)),
        "no connect attempt": filters(tcp_proxy(max_connect_attempts=0)),
        "no connections": filters(
            network_filter("connection_limit.v3.ConnectionLimit", stat_prefix="c", max_connections=0), tcp_proxy()
        ),
        "a bucket filled too often": filters(
            network_filter(
                "local_ratelimit.v3.LocalRateLimit",
                stat_prefix="l",
                token_bucket={"max_tokens": 1, "fill_interval": "0.04s"},
            ),
            tcp_proxy(),
        ),
        "no PROXY version": listener(
            listener_filters=[
                {
                    "name": "a",
                    "typed_config": {
                        "@type": f"{LISTENER_FILTER}proxy_protocol.v3.ProxyProtocol",
                        "disallowed_versions": ["V1", "V2"],
                    },
                }
            ]
        ),
        "no routes": http(route_config=None),
        "the router first": http(http_filters=[ROUTER, ROUTER]),
        "no router": http(http_filters=[CORS]),
        "a disabled router": http(http_filters=[{**ROUTER, "disabled": True}]),
        "an unknown filter": http(http_filters=[{"name": "x", "typed_config": {"@type": f"{HTTP}none.v3.None"}}]),
        "two ways to strip ports": http(strip_any_host_port=True, strip_matching_host_port=True),
        "the same upgrade": http(upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]),
        "an upgrade without a router": http(upgrade_configs=[{"upgrade_type": "a", "filters": [CORS]}]),
        "a line break in via": http(via="a\nb"),
        "an odd scheme": http(scheme_header_transformation={"scheme_to_overwrite": "ftp"}),
        "no header bytes": http(max_request_headers_kb=0),
        "a mapper without a filter": http(local_reply_config={"mappers": [{"status_code": 400}]}),
        "host in a reply": http(
            local_reply_config={"mappers": [{**REPLY, "headers_to_add": [{"header": {"key": "HOST", "value": "b"}}]}]}
        ),
        "append twice": http(
            local_reply_config={
                "mappers": [
                    {
                        **REPLY,
                        "headers_to_add": [
                            {
                                "header": {"key": "a", "value": "b"},
                                "append": True,
                                "append_action": "ADD_IF_ABSENT",
                            }
                        ],
                    }
                ]
            }
        ),
        "a log by its name alone": listener(access_log=[{"name": "envoy.access_loggers.stdout"}]),
        "an unknown flag": log({"response_flag_filter": {"flags": ["XX"]}}),
        "a conjunction of one": log({"and_filter": {"filters": [{"traceable_filter": {}}]}}),
        "a filter without a kind": log({}),
    }.items()
}
BAD |= {
    "a local cluster that is not there": {**bootstrap([], [cluster()]), "cluster_manager": {"local_cluster_name": "x"}},
    "a session without a cookie": bootstrap([session(COOKIE_STATE)], [cluster()]),
    "a session whose cookie has no name": bootstrap([session(COOKIE_STATE, cookie={"ttl": "1s"})], [cluster()]),
    "a session that ended": bootstrap([session(COOKIE_STATE, cookie={"name": "a", "ttl": "-1s"})], [cluster()]),
    "a session without a header": bootstrap([session(HEADER_STATE)], [cluster()]),
    "a session by another name": bootstrap([session(COOKIE_STATE, called="cookie", cookie={"name": "a"})], [cluster()]),
}
BAD |= {
    name: bootstrap([], [document])
    for name, document in {
        "no time to connect": cluster(connect_timeout="0s"),
        "a name in a static cluster": addresses(NAMED),
        "an endpoint without an address": cluster(
            load_assignment={"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": {}}]}]}
        ),
        "an assignment without a name": cluster(load_assignment={"endpoints": endpoints(socket_address(port=1))}),
        "priority 129": cluster(load_assignment={"cluster_name": "c", "endpoints": [{"priority": 129}]}),
        "two logical endpoints": addresses(NAMED, NAMED, type="LOGICAL_DNS"),
        "no logical endpoint": addresses(type="LOGICAL_DNS"),
        "an original destination by round robin": cluster(type="ORIGINAL_DST", load_assignment=None),
        "an original destination with endpoints": cluster(type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED"),
        "a header that is not used": cluster(
            type="ORIGINAL_DST",
            lb_policy="CLUSTER_PROVIDED",
            load_assignment=None,
            original_dst_lb_config={"http_header_name": "x"},
        ),
        "a policy that nothing provides": cluster(lb_policy="CLUSTER_PROVIDED"),
        "a small ring": cluster(lb_policy="RING_HASH", ring_hash_lb_config={"maximum_ring_size": 5}),
        "a large ring": cluster(lb_policy="RING_HASH", ring_hash_lb_config={"maximum_ring_size": 9000000}),
        "a table that is no prime": cluster(lb_policy="MAGLEV", maglev_lb_config={"table_size": 10}),
        "a start of negative length": cluster(
            round_robin_lb_config={"slow_start_config": {"slow_start_window": "-1s"}}
        ),
        "a start with more than all": cluster(
            round_robin_lb_config={"slow_start_config": {"min_weight_percent": {"value": 101}}}
        ),
        "more than all zones": cluster(common_lb_config={"zone_aware_lb_config": {"routing_enabled": {"value": 101}}}),
        "a status that there is not": cluster(common_lb_config={"override_host_status": {"statuses": [9]}}),
        "a blackout of negative length": cluster(load_balancing_policy=policy(WEIGHTED, blackout_period="-1s")),
        "one choice": cluster(lb_policy="LEAST_REQUEST", least_request_lb_config={"choice_count": 1}),
        "a policy that is not there": cluster(lb_policy="LOAD_BALANCING_POLICY_CONFIG"),
        "no policy": cluster(load_balancing_policy={"policies": []}),
        "subsets beside a policy": cluster(
            lb_subset_config=SELECTORS, load_balancing_policy=policy("random.v3.Random")
        ),
        "localities beside a policy": cluster(
            common_lb_config={"locality_weighted_lb_config": {}}, load_balancing_policy=policy("random.v3.Random")
        ),
        "fallback keys that are not keys": cluster(
            lb_subset_config={
                "subset_selectors": [{"keys": ["a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["b"]}]
            }
        ),
        "no fallback keys": cluster(
            lb_subset_config={"subset_selectors": [{"keys": ["a", "b"], "fallback_policy": "KEYS_SUBSET"}]}
        ),
        "fallback keys without the policy": cluster(
            lb_subset_config={"subset_selectors": [{"keys": ["a", "b"], "fallback_keys_subset": ["a"]}]}
        ),
        "subsets by locality": cluster(lb_subset_config={**SELECTORS, "locality_weight_aware": True}),
        "a low balance factor": cluster(
            lb_policy="MAGLEV", common_lb_config={"consistent_hashing_lb_config": {"hash_balance_factor": 99}}
        ),
        "a short ejection": cluster(outlier_detection={"base_ejection_time": "4s", "max_ejection_time": "3s"}),
        "101 percent of failures": cluster(outlier_detection={"failure_percentage_threshold": 101}),
        "a limit that no host has": cluster(circuit_breakers={"per_host_thresholds": [{"max_requests": 1}]}),
        "a budget of 101 percent": cluster(
            circuit_breakers={"thresholds": [{"retry_budget": {"budget_percent": {"value": 101}}}]}
        ),
        "101 percent": cluster(outlier_detection={"enforcing_consecutive_5xx": 101}),
        "options under another key": cluster(typed_extension_protocol_options={"x": options()[HTTP_OPTIONS]}),
        "options with an empty protocol": cluster(typed_extension_protocol_options=options(explicit_http_config={})),
        "two protocols": cluster(**BOTH),
        "a protocol by ALPN without TLS": cluster(typed_extension_protocol_options=options(auto_config={})),
        "server push": settings((2, 1)),
        "extended CONNECT as a parameter": settings((8, 0)),
        "a parameter in two places": settings((1, 5), hpack_table_size=5),
        "a parameter with two values": settings((9, 1), (9, 2)),
        "no streams": settings(max_concurrent_streams=0),
        "a window below the smallest": settings(initial_connection_window_size=65534),
        "pings that are waited for without end": settings(connection_keepalive={"interval": "1s"}),
        "options without a protocol": cluster(typed_extension_protocol_options=options()),
        "a short wait after failures": cluster(
            type="STRICT_DNS", dns_failure_refresh_rate={"base_interval": "2s", "max_interval": "1s"}
        ),
    }.items()
}
BAD |= {
    "two clusters of a name": bootstrap([], [cluster(), cluster()]),
    "two listeners on an address": bootstrap(
        [listener(name="a", address=socket_address(port=1)), listener(name="b", address=socket_address(port=1))]
    ),
    "two layers of a name": {"layered_runtime": {"layers": [{"name": "a", "static_layer": {}}] * 2}},
    "a tag about nothing": {"stats_config": {"stats_tags": [{"tag_name": "x"}]}},
    "no flush interval": {"stats_flush_interval": "0s"},
}

STRICTER: dict[str, Document] = {
    "load reports out of band": bootstrap(
        [], [cluster(load_balancing_policy=policy(WEIGHTED, enable_oob_load_report=True))]
    ),
    "a reward for errors": bootstrap(
        [], [cluster(load_balancing_policy=policy(WEIGHTED, error_utilization_penalty=-1))]
    ),
    "two listeners of a name": bootstrap([listener(), listener()]),
    "a cluster that is not there": bootstrap([filters(tcp_proxy(cluster="d"))]),
    "two thresholds for a priority": bootstrap([], [cluster(circuit_breakers={"thresholds": [{}, {}]})]),
    "options said twice": bootstrap(
        [],
        [
            cluster(
                common_http_protocol_options={"max_requests_per_connection": 3},
                typed_extension_protocol_options=EXPLICIT,
            )
        ],
    ),
    "a protocol said twice": bootstrap(
        [], [cluster(http2_protocol_options={}, typed_extension_protocol_options=EXPLICIT)]
    ),
    "a frame size that is not kept to": bootstrap([], [settings((5, 20000))]),
    "a window as a parameter": bootstrap([], [settings((4, 5))]),
    "metadata frames": bootstrap([], [settings(allow_metadata=True)]),
    "names in certificates without TLS": bootstrap([], [cluster(**SAN)]),
    "names in certificates that nobody verifies": bootstrap([], [cluster(**SAN, transport_socket=TLS)]),
    "malformed HTTP/1 that leaves its connection open": bootstrap([http(stream_error_on_invalid_http_message=True)]),
    "an IPv4 prefix of 44 bits": bootstrap(
        [matches({"prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 44}]})]
    ),
    "one address twice in a listener": bootstrap(
        [listener(address=socket_address(port=1), additional_addresses=[{"address": socket_address(port=1)}])]
    ),
}
"""What Envoy accepts although a part of it has no effect, or fails only once it runs."""


@pytest.fixture(scope="module")
def envoy() -> str:
    try:
        return envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))


def refused_by_envoy(envoy: str, document: Document, directory: Path) -> str:
    """What Envoy has against the document; empty when nothing."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(document))
    command = [envoy, "--mode", "validate", "--config-path", str(file), "--use-dynamic-base-id", "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""


def test_both_accept_what_is_good(envoy: str, tmp_path: Path) -> None:
    listeners = [{**document, "name": f"l{number}"} for number, document in enumerate(GOOD_LISTENERS)]
    clusters = [cluster(), *({**document, "name": f"c{number}"} for number, document in enumerate(GOOD_CLUSTERS))]
    document = bootstrap(listeners, clusters)
    built, _ = load(document)
    assert len(built.static_resources.listeners) == len(GOOD_LISTENERS)
    assert len(built.static_resources.clusters) == len(GOOD_CLUSTERS) + 1
    assert refused_by_envoy(envoy, document, tmp_path) == ""


@pytest.mark.parametrize("name", BAD)
def test_both_refuse_what_is_bad(name: str, envoy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load(BAD[name])
    assert refused_by_envoy(envoy, BAD[name], tmp_path) != ""


@pytest.mark.parametrize("name", STRICTER)
def test_where_we_are_stricter(name: str, envoy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load(STRICTER[name])
    assert refused_by_envoy(envoy, STRICTER[name], tmp_path) == ""
