"""RBAC: every permission and principal, and what is not one."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sidecar.config.matcher import HeaderMatcher, MetadataMatcher, PathMatcher, PresentMatch, StringMatcher
from sidecar.config.rbac import (
    AndPermissions,
    AndPrincipals,
    AnyRule,
    Authenticated,
    DestinationIp,
    DestinationPortRange,
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
from tests.sidecar.config.building import build, problems

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
        (
            rules(principal={"filter_state": {"key": "k", "string_match": {"exact": "v"}}}),
            "principals[0].filter_state",
            "is not implemented by Mizzen",
        ),
        (rules(condition={"const_expr": {"bool_value": True}}), "condition", "is not implemented by Mizzen"),
        (rules(permission={"any": False}), "permissions[0].any", "must be"),
    ],
)
def test_refused(document: dict[str, Any], path: str, words: str) -> None:
    ((found, problem),) = problems(RBAC, document, parse_rbac)
    assert found == f'policies["p"].{path}'
    assert words in problem
