from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from sidecar.config.problems import ConfigurationError
from sidecar.config.source import Source

BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
CLUSTER = "envoy.config.cluster.v3.Cluster"
ROUTE = "envoy.config.route.v3.Route"
RAW_BUFFER = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"


def node_of(type_name: str, document: dict[str, Any], path: str = "") -> Node:
    context = Context("test.yaml")
    message = Source(document, "test.yaml").read(message_class(type_name)(), context.problems)
    assert context.problems == []
    return Node(message, path, context)


def problems_of(node: Node) -> list[tuple[str, str]]:
    with pytest.raises(ConfigurationError) as caught:
        node.context.finish()
    return [(problem.path, problem.problem) for problem in caught.value.problems]


def test_a_field_that_nobody_read_is_refused_by_name_and_place() -> None:
    root = node_of(BOOTSTRAP, {"static_resources": {"clusters": [{"name": "a"}, {"name": "b", "alt_stat_name": "c"}]}})
    static = root.child("static_resources")
    assert static is not None
    for cluster in static.children("clusters"):
        cluster.get("name")
    assert problems_of(root) == [("static_resources.clusters[1].alt_stat_name", "is not implemented by Mizzen")]


def test_a_message_that_nobody_opened_counts_as_one_field() -> None:
    root = node_of(BOOTSTRAP, {"node": {"id": "a", "cluster": "b"}, "admin": {"profile_path": "x"}})
    assert problems_of(root) == [("node", "is not implemented by Mizzen"), ("admin", "is not implemented by Mizzen")]


def test_when_everything_was_read_there_is_nothing_to_say() -> None:
    root = node_of(BOOTSTRAP, {"node": {"id": "a"}})
    node = root.child("node")
    assert node is not None
    assert node.get("id") == "a"
    root.context.finish()


def test_asking_whether_a_field_is_set_is_not_reading_it() -> None:
    cluster = node_of(CLUSTER, {"name": "a", "type": "EDS", "health_checks": [{}], "connect_timeout": "1s"})
    assert (
        cluster.has("name") and cluster.has("type") and cluster.has("health_checks") and cluster.has("connect_timeout")
    )
    assert cluster.which("cluster_discovery_type") == "type"
    assert not cluster.has("alt_stat_name") and not cluster.has("load_assignment") and not cluster.has("filters")
    assert len(problems_of(cluster)) == 4


def test_scalars_enums_and_wrappers() -> None:
    cluster = node_of(
        CLUSTER,
        {"name": "a", "lb_policy": "MAGLEV", "per_connection_buffer_limit_bytes": 5, "connect_timeout": "0.25s"},
    )
    assert cluster.get("name") == "a"
    assert cluster.enum("lb_policy") == "MAGLEV"
    assert cluster.wrapped("per_connection_buffer_limit_bytes", 7) == 5
    assert cluster.wrapped("max_requests_per_connection", 7) == 7
    assert cluster.duration("connect_timeout") == 0.25
    assert cluster.duration("dns_refresh_rate", 5.0) == 5.0
    assert cluster.duration("dns_refresh_rate") is None
    cluster.context.finish()


def test_repeated_scalars_are_tuples() -> None:
    host = node_of("envoy.config.route.v3.VirtualHost", {"domains": ["a", "b"]})
    assert host.get("domains") == ("a", "b")
    policy = node_of("envoy.config.core.v3.GrpcMethodList", {"services": [{"name": "s", "method_names": ["m"]}]})
    assert policy.children("services")[0].get("method_names") == ("m",)


def test_percents_fractions_and_runtime_values() -> None:
    match = node_of(
        "envoy.config.route.v3.RouteMatch",
        {"runtime_fraction": {"default_value": {"numerator": 3, "denominator": "TEN_THOUSAND"}, "runtime_key": "k"}},
    )
    assert match.runtime_fraction("runtime_fraction") == (3, 10_000)
    match.context.finish()
    only_key = node_of("envoy.config.route.v3.RouteMatch", {"runtime_fraction": {"runtime_key": "k"}})
    assert only_key.runtime_fraction("runtime_fraction", (1, 1)) == (1, 1)
    common = node_of(f"{CLUSTER}.CommonLbConfig", {"healthy_panic_threshold": {"value": 40.5}})
    assert common.percent("healthy_panic_threshold", 50.0) == 40.5
    delay = node_of("envoy.extensions.filters.common.fault.v3.FaultDelay", {"percentage": {"numerator": 2}})
    assert delay.fraction("percentage") == (2, 100)
    bias = node_of(
        f"{CLUSTER}.LeastRequestLbConfig", {"active_request_bias": {"default_value": 1.5, "runtime_key": "k"}}
    )
    assert bias.runtime_value("active_request_bias", 1.0) == 1.5
    flag = node_of(f"{CLUSTER}.SlowStartConfig", {})
    assert flag.runtime_value("aggression", 1.0) == 1.0


def test_maps_come_in_the_order_of_their_keys() -> None:
    metadata = node_of("envoy.config.core.v3.Metadata", {"filter_metadata": {"b": {"x": 1}, "a": {}}}, "metadata")
    nodes = metadata.map("filter_metadata")
    assert list(nodes) == ["a", "b"]
    assert nodes["b"].path == 'metadata.filter_metadata["b"]'
    locator = node_of("envoy.service.discovery.v3.ResourceLocator", {"dynamic_parameters": {"y": "2", "x": "1"}})
    assert list(locator.scalars_map("dynamic_parameters").items()) == [("x", "1"), ("y", "2")]


def test_structs_become_plain_python() -> None:
    node = node_of("envoy.config.core.v3.Node", {"metadata": {"a": [1, 1.5, None, True, {"b": "c"}], "d": {}}})
    assert node.struct("metadata") == {"a": [1, 1.5, None, True, {"b": "c"}], "d": {}}
    assert isinstance(node.struct("metadata")["a"][0], int)  # type: ignore[index]


def test_a_child_asked_for_twice_is_the_same_node() -> None:
    root = node_of(BOOTSTRAP, {"node": {"id": "a", "cluster": "b"}})
    first, second = root.child("node"), root.child("node")
    assert first is not None and second is not None
    first.get("id")
    second.get("cluster")
    root.context.finish()


@pytest.mark.parametrize("wrong", ["no_such_field", "Name"])
def test_a_builder_that_asks_for_an_unknown_field_is_mistaken(wrong: str) -> None:
    with pytest.raises(LookupError):
        node_of(CLUSTER, {}).get(wrong)


def test_a_builder_that_asks_by_the_wrong_method_is_mistaken() -> None:
    cluster = node_of(CLUSTER, {"name": "a"})
    for ask in (cluster.child, cluster.children, cluster.map, cluster.scalars_map):
        with pytest.raises(TypeError):
            ask("name")
    with pytest.raises(TypeError):
        cluster.get("load_assignment")
    with pytest.raises(TypeError):
        cluster.enum("name")


def any_of(type_name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{type_name}", **fields}


def test_an_extension_is_unpacked_and_its_fields_are_watched() -> None:
    action = node_of(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        {"name": "fault", "typed_config": any_of(FAULT, max_active_faults=3, upstream_cluster="u")},
        "http_filters[0]",
    )
    fault = action.extension(known=[FAULT])
    assert fault is not None
    assert fault.type_name == FAULT
    assert fault.type_url == f"type.googleapis.com/{FAULT}"
    assert fault.wrapped("max_active_faults", None) == 3
    assert problems_of(action) == [("http_filters[0].typed_config.upstream_cluster", "is not implemented by Mizzen")]


def test_an_extension_that_is_not_implemented_lists_what_is() -> None:
    socket = node_of("envoy.config.core.v3.TransportSocket", {"name": "x", "typed_config": any_of(RAW_BUFFER)}, "t")
    assert socket.extension(known=[FAULT]) is None
    with pytest.raises(ConfigurationError) as caught:
        socket.context.finish()
    (problem,) = caught.value.problems
    assert (problem.path, problem.problem) == ("t.typed_config", f"{RAW_BUFFER} is not implemented by Mizzen")
    assert FAULT in problem.what_to_do


def test_an_extension_without_configuration_is_refused() -> None:
    socket = node_of("envoy.config.core.v3.TransportSocket", {"name": "x"}, "t")
    assert socket.extension() is None
    assert [path for path, _ in problems_of(socket)] == ["t.typed_config"]


def test_an_any_of_an_unknown_type_is_refused() -> None:
    socket = node_of("envoy.config.core.v3.TransportSocket", {"name": "x", "typed_config": any_of(RAW_BUFFER)}, "t")
    socket.message.typed_config.type_url = "type.googleapis.com/envoy.extensions.nothing.v3.Nothing"  # type: ignore[attr-defined]
    assert socket.extension() is None
    assert [path for path, _ in problems_of(socket)] == ["t.typed_config.@type"]


def test_an_any_whose_bytes_do_not_fit_is_refused() -> None:
    socket = node_of("envoy.config.core.v3.TransportSocket", {"name": "x", "typed_config": any_of(FAULT)}, "t")
    socket.message.typed_config.value = b"\xff\xff"  # type: ignore[attr-defined]
    assert socket.extension() is None
    assert problems_of(socket) == [("t.typed_config", f"does not hold a {FAULT}")]


@pytest.mark.parametrize("typed_struct", ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"])
def test_a_typed_struct_of_a_known_type_becomes_that_message(typed_struct: str) -> None:
    value = any_of(typed_struct, type_url=f"type.googleapis.com/{FAULT}", value={"max_active_faults": 3, "headers": []})
    socket = node_of("envoy.config.core.v3.TransportSocket", {"name": "x", "typed_config": value}, "t")
    fault = socket.extension(known=[FAULT])
    assert fault is not None
    assert fault.type_name == FAULT
    assert fault.wrapped("max_active_faults", None) == 3
    assert fault.path == "t.typed_config.value"
    socket.context.finish()


def test_a_typed_struct_of_another_type_comes_as_itself() -> None:
    value = any_of("xds.type.v3.TypedStruct", type_url="type.example.com/my.Filter", value={"ratio": 0.5})
    socket = node_of("envoy.config.core.v3.TransportSocket", {"name": "x", "typed_config": value})
    mine = socket.extension(known=[FAULT], structs=True)
    assert mine is not None
    assert mine.get("type_url") == "type.example.com/my.Filter"
    assert mine.struct("value") == {"ratio": 0.5}
    socket.context.finish()


def test_an_ignored_field_is_warned_about_once() -> None:
    root = node_of(BOOTSTRAP, {"static_resources": {"clusters": [{"alt_stat_name": "x"}, {"alt_stat_name": "y"}, {}]}})
    static = root.child("static_resources")
    assert static is not None
    for cluster in static.children("clusters"):
        cluster.ignore("alt_stat_name", "nothing shows it")
    root.context.finish()
    assert root.context.warnings == [
        "test.yaml: static_resources.clusters[0].alt_stat_name: is ignored: nothing shows it"
    ]


def test_duplicate_and_dangling_names_are_refused() -> None:
    root = node_of(BOOTSTRAP, {"static_resources": {"clusters": [{"name": "apple"}, {"name": "apple"}]}})
    static = root.child("static_resources")
    assert static is not None
    clusters = static.children("clusters")
    for cluster in clusters:
        root.context.declare("cluster", cluster.get("name"), cluster)
    root.context.reference("cluster", "apple", clusters[0])
    root.context.reference("cluster", "aple", clusters[1], "name")
    with pytest.raises(ConfigurationError) as caught:
        root.context.finish()
    duplicate, dangling = caught.value.problems
    assert duplicate.path == "static_resources.clusters[1].name"
    assert "static_resources.clusters[0]" in duplicate.problem
    assert dangling.problem == "there is no cluster called 'aple'"
    assert dangling.what_to_do == "did you mean 'apple'?"


def test_all_problems_come_at_once_with_their_lines() -> None:
    lines = {"name": 4, "lb_policy": 2}
    context = Context("envoy.yaml", lambda path: ("envoy.yaml", lines[path], 1))
    cluster = Node(message_class(CLUSTER)(name="a", lb_policy=1), "", context)
    cluster.refuse("is not to my taste", "name", "choose another")
    with pytest.raises(ConfigurationError) as caught:
        context.finish()
    assert str(caught.value).splitlines()[0] == "envoy.yaml:2: lb_policy: is not implemented by Mizzen; remove it"
    assert "envoy.yaml:4: name: is not to my taste; choose another" in str(caught.value)


def test_an_exception_in_a_builder_gives_way_to_known_problems() -> None:
    context = Context()
    with pytest.raises(ConfigurationError, match="is broken"), context:
        context.refuse("a", "is broken")
        raise KeyError("a consequence")
    with pytest.raises(KeyError, match="a mistake"), Context():
        raise KeyError("a mistake")


def test_settling_a_message_early_refuses_what_was_not_read_once() -> None:
    root = node_of(BOOTSTRAP, {"static_resources": {"clusters": [{"name": "a"}]}})
    static = root.child("static_resources")
    assert static is not None
    static.children("clusters")[0].settle()
    assert problems_of(root) == [("static_resources.clusters[0].name", "is not implemented by Mizzen")]
