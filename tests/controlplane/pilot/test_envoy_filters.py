"""EnvoyFilters: what they change of what is generated, and that both data planes do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from tests.controlplane.pilot.behaviour import send, services
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import Scene, gateway, sidecar

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EXTENSION_CONFIG = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
PROXY = "127.0.0.1_15002"
MANAGER = "envoy.filters.network.http_connection_manager"
MUTATION = {
    "name": "envoy.filters.http.header_mutation",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {"request_mutations": [{"append": {"header": {"key": "x-filter", "value": "added"}}}]},
    },
}
VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: shop}
spec:
  hosts: [a]
  http:
  - {name: first, match: [{uri: {prefix: /first}}], route: [{destination: {host: a}}]}
  - {name: other, route: [{destination: {host: a}}]}
"""


def filter_of(*patches: dict[str, Any], name: str = "patch", namespace: str = "shop", **spec: Any) -> str:
    """The YAML of an EnvoyFilter."""
    return yaml.safe_dump(
        {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"configPatches": list(patches), **spec},
        }
    )


def patch(apply_to: str, operation: str, value: Any = None, **match: Any) -> dict[str, Any]:
    """One patch."""
    made: dict[str, Any] = {"operation": operation}
    if value is not None:
        made["value"] = value
    return {"applyTo": apply_to, "match": match, "patch": made} if match else {"applyTo": apply_to, "patch": made}


def manager_of(listener: Any) -> Any:
    """The connection manager of a listener's first filter chain."""
    return hcm_pb2.HttpConnectionManager.FromString(listener.filter_chains[0].filters[-1].typed_config.value)


def http_filters(*patches: dict[str, Any]) -> list[str]:
    """The names of the forward proxy's HTTP filters after patches."""
    scene = Scene(services(), filter_of(*patches))
    return [each.name.rpartition(".")[2] for each in manager_of(scene.listeners(sidecar())[PROXY]).http_filters]


def at(name: str, sub: str) -> dict[str, Any]:
    """A match of an HTTP filter."""
    return {"filterChain": {"filter": {"name": name, "subFilter": {"name": sub}}}}


@pytest.mark.parametrize(
    ("operation", "match", "expected"),
    [
        ("INSERT_FIRST", None, ["header_mutation", "fault", "cors", "dynamic_forward_proxy", "router"]),
        ("ADD", None, ["fault", "cors", "dynamic_forward_proxy", "header_mutation", "router"]),
        ("INSERT_BEFORE", "router", ["fault", "cors", "dynamic_forward_proxy", "header_mutation", "router"]),
        ("INSERT_BEFORE", "fault", ["header_mutation", "fault", "cors", "dynamic_forward_proxy", "router"]),
        ("INSERT_AFTER", "fault", ["fault", "header_mutation", "cors", "dynamic_forward_proxy", "router"]),
        ("INSERT_AFTER", "nothing", ["fault", "cors", "dynamic_forward_proxy", "router"]),
        ("REPLACE", "fault", ["header_mutation", "cors", "dynamic_forward_proxy", "router"]),
    ],
)
def test_http_filters_are_put_where_the_operation_says(operation: str, match: str | None, expected: list[str]) -> None:
    where = {} if match is None else {"listener": at(MANAGER, f"envoy.filters.http.{match}")}
    assert http_filters(patch("HTTP_FILTER", operation, MUTATION, **where)) == expected


def test_http_filters_are_removed() -> None:
    assert http_filters(patch("HTTP_FILTER", "REMOVE", listener=at(MANAGER, "envoy.filters.http.cors"))) == [
        "fault",
        "dynamic_forward_proxy",
        "router",
    ]


def test_a_merge_changes_single_fields_within_packed_messages() -> None:
    value = {
        "name": MANAGER,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stream_idle_timeout": "0.5s",
            "use_remote_address": True,
            "normalize_path": False,
            "common_http_protocol_options": {"idle_timeout": "30s"},
        },
    }
    match = {"listener": {"filterChain": {"filter": {"name": MANAGER}}}}
    scene = Scene(services(), filter_of(patch("NETWORK_FILTER", "MERGE", value, **match)))
    manager = manager_of(scene.listeners(sidecar())[PROXY])
    assert manager.stream_idle_timeout.ToMilliseconds() == 500
    assert manager.use_remote_address.value and not manager.normalize_path.value
    assert manager.common_http_protocol_options.idle_timeout.seconds == 30
    assert manager.stat_prefix == "outbound_127.0.0.1_15002"
    assert manager.rds.route_config_name == "http_proxy"


def test_a_duration_is_replaced_as_a_whole() -> None:
    fast = patch("CLUSTER", "MERGE", {"connect_timeout": "0.25s"}, context="SIDECAR_OUTBOUND", cluster={"service": A})
    scene = Scene(services(), filter_of(fast))
    assert cluster(scene, f"outbound|80||{A}").connect_timeout.ToMilliseconds() == 250
    assert cluster(scene, "outbound|80||b.shop.svc.cluster.local").connect_timeout.ToMilliseconds() == 10000


A = "a.shop.svc.cluster.local"


def cluster(scene: Scene, name: str) -> Any:
    """A cluster of the client's."""
    return cluster_pb2.Cluster.FromString(scene.pilot.resources(sidecar(), CLUSTER)[name].value)


def test_clusters_are_added_and_removed() -> None:
    added = {"name": "own", "type": "STATIC", "connect_timeout": "1s"}
    gone = patch("CLUSTER", "REMOVE", cluster={"name": f"outbound|80||{A}"})
    scene = Scene(services(), filter_of(patch("CLUSTER", "ADD", added), gone))
    found = scene.pilot.resources(sidecar(), CLUSTER)
    assert "own" in found and f"outbound|80||{A}" not in found


def test_listeners_and_their_parts_are_patched() -> None:
    extra = {
        "name": "extra",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}},
        "filter_chains": [{}],
    }
    scene = Scene(
        services(),
        filter_of(
            patch("LISTENER", "ADD", extra, context="SIDECAR_OUTBOUND"),
            patch("LISTENER", "MERGE", {"stat_prefix": "mine"}, listener={"portNumber": 15002}),
            patch("FILTER_CHAIN", "MERGE", {"name": "chain"}, listener={"name": PROXY}),
            patch("LISTENER_FILTER", "ADD", {"name": "envoy.filters.listener.tls_inspector"}, listener={"name": PROXY}),
        ),
    )
    found = scene.listeners(sidecar())
    assert found["extra"].address.socket_address.port_value == 9
    assert (found[PROXY].stat_prefix, found[PROXY].filter_chains[0].name) == ("mine", "chain")
    assert [each.name for each in found[PROXY].listener_filters] == ["envoy.filters.listener.tls_inspector"]
    gone = Scene(services(), filter_of(patch("LISTENER", "REMOVE", listener={"portNumber": 15002})))
    assert PROXY not in gone.listeners(sidecar())


def test_only_selected_proxies_are_patched_in_their_context_and_version() -> None:
    value = {"stat_prefix": "mine"}

    def patched(node: Any, text: str) -> bool:
        return any(each.stat_prefix == "mine" for each in Scene(services(), EDGE, text).listeners(node).values())

    everywhere = patch("LISTENER", "MERGE", value)
    labelled = filter_of(everywhere, workloadSelector={"labels": {"app": "client"}})
    assert patched(sidecar(LABELS={"app": "client"}), labelled)
    assert not patched(sidecar(LABELS={"app": "other"}), labelled)
    assert not patched(sidecar(namespace="away"), filter_of(everywhere))
    assert patched(sidecar(namespace="away"), filter_of(everywhere, namespace="istio-system"))
    for context, of_sidecar, of_gateway in (
        ("SIDECAR_OUTBOUND", True, False),
        ("SIDECAR_INBOUND", False, False),
        ("GATEWAY", False, True),
        ("ANY", True, True),
    ):
        text = filter_of(patch("LISTENER", "MERGE", value, context=context))
        assert patched(sidecar(), text) is of_sidecar
        assert patched(gateway({"app": "edge"}), text) is of_gateway
    versions = filter_of(
        patch("LISTENER", "MERGE", value, proxy={"proxyVersion": r"^1\.2.*", "metadata": {"OWN": "x"}})
    )
    assert patched(sidecar(ISTIO_VERSION="1.24.0", OWN="x"), versions)
    assert not patched(sidecar(ISTIO_VERSION="1.24.0", OWN="y"), versions)
    assert not patched(sidecar(ISTIO_VERSION="1.3.0", OWN="x"), versions)


EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
"""


def test_priority_and_root_namespace_decide_who_comes_first() -> None:
    def named(name: str) -> dict[str, Any]:
        return patch("HTTP_FILTER", "INSERT_FIRST", {**MUTATION, "name": name})

    scene = Scene(
        services(),
        filter_of(named("late"), name="a", priority=10),
        filter_of(named("early"), name="b", priority=-10),
        filter_of(named("root"), name="c", namespace="istio-system", priority=100),
    )
    names = [each.name for each in manager_of(scene.listeners(sidecar())[PROXY]).http_filters]
    assert names[:3] == ["late", "early", "root"]  # each was put first, the root namespace's before all others


def test_an_extensions_configuration_is_served_by_its_name() -> None:
    value = {"name": "mine", "typed_config": MUTATION["typed_config"]}
    found = Scene(filter_of(patch("EXTENSION_CONFIG", "ADD", value))).pilot.resources(sidecar(), EXTENSION_CONFIG)
    assert extension_pb2.TypedExtensionConfig.FromString(found["mine"].value).typed_config.type_url.endswith("Mutation")


def test_a_filter_that_goes_leaves_what_was_there_before() -> None:
    scene = Scene(services())
    before = dict(scene.listeners(sidecar()))
    text = filter_of(patch("LISTENER", "MERGE", {"stat_prefix": "mine"}))
    scene.apply(text)
    assert scene.listeners(sidecar())[PROXY].stat_prefix == "mine"
    scene.remove(text)
    assert scene.listeners(sidecar()) == before


def test_a_patch_is_among_the_causes_of_what_it_changed() -> None:
    scene = Scene(services(), filter_of(patch("LISTENER", "MERGE", {"stat_prefix": "mine"})))
    causes = scene.pilot.causes(sidecar(), "type.googleapis.com/envoy.config.listener.v3.Listener", PROXY)
    assert ("EnvoyFilter", "shop", "patch") in causes


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A sidecar with patches of everything that requests meet."""
    route = {"request_headers_to_add": [{"header": {"key": "x-route", "value": "merged"}}]}
    answer = {"name": "added", "match": {"path": "/added"}, "direct_response": {"status": 418}}
    host = {"name": "whole", "domains": ["whole.example"], "routes": [{**answer, "match": {"prefix": "/"}}]}
    everywhere = {"response_headers_to_add": [{"header": {"key": "x-configuration", "value": "merged"}}]}
    vhost = {"name": f"{A}:80"}
    scene = Scene(
        services(),
        VIRTUAL_SERVICE,
        filter_of(
            patch("HTTP_FILTER", "INSERT_FIRST", MUTATION, context="SIDECAR_OUTBOUND"),
            patch("HTTP_ROUTE", "MERGE", route, routeConfiguration={"vhost": {**vhost, "route": {"name": "first"}}}),
            patch("HTTP_ROUTE", "INSERT_FIRST", answer, routeConfiguration={"vhost": vhost}),
            patch("VIRTUAL_HOST", "ADD", host, routeConfiguration={"name": "http_proxy"}),
            patch("ROUTE_CONFIGURATION", "MERGE", everywhere, routeConfiguration={"name": "http_proxy"}),
        ),
    )
    with running(request.param, scene, sidecar(), tmp_path_factory.mktemp(request.param)) as made:
        yield made


def test_both_data_planes_do_what_was_patched(plane: Plane) -> None:
    port = plane.ports[PROXY]
    status, headers, _ = send(port, "a", {"path": "/first"})
    assert (status, headers["x-configuration"]) == (200, "merged")
    assert plane.servers.requests[-1]["headers"]["x-filter"] == "added"
    assert plane.servers.requests[-1]["headers"]["x-route"] == "merged"
    assert send(port, "a", {"path": "/added"})[0] == 418
    assert send(port, "whole.example", {})[0] == 418
    send(port, "a", {"path": "/other"})
    assert "x-route" not in plane.servers.requests[-1]["headers"]
