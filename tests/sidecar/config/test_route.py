"""Route configurations: levels, inheritance, duplicates, references."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters.buffer import Buffer
from sidecar.config.filters.cors import CorsPolicy
from sidecar.config.matcher import HeaderMatcher, QueryParameterMatcher, StringMatcher
from sidecar.config.route import (
    HeaderMutations,
    PerFilterConfig,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
    parse_route_configuration,
)
from sidecar.config.route_match import parse_route_match
from tests.sidecar.config.building import build, build_with_warnings, problems

ROUTES = "envoy.config.route.v3.RouteConfiguration"
MATCH = "envoy.config.route.v3.RouteMatch"
TO_A = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}


def configuration(**fields: Any) -> dict[str, Any]:
    return {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [TO_A]}], **fields}


def host(**fields: Any) -> dict[str, Any]:
    return configuration(virtual_hosts=[{"name": "v", "domains": ["*"], "routes": [TO_A], **fields}])


def route(**fields: Any) -> dict[str, Any]:
    return host(routes=[{**TO_A, **fields}])


def parsed(document: dict[str, Any]) -> RouteConfiguration:
    return build(ROUTES, document, parse_route_configuration)


def action_of(document: dict[str, Any]) -> RouteAction:
    action = parsed(document).virtual_hosts[0].routes[0].action
    assert isinstance(action, RouteAction)
    return action


def test_the_smallest_configuration() -> None:
    assert parsed({"name": "r", "virtual_hosts": [{"name": "v", "domains": ["Example.COM", "*.Org"]}]}) == (
        RouteConfiguration("r", (VirtualHost("v", (b"example.com", b"*.org"), ()),))
    )


def test_the_whole_configuration() -> None:
    found = parsed(
        configuration(
            internal_only_headers=["X-Secret"],
            most_specific_header_mutations_wins=True,
            ignore_port_in_host_matching=True,
            ignore_path_parameters_in_path_matching=True,
            request_headers_to_add=[{"header": {"key": "X-In", "value": "%PROTOCOL%"}, "append_action": 1}],
            request_headers_to_remove=["X-Drop"],
            response_headers_to_add=[{"header": {"key": "X-Out", "value": ""}, "keep_empty_value": True}],
            response_headers_to_remove=["Server"],
        )
    )
    assert found.internal_only_headers == (b"x-secret",)
    assert found.most_specific_header_mutations_wins
    assert found.ignore_port_in_host_matching
    assert found.ignore_path_parameters_in_path_matching
    assert found.header_mutations == HeaderMutations(
        (HeaderValueOption(b"x-in", "%PROTOCOL%", "ADD_IF_ABSENT", False),),
        (b"x-drop",),
        (HeaderValueOption(b"x-out", "", "APPEND_IF_EXISTS_OR_ADD", True),),
        (b"server",),
    )


def test_a_virtual_host() -> None:
    (found,) = parsed(
        host(
            include_request_attempt_count=True,
            include_attempt_count_in_response=True,
            include_is_timeout_retry_header=True,
            metadata={"filter_metadata": {"f": {"a": [1, 1.5]}}},
            cors={"allow_origin_string_match": [{"exact": "https://a"}], "allow_credentials": True},
        )
    ).virtual_hosts
    assert found.include_request_attempt_count
    assert found.include_attempt_count_in_response
    assert found.include_is_timeout_retry_header
    assert found.metadata == {"f": {"a": [1, 1.5]}}
    assert found.cors == CorsPolicy((StringMatcher("exact", b"https://a"),), allow_credentials=True)


def test_header_mutations_are_false_when_there_are_none() -> None:
    found = parsed(configuration())
    assert not found.header_mutations
    assert parsed(configuration(request_headers_to_remove=["a"])).header_mutations


def test_a_route_without_a_retry_policy_has_the_one_of_its_virtual_host() -> None:
    own = {"match": {"prefix": "/own"}, "route": {"cluster": "a", "retry_policy": {"retry_on": "reset"}}}
    (found,) = parsed(host(retry_policy={"retry_on": "5xx"}, routes=[own, TO_A])).virtual_hosts
    policies = [r.action.retry_policy for r in found.routes if isinstance(r.action, RouteAction)]
    assert [set(policy.retry_on) for policy in policies if policy] == [{"reset"}, {"5xx"}]


def test_mirror_policies_come_from_the_nearest_level_that_has_some() -> None:
    def mirrors(**levels: Any) -> list[str]:
        action: dict[str, Any] = {"cluster": "a"}
        document = configuration()
        (virtual_host,) = document["virtual_hosts"]
        virtual_host = {**virtual_host, "routes": [{"match": {"prefix": "/"}, "route": action}]}
        document["virtual_hosts"] = [virtual_host]
        places = {"configuration": document, "host": virtual_host, "route": action}
        for level, cluster in levels.items():
            places[level]["request_mirror_policies"] = [{"cluster": cluster}]
        return [policy.cluster for policy in action_of(document).request_mirror_policies]

    assert mirrors() == []
    assert mirrors(configuration="a") == ["a"]
    assert mirrors(configuration="a", host="b") == ["b"]
    assert mirrors(configuration="a", host="a", route="b") == ["b"]


def test_typed_per_filter_config_of_every_level() -> None:
    def limit(size: int) -> dict[str, Any]:
        buffer = {"@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"}
        return {"buffer": {**buffer, "buffer": {"max_request_bytes": size}}}

    weighted = {"clusters": [{"name": "a", "weight": 1, "typed_per_filter_config": limit(4)}]}
    document = host(
        typed_per_filter_config=limit(2),
        routes=[
            {
                "match": {"prefix": "/"},
                "route": {"weighted_clusters": weighted},
                "typed_per_filter_config": limit(3),
            }
        ],
    )
    document["typed_per_filter_config"] = limit(1)
    found = parsed(document)
    (virtual_host,) = found.virtual_hosts
    action = virtual_host.routes[0].action
    assert isinstance(action, RouteAction) and action.weighted_clusters is not None
    levels = (found, virtual_host, virtual_host.routes[0], action.weighted_clusters.clusters[0])
    assert [level.typed_per_filter_config for level in levels] == [
        {"buffer": PerFilterConfig(Buffer(size))} for size in (1, 2, 3, 4)
    ]


def test_a_decorator_is_ignored_with_one_warning() -> None:
    document = host(routes=[{**TO_A, "decorator": {"operation": "x"}}] * 2)
    _, warnings = build_with_warnings(ROUTES, document, parse_route_configuration)
    assert len(warnings) == 1 and "decorator" in warnings[0]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"prefix": ""}, RouteMatch("prefix", b"")),
        ({"prefix": "/A", "case_sensitive": False}, RouteMatch("prefix", b"/A", False)),
        ({"path": "/a b"}, RouteMatch("path", b"/a b")),
        ({"safe_regex": {"regex": "/.*"}}, RouteMatch("safe_regex", b"/.*")),
        ({"path_separated_prefix": "/a/b"}, RouteMatch("path_separated_prefix", b"/a/b")),
        ({"connect_matcher": {}}, RouteMatch("connect_matcher", b"")),
        (
            {
                "prefix": "/",
                "headers": [{"name": ":Method", "string_match": {"exact": "GET"}}],
                "query_parameters": [{"name": "v"}],
                "runtime_fraction": {"default_value": {"numerator": 5, "denominator": "TEN_THOUSAND"}},
            },
            RouteMatch(
                "prefix",
                b"/",
                True,
                (5, 10_000),
                (HeaderMatcher(b":method", StringMatcher("exact", b"GET")),),
                (QueryParameterMatcher(b"v", True),),
            ),
        ),
    ],
)
def test_route_match(document: dict[str, Any], expected: RouteMatch) -> None:
    assert build(MATCH, document, parse_route_match) == expected


def test_a_path_that_can_never_match_is_warned_of() -> None:
    _, warnings = build_with_warnings(MATCH, {"path": "/a?b"}, parse_route_match)
    assert len(warnings) == 1 and "can never match" in warnings[0]


def two_hosts(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return configuration(virtual_hosts=[first, second])


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            two_hosts({"name": "v", "domains": ["a"]}, {"name": "v", "domains": ["b"]}),
            ("virtual_hosts[1].name", "another virtual host here is called 'v' too"),
        ),
        (
            two_hosts({"name": "v", "domains": ["a"]}, {"name": "w", "domains": ["b", "A"]}),
            ("virtual_hosts[1].domains", "'a' is a domain of 'v' already"),
        ),
        (
            two_hosts({"name": "v", "domains": ["*"]}, {"name": "w", "domains": ["*"]}),
            ("virtual_hosts[1].domains", "'*' is a domain of 'v' already"),
        ),
        (
            host(domains=["a", "a"]),
            ("virtual_hosts[0].domains", "'a' is a domain of 'v' already"),
        ),
        (
            route(request_headers_to_remove=["Host"]),
            (
                "virtual_hosts[0].routes[0].request_headers_to_remove",
                "host may not be removed: it is a pseudo-header or host",
            ),
        ),
        (
            route(response_headers_to_remove=[":status"]),
            (
                "virtual_hosts[0].routes[0].response_headers_to_remove",
                ":status may not be removed: it is a pseudo-header or host",
            ),
        ),
        (
            route(request_headers_to_add=[{"header": {"key": ":path", "value": "/"}}]),
            (
                "virtual_hosts[0].routes[0].request_headers_to_add[0].header.key",
                "may not be changed: it is a pseudo-header or host",
            ),
        ),
        (
            route(route={"cluster": "nowhere"}),
            ("virtual_hosts[0].routes[0].route.cluster", "there is no cluster called 'nowhere'"),
        ),
        (
            configuration(request_mirror_policies=[{"cluster": "nowhere"}]),
            ("request_mirror_policies[0].cluster", "there is no cluster called 'nowhere'"),
        ),
        (
            host(routes=[{"match": {"prefix": "/"}, "non_forwarding_action": {}}]),
            ("virtual_hosts[0].routes[0].non_forwarding_action", "is not implemented by Mizzen"),
        ),
    ],
)
def test_refused(document: dict[str, Any], expected: tuple[str, str]) -> None:
    assert problems(ROUTES, document, parse_route_configuration) == [expected]


def test_clusters_are_not_looked_up_when_that_is_switched_off() -> None:
    document = configuration(
        validate_clusters=False,
        virtual_hosts=[
            {
                "name": "v",
                "domains": ["*"],
                "routes": [
                    {
                        "match": {"prefix": "/"},
                        "route": {
                            "weighted_clusters": {"clusters": [{"name": "elsewhere", "weight": 1}]},
                            "request_mirror_policies": [{"cluster": "elsewhere"}],
                        },
                    }
                ],
            }
        ],
    )
    assert action_of(document).request_mirror_policies[0].cluster == "elsewhere"
    assert len(problems(ROUTES, {**document, "validate_clusters": True}, parse_route_configuration)) == 2
