"""Routes and HTTP filters, good and bad: real Envoy's `--mode validate` says the same.

Where Mizzen refuses what Envoy accepts, the case stands in STRICTER with its reason.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.bootstrap import parse_bootstrap
from sidecar.config.problems import ConfigurationError
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary

Document = dict[str, Any]

TYPES = "type.googleapis.com/envoy."
HTTP = TYPES + "extensions.filters.http."
HOSTS = TYPES + "extensions.retry.host."
REGEX = {"pattern": {"regex": "/(a)"}, "substitution": "/\\1"}
BUCKET = {"max_tokens": 1, "fill_interval": "1s"}
ANY = {"any": True}
KEY = {"key": "f", "path": [{"key": "a"}]}
HEALTH = [{"name": ":path", "string_match": {"exact": "/health"}}]


def routes(*configurations: Document) -> list[Document]:
    router = {"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router"}}
    return [manager(configuration, [router]) for configuration in configurations]


def manager(route_config: Document, filters: list[Document]) -> Document:
    return {
        "name": "hcm",
        "typed_config": {
            "@type": TYPES + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "s",
            "route_config": route_config,
            "http_filters": filters,
        },
    }


def configuration(**fields: Any) -> list[Document]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}
    return routes({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}], **fields})


def hosts(*virtual_hosts: Document) -> list[Document]:
    return configuration(virtual_hosts=list(virtual_hosts))


def route(**fields: Any) -> list[Document]:
    good = {"match": {"prefix": "/"}, "route": {"cluster": "a"}, **fields}
    good = {name: value for name, value in good.items() if value is not None}
    return hosts({"name": "v", "domains": ["*"], "routes": [good]})


def action(**fields: Any) -> list[Document]:
    return route(route={"cluster": "a", **fields})


def weighted(*clusters: Document, **fields: Any) -> list[Document]:
    return route(route={"weighted_clusters": {"clusters": list(clusters), **fields}})


def redirect(**fields: Any) -> list[Document]:
    return route(route=None, redirect=fields)


def retry(**fields: Any) -> list[Document]:
    return action(retry_policy={"retry_on": "5xx", **fields})


def priorities(**fields: Any) -> Document:
    kind = TYPES + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {"name": "x", "typed_config": {"@type": kind, **fields}}


def predicate(package: str, message: str, **fields: Any) -> Document:
    kind = f"{TYPES}extensions.internal_redirect.{package}.v3.{message}"
    return {"name": "x", "typed_config": {"@type": kind, **fields}}


def direct(**fields: Any) -> list[Document]:
    return route(route=None, direct_response={"status": 200, **fields})


def http(type_name: str, **fields: Any) -> list[Document]:
    """A filter before the router."""
    chain = [
        {"name": "f", "typed_config": {"@type": HTTP + type_name, **fields}},
        {"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router"}},
    ]
    to_a = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}
    return [manager({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [to_a]}]}, chain)]


def adaptive(rtt: Document | None = None, **fields: Any) -> list[Document]:
    controller = {
        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
        "min_rtt_calc_params": {"interval": "60s"} if rtt is None else rtt,
    }
    return http("adaptive_concurrency.v3.AdaptiveConcurrency", gradient_controller_config=controller, **fields)


def admission(**criteria: Any) -> list[Document]:
    return http("admission_control.v3.AdmissionControl", success_criteria=criteria)


def limit(**fields: Any) -> list[Document]:
    return http("local_ratelimit.v3.LocalRateLimit", stat_prefix="s", token_bucket=BUCKET, **fields)


def rate(**fields: Any) -> list[Document]:
    return limit(rate_limits=[{"actions": [{"generic_key": {"descriptor_value": "v"}}], **fields}])


def rbac(permission: Document = ANY, principal: Document = ANY) -> list[Document]:
    policy = {"permissions": [permission], "principals": [principal]}
    return http("rbac.v3.RBAC", rules={"policies": {"p": policy}})


def mutations(**fields: Any) -> list[Document]:
    return http("header_mutation.v3.HeaderMutation", mutations=fields)


def library(direction: str, kind: str, **fields: Any) -> Document:
    name = f"{TYPES}extensions.compression.{kind}.{direction}.v3.{kind.capitalize()}"
    return {"name": "l", "typed_config": {"@type": name, **fields}}


def compressor(kind: str = "gzip", settings: Document | None = None, **fields: Any) -> list[Document]:
    used = library("compressor", kind, **(settings or {}))
    return http("compressor.v3.Compressor", compressor_library=used, **fields)


def per_route(config: Document) -> list[Document]:
    return route(typed_per_filter_config={"router": config})


def header(**fields: Any) -> list[Document]:
    return route(request_headers_to_add=[{"header": {"key": "x", "value": "v"}, **fields}])


GOOD: dict[str, list[Document]] = {
    "prefix": route(match={"prefix": "", "case_sensitive": False}),
    "path with a query": route(match={"path": "/a?b"}),
    "regex": route(match={"safe_regex": {"regex": "/a.*"}, "case_sensitive": False}),
    "path separated prefix": route(match={"path_separated_prefix": "/a/b"}),
    "connect": route(
        match={"connect_matcher": {}},
        route={"cluster": "a", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
    ),
    "header matchers": route(
        match={
            "prefix": "/",
            "headers": [
                {"name": "a"},
                {"name": "Host", "exact_match": ""},
                {"name": "b", "range_match": {"start": 5, "end": 1}},
                {"name": "c", "present_match": False, "invert_match": True, "treat_missing_header_as_empty": True},
                {"name": "d", "string_match": {"safe_regex": {"regex": "a+"}}},
            ],
            "query_parameters": [{"name": "a"}, {"name": "b", "string_match": {"contains": "x"}}],
            "runtime_fraction": {"default_value": {"numerator": 1, "denominator": "MILLION"}, "runtime_key": "k"},
        }
    ),
    "unknown retry condition": retry(retry_on="5xx, often"),
    "back-off below a millisecond": retry(retry_back_off={"base_interval": "0.0001s"}),
    "rate limited back-off": retry(rate_limited_retry_back_off={"reset_headers": [{"name": "x"}]}),
    "host predicates": retry(
        retry_host_predicate=[
            {"name": "x", "typed_config": {"@type": HOSTS + "previous_hosts.v3.PreviousHostsPredicate"}},
        ]
    ),
    "previous priorities": retry(retry_priority=priorities(update_frequency=2)),
    "hedging": action(hedge_policy={"hedge_on_per_try_timeout": True}),
    "hedging with what Envoy does not do": action(
        hedge_policy={"initial_requests": 3, "additional_request_chance": {"numerator": 5}}
    ),
    "hedging of a virtual host": hosts({"name": "v", "domains": ["*"], "hedge_policy": {}}),
    "internal redirects": action(internal_redirect_policy={}),
    "internal redirects in full": action(
        internal_redirect_policy={
            "max_internal_redirects": 0,
            "redirect_response_codes": [301, 302, 200],
            "predicates": [
                predicate("previous_routes", "PreviousRoutesConfig"),
                predicate("safe_cross_scheme", "SafeCrossSchemeConfig"),
                predicate("allow_listed_routes", "AllowListedRoutesConfig", allowed_route_names=["a", "b"]),
            ],
            "allow_cross_scheme_redirect": True,
            "response_headers_to_copy": ["X-A"],
        }
    ),
    "changed mirror": action(
        request_mirror_policies=[
            {
                "cluster": "a",
                "trace_sampled": False,
                "request_headers_mutations": [
                    {"append": {"header": {"key": "x", "value": "%REQ(y)%"}}},
                    {"remove": "z"},
                    {"remove_on_match": {"key_matcher": {"prefix": "q"}}},
                ],
            }
        ]
    ),
    "weights by runtime": weighted({"name": "a", "weight": 1}, runtime_key_prefix="p"),
    "weights with a deprecated total": weighted({"name": "a", "weight": 4}, total_weight=50),
    "weight by header": weighted({"cluster_header": ":method", "weight": 1}, header_name="x"),
    "weight by hash": weighted({"name": "a", "weight": 0}, {"name": "b", "weight": 1}, use_hash_policy=True),
    "unknown cluster, not validated": configuration(
        validate_clusters=False,
        virtual_hosts=[
            {"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "z"}}]}
        ],
    ),
    "odd domains": hosts({"name": "v", "domains": ["a*b", "*a*", "", "*.x", "x.*", "*"]}),
    "internal only headers": configuration(internal_only_headers=["X-A", ":path"]),
    "host rewrite by format": action(host_rewrite="%REQ(x)%"),
    "host rewrite by path": action(host_rewrite_path_regex=REGEX),
    "hash policies": action(
        hash_policy=[
            {"connection_properties": {}},
            {"cookie": {"name": "c", "ttl": "0s", "path": "/", "attributes": [{"name": "SameSite", "value": "x"}]}},
            {"header": {"header_name": "x", "regex_rewrite": REGEX}, "terminal": True},
            {"query_parameter": {"name": "q"}},
        ]
    ),
    "prefix rewrite of a regex match": route(
        match={"safe_regex": {"regex": "/a"}}, route={"cluster": "a", "prefix_rewrite": "/b"}
    ),
    "metadata match": action(metadata_match={"filter_metadata": {"envoy.lb": {"a": "b"}, "other": {"a": 1}}}),
    "timeouts": action(
        timeout="0s",
        idle_timeout="0s",
        max_stream_duration={"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
    ),
    "deprecated cors": action(cors={"allow_origin_string_match": [{"exact": "x"}]}),
    "redirect": redirect(path_redirect="/a?b", strip_query=True, https_redirect=False),
    "redirect by prefix": redirect(prefix_rewrite="/a", host_redirect="", port_redirect=1),
    "direct response with a format": direct(
        body={"inline_string": "x"}, body_format={"json_format": {"a": "%LOCAL_REPLY_BODY%"}}
    ),
    "a larger direct response": configuration(
        max_direct_response_body_size_bytes=5000,
        virtual_hosts=[
            {
                "name": "v",
                "domains": ["*"],
                "routes": [
                    {
                        "match": {"prefix": "/"},
                        "direct_response": {"status": 200, "body": {"inline_string": "x" * 5000}},
                    }
                ],
            }
        ],
    ),
    "empty header value": header(header={"key": "x", "value": ""}, keep_empty_value=True),
    "per-route configuration that is disabled": per_route(
        {"@type": TYPES + "config.route.v3.FilterConfig", "disabled": True}
    ),
    "fault": http(
        "fault.v3.HTTPFault",
        delay={"fixed_delay": "1s"},
        abort={"grpc_status": 14, "percentage": {"numerator": 100}},
        upstream_cluster="nowhere",
    ),
    "rbac without policies": http("rbac.v3.RBAC", rules={}),
    "rbac address without a length": rbac(principal={"direct_remote_ip": {"address_prefix": "1.2.3.4"}}),
    "rbac authenticated": rbac(principal={"authenticated": {}}),
    "rbac metadata": rbac(
        {"sourced_metadata": {"metadata_matcher": {"filter": "f", "path": [{"key": "a"}], "value": {"null_match": {}}}}}
    ),
    "rbac ports": rbac({"destination_port_range": {"start": 0, "end": 65536}}),
    "local rate limit without a bucket": http("local_ratelimit.v3.LocalRateLimit", stat_prefix="s"),
    "local rate limit descriptors": limit(
        descriptors=[
            {"entries": [{"key": "a", "value": ""}], "token_bucket": {"max_tokens": 1, "fill_interval": "1.5s"}}
        ],
        local_rate_limit_per_downstream_connection=True,
        status={"code": "OK"},
    ),
    "local rate limit actions": rate(hits_addend={"number": 0}),
    "local rate limit metadata": limit(
        rate_limits=[{"actions": [{"metadata": {"descriptor_key": "k", "metadata_key": KEY}}]}]
    ),
    "health check passed through": http(
        "health_check.v3.HealthCheck", pass_through_mode=True, cache_time="1s", headers=HEALTH
    ),
    "health check": http(
        "health_check.v3.HealthCheck",
        pass_through_mode=False,
        cluster_min_healthy_percentages={"a": {"value": 50}},
        headers=HEALTH,
    ),
    "compressor, old and new": compressor(content_length=3, response_direction_config={}),
    "brotli": compressor("brotli", {"quality": 11, "window_bits": 24}),
    "zstd": compressor("zstd", {"compression_level": 0}),
    "decompressor": http("decompressor.v3.Decompressor", decompressor_library=library("decompressor", "gzip")),
    "header mutation": mutations(
        request_mutations=[{"remove": "x"}, {"remove_on_match": {"key_matcher": {"prefix": "x-"}}}],
        query_parameter_mutations=[{"append": {"record": {"key": "a", "value": "b"}}}],
    ),
    "adaptive concurrency": adaptive(),
    "adaptive concurrency, fixed and measured": adaptive({"interval": "1s", "fixed_value": "0.1s"}),
    "adaptive concurrency, least above most": adaptive({"interval": "1s", "min_concurrency": 5000}),
    "adaptive concurrency, status 200": adaptive(concurrency_limit_exceeded_status={"code": 200}),
    "admission control": admission(),
    "admission control, whole range": admission(http_criteria={"http_success_status": [{"start": 100, "end": 600}]}),
    "admission control, empty range": admission(http_criteria={"http_success_status": [{"start": 200, "end": 200}]}),
    "admission control, grpc 16": admission(grpc_criteria={"grpc_success_status": [16]}),
}

BAD: dict[str, list[Document]] = {
    "adaptive concurrency, no minRTT": adaptive({}),
    "adaptive concurrency, no requests": adaptive({"interval": "1s", "request_count": 0}),
    "adaptive concurrency, 101 percent": adaptive({"interval": "1s", "jitter": {"value": 101}}),
    "adaptive concurrency, no controller": http("adaptive_concurrency.v3.AdaptiveConcurrency"),
    "admission control, no criteria": http("admission_control.v3.AdmissionControl"),
    "admission control, status 99": admission(http_criteria={"http_success_status": [{"start": 99, "end": 200}]}),
    "admission control, status 600": admission(http_criteria={"http_success_status": [{"start": 200, "end": 601}]}),
    "admission control, backwards": admission(http_criteria={"http_success_status": [{"start": 300, "end": 200}]}),
    "admission control, grpc 17": admission(grpc_criteria={"grpc_success_status": [17]}),
    "admission control, no threshold": http(
        "admission_control.v3.AdmissionControl", success_criteria={}, sr_threshold={"runtime_key": "k"}
    ),
    "regex": route(match={"safe_regex": {"regex": "(a"}}),
    "header regex": route(
        match={"prefix": "/", "headers": [{"name": "a", "string_match": {"safe_regex": {"regex": "(a"}}}]}
    ),
    "case of a regex": route(
        match={
            "prefix": "/",
            "headers": [{"name": "a", "string_match": {"safe_regex": {"regex": "a"}, "ignore_case": True}}],
        }
    ),
    "redirect regex": redirect(regex_rewrite={"pattern": {"regex": "("}, "substitution": ""}),
    "hash regex": action(hash_policy=[{"header": {"header_name": "c", "regex_rewrite": {"pattern": {"regex": "("}}}}]),
    "two path rewrites": action(prefix_rewrite="/b", regex_rewrite=REGEX),
    "pseudo-header added": header(header={"key": ":path", "value": "x"}),
    "host added": header(header={"key": "host", "value": "x"}),
    "append twice": header(append=True, append_action="ADD_IF_ABSENT"),
    "host removed": route(request_headers_to_remove=["Host"]),
    "pseudo-header removed": route(response_headers_to_remove=[":x"]),
    "prefix ends with a slash": route(match={"path_separated_prefix": "/a/"}),
    "prefix has a query": route(match={"path_separated_prefix": "/a?b"}),
    "prefix is the root": route(match={"path_separated_prefix": "/"}),
    "prefix without a slash": route(match={"path_separated_prefix": "a"}),
    "unknown cluster": route(route={"cluster": "z"}),
    "unknown weighted cluster": weighted({"name": "z", "weight": 1}),
    "unknown mirror": action(request_mirror_policies=[{"cluster": "z"}]),
    "mirror without a cluster": action(request_mirror_policies=[{}]),
    "mirror with two clusters": action(request_mirror_policies=[{"cluster": "a", "cluster_header": "b"}]),
    "no weight": weighted({"name": "a", "weight": 0}),
    "weight missing": weighted({"name": "a"}),
    "weighted cluster without a name": weighted({"weight": 1}),
    "weighted cluster with two names": weighted({"name": "a", "cluster_header": "x", "weight": 1}),
    "weights too large": weighted({"name": "a", "weight": 4294967295}, {"name": "b", "weight": 4294967295}),
    "direct response too long": direct(body={"inline_string": "x" * 4097}),
    "direct response from no file": direct(body={"filename": "/nowhere/at/all"}),
    "direct response status": direct(status=600),
    "domain twice": hosts({"name": "v", "domains": ["a"]}, {"name": "w", "domains": ["A"]}),
    "two catch-alls": hosts({"name": "v", "domains": ["*"]}, {"name": "w", "domains": ["*"]}),
    "empty hash policy": action(hash_policy=[{}]),
    "longest wait below the shortest": retry(retry_back_off={"base_interval": "2s", "max_interval": "1s"}),
    "no base interval": retry(retry_back_off={"max_interval": "1s"}),
    "rate limited for no time": retry(
        rate_limited_retry_back_off={"reset_headers": [{"name": "x"}], "max_interval": "0s"}
    ),
    "retry priority without a type": retry(retry_priority={"name": "x"}),
    "no initial request": action(hedge_policy={"initial_requests": 0}),
    "more redirect codes than five": action(internal_redirect_policy={"redirect_response_codes": [301] * 6}),
    "redirect that copies :path": action(internal_redirect_policy={"response_headers_to_copy": [":path"]}),
    "redirect that copies host": action(internal_redirect_policy={"response_headers_to_copy": ["Host"]}),
    "redirect predicate without a type": action(internal_redirect_policy={"predicates": [{"name": "x"}]}),
    "mirror that appends :path": action(
        request_mirror_policies=[
            {"cluster": "a", "request_headers_mutations": [{"append": {"header": {"key": ":path", "value": "x"}}}]}
        ]
    ),
    "host predicate without a type": retry(retry_host_predicate=[{"name": "x"}]),
    "upgrade twice": action(upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]),
    "connect for a websocket": action(upgrade_configs=[{"upgrade_type": "websocket", "connect_config": {}}]),
    "no action": route(route=None),
    "negative timeout": action(timeout="-1s"),
    "per-route configuration without one": per_route({"@type": TYPES + "config.route.v3.FilterConfig"}),
    "per-route configuration of nothing": per_route({"@type": HTTP + "buffer.v3.BufferPerRoute"}),
    "delay of nothing": http("fault.v3.HTTPFault", delay={"fixed_delay": "0s"}),
    "abort with 199": http("fault.v3.HTTPFault", abort={"http_status": 199}),
    "rate of nothing": http("fault.v3.HTTPFault", response_rate_limit={"fixed_limit": {"limit_kbps": 0}}),
    "rbac any is false": rbac({"any": False}),
    "rbac address": rbac(principal={"direct_remote_ip": {"address_prefix": "zz", "prefix_len": 8}}),
    "rbac port": rbac({"destination_port": 70000}),
    "rbac empty port range": rbac({"destination_port_range": {"start": 5, "end": 5}}),
    "rbac ports below 0": rbac({"destination_port_range": {"start": -6, "end": 5}}),
    "rbac ports above 65535": rbac({"destination_port_range": {"start": 6, "end": 70000}}),
    "local rate limit without a prefix": http("local_ratelimit.v3.LocalRateLimit"),
    "local rate limit fills too often": http(
        "local_ratelimit.v3.LocalRateLimit", stat_prefix="s", token_bucket={"max_tokens": 1, "fill_interval": "0.049s"}
    ),
    "descriptor fills too often": limit(
        descriptors=[
            {"entries": [{"key": "a", "value": "b"}], "token_bucket": {"max_tokens": 1, "fill_interval": "0.01s"}}
        ]
    ),
    "descriptor twice": limit(descriptors=[{"entries": [{"key": "a", "value": "b"}], "token_bucket": BUCKET}] * 2),
    "local rate limit stage": rate(stage=1),
    "local rate limit disable key": rate(disable_key="k"),
    "local rate limit override": rate(limit={"dynamic_metadata": {"metadata_key": KEY}}),
    "health check mode": http("health_check.v3.HealthCheck"),
    "health check cache": http("health_check.v3.HealthCheck", pass_through_mode=False, cache_time="1s", headers=HEALTH),
    "buffer": http("buffer.v3.Buffer"),
    "compressor without a library": http("compressor.v3.Compressor"),
    "compressor status": compressor(response_direction_config={"uncompressible_response_codes": [20]}),
    "brotli quality": compressor("brotli", {"quality": 12}),
    "decompressor that compresses": http(
        "decompressor.v3.Decompressor", decompressor_library=library("compressor", "gzip")
    ),
    "header mutation of :path": mutations(request_mutations=[{"append": {"header": {"key": ":path", "value": "x"}}}]),
    "header mutation of host": mutations(request_mutations=[{"append": {"header": {"key": "host", "value": "x"}}}]),
    "query mutation of nothing": mutations(query_parameter_mutations=[{}]),
    "query mutation with a number": mutations(
        query_parameter_mutations=[{"append": {"record": {"key": "a", "value": 1}}}]
    ),
    "router strict headers": [
        manager(
            {"name": "r"},
            [{"name": "r", "typed_config": {"@type": HTTP + "router.v3.Router", "strict_check_headers": ["x-foo"]}}],
        )
    ],
}

STRICTER: dict[str, tuple[list[Document], str]] = {
    "substitution of no group": (
        action(regex_rewrite={"pattern": {"regex": "a"}, "substitution": "\\3"}),
        "Envoy's rewrite would do nothing but write to its log, for every request",
    ),
    "virtual host twice": (
        hosts({"name": "v", "domains": ["a"]}, {"name": "v", "domains": ["b"]}),
        "virtual hosts are told apart by their names in statistics and in the API's own words",
    ),
    "removing :path in a header mutation": (
        mutations(request_mutations=[{"remove": ":path"}]),
        "every request would fail",
    ),
    "health of an unknown cluster": (
        http(
            "health_check.v3.HealthCheck",
            pass_through_mode=False,
            cluster_min_healthy_percentages={"z": {"value": 1}},
            headers=HEALTH,
        ),
        "a dangling name is refused everywhere; in Envoy the check would always fail",
    ),
    "previous priorities never": (
        retry(retry_priority=priorities(update_frequency=0)),
        "Envoy finds out with the first request, and that request fails",
    ),
    "allowed routes without a name": (
        action(
            internal_redirect_policy={
                "predicates": [predicate("allow_listed_routes", "AllowListedRoutesConfig", allowed_route_names=[""])]
            }
        ),
        "Envoy finds out with the first redirect",
    ),
    "rbac address with a length of 33": (
        rbac(principal={"direct_remote_ip": {"address_prefix": "1.2.3.4", "prefix_len": 33}}),
        "Envoy takes it for 32; it may be a slip that opens or closes a door",
    ),
}


def bootstrap(managers: list[Document]) -> Document:
    clusters = [{"name": name, "type": "STATIC", "connect_timeout": "1s"} for name in ("a", "b")]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    listeners = [
        {"name": f"l{number}", "address": address, "filter_chains": [{"filters": [manager]}]}
        for number, manager in enumerate(managers)
    ]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def problem_of_ours(document: Document) -> str:
    root, context = load_bootstrap(document)
    try:
        with context:
            parse_bootstrap(root)
    except ConfigurationError as error:
        return str(error)
    return ""


def problem_of_envoy(document: Document, directory: Path) -> str:
    try:
        binary = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(f"no real Envoy: {error}")
    file = directory / "envoy.json"
    file.write_text(json.dumps(document))
    command = [binary, "--mode", "validate", "-c", str(file), "--use-dynamic-base-id", "-l", "critical"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr or "refused") if done.returncode else ""


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_are_accepted(name: str) -> None:
    assert problem_of_ours(bootstrap(GOOD[name])) == ""


def test_good_ones_are_accepted_by_envoy(tmp_path: Path) -> None:
    assert problem_of_envoy(bootstrap([manager for managers in GOOD.values() for manager in managers]), tmp_path) == ""


@pytest.mark.parametrize("name", BAD)
def test_bad_ones_are_refused_by_both(name: str, tmp_path: Path) -> None:
    document = bootstrap(BAD[name])
    assert problem_of_ours(document) != ""
    assert problem_of_envoy(document, tmp_path) != ""


@pytest.mark.parametrize("name", STRICTER)
def test_what_only_mizzen_refuses(name: str, tmp_path: Path) -> None:
    managers, _ = STRICTER[name]
    assert problem_of_ours(bootstrap(managers)) != ""
    assert problem_of_envoy(bootstrap(managers), tmp_path) == ""
