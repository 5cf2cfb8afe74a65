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
from sidecar.filters.rate_limit_actions import compile_rate_limits, limits_of_route
from sidecar.telemetry.formatter import compile_header_value
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get


def populate(limits, stream):
    return compile_rate_limits(limits, "mine", compile_header_value)(stream)


def limit_of(value, stage=0):
    return RateLimit((GenericKey(value, "k"),), stage=stage)


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
    descriptors = populate((RateLimit((action,)),), make_stream())
    assert descriptors == ([] if entry is None else [((entry,), None, None)])


@pytest.mark.parametrize(
    "action",
    [
        RequestHeaders(b"x-none", "none", True),
        QueryParameters(b"c", "c", True),
        MetadataAction("who", "jwt", ("none",), "", "DYNAMIC", True),
    ],
)
def test_an_entry_that_may_be_skipped_leaves_the_others(action):
    limits = (RateLimit((action, GenericKey("v", "k")), 3), RateLimit((action,)))
    assert populate(limits, make_stream()) == [(((b"k", b"v"),), 3, None), ((), None, None)]


def test_what_is_not_there_drops_the_whole_descriptor_but_not_the_next():
    limits = (
        RateLimit((GenericKey("v", "k"), RequestHeaders(b"x-none", "none", False))),
        RateLimit((RemoteAddress(),)),
    )
    assert populate(limits, make_stream()) == [(((b"remote_address", b"10.1.2.3"),), None, None)]


def test_a_unix_socket_has_no_remote_address():
    stream = make_stream()
    stream.remote_address = Address(None, 0, "@peer")
    limits = (RateLimit((RemoteAddress(),)), RateLimit((MaskedRemoteAddress(8, 8),)))
    assert populate(limits, stream) == []


@pytest.mark.parametrize(
    ("value", "hits"),
    [(b"7", 7), (b"0", 0), (b"1.9", 1), (b"1000000000", 10**9), (b"1000000001", None), (b"-1", None), (b"x", None),
     (b"1_0", None), (b"nan", None), (b"", None)],
)  # fmt: skip
def test_hits_by_a_format_leave_the_descriptor_out_where_they_are_no_number(value, hits):
    stream = FakeStream(FakeWorker(), (), get(b"/", (b"x-hits", value)))
    limits = (RateLimit((GenericKey("v", "k"),), hits_format="%REQ(x-hits)%"),)
    assert populate(limits, stream) == ([] if hits is None else [(((b"k", b"v"),), hits, None)])


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ({"requests_per_unit": 42, "unit": "HOUR"}, (42, "HOUR")),
        ({"requests_per_unit": 42.5, "unit": "DAY"}, (42, "DAY")),
        ({"requests_per_unit": "42", "unit": "HOUR"}, None),
        ({"requests_per_unit": True, "unit": "HOUR"}, None),
        ({"requests_per_unit": 42, "unit": "FORTNIGHT"}, None),
        ({"unit": "HOUR"}, None),
        ("42 per hour", None),
        (None, None),
    ],
)
def test_another_limit_stands_in_the_dynamic_metadata(value, limit):
    stream = make_stream()
    stream.dynamic_metadata = {"limits": {"mine": value}}
    limits = (RateLimit((GenericKey("v", "k"),), limit=("limits", "mine")),)
    assert populate(limits, stream) == [(((b"k", b"v"),), None, limit)]


def test_a_share_of_the_requests():
    stream = make_stream()
    stream.worker.random.value = 0.3
    for percent, expected in ((0, 0), (30, 0), (31, 1), (100, 1)):
        assert len(populate((RateLimit((GenericKey("v", "k"),), enabled=(percent, 100)),), stream)) == expected


@pytest.mark.parametrize(
    ("option", "include", "of_route", "expected"),
    [
        ("OVERRIDE", False, True, ["route"]),
        ("OVERRIDE", False, False, ["host"]),
        ("OVERRIDE", True, True, ["route", "host"]),
        ("INCLUDE", False, True, ["route", "host"]),
        ("IGNORE", False, True, ["route"]),
        ("IGNORE", False, False, []),
    ],
)
def test_the_virtual_hosts_limits(option, include, of_route, expected):
    route = Route()
    route.include_vh_rate_limits = include
    route.rate_limits = (limit_of("route"), limit_of("route, two", 2)) if of_route else ()
    route.vh_rate_limits = (limit_of("host, one", 1), limit_of("host"))
    assert [limit.actions[0].descriptor_value for limit in limits_of_route(route, 0, option)] == expected
