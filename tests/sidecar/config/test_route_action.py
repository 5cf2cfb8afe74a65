"""Route actions, redirects and direct responses: every field and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sidecar.config.core_types import SubstitutionFormatString
from sidecar.config.fields import Node
from sidecar.config.matcher import RegexMatchAndSubstitute, RegexMatcher
from sidecar.config.route import (
    Action,
    ClusterWeight,
    DirectResponseAction,
    HashCookie,
    HashHeader,
    HashQueryParameter,
    HashSourceIp,
    HeaderMutations,
    MaxStreamDuration,
    RedirectAction,
    RequestMirrorPolicy,
    RouteAction,
    UpgradeConfig,
    WeightedCluster,
)
from sidecar.config.route_action import Inherited, parse_action
from tests.sidecar.config.building import build, build_with_warnings, problems

ROUTE = "envoy.config.route.v3.Route"
REGEX = {"pattern": {"regex": "^/(.*)$"}, "substitution": "/\\1"}
REWRITE = RegexMatchAndSubstitute(RegexMatcher(b"^/(.*)$"), b"/\\1")


def parse(node: Node) -> Action:
    match = node.child("match")
    assert match is not None
    match.get("prefix")
    return parse_action(node, Inherited(True, 4096))


def document(**action: Any) -> dict[str, Any]:
    return {"match": {"prefix": "/"}, **action}


def forward(**fields: Any) -> dict[str, Any]:
    return document(route={"cluster": "a", **fields})


def forwarded(**fields: Any) -> RouteAction:
    action = build(ROUTE, forward(**fields), parse)
    assert isinstance(action, RouteAction)
    return action


def test_the_defaults_of_a_route_are_those_of_envoy() -> None:
    action = forwarded()
    assert action == RouteAction(cluster="a")
    assert action.timeout == 15.0
    assert action.idle_timeout is None
    assert action.cluster_not_found_response_code == 503
    assert action.priority == "DEFAULT"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"timeout": "0s"}, {"timeout": 0.0}),
        ({"timeout": "0.5s", "idle_timeout": "0s"}, {"timeout": 0.5, "idle_timeout": 0.0}),
        ({"prefix_rewrite": "/b"}, {"prefix_rewrite": b"/b"}),
        ({"regex_rewrite": REGEX}, {"regex_rewrite": REWRITE}),
        ({"host_rewrite_literal": "h"}, {"host_rewrite_literal": b"h"}),
        ({"auto_host_rewrite": True}, {"auto_host_rewrite": True}),
        ({"host_rewrite_header": "X-H"}, {"host_rewrite_header": b"x-h"}),
        ({"host_rewrite_path_regex": REGEX}, {"host_rewrite_path_regex": REWRITE}),
        ({"host_rewrite": "%REQ(x)%"}, {"host_rewrite": "%REQ(x)%"}),
        ({"append_x_forwarded_host": True}, {"append_x_forwarded_host": True}),
        ({"priority": "HIGH"}, {"priority": "HIGH"}),
        ({"cluster_not_found_response_code": "NOT_FOUND"}, {"cluster_not_found_response_code": 404}),
        ({"cluster_not_found_response_code": 2}, {"cluster_not_found_response_code": 500}),
        ({"metadata_match": {"filter_metadata": {"envoy.lb": {"v": "1"}}}}, {"metadata_match": {"v": "1"}}),
        (
            {"max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "3s"}},
            {"max_stream_duration": MaxStreamDuration(0.0, 3.0, None)},
        ),
        (
            {"max_grpc_timeout": "0s", "grpc_timeout_offset": "0.5s"},
            {"max_grpc_timeout": 0.0, "grpc_timeout_offset": 0.5},
        ),
        (
            {"upgrade_configs": [{"upgrade_type": "WebSocket"}, {"upgrade_type": "CONNECT", "connect_config": {}}]},
            {"upgrade_configs": (UpgradeConfig("websocket", True, False), UpgradeConfig("connect", True, True))},
        ),
        (
            {"request_mirror_policies": [{"cluster_header": "X-Copy", "disable_shadow_host_suffix_append": True}]},
            {"request_mirror_policies": (RequestMirrorPolicy("", b"x-copy", None, True, b""),)},
        ),
        (
            {
                "request_mirror_policies": [
                    {
                        "cluster": "b",
                        "runtime_fraction": {"default_value": {"numerator": 3}},
                        "host_rewrite_literal": "copy",
                    }
                ]
            },
            {"request_mirror_policies": (RequestMirrorPolicy("b", b"", (3, 100), False, b"copy"),)},
        ),
    ],
)
def test_a_field_of_a_route(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert forwarded(**fields) == RouteAction(cluster="a", **expected)


def test_cluster_header() -> None:
    assert build(ROUTE, document(route={"cluster_header": "X-To"}), parse) == RouteAction(cluster_header=b"x-to")


def test_weighted_clusters() -> None:
    weighted = {
        "clusters": [
            {
                "name": "a",
                "weight": 90,
                "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "1"}}},
                "response_headers_to_remove": ["X-A"],
                "host_rewrite_literal": "host-a",
            },
            {"cluster_header": "X-To", "weight": 0},
        ],
        "header_name": "X-Random",
    }
    labels = {"filter_metadata": {"envoy.lb": {"stage": "prod", "version": "0"}}}
    action = build(ROUTE, document(route={"weighted_clusters": weighted, "metadata_match": labels}), parse)
    assert isinstance(action, RouteAction)
    assert action.weighted_clusters == WeightedCluster(
        (
            ClusterWeight(
                "a",
                b"",
                90,
                {"stage": "prod", "version": "1"},
                b"host-a",
                HeaderMutations(response_headers_to_remove=(b"x-a",)),
            ),
            ClusterWeight("", b"x-to", 0, {"stage": "prod", "version": "0"}),
        ),
        90,
        b"x-random",
    )


def test_hash_policies() -> None:
    policies = [
        {"header": {"header_name": "X-User", "regex_rewrite": REGEX}, "terminal": True},
        {
            "cookie": {
                "name": "Sid",
                "ttl": "0s",
                "path": "/p",
                "attributes": [{"name": "SameSite", "value": "Lax"}],
            }
        },
        {"cookie": {"name": "only"}},
        {"connection_properties": {"source_ip": True}},
        {"connection_properties": {}},
        {"query_parameter": {"name": "U"}},
    ]
    assert forwarded(hash_policy=policies).hash_policy == (
        HashHeader(b"x-user", REWRITE, True),
        HashCookie(b"Sid", 0.0, b"/p", ((b"SameSite", b"Lax"),)),
        HashCookie(b"only", None, b"", ()),
        HashSourceIp(),
        HashQueryParameter(b"U"),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, RedirectAction()),
        ({"https_redirect": True}, RedirectAction(scheme_redirect=b"https")),
        ({"scheme_redirect": "WS"}, RedirectAction(scheme_redirect=b"ws")),
        (
            {"host_redirect": "h", "port_redirect": 81, "path_redirect": "/p?q", "response_code": "FOUND"},
            RedirectAction(host_redirect=b"h", port_redirect=81, path_redirect=b"/p?q", response_code=302),
        ),
        (
            {"prefix_rewrite": "/n", "strip_query": True, "response_code": "PERMANENT_REDIRECT"},
            RedirectAction(prefix_rewrite=b"/n", strip_query=True, response_code=308),
        ),
        (
            {"regex_rewrite": REGEX, "response_code": "SEE_OTHER"},
            RedirectAction(regex_rewrite=REWRITE, response_code=303),
        ),
        ({"response_code": "TEMPORARY_REDIRECT"}, RedirectAction(response_code=307)),
    ],
)
def test_redirect(fields: dict[str, Any], expected: RedirectAction) -> None:
    assert build(ROUTE, document(redirect=fields), parse) == expected


def test_direct_response(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"\x00\xff")
    found = build(ROUTE, document(direct_response={"status": 204}), parse)
    assert found == DirectResponseAction(204)
    found = build(ROUTE, document(direct_response={"status": 200, "body": {"filename": str(body)}}), parse)
    assert found == DirectResponseAction(200, b"\x00\xff")
    with_format = {
        "status": 200,
        "body": {"inline_string": "x"},
        "body_format": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%!"}},
    }
    found = build(ROUTE, document(direct_response=with_format), parse)
    assert isinstance(found, DirectResponseAction)
    assert isinstance(found.body_format, SubstitutionFormatString)
    assert found.body_format.text_format == "%LOCAL_REPLY_BODY%!"


def test_ignored_fields_are_named() -> None:
    weighted = {"clusters": [{"name": "a", "weight": 1}], "total_weight": 100}
    labels = {"filter_metadata": {"other": {"a": "b"}}}
    route = {"weighted_clusters": weighted, "metadata_match": labels}
    action, warnings = build_with_warnings(ROUTE, document(route=route), parse)
    assert isinstance(action, RouteAction) and action.weighted_clusters is not None
    assert action.weighted_clusters.total_weight == 1
    assert action.metadata_match == {}
    assert [word for word in ("total_weight", "'other'") if word not in "".join(warnings)] == []


STRUCT = {"@type": "type.googleapis.com/google.protobuf.Struct"}
NOT_ONE_CLUSTER = "needs {} or cluster_header, and not both"


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (
            forward(prefix_rewrite="/b", regex_rewrite=REGEX),
            ("route.regex_rewrite", "is set together with prefix_rewrite"),
        ),
        (
            document(route={"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}]}}),
            ("route.weighted_clusters.clusters", "has weights that sum up to 0"),
        ),
        (
            document(route={"weighted_clusters": {"clusters": [{"name": "a", "weight": 4294967295}] * 2}}),
            ("route.weighted_clusters.clusters", "has weights that sum up to 8589934590"),
        ),
        (
            document(route={"weighted_clusters": {"clusters": [{"name": "a"}, {"name": "b", "weight": 1}]}}),
            ("route.weighted_clusters.clusters[0].weight", "is required"),
        ),
        (
            document(route={"weighted_clusters": {"clusters": [{"weight": 1}]}}),
            ("route.weighted_clusters.clusters[0]", NOT_ONE_CLUSTER.format("name")),
        ),
        (
            document(route={"weighted_clusters": {"clusters": [{"name": "a", "cluster_header": "x", "weight": 1}]}}),
            ("route.weighted_clusters.clusters[0]", NOT_ONE_CLUSTER.format("name")),
        ),
        (
            document(route={"weighted_clusters": {"clusters": [{"name": "c", "weight": 1}]}}),
            ("route.weighted_clusters.clusters[0].name", "there is no cluster called 'c'"),
        ),
        (
            forward(request_mirror_policies=[{}]),
            ("route.request_mirror_policies[0]", NOT_ONE_CLUSTER.format("cluster")),
        ),
        (
            forward(upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "WebSocket"}]),
            ("route.upgrade_configs[1].upgrade_type", "'websocket' is there twice"),
        ),
        (
            forward(upgrade_configs=[{"upgrade_type": "websocket", "connect_config": {}}]),
            ("route.upgrade_configs[0].connect_config", "belongs to the upgrade type CONNECT only"),
        ),
        (
            forward(hash_policy=[{"filter_state": {"key": "k"}}]),
            ("route.hash_policy[0].filter_state", "is not implemented by Mizzen"),
        ),
        (
            forward(retry_policy_typed_config=STRUCT),
            ("route.retry_policy_typed_config", "is not implemented by Mizzen"),
        ),
        (
            forward(internal_redirect_policy={"response_headers_to_copy": ["x-a", ":path"]}),
            ("route.internal_redirect_policy.response_headers_to_copy", ":path is a pseudo-header or host"),
        ),
        (
            forward(internal_redirect_policy={"predicates": [{"name": "x", "typed_config": STRUCT}]}),
            (
                "route.internal_redirect_policy.predicates[0].typed_config",
                "google.protobuf.Struct is not implemented by Mizzen",
            ),
        ),
        (
            document(direct_response={"status": 200, "body": {"inline_string": "x" * 4097}}),
            ("direct_response.body", "has 4097 bytes, and 4096 are the most"),
        ),
        (document(filter_action={}), ("filter_action", "is not implemented by Mizzen")),
    ],
)
def test_refused(action: dict[str, Any], expected: tuple[str, str]) -> None:
    assert problems(ROUTE, action, parse) == [expected]
