import pytest

from sidecar.config.matcher import HeaderMatcher, QueryParameterMatcher, StringMatcher
from sidecar.config.rate_limit import (
    DestinationCluster,
    GenericKey,
    HeaderValueMatch,
    MaskedRemoteAddress,
    MetadataAction,
    QueryParameters,
    QueryParameterValueMatch,
    RateLimit,
    RemoteAddress,
    RequestHeaders,
    SourceCluster,
)
from sidecar.core.address import Address
from sidecar.filters.rate_limit_actions import compile_rate_limits
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get


class Route:
    cluster_name = "backend"
    metadata = {"owner": {"team": "payments"}}


def make_stream():
    stream = FakeStream(FakeWorker(), (), get(b"/p?a=%20x&b=", (b"x-one", b"1"), (b"x-two", b"a"), (b"x-two", b"b")))
    stream.remote_address = Address("10.1.2.3", 4000)
    stream.route = Route()
    stream.dynamic_metadata = {"jwt": {"sub": "alice", "n": 1}}
    return stream


def header(name, value):
    return HeaderMatcher(name, StringMatcher("exact", value))


@pytest.mark.parametrize(
    ("action", "entry"),
    [
        (SourceCluster(), (b"source_cluster", b"mine")),
        (DestinationCluster(), (b"destination_cluster", b"backend")),
        (GenericKey("v", "k"), (b"k", b"v")),
        (RemoteAddress(), (b"remote_address", b"10.1.2.3")),
        (MaskedRemoteAddress(16, 64), (b"masked_remote_address", b"10.1.0.0/16")),
        (RequestHeaders(b"x-one", "one", False), (b"one", b"1")),
        (RequestHeaders(b"x-two", "two", False), (b"two", b"a")),
        (RequestHeaders(b":method", "m", False), (b"m", b"GET")),
        (RequestHeaders(b"x-none", "none", False), None),
        (QueryParameters(b"a", "a", False), (b"a", b" x")),
        (QueryParameters(b"c", "c", False), None),
        (HeaderValueMatch("k", "v", True, (header(b"x-one", b"1"),)), (b"k", b"v")),
        (HeaderValueMatch("k", "v", True, (header(b"x-one", b"2"),)), None),
        (HeaderValueMatch("k", "v", False, (header(b"x-one", b"2"),)), (b"k", b"v")),
        (QueryParameterValueMatch("k", "v", True, (QueryParameterMatcher(b"a", True),)), (b"k", b"v")),
        (QueryParameterValueMatch("k", "v", False, (QueryParameterMatcher(b"a", True),)), None),
        (MetadataAction("who", "jwt", ("sub",), "", "DYNAMIC", False), (b"who", b"alice")),
        (MetadataAction("who", "jwt", ("n",), "", "DYNAMIC", False), None),
        (MetadataAction("who", "jwt", ("none",), "nobody", "DYNAMIC", False), (b"who", b"nobody")),
        (MetadataAction("team", "owner", ("team",), "", "ROUTE_ENTRY", False), (b"team", b"payments")),
    ],
)
def test_each_action(action, entry):
    descriptors = compile_rate_limits((RateLimit((action,)),), "mine")(make_stream())
    assert descriptors == ([] if entry is None else [((entry,), 1)])


@pytest.mark.parametrize(
    "action",
    [
        RequestHeaders(b"x-none", "none", True),
        QueryParameters(b"c", "c", True),
        MetadataAction("who", "jwt", ("none",), "", "DYNAMIC", True),
    ],
)
def test_an_entry_that_may_be_skipped_leaves_the_others(action):
    populate = compile_rate_limits((RateLimit((action, GenericKey("v", "k")), 3), RateLimit((action,))), "mine")
    assert populate(make_stream()) == [(((b"k", b"v"),), 3)]


def test_what_is_not_there_drops_the_whole_descriptor_but_not_the_next():
    limits = (
        RateLimit((GenericKey("v", "k"), RequestHeaders(b"x-none", "none", False))),
        RateLimit((RemoteAddress(),)),
    )
    assert compile_rate_limits(limits, "mine")(make_stream()) == [(((b"remote_address", b"10.1.2.3"),), 1)]


def test_a_unix_socket_has_no_remote_address():
    stream = make_stream()
    stream.remote_address = Address(None, 0, "@peer")
    limits = (RateLimit((RemoteAddress(),)), RateLimit((MaskedRemoteAddress(8, 8),)))
    assert compile_rate_limits(limits, "mine")(stream) == []
