"""The index finds what the walk over all policies finds, whatever they are and whoever asks."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.matcher import (
    BoolMatch,
    HeaderMatcher,
    Int64Range,
    ListMatcher,
    MetadataMatcher,
    OrMatcher,
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
from sidecar.core.rbac import compile_policy, walk_rbac
from sidecar.core.rbac_explanation import explain_rbac
from sidecar.core.rbac_index import RbacIndex, build_index
from sidecar.core.stream_info import ConnectionInfo, StreamInfo

WORDS = [b"", b"/", b"/a", b"/a/b", b"/a/bc", b"/ab", b"a", b"b", b"B", b"GET", b"PUT", b"x/ns/a/sa/b", b"1", b"12"]
words = st.sampled_from(WORDS)
regexes = st.sampled_from([b"/a/.*", b".*b", b"[0-9]+", b".*/ns/a/.*", b""])
networks = st.sampled_from(
    [ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "::/0", "::1/128")]
)
addresses = st.sampled_from(
    [Address("10.1.1.1", 80), Address("10.1.2.3", 8080), Address("11.0.0.1", 81), Address("::1", 80), Address(None, 0)]
)
strings = st.one_of(
    st.builds(StringMatcher, st.sampled_from(["exact", "prefix", "suffix", "contains"]), words, st.booleans()),
    st.builds(lambda regex: StringMatcher("safe_regex", regex), regexes),
)
names = st.sampled_from([b":method", b":path", b"host", b":authority", b"x-a", b"x-b", b":none"])
headers = st.one_of(
    st.builds(HeaderMatcher, names, st.one_of(strings, st.just(Int64Range(1, 5))), st.booleans(), st.booleans()),
    st.builds(HeaderMatcher, names, st.booleans(), st.booleans()),
)
values = st.recursive(
    st.one_of(strings, st.builds(BoolMatch, st.booleans()), st.builds(PresentMatch, st.booleans())),
    lambda inner: st.one_of(
        st.builds(ListMatcher, inner), st.builds(OrMatcher, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=4,
)
metadata = st.builds(
    SourcedMetadata,
    st.builds(
        MetadataMatcher, st.sampled_from(["jwt", "other"]), st.sampled_from([("a",), ("a", "b")]), values, st.booleans()
    ),
    st.sampled_from(["DYNAMIC", "ROUTE"]),
)
shared = st.one_of(st.just(AnyRule()), headers, st.builds(PathMatcher, strings), metadata)
permissions = st.recursive(
    st.one_of(
        shared,
        st.builds(DestinationIp, networks),
        st.sampled_from([DestinationPortRange(80, 81), DestinationPortRange(1, 65536), DestinationPortRange(81, 9000)]),
        st.builds(RequestedServerName, strings),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda rules: AndPermissions(tuple(rules))),
        st.lists(inner, max_size=3).map(lambda rules: OrPermissions(tuple(rules))),
        st.builds(NotPermission, inner),
    ),
    max_leaves=6,
)
principals = st.recursive(
    st.one_of(
        shared,
        st.builds(Authenticated, st.one_of(st.none(), strings)),
        st.builds(PeerIp, st.sampled_from(["direct_remote_ip", "remote_ip", "source_ip"]), networks),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda ids: AndPrincipals(tuple(ids))),
        st.lists(inner, max_size=3).map(lambda ids: OrPrincipals(tuple(ids))),
        st.builds(NotPrincipal, inner),
    ),
    max_leaves=6,
)
policies = st.lists(
    st.builds(
        Policy,
        st.text("abé\U0001f600", min_size=1, max_size=3),
        st.lists(permissions, max_size=3).map(tuple),
        st.lists(principals, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda policy: policy.name,
)


@dataclass
class Certificate:
    presented: bool
    uri_sans: tuple[bytes, ...]
    dns_sans: tuple[bytes, ...]
    subject: bytes


@dataclass
class Route:
    metadata: dict[str, dict[str, Any]] | None
    name: str = "r"
    virtual_host_name: str = "v"
    cluster_name: str = "c"


plain = st.one_of(st.booleans(), words.map(bytes.decode), st.lists(words.map(bytes.decode), max_size=3), st.none())
structs = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["jwt", "other"]),
        st.dictionaries(st.just("a"), st.one_of(plain, st.dictionaries(st.just("b"), plain))),
    ),
)


@st.composite
def connections(draw: st.DrawFn) -> ConnectionInfo:
    info = ConnectionInfo(1, draw(addresses), draw(addresses), 0.0)
    info.direct_remote_address = draw(addresses)
    info.requested_server_name = draw(words).decode()
    sans = st.lists(words, max_size=2).map(tuple)
    info.tls = draw(st.one_of(st.none(), st.builds(Certificate, st.booleans(), sans, sans, words)))
    return info


@st.composite
def subjects(draw: st.DrawFn, connection: ConnectionInfo, http: bool) -> StreamInfo:
    fields = draw(st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b"]), st.sampled_from([*WORDS, b"a,b"])), max_size=3))
    path = draw(words) + draw(st.sampled_from([b"", b"?q=/a", b"#b"]))
    head = RequestHead(draw(words), path, draw(words), fields)
    subject = StreamInfo(connection, head if http else None, 0.0, 0.0)
    subject.remote_address = draw(addresses)
    subject.dynamic_metadata = draw(structs)
    subject.route = draw(st.one_of(st.none(), st.builds(Route, structs)))
    return subject


@settings(max_examples=300, deadline=None)
@given(policies, st.booleans(), st.data())
def test_the_index_finds_what_the_walk_finds(chosen: list[Policy], http: bool, data: st.DataObject) -> None:
    in_order = sorted(chosen, key=lambda policy: policy.name)
    index = build_index(in_order, http, lambda policy: compile_policy(policy, http), few=-1)
    assert isinstance(index, RbacIndex)
    rules = Rbac("ALLOW", tuple(chosen))
    walk = walk_rbac(rules, http)
    for _ in range(2):
        connection = data.draw(connections())
        for _ in range(3):
            subject = data.draw(subjects(connection, http))
            found = walk(subject)
            assert index.find(subject) == found
            assert explain_rbac(rules, subject).policy == found


def test_few_conditions_are_asked_one_by_one() -> None:
    few = [Policy("p", (PathMatcher(StringMatcher("exact", b"/")),), (AnyRule(),))]
    assert build_index(few, True, lambda policy: compile_policy(policy)) is None
    many = [Policy(f"p{number}", few[0].permissions, (AnyRule(),)) for number in range(20)]
    assert build_index(many, True, lambda policy: compile_policy(policy)) is not None


def test_what_a_connection_shows_is_worked_out_once() -> None:
    asked = []

    class Peer(Certificate):
        @property
        def subject(self) -> bytes:  # type: ignore[override]
            asked.append(1)
            return b"CN=x"

        @subject.setter
        def subject(self, value: bytes) -> None:
            """It is made up each time."""

    many = tuple(
        Policy(f"p{number:02}", (AnyRule(),), (Authenticated(StringMatcher("exact", b"CN=%d" % number)),))
        for number in range(20)
    )
    index = build_index(many, True, lambda policy: compile_policy(policy))
    assert index is not None
    info = ConnectionInfo(1, Address("10.0.0.1", 80), Address("10.0.0.2", 5), 0.0)
    info.tls = Peer(True, (b"CN=7",), (), b"")
    for _ in range(5):
        assert index.find(StreamInfo(info, RequestHead(b"GET", b"/", b"a", []), 0.0, 0.0)) == "p07"
    assert len(asked) == 1
