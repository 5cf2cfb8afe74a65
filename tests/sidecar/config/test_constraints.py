from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from validate import validate_pb2

from sidecar.config.constraints import check
from sidecar.config.extensions import message_class
from sidecar.config.problems import Problem
from sidecar.config.rules import number_checks, show_nanos, string_checks
from sidecar.config.source import Source


def broken(type_name: str, document: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    """The path and words of every constraint that a message does not meet."""
    parsing: list[Problem] = []
    message = Source(document, "test").read(message_class(type_name)(), parsing)
    assert parsing == []
    found: list[tuple[str, str]] = []
    check(message, lambda where, problem, _: found.append((where, problem)), path)
    return found


CORE = "envoy.config.core.v3."
ROUTE = "envoy.config.route.v3."
CLUSTER = "envoy.config.cluster.v3.Cluster"


@pytest.mark.parametrize(
    ("type_name", "document", "path", "words"),
    [
        (CLUSTER, {}, "name", "is required"),
        (CLUSTER, {"name": "a", "connect_timeout": "0s"}, "connect_timeout", "must be greater than 0s"),
        (CLUSTER, {"name": "a", "dns_refresh_rate": "0.001s"}, "dns_refresh_rate", "must be greater than 0.001s"),
        (CLUSTER, {"name": "a", "cleanup_interval": {"seconds": -1}}, "cleanup_interval", "must not be negative"),
        (CLUSTER, {"name": "a", "lb_policy": 99}, "lb_policy", "must be one of ROUND_ROBIN"),
        (CLUSTER + ".MaglevLbConfig", {"table_size": 5000012}, "table_size", "must be at most 5000011"),
        (CLUSTER + ".LeastRequestLbConfig", {"choice_count": 1}, "choice_count", "must be at least 2"),
        (CORE + "SocketAddress", {"address": "a", "port_value": 65536}, "port_value", "must be at most 65535"),
        (CORE + "SocketAddress", {"port_value": 0}, "address", "is required"),
        (CORE + "SocketAddress", {"address": "a"}, "", "must have one of port_value, named_port"),
        (CORE + "HeaderValue", {"key": "a\nb"}, "key", "must not contain NUL, CR or LF"),
        (CORE + "HeaderValue", {"key": "a", "value": "b\r"}, "value", "must not contain NUL, CR or LF"),
        (CORE + "HeaderValue", {"key": "a", "value": "x" * 16385}, "value", "must have at most 16384 bytes"),
        (CORE + "HeaderValueOption", {}, "header", "is required"),
        (CORE + "Metadata", {"filter_metadata": {"": {}}}, 'filter_metadata[""]', "its key must not be empty"),
        ("envoy.type.v3.Percent", {"value": 100.5}, "value", "must be at most 100"),
        ("envoy.type.v3.FractionalPercent", {"denominator": 7}, "denominator", "must be one of HUNDRED"),
        (ROUTE + "VirtualHost", {"name": "a"}, "domains", "must have at least 1 item"),
        (ROUTE + "VirtualHost", {"name": "a", "domains": ["b\n"]}, "domains[0]", "must not contain NUL, CR or LF"),
        (ROUTE + "RouteMatch", {}, "", "must have one of prefix, path"),
        (
            ROUTE + "RouteMatch",
            {"path_separated_prefix": "/a?"},
            "path_separated_prefix",
            "must match the regular expression",
        ),
        (ROUTE + "DirectResponseAction", {"status": 600}, "status", "must be less than 600"),
        (ROUTE + "RouteAction", {"cluster": ""}, "cluster", "must not be empty"),
        (
            "envoy.config.bootstrap.v3.Bootstrap",
            {"stats_flush_on_admin": False},
            "stats_flush_on_admin",
            "must be true",
        ),
        (
            "envoy.config.trace.v3.OpenCensusConfig",
            {"stdout_exporter_enabled": True},
            "stdout_exporter_enabled",
            "was deprecated, and Envoy no longer accepts it",
        ),
        (
            CORE + "ApiConfigSource",
            {"api_type": "DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE"},
            "api_type",
            "DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE was deprecated",
        ),
        (
            "envoy.extensions.filters.http.router.v3.Router",
            {"strict_check_headers": ["x-other"]},
            "strict_check_headers[0]",
            "must be one of 'x-envoy-upstream-rq-timeout-ms'",
        ),
        (
            "envoy.extensions.filters.http.compressor.v3.Compressor.ResponseDirectionConfig",
            {"uncompressible_response_codes": [404, 404]},
            "uncompressible_response_codes",
            "must not hold the same item twice",
        ),
        (
            "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
            {"matcher": {"exact": "a"}},
            "san_type",
            "must not be SAN_TYPE_UNSPECIFIED",
        ),
    ],
)
def test_envoys_rules_in_words(type_name: str, document: dict[str, Any], path: str, words: str) -> None:
    ((found, problem),) = broken(type_name, document)
    assert found == path
    assert words in problem


@pytest.mark.parametrize(
    ("type_name", "document"),
    [
        (CLUSTER, {"name": "a", "connect_timeout": "0.001s", "lb_policy": "MAGLEV"}),
        (CORE + "HeaderValue", {"key": "a", "value": "x" * 16384}),
        (ROUTE + "RouteMatch", {"prefix": ""}),
        (ROUTE + "RouteAction", {"cluster": "a", "request_mirror_policies": [{"cluster": "b"}]}),
        (CORE + "SocketAddress", {"address": "a", "port_value": 0}),
        ("envoy.type.v3.Percent", {"value": 100}),
        ("envoy.type.v3.TokenBucket", {"max_tokens": 0, "fill_interval": "1s"}),
        ("google.protobuf.Struct", {"a": 1}),
    ],
)
def test_what_envoy_accepts(type_name: str, document: dict[str, Any]) -> None:
    assert broken(type_name, document) == []


def test_all_broken_rules_are_told_with_their_places() -> None:
    document = {
        "static_resources": {
            "clusters": [{"name": "a", "load_assignment": {"endpoints": [{"priority": 129}]}}, {"alt_stat_name": "b"}]
        }
    }
    assert sorted(broken("envoy.config.bootstrap.v3.Bootstrap", document, "here")) == [
        ("here.static_resources.clusters[0].load_assignment.cluster_name", "is required"),
        ("here.static_resources.clusters[0].load_assignment.endpoints[0].priority", "must be at most 128"),
        ("here.static_resources.clusters[1].name", "is required"),
    ]


def any_of(type_name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{type_name}", **fields}


FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"


def test_the_walk_goes_into_any_and_typed_struct() -> None:
    abort = {"abort": {"http_status": 99}}
    struct = any_of("xds.type.v3.TypedStruct", type_url=f"type.googleapis.com/{FAULT}", value=abort)
    for packed, place in ((any_of(FAULT, **abort), "typed_config.abort"), (struct, "typed_config.value.abort")):
        document = {"name": "x", "typed_config": packed}
        assert broken(CORE + "TransportSocket", document) == [(f"{place}.http_status", "must be at least 200")]
    packed_twice = {"per_filter": any_of(FAULT, **abort)}
    document = {"name": "a", "domains": ["*"], "typed_per_filter_config": packed_twice}
    assert broken(ROUTE + "VirtualHost", document) == [
        ('typed_per_filter_config["per_filter"].abort.http_status', "must be at least 200")
    ]


def test_an_any_that_cannot_be_read_is_refused() -> None:
    socket: Any = message_class(CORE + "TransportSocket")(name="a")
    found: list[tuple[str, str]] = []
    for type_url, value in (("x/no.such.Type", b""), (f"x/{FAULT}", b"\xff")):
        socket.typed_config.type_url, socket.typed_config.value = type_url, value
        check(socket, lambda path, problem, _: found.append((path, problem)))
    assert found == [
        ("typed_config.@type", "the type 'no.such.Type' is not known"),
        ("typed_config", f"does not hold a {FAULT}"),
    ]


def message_with(rules: validate_pb2.FieldRules, field_type: int, *, repeated: bool = False) -> Any:
    """A message of a type made for the occasion, with one field `it` that carries the rules."""
    message_with.made = getattr(message_with, "made", 0) + 1  # type: ignore[attr-defined]
    package = f"rules{message_with.made}"  # type: ignore[attr-defined]
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    field = file.message_type.add(name="M").field.add(name="it", number=1, type=field_type)
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    field.options.Extensions[validate_pb2.rules].CopyFrom(rules)
    file.dependency.append("validate/validate.proto")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.M"))()


def words_of(message: Any) -> list[str]:
    found: list[str] = []
    check(message, lambda path, problem, _: found.append(problem))
    return found


STRING, BYTES, UINT32 = 9, 12, 13


@pytest.mark.parametrize(
    ("rules", "accepted", "refused", "words"),
    [
        ({"const": "a"}, "a", "b", "must be 'a'"),
        ({"len": 2}, "éé", "a", "must have 2 characters"),
        ({"min_len": 2}, "ab", "a", "must have at least 2 characters"),
        ({"max_len": 2}, "éé", "abc", "must have at most 2 characters"),
        ({"len_bytes": 2}, "é", "a", "must have 2 bytes"),
        ({"min_bytes": 2}, "é", "a", "must have at least 2 bytes"),
        ({"max_bytes": 3}, "abc", "éé", "must have at most 3 bytes"),
        ({"prefix": "ab"}, "abc", "bc", "must begin with 'ab'"),
        ({"suffix": "bc"}, "abc", "ab", "must end with 'bc'"),
        ({"contains": "b"}, "abc", "ac", "must contain 'b'"),
        ({"not_contains": "b"}, "ac", "abc", "must not contain 'b'"),
        ({"pattern": "^[a-z]+$"}, "abc", "a\n", "must match the regular expression ^[a-z]+$"),
        ({"in": ["a", "b"]}, "a", "c", "must be one of 'a', 'b'"),
        ({"not_in": ["a"]}, "b", "a", "must not be 'a'"),
        ({"email": True}, "a@b.c", "a@@", "must be an e-mail address"),
        ({"hostname": True}, "a-b.example.", "-a", "must be a host name"),
        ({"ip": True}, "::1", "1.2.3", "must be an IP address"),
        ({"ipv4": True}, "1.2.3.4", "::1", "must be an IPv4 address"),
        ({"ipv6": True}, "::1", "1.2.3.4", "must be an IPv6 address"),
        ({"address": True}, "a.b", "a_b", "must be a host or IP address"),
        ({"uri": True}, "http://a/b", "/a", "must be an absolute URI"),
        ({"uri_ref": True}, "/a", "http://[a", "must be a URI reference"),
        ({"uuid": True}, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7", "must be a UUID"),
        ({"well_known_regex": 1}, ":path", "a b", "must be the name of an HTTP header"),
        ({"well_known_regex": 1, "strict": False}, "a b", "a\0", "must not contain NUL, CR or LF"),
        ({"well_known_regex": 2}, "a\tb", "a\x01", "must be the value of an HTTP header"),
        ({"well_known_regex": 2, "strict": False}, "a\x01", "a\r", "must not contain NUL, CR or LF"),
    ],
)
def test_every_rule_for_strings(rules: dict[str, Any], accepted: str, refused: str, words: str) -> None:
    field_rules = validate_pb2.FieldRules(string=validate_pb2.StringRules(**rules))
    message = message_with(field_rules, STRING)
    message.it = accepted
    assert words_of(message) == []
    message.it = refused
    assert words_of(message) == [words]


@pytest.mark.parametrize(
    ("rules", "accepted", "refused", "words"),
    [
        ({"const": b"a"}, b"a", b"b", "must be b'a'"),
        ({"len": 2}, b"ab", b"a", "must have 2 bytes"),
        ({"min_len": 1}, b"a", b"", "is required"),
        ({"max_len": 1}, b"a", b"ab", "must have at most 1 byte"),
        ({"prefix": b"a"}, b"ab", b"b", "must begin with b'a'"),
        ({"ipv4": True}, b"1234", b"123", "must be an IP address in bytes"),
        ({"in": [b"a"]}, b"a", b"b", "must be one of b'a'"),
    ],
)
def test_every_rule_for_bytes(rules: dict[str, Any], accepted: bytes, refused: bytes, words: str) -> None:
    message = message_with(validate_pb2.FieldRules(bytes=validate_pb2.BytesRules(**rules)), BYTES)
    message.it = accepted
    assert words_of(message) == []
    message.it = refused
    assert words_of(message) == [words]


def test_an_empty_value_may_be_excused() -> None:
    strict = validate_pb2.FieldRules(string=validate_pb2.StringRules(min_len=3))
    assert words_of(message_with(strict, STRING)) == ["must have at least 3 characters"]
    excused = validate_pb2.FieldRules(string=validate_pb2.StringRules(min_len=3, ignore_empty=True))
    message = message_with(excused, STRING)
    assert words_of(message) == []
    message.it = "ab"
    assert words_of(message) == ["must have at least 3 characters"]


def test_lists_and_their_items() -> None:
    items = validate_pb2.FieldRules(uint32=validate_pb2.UInt32Rules(gt=5))
    rules = validate_pb2.RepeatedRules(min_items=2, max_items=3, unique=True, items=items)
    message = message_with(validate_pb2.FieldRules(repeated=rules), UINT32, repeated=True)
    for values, words in (
        ([], ["must have at least 2 items"]),
        ([6], ["must have at least 2 items"]),
        ([6, 7], []),
        ([6, 7, 8, 9], ["must have at most 3 items"]),
        ([7, 7], ["must not hold the same item twice"]),
        ([7, 5], ["must be greater than 5"]),
    ):
        message.it[:] = values
        assert words_of(message) == words


@given(st.dictionaries(st.sampled_from(["gt", "gte"]), st.integers(0, 9), max_size=1), st.data())
def test_ranges_mean_what_protoc_gen_validate_says(lower: dict[str, int], data: st.DataObject) -> None:
    upper = data.draw(st.dictionaries(st.sampled_from(["lt", "lte"]), st.integers(0, 9), max_size=1))
    value = data.draw(st.integers(0, 9))
    above = all(value > limit if name == "gt" else value >= limit for name, limit in lower.items())
    below = all(value < limit if name == "lt" else value <= limit for name, limit in upper.items())
    exclusive = bool(lower and upper and next(iter(upper.values())) < next(iter(lower.values())))
    checks = number_checks(validate_pb2.UInt32Rules(**lower, **upper))
    accepted = all(one(value) is None for one in checks)
    assert accepted == ((above or below) if exclusive else (above and below))


@pytest.mark.parametrize(
    ("nanos", "text"), [(0, "0s"), (250_000_000, "0.25s"), (10_000_000_000, "10s"), (1, "0.000000001s")]
)
def test_durations_are_shown_as_they_are_written(nanos: int, text: str) -> None:
    assert show_nanos(nanos) == text


def test_no_rules_are_no_checks() -> None:
    assert string_checks(validate_pb2.StringRules()) == []
    assert number_checks(validate_pb2.DoubleRules()) == []


def test_fields_that_a_serialised_message_has_and_its_type_has_not_are_refused() -> None:
    inside = message_class("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy")()
    inside.ParseFromString(b"\x0a\x01s\x12\x01c\xba\x3e\x01a")
    message = message_class("envoy.config.listener.v3.Listener")()
    message.address.socket_address.address = "127.0.0.1"
    message.address.socket_address.port_value = 1
    message.address.MergeFromString(b"\xca\x3e\x01a")
    found = message.filter_chains.add().filters.add(name="tcp")
    found.typed_config.Pack(inside)
    problems: list[tuple[str, str]] = []
    check(message, lambda path, problem, what_to_do: problems.append((path, problem)))
    assert problems == [
        ("address", "has a field 1001 that envoy.config.core.v3.Address has not here"),
        (
            "filter_chains[0].filters[0].typed_config",
            "has a field 999 that envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy has not here",
        ),
    ]
