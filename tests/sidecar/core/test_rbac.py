from dataclasses import dataclass
from ipaddress import ip_network

import pytest

from sidecar.config.matcher import (
    BoolMatch,
    HeaderMatcher,
    ListMatcher,
    MetadataMatcher,
    PathMatcher,
    PresentMatch,
    StringMatcher,
)
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
    Policy,
    Rbac,
    RequestedServerName,
    SourcedMetadata,
)
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.rbac import allows, compile_rbac
from sidecar.core.rbac_explanation import describe_rule, explain_rbac
from sidecar.core.stream_info import ConnectionInfo, StreamInfo

ANY = AnyRule()


def exact(value):
    return StringMatcher("exact", value)


def header(name, value):
    return HeaderMatcher(name, exact(value))


def path(pattern, value):
    return PathMatcher(StringMatcher(pattern, value))


@dataclass
class Certificate:
    presented: bool = True
    uri_sans: tuple = ()
    dns_sans: tuple = ()
    subject: bytes = b""


@dataclass
class NamedRoute:
    metadata: dict
    name: str = "r"
    virtual_host_name: str = "v"


def make_subject(request=True):
    connection = ConnectionInfo(1, Address("10.0.0.1", 8080), Address("192.168.1.5", 5000), 0.0)
    connection.direct_remote_address = Address("172.16.0.9", 5001)
    connection.requested_server_name = "api.example.com"
    head = RequestHead(b"GET", b"/api/v1?x=1", b"example.com", [(b"x-user", b"alice"), (b"x-n", b"5")])
    subject = StreamInfo(connection, head if request else None, 0.0, 0.0)
    subject.remote_address = Address("203.0.113.7", 1)
    subject.dynamic_metadata = {"jwt": {"claims": {"admin": True, "groups": ["a", "b"]}}}
    subject.route = NamedRoute({"owner": {"team": "payments"}})
    return subject


def fits(subject, permission=ANY, principal=ANY):
    rules = Rbac("ALLOW", (Policy("p", (permission,), (principal,)),))
    found = compile_rbac(rules, http=subject.request is not None)(subject)
    assert (found == "p") == explain_rbac(rules, subject).allowed
    return found == "p"


PERMISSIONS = [
    (ANY, True),
    (AndPermissions((header(b":method", b"GET"), path("exact", b"/api/v1"))), True),
    (AndPermissions((header(b":method", b"GET"), path("exact", b"/api/v2"))), False),
    (AndPermissions((path("prefix", b"/api"), DestinationPortRange(8080, 8081))), True),
    (AndPermissions((path("prefix", b"/api"), header(b"x-user", b"alice"), header(b"x-n", b"5"))), True),
    (AndPermissions((path("prefix", b"/api"), header(b"x-user", b"alice"), header(b"x-n", b"6"))), False),
    (OrPermissions((header(b":method", b"PUT"), header(b":method", b"GET"))), True),
    (OrPermissions((header(b":method", b"PUT"), header(b":method", b"POST"))), False),
    (OrPermissions((header(b":method", b"PUT"), header(b":method", b"POST"), header(b"x-user", b"alice"))), True),
    (OrPermissions((header(b"x-user", b"bob"), DestinationPortRange(8080, 8081))), True),
    (OrPermissions(()), False),
    (NotPermission(ANY), False),
    (NotPermission(header(b"x-user", b"bob")), True),
    (NotPermission(DestinationPortRange(8080, 8081)), False),
    (HeaderMatcher(b"x-user", True), True),
    (HeaderMatcher(b"x-other", True), False),
    (HeaderMatcher(b":method", exact(b"GET"), invert_match=True), False),
    (HeaderMatcher(b"host", exact(b"example.com")), True),
    (path("exact", b"/api/v1?x=1"), False),
    (path("prefix", b"/api/v1?"), False),
    (path("safe_regex", b"/api/v[0-9]"), True),
    (path("prefix", b""), True),
    (DestinationIp(ip_network("10.0.0.0/8")), True),
    (DestinationIp(ip_network("11.0.0.0/8")), False),
    (DestinationPortRange(8000, 8080), False),
    (DestinationPortRange(8000, 8081), True),
    (RequestedServerName(StringMatcher("suffix", b".example.com")), True),
    (RequestedServerName(exact(b"example.com")), False),
    (SourcedMetadata(MetadataMatcher("jwt", ("claims", "admin"), BoolMatch(True))), True),
    (SourcedMetadata(MetadataMatcher("jwt", ("claims", "groups"), ListMatcher(exact(b"b")))), True),
    (SourcedMetadata(MetadataMatcher("jwt", ("claims", "groups"), ListMatcher(exact(b"c")))), False),
    (SourcedMetadata(MetadataMatcher("jwt", ("none",), PresentMatch(True))), False),
    (SourcedMetadata(MetadataMatcher("jwt", ("none",), PresentMatch(True), invert=True)), True),
    (SourcedMetadata(MetadataMatcher("owner", ("team",), exact(b"payments")), "ROUTE"), True),
    (SourcedMetadata(MetadataMatcher("owner", ("team",), exact(b"payments")), "DYNAMIC"), False),
]


@pytest.mark.parametrize(("permission", "expected"), PERMISSIONS)
def test_permissions(permission, expected):
    assert fits(make_subject(), permission=permission) is expected


PRINCIPALS = [
    (ANY, True),
    (PeerIp("direct_remote_ip", ip_network("172.16.0.0/12")), True),
    (PeerIp("direct_remote_ip", ip_network("192.168.0.0/16")), False),
    (PeerIp("source_ip", ip_network("192.168.0.0/16")), True),
    (PeerIp("remote_ip", ip_network("203.0.113.0/24")), True),
    (PeerIp("remote_ip", ip_network("2001:db8::/32")), False),
    (AndPrincipals((PeerIp("source_ip", ip_network("192.168.0.0/16")), header(b"x-user", b"alice"))), True),
    (OrPrincipals((PeerIp("source_ip", ip_network("1.0.0.0/8")), header(b"x-user", b"alice"))), True),
    (NotPrincipal(header(b"x-user", b"alice")), False),
    (Authenticated(None), False),
    (Authenticated(exact(b"")), False),
]


@pytest.mark.parametrize(("principal", "expected"), PRINCIPALS)
def test_principals(principal, expected):
    assert fits(make_subject(), principal=principal) is expected


CERTIFICATES = [
    (Certificate(uri_sans=(b"spiffe://a/ns/b",)), exact(b"spiffe://a/ns/b"), True),
    (Certificate(dns_sans=(b"a.example",)), exact(b"a.example"), True),
    (Certificate(subject=b"CN=a"), exact(b"CN=a"), True),
    (Certificate(subject=b"CN=a"), exact(b"CN=b"), False),
    (Certificate(), None, True),
    (Certificate(presented=False), None, False),
    (Certificate(presented=False), exact(b""), False),
]


@pytest.mark.parametrize(("certificate", "name", "expected"), CERTIFICATES)
def test_authenticated_looks_at_the_certificate(certificate, name, expected):
    subject = make_subject()
    subject.connection.tls = certificate
    assert fits(subject, principal=Authenticated(name)) is expected


CONNECTIONS = [
    (header(b"x-user", b"alice"), False),
    (HeaderMatcher(b"x-user", False), True),
    (path("prefix", b"/"), False),
    (NotPermission(path("prefix", b"/")), True),
    (OrPermissions((header(b":method", b"GET"), header(b":method", b"PUT"))), False),
    (DestinationPortRange(8080, 8081), True),
]


@pytest.mark.parametrize(("permission", "expected"), CONNECTIONS)
def test_a_raw_connection_has_no_headers_and_no_path(permission, expected):
    assert fits(make_subject(request=False), permission=permission) is expected


def test_no_path_fits_no_path_condition():
    subject = make_subject()
    subject.request.path = b""
    assert not fits(subject, permission=path("prefix", b""))
    assert not fits(subject, permission=path("safe_regex", b".*"))


def test_policies_are_asked_in_the_order_of_their_names():
    rules = Rbac(
        "ALLOW",
        (
            Policy("c", (ANY,), (ANY,)),
            Policy("b", (ANY,), (ANY,)),
            Policy("a", (ANY,), (header(b"x-user", b"bob"),)),
        ),
    )
    assert compile_rbac(rules)(make_subject()) == "b"


def test_policies_on_headers_only_are_asked_in_order_too():
    rules = Rbac("DENY", tuple(Policy(name, (ANY,), (header(b"x-user", b"alice"),)) for name in ("z", "y")))
    assert compile_rbac(rules)(make_subject()) == "y"


def test_without_a_policy_nothing_fits():
    assert compile_rbac(Rbac("ALLOW", ()))(make_subject()) is None
    assert compile_rbac(Rbac("ALLOW", (Policy("p", (), (ANY,)),)))(make_subject()) is None


@pytest.mark.parametrize(
    ("action", "policy", "expected"),
    [("ALLOW", "p", True), ("ALLOW", None, False), ("DENY", "p", False), ("DENY", None, True), ("LOG", None, True)],
)
def test_what_actions_let_pass(action, policy, expected):
    assert allows(action, policy) is expected


def test_the_answers_for_many_addresses_stay_right():
    inside = compile_rbac(Rbac("ALLOW", (Policy("p", (ANY,), (PeerIp("remote_ip", ip_network("10.0.0.0/17")),)),)))
    subject = make_subject()
    for number in range(3000):
        subject.remote_address = Address(f"10.0.{number % 256}.{number // 256}", 1)
        assert (inside(subject) == "p") is (number % 256 < 128)


def test_an_explanation_names_the_conditions_that_failed():
    rules = Rbac(
        "ALLOW",
        (
            Policy("admins", (ANY,), (header(b"x-user", b"bob"), Authenticated(None))),
            Policy("readers", (AndPermissions((header(b":method", b"PUT"), path("prefix", b"/api"))),), (ANY,)),
        ),
    )
    decision = explain_rbac(rules, make_subject())
    assert not decision.allowed
    assert decision.policy is None
    assert decision.failed == {
        "admins": (
            "principal header x-user exact 'bob' is not met: it is 'alice'",
            "principal authenticated is not met: the client showed no certificate",
        ),
        "readers": ("permission header :method exact 'PUT' is not met: it is 'GET'",),
    }


def test_an_explanation_ends_with_the_policy_that_fits():
    rules = Rbac("DENY", (Policy("a", (NotPermission(ANY),), (ANY,)), Policy("b", (ANY,), (ANY,))))
    decision = explain_rbac(rules, make_subject())
    assert (decision.allowed, decision.policy) == (False, "b")
    assert decision.failed == {"a": ("permission not any is not met",)}


@pytest.mark.parametrize("rule", [rule for rule, _ in PERMISSIONS] + [rule for rule, _ in PRINCIPALS])
def test_every_rule_can_be_said_in_words(rule):
    assert describe_rule(rule)
