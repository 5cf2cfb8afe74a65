"""RBAC: every permission and principal, and what is not one."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.config.cel import CelCondition, Constant
from sidecar.config.matcher import HeaderMatcher, MetadataMatcher, PathMatcher, PresentMatch, StringMatcher
from sidecar.config.rbac import (
    AndPermissions,
    AndPrincipals,
    AnyRule,
    Authenticated,
    DestinationIp,
    DestinationPortRange,
    FilterState,
    MtlsAuthenticated,
    NotPermission,
    NotPrincipal,
    OrPermissions,
    OrPrincipals,
    PeerIp,
    Permission,
    Policy,
    Principal,
    Rbac,
    RequestedServerName,
    SourcedMetadata,
    parse_rbac,
)
from sidecar.config.tls_secrets import SubjectAltNameMatcher
from tests.sidecar.config.building import build, problems

MTLS = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config"
RBAC = "envoy.config.rbac.v3.RBAC"
ANY = {"any": True}
TEN = {"address_prefix": "10.1.2.3", "prefix_len": 8}
METADATA = {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": True}}
HAS_KEY = MetadataMatcher("f", ("k",), PresentMatch(True))


def rules(permission: dict[str, Any] = ANY, principal: dict[str, Any] = ANY, **policy: Any) -> dict[str, Any]:
    return {"policies": {"p": {"permissions": [permission], "principals": [principal], **policy}}}


def test_policies_stand_in_the_order_of_their_names() -> None:
    policy = {"permissions": [ANY], "principals": [ANY]}
    found = build(RBAC, {"action": "DENY", "policies": {"b": policy, "a": policy}}, parse_rbac)
    anything = (AnyRule(),)
    assert found == Rbac("DENY", (Policy("a", anything, anything), Policy("b", anything, anything)))


@pytest.mark.parametrize(("action", "expected"), [({}, "ALLOW"), ({"action": 1}, "DENY"), ({"action": "LOG"}, "LOG")])
def test_action(action: dict[str, Any], expected: str) -> None:
    found = build(RBAC, action, parse_rbac)
    assert (found.action, found.policies) == (expected, ())


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (ANY, AnyRule()),
        ({"and_rules": {"rules": [ANY, ANY]}}, AndPermissions((AnyRule(), AnyRule()))),
        ({"or_rules": {"rules": [ANY]}}, OrPermissions((AnyRule(),))),
        ({"not_rule": {"not_rule": ANY}}, NotPermission(NotPermission(AnyRule()))),
        ({"header": {"name": "X"}}, HeaderMatcher(b"x", True)),
        ({"url_path": {"path": {"prefix": "/a"}}}, PathMatcher(StringMatcher("prefix", b"/a"))),
        ({"destination_ip": TEN}, DestinationIp(ip_network("10.0.0.0/8"))),
        ({"destination_port": 443}, DestinationPortRange(443, 444)),
        ({"destination_port_range": {"start": 1, "end": 65536}}, DestinationPortRange(1, 65536)),
        ({"requested_server_name": {"suffix": ".a"}}, RequestedServerName(StringMatcher("suffix", b".a"))),
        ({"metadata": METADATA}, SourcedMetadata(HAS_KEY)),
        (
            {"sourced_metadata": {"metadata_matcher": METADATA, "metadata_source": "ROUTE"}},
            SourcedMetadata(HAS_KEY, "ROUTE"),
        ),
    ],
)
def test_permission(document: dict[str, Any], expected: Permission) -> None:
    assert build(RBAC, rules(permission=document), parse_rbac).policies[0].permissions == (expected,)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (ANY, AnyRule()),
        ({"and_ids": {"ids": [ANY]}}, AndPrincipals((AnyRule(),))),
        ({"or_ids": {"ids": [ANY, ANY]}}, OrPrincipals((AnyRule(), AnyRule()))),
        ({"not_id": ANY}, NotPrincipal(AnyRule())),
        ({"authenticated": {}}, Authenticated(None)),
        (
            {"authenticated": {"principal_name": {"exact": "spiffe://a/b"}}},
            Authenticated(StringMatcher("exact", b"spiffe://a/b")),
        ),
        ({"direct_remote_ip": TEN}, PeerIp("direct_remote_ip", ip_network("10.0.0.0/8"))),
        ({"remote_ip": {"address_prefix": "::1", "prefix_len": 128}}, PeerIp("remote_ip", ip_network("::1/128"))),
        ({"source_ip": TEN}, PeerIp("source_ip", ip_network("10.0.0.0/8"))),
        ({"header": {"name": "X", "present_match": False}}, HeaderMatcher(b"x", False)),
        ({"url_path": {"path": {"exact": "/"}}}, PathMatcher(StringMatcher("exact", b"/"))),
        ({"metadata": METADATA}, SourcedMetadata(HAS_KEY)),
        ({"sourced_metadata": {"metadata_matcher": METADATA}}, SourcedMetadata(HAS_KEY)),
    ],
)
def test_principal(document: dict[str, Any], expected: Principal) -> None:
    assert build(RBAC, rules(principal=document), parse_rbac).policies[0].principals == (expected,)


def custom(**fields: Any) -> dict[str, Any]:
    return {"custom": {"name": "mtls", "typed_config": {"@type": f"type.googleapis.com/{MTLS}", **fields}}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"filter_state": {"key": "k", "string_match": {"exact": "v"}}}, FilterState("k", StringMatcher("exact", b"v"))),
        ({"filter_state": {"key": "k", "address_match": {"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}}},
         FilterState("k", None, (ip_network("10.0.0.0/8"),))),
        (custom(any_validated_client_certificate=True), MtlsAuthenticated()),
        (custom(san_matcher={"san_type": "URI", "matcher": {"prefix": "s"}}),
         MtlsAuthenticated(SubjectAltNameMatcher("URI", StringMatcher("prefix", b"s")))),
    ],
)  # fmt: skip
def test_principals_by_extensions(document: dict[str, Any], expected: Principal) -> None:
    assert build(RBAC, rules(principal=document), parse_rbac).policies[0].principals == (expected,)


def test_an_extension_that_asks_for_nothing() -> None:
    ((_, problem),) = problems(RBAC, rules(principal=custom()), parse_rbac)
    assert "asks for nothing" in problem


def test_conditions() -> None:
    true = {"const_expr": {"bool_value": True}}
    assert build(RBAC, rules(condition=true), parse_rbac).policies[0].condition == CelCondition(Constant(True))
    checked = {"expr": true, "type_map": {"1": {"primitive": "BOOL"}}, "source_info": {"location": "x"}}
    made = build(
        RBAC, rules(checked_condition=checked, cel_config={"enable_string_concat": True}), parse_rbac
    ).policies[0]
    assert made.condition == CelCondition(Constant(True), string_concat=True)
    assert build(RBAC, rules(cel_config={"enable_string_concat": True}), parse_rbac).policies[0].condition is None


def test_expressions_have_a_size() -> None:
    expression: dict[str, Any] = {"const_expr": {"bool_value": True}}
    for _ in range(30):
        expression = {"call_expr": {"function": "!_", "args": [expression]}}
    build(RBAC, rules(condition=expression), parse_rbac)
    wide = {"list_expr": {"elements": [{"const_expr": {"int64_value": 1}}] * 2500}}
    ((_, problem),) = problems(RBAC, rules(condition=wide), parse_rbac)
    assert "makes the expression too large" in problem


def test_audit_logging_is_refused_for_somebody_relies_on_it() -> None:
    document = {**rules(), "audit_logging_options": {"audit_condition": "ON_DENY"}}
    assert problems(RBAC, document, parse_rbac) == [("audit_logging_options", "is not implemented by Mizzen")]


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (rules(principal={"remote_ip": {"address_prefix": "zz"}}), "principals[0].remote_ip", "is no address range"),
        (
            rules(permission={"destination_port_range": {"start": 5, "end": 5}}),
            "permissions[0].destination_port_range",
            "is no range of ports",
        ),
        (
            rules(permission={"destination_port_range": {"start": 5, "end": 65537}}),
            "permissions[0].destination_port_range",
            "is no range of ports",
        ),
        (rules(condition={"ident_expr": {"name": "response"}}), "condition", "'response' is no attribute"),
        (rules(checked_condition={"expr": {"ident_expr": {"name": "x"}}}), "checked_condition", "'x' is no attribute"),
        (
            rules(condition={"list_expr": {"optional_indices": [0]}}),
            "condition.list_expr.optional_indices",
            "is not impl",
        ),
        (rules(condition={}), "condition", "is an empty expression"),
        (
            rules(
                condition={
                    "struct_expr": {"entries": [{"field_key": "a", "value": {"const_expr": {"bool_value": True}}}]}
                }
            ),
            "condition.struct_expr.entries[0].field_key",
            "only maps can be made",
        ),
        (rules(permission={"any": False}), "permissions[0].any", "must be"),
    ],
)
def test_refused(document: dict[str, Any], path: str, words: str) -> None:
    ((found, problem),) = problems(RBAC, document, parse_rbac)
    assert found == f'policies["p"].{path}'
    assert words in problem
