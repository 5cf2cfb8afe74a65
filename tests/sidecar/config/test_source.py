from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.config.extensions import UnknownType, message_class
from sidecar.config.places import Places
from sidecar.config.problems import Problem
from sidecar.config.source import Source

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
CLUSTER = "envoy.config.cluster.v3.Cluster"
RAW_BUFFER = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"


def read(text: str | bytes | dict[str, Any], type_name: str = CLUSTER) -> tuple[Any, list[Problem]]:
    problems: list[Problem] = []
    return Source(text, "f.yaml").read(message_class(type_name)(), problems), problems


def good(text: str | bytes | dict[str, Any], type_name: str = CLUSTER) -> Any:
    message, problems = read(text, type_name)
    assert problems == []
    return message


def refused(text: str | bytes, type_name: str = CLUSTER) -> list[tuple[int, str, str]]:
    return [(problem.line, problem.path, problem.problem) for problem in read(text, type_name)[1]]


def test_both_spellings_of_field_names() -> None:
    assert good("connectTimeout: 1.5s\nalt_stat_name: a").connect_timeout.nanos == 500_000_000
    assert good({"connect_timeout": "2s"}).connect_timeout.seconds == 2


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("name: plain", "name", "plain"),
        ("name: '1'", "name", "1"),
        ("name: 1.5", "name", "1.5"),
        ("name: !!str 1", "name", "1"),
        ("name: null", "name", ""),
        ("respect_dns_ttl: yes", "respect_dns_ttl", True),
        ("respect_dns_ttl: 'true'", "respect_dns_ttl", True),
        ("respect_dns_ttl: Off", "respect_dns_ttl", False),
        ("lb_policy: RANDOM", "lb_policy", 3),
        ("lb_policy: random", "lb_policy", 3),
        ("lb_policy: 3", "lb_policy", 3),
    ],
)
def test_scalars_are_read_as_envoy_reads_them(text: str, field: str, value: object) -> None:
    assert getattr(good(text), field) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("'5'", 5),
        ("0x10", 16),
        ("010", 8),
        ("1e3", 1000),
        ("7.0", 7),
        ("{value: 5}", 5),
        ("4294967295", 2**32 - 1),
    ],
)
def test_whole_numbers(text: str, value: int) -> None:
    assert good(f"per_connection_buffer_limit_bytes: {text}").per_connection_buffer_limit_bytes.value == value


@pytest.mark.parametrize("text", ["1.5", "-1", "1_000", "4294967296", "' 5'", "''", "true", "x", "[5]", "1e400"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    ((line, path, problem),) = refused(f"per_connection_buffer_limit_bytes: {text}")
    assert (line, path) == (1, "per_connection_buffer_limit_bytes")
    assert "must be" in problem


@pytest.mark.parametrize(
    "text", ["1", "1m", "1ms", ".5s", "1.s", "1.1234567890s", "' 1s'", "+1s", "400000000000s", "[1s]"]
)
def test_bad_durations_are_refused(text: str) -> None:
    ((_, path, problem),) = refused(f"connect_timeout: {text}")
    assert path == "connect_timeout"
    assert "duration" in problem


@pytest.mark.parametrize("text", ["{seconds: 1, nanos: 5}", "1.000000005s", "01.000000005s"])
def test_durations(text: str) -> None:
    timeout = good(f"connect_timeout: {text}").connect_timeout
    assert (timeout.seconds, timeout.nanos) == (1, 5)


@pytest.mark.parametrize("text", ["name: 5", "name: true", "name: [a]", "name: {a: b}", "name: !other x"])
def test_what_is_no_string_is_refused(text: str) -> None:
    assert [path for _, path, _ in refused(text)] == ["name"]


def test_enums_name_their_values() -> None:
    _, problems = read("lb_policy: ROUND_ROBBIN")
    assert "ROUND_ROBIN, LEAST_REQUEST" in problems[0].problem
    assert problems[0].what_to_do == "did you mean 'ROUND_ROBIN'?"


def test_unknown_fields_get_a_suggestion() -> None:
    _, problems = read("name: a\nconect_timeout: 1s\nzzz: {a: [b, {c: d}]}\nlb_policy: RANDOM")
    assert [(problem.line, problem.path) for problem in problems] == [(2, "conect_timeout"), (3, "zzz")]
    assert problems[0].what_to_do == "did you mean 'connect_timeout'?"
    assert problems[1].what_to_do == "remove it"


def test_every_problem_is_listed_at_once() -> None:
    text = "name: 5\nbogus: 1\nconnect_timeout: 1m\nlb_policy: NO\nload_assignment:\n  endpoints:\n  - priority: -1\n"
    assert [(line, path) for line, path, _ in refused(text)] == [
        (1, "name"),
        (2, "bogus"),
        (3, "connect_timeout"),
        (4, "lb_policy"),
        (7, "load_assignment.endpoints[0].priority"),
    ]


@pytest.mark.parametrize("text", ["name: a\nname: b", "alt_stat_name: a\naltStatName: b"])
def test_a_key_given_twice_is_refused(text: str) -> None:
    ((line, _, problem),) = refused(text)
    assert (line, problem) == (2, "is given twice")


def test_a_key_given_twice_in_a_map_or_struct_is_refused() -> None:
    text = "metadata:\n  filter_metadata:\n    a: {x: 1}\n    b: {y: 1, y: 2}\n    a: {}\n"
    assert [(line, path) for line, path, _ in refused(text)] == [
        (4, 'metadata.filter_metadata["b"]["y"]'),
        (5, 'metadata.filter_metadata["a"]'),
    ]


def test_two_choices_of_a_oneof_are_refused() -> None:
    ((line, path, problem),) = refused("type: STATIC\ncluster_type: {name: x}")
    assert (line, path) == (2, "cluster_type")
    assert "type, cluster_type" in problem


def test_what_is_no_list_stands_for_a_list_of_one() -> None:
    assert list(good("domains: '*'", "envoy.config.route.v3.VirtualHost").domains) == ["*"]
    assert good("health_checks: {timeout: 1s}").health_checks[0].timeout.seconds == 1


def test_nulls_are_absent_but_not_in_lists() -> None:
    assert not good("load_assignment: ~\nhealth_checks: null\nname:").ListFields()
    assert [path for _, path, _ in refused("health_checks: [null]")] == ["health_checks[0]"]
    assert [path for _, path, _ in refused("domains: [a, ~]", "envoy.config.route.v3.VirtualHost")] == ["domains[1]"]


def test_structs() -> None:
    node = good(
        "metadata: {a: 1, b: 1.5, c: '1', d: yes, e: ~, f: [x, {g: h}], i: 123456789012345678901}", BOOTSTRAP_NODE
    )
    assert json_format.MessageToDict(node.metadata) == {
        "a": 1,
        "b": 1.5,
        "c": "1",
        "d": True,
        "e": None,
        "f": ["x", {"g": "h"}],
        "i": "123456789012345678901",
    }


BOOTSTRAP_NODE = "envoy.config.core.v3.Node"


def socket(any_text: str) -> str:
    return f"transport_socket:\n  name: x\n  typed_config: {any_text}\n"


@pytest.mark.parametrize(
    "any_text",
    [
        f'{{"@type": {RAW_BUFFER}}}',
        '{"@type": type.googleapis.com/google.protobuf.Duration, value: 1.5s}',
        '{value: {a: b}, "@type": type.googleapis.com/google.protobuf.Struct}',
        '{name: a, connect_timeout: {seconds: 1}, "@type": x.example/envoy.config.cluster.v3.Cluster}',
        '{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: a/b.C, value: {x: [1]}}',
    ],
)
def test_any(any_text: str) -> None:
    document = yaml.safe_load(any_text)
    message = good(socket(any_text)).transport_socket.typed_config
    assert message.type_url == document["@type"]
    inner = message_class(message.type_url.rpartition("/")[2]).FromString(message.value)
    del document["@type"]
    if message.type_url.endswith(("Duration", "google.protobuf.Struct")):
        document = document["value"]
    if message.type_url.endswith("Cluster"):
        document["connect_timeout"] = "1s"
    assert inner == json_format.ParseDict(document, type(inner)())


@pytest.mark.parametrize(
    ("any_text", "path"),
    [
        ("{}", "@type"),
        ("{name: a}", "@type"),
        ("{name: a, b: {c: [d]}}", "@type"),
        ("{name: a, <<: [[b]]}", "@type"),
        ('{"@type": 5}', "@type"),
        ('{"@type": [a]}', "@type"),
        ('{"@type": envoy.config.cluster.v3.Cluster}', "@type"),
        ('{"@type": type.googleapis.com/envoy.config.cluster.v3.Clutser, a: {b: c}}', "@type"),
        (f'{{"@type": {RAW_BUFFER}, a: b}}', "a"),
        (f'{{a: b, "@type": {RAW_BUFFER}}}', "a"),
        ('{"@type": type.googleapis.com/google.protobuf.Duration, value: 5}', "value"),
        ('{"@type": type.googleapis.com/google.protobuf.Duration, valve: 5s}', "valve"),
        (
            f'{{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: {RAW_BUFFER}, value: {{a: 1}}}}',
            "value.a",
        ),
    ],
)
def test_bad_any(any_text: str, path: str) -> None:
    text = socket(any_text) + "alt_stat_name: [x]\n"
    assert [(line, place) for line, place, _ in refused(text)] == [
        (3, f"transport_socket.typed_config.{path}"),
        (4, "alt_stat_name"),
    ]


def test_an_unknown_type_gets_a_suggestion() -> None:
    _, problems = read(socket('{"@type": type.googleapis.com/envoy.extensions.filters.http.falt.v3.HTTPFault}'))
    assert problems[0].what_to_do == "did you mean 'envoy.extensions.filters.http.fault.v3.HTTPFault'?"


@pytest.mark.parametrize(
    "name", ["", "HTTPFault", "os.path", "envoy..x.Y", "envoy.config.cluster.v3.cluster", "a.B/../c"]
)
def test_names_that_are_no_messages(name: str) -> None:
    with pytest.raises(UnknownType):
        message_class(name)


def test_anchors_aliases_and_merge_keys() -> None:
    text = """
clusters:
- &base
  name: a
  connect_timeout: &timeout 3s
  load_assignment: {cluster_name: x}
- <<: *base
  name: b
- <<: [{name: c}, *base]
  connect_timeout: 1s
- name: d
  connect_timeout: *timeout
"""
    clusters = good(text, f"{BOOTSTRAP}.StaticResources").clusters
    assert [(cluster.name, cluster.connect_timeout.seconds) for cluster in clusters] == [
        ("a", 3),
        ("b", 3),
        ("c", 1),
        ("d", 3),
    ]
    assert [cluster.load_assignment.cluster_name for cluster in clusters] == ["x", "x", "x", ""]


def test_merge_keys_in_maps_and_structs() -> None:
    text = "filter_metadata:\n  a: &a {x: 1, y: 2}\n  b: {<<: *a, y: 3}\n"
    message = good(text, "envoy.config.core.v3.Metadata")
    assert json_format.MessageToDict(message.filter_metadata["b"]) == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "text", ["name: *nowhere", "health_checks: &a [*a]", "<<: 5\nname: a", "<<: [[{name: a}]]", "metadata: *x"]
)
def test_broken_aliases_and_merges_are_refused(text: str) -> None:
    assert len(refused(text)) == 1


def test_alias_bombs_are_bounded() -> None:
    lines = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"a{level}: &a{level} [" + ", ".join([f"*a{level - 1}"] * 10) + "]" for level in range(1, 10)]
    started = time.process_time()
    _, problems = read("metadata:\n  " + "\n  ".join(lines), BOOTSTRAP_NODE)
    assert any("aliases expand" in problem.problem for problem in problems)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["metadata: {a: %s%s}", "zzz: %s%s", "<<: %s%s"])
def test_deep_nesting_is_bounded(text: str) -> None:
    started = time.process_time()
    assert refused(text % ("[" * 100_000, "]" * 100_000), BOOTSTRAP_NODE)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("text", ["zzz: " + "[" * 1_500, "zzz: " + "[" * 100_000, "zzz:\n  " + "- " * 1_500 + "x"])
def test_nesting_that_is_only_read_past_is_refused_in_one_way_whatever_libyaml_does(text: str) -> None:
    assert any("is nested more than 1000 levels deep" in problem for _, _, problem in refused(text, BOOTSTRAP_NODE))


def test_as_deep_as_protobuf_goes_and_no_deeper() -> None:
    node = good("metadata: {a: " + "[" * 40 + "]" * 40 + "}", BOOTSTRAP_NODE)
    assert type(node).FromString(node.SerializeToString()) == node
    assert "too deep" in refused("metadata: {a: " + "[" * 60 + "]" * 60 + "}", BOOTSTRAP_NODE)[0][2]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "is empty"),
        ("# nothing\n", 1, "is empty"),
        ("~", 1, "is empty"),
        ("- a", 1, "must be a mapping"),
        ("text", 1, "must be a mapping"),
        ("name: a\n---\nname: b", 2, "second YAML document"),
        ("name: a\n\tb: c", 2, "is not YAML"),
        ("name: 'a\nb: c", 2, "is not YAML"),
        ("name: a\n? [b]\n: c", 2, "has a key that is not a name"),
        (b"name: a\nalt_stat_name: \xff", 2, "is not UTF-8"),
    ],
)
def test_texts_that_are_no_configuration(text: str | bytes, line: int, words: str) -> None:
    ((at, _, problem),) = refused(text)
    assert at == line
    assert words in problem


def test_json() -> None:
    text = '{\n\t"name": "a",\n\t"altStatName": "\\ud83d\\ude00\\/\\u0001\u2028\x7f\x85",\n\t"connect_timeout": "1s"\n}'
    assert good(text).alt_stat_name == "\U0001f600/\x01\u2028\x7f\x85"
    assert refused('{"name": "a",\n"bogus": 1}')[0][:2] == (2, "bogus")


def test_problems_in_a_dict_have_a_path_and_no_line() -> None:
    _, problems = read({"name": "a", "bogus": 1})
    assert str(problems[0]) == f"f.yaml: bogus: is not a field of {CLUSTER}; remove it"


def test_places() -> None:
    text = """\
clusters:
- &a
  name: a
  loadAssignment:
    endpoints:
    - lb_endpoints: []
- <<: *a
  metadata:
    filter_metadata: {"x.y[0]": {}}
- name: c
listeners: {name: l}
"""
    places = Places([Source(text, "f")])
    for path, line in {
        "clusters": 1,
        "clusters[0]": 2,
        "clusters[0].name": 3,
        "clusters[0].load_assignment.endpoints[0].lb_endpoints": 6,
        "clusters[1].name": 3,
        'clusters[1].metadata.filter_metadata["x.y[0]"]': 9,
        "clusters[2].connect_timeout": 10,
        "clusters[7].name": 1,
        "listeners[0].name": 11,
        "nothing": 1,
    }.items():
        assert places(path)[:2] == ("f", line), path


def test_places_in_merged_sources() -> None:
    places = Places([Source("node: {id: a}\nclusters: [{name: a}]", "file"), Source("\nclusters:\n- name: b", "flag")])
    assert places("node.id") == ("file", 1, 8)
    assert places("clusters[0].name") == ("file", 2, 13)
    assert places("clusters[1].name") == ("flag", 3, 3)


SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "bytes": st.binary(max_size=6),
    "bool": st.booleans(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "double": st.floats(allow_nan=False),
    "float": st.floats(allow_nan=False, width=32),
}
KINDS = {
    1: "double",
    2: "float",
    3: "int64",
    4: "uint64",
    5: "int32",
    8: "bool",
    9: "string",
    12: "bytes",
    13: "uint32",
}


@st.composite
def messages(draw: st.DrawFn, type_name: str, depth: int = 3) -> Any:
    """Any message of a type, with some of its fields set to anything that their types can hold."""
    message: Any = message_class(type_name)()
    fields = [
        field
        for field in message.DESCRIPTOR.fields
        if field.message_type is None or (depth and not field.message_type.GetOptions().map_entry)
    ]
    for field in (
        draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name)) if fields else ()
    ):
        count = draw(st.integers(0, 2)) if field.is_repeated else 1
        for _ in range(count):
            if field.message_type is not None:
                child = draw(values(field.message_type.full_name, depth - 1))
                if field.is_repeated:
                    getattr(message, field.name).append(child)
                else:
                    getattr(message, field.name).CopyFrom(child)
                    getattr(message, field.name).SetInParent()
                continue
            if field.enum_type is not None:
                value = draw(st.sampled_from([value.number for value in field.enum_type.values]))
            else:
                value = draw(SCALARS[KINDS[field.type]])
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def values(type_name: str, depth: int) -> st.SearchStrategy[Any]:
    """Messages, where protobuf's own have JSON forms of their own."""
    name = type_name.removeprefix("google.protobuf.")
    cls = message_class(type_name)
    if name == "Duration":
        return st.builds(cls, seconds=st.integers(0, 10**9), nanos=st.integers(0, 999_999_999))
    if name == "Any":
        return messages("envoy.config.core.v3.Node", depth).map(lambda inner: pack(cls, inner))
    if name in ("Struct", "Value", "ListValue", "FieldMask", "Timestamp", "Empty"):
        return st.builds(cls)
    return messages(type_name, depth)


def pack(cls: type[Message], inner: Message) -> Any:
    packed: Any = cls()
    packed.Pack(inner)
    return packed


@pytest.mark.parametrize(
    "type_name", [CLUSTER, "envoy.config.listener.v3.Listener", "envoy.config.route.v3.VirtualHost", BOOTSTRAP]
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_protobuf_writes_as_json_is_read_as_the_same_message(type_name: str, data: st.DataObject) -> None:
    message = data.draw(messages(type_name))
    document = json_format.MessageToDict(message, preserving_proto_field_name=data.draw(st.booleans()))
    if not document:
        return
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=1), document):
        assert good(text, type_name).SerializeToString(deterministic=True) == message.SerializeToString(
            deterministic=True
        )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5).filter(lambda key: key != "<<"), json_values, min_size=1, max_size=3))
def test_structs_are_read_as_protobuf_reads_them(document: dict[str, Any]) -> None:
    struct = message_class("google.protobuf.Struct")
    assert good({"metadata": document}, BOOTSTRAP_NODE).metadata == json_format.ParseDict(document, struct())


FIELDS = st.sampled_from(
    ["node", "metadata", "clusters", "name", "type", "value", "@type", "<<", "connect_timeout", "a"]
)
TYPES = st.sampled_from(
    ["x/google.protobuf.Value", "x/envoy.config.cluster.v3.Cluster", "x/xds.type.v3.TypedStruct", "0s"]
)
odd_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(odd_values, st.sampled_from([CLUSTER, BOOTSTRAP, BOOTSTRAP_NODE, f"{BOOTSTRAP}.StaticResources"]))
def test_odd_documents_are_refused_in_good_order(document: Any, type_name: str) -> None:
    nested = {"node": document, "clusters": [document], "transport_socket": {"typed_config": document}}
    for text in (document, nested, {"metadata": document, "typed_extension_protocol_options": {"a": document}}):
        message, problems = read(json.dumps(text), type_name)
        assert all(problem.line == 1 and problem.problem for problem in problems)
        assert type(message).FromString(message.SerializeToString()) == message


@settings(max_examples=200, deadline=None)
@given(st.text("abc:-[]{}&*<!?'\"|>,#% \n\t@", max_size=40))
def test_odd_texts_are_refused_in_good_order(text: str) -> None:
    for prefix in ("", "name: ", "metadata: {a: ", "node:\n  "):
        for type_name in (CLUSTER, BOOTSTRAP_NODE):
            _, problems = read(prefix + text, type_name)
            assert all(problem.line >= 1 for problem in problems)
            Places([Source(prefix + text, "f")])("metadata.a[0].b")


def test_a_thousand_clusters_take_little_time() -> None:
    endpoint = (
        "        - endpoint:\n            address:\n              socket_address:\n"
        "                address: 10.0.{0}.{1}\n                port_value: 80{1}\n"
    )
    text = "clusters:\n" + "".join(
        f"  - name: cluster-{number}\n    type: STATIC\n    connect_timeout: 0.25s\n    load_assignment:\n"
        f"      cluster_name: cluster-{number}\n      endpoints:\n      - lb_endpoints:\n"
        + "".join(endpoint.format(number % 250, 10 + index) for index in range(10))
        for number in range(1000)
    )
    started = time.process_time()
    message = good(text, f"{BOOTSTRAP}.StaticResources")
    assert time.process_time() - started < 2.0
    assert len(message.clusters) == 1000
    assert message.clusters[999].load_assignment.endpoints[0].lb_endpoints[9].endpoint.address.socket_address.port_value
