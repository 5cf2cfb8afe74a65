"""What a proxy sees of the mesh: exportTo, Sidecars, short names, and which DestinationRule holds."""

from __future__ import annotations

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.resource import ResourceKey
from controlplane.pilot.generators import CLUSTER, ENDPOINTS
from controlplane.pilot.translator import Pilot
from controlplane.pilot.view import View, scope_key
from tests.controlplane.pilot.mesh import change, clusters, mesh, proxy


def seen(pilot: Pilot, node: Proxy) -> set[str]:
    """The hosts of a proxy's outbound clusters."""
    return {name.split("|")[3] for name in clusters(pilot, node) if name.startswith("outbound|")}


def view(pilot: Pilot, node: Proxy) -> View:
    return View(scope_key(node, pilot._mesh), pilot._mesh)


def entry(name: str, host: str, more: str = "") -> str:
    return (
        f"kind: ServiceEntry\nmetadata: {name}\nspec: {{hosts: [{host}], resolution: STATIC, location: MESH_INTERNAL,"
        f" ports: [{{number: 80, name: http, protocol: HTTP}}]{more}}}\n"
    )


def service(name: str, more: str = "", port: int = 80) -> str:
    return f"kind: Service\nmetadata: {name}\nspec: {{ports: [{{name: http, port: {port}}}]{more}}}\n"


@pytest.mark.parametrize(
    ("export_to", "here", "there", "elsewhere"),
    [
        ("['*']", True, True, True),
        ("['.']", True, False, False),
        ("['.', b]", True, True, False),
        ("[b]", False, True, False),
    ],
)
def test_export_to(export_to: str, here: bool, there: bool, elsewhere: bool) -> None:
    pilot = mesh(entry("a/x", "x.example", f", exportTo: {export_to}"))
    found = [bool(seen(pilot, proxy(namespace=namespace))) for namespace in ("a", "b", "c")]
    assert found == [here, there, elsewhere]


def test_services_by_annotation_and_the_mesh_by_default() -> None:
    private = service("a/x").replace("a/x", "{name: x, namespace: a, annotations: {networking.istio.io/exportTo: '.'}}")
    pilot = mesh(private + "---\n" + service("a/y"))
    assert seen(pilot, proxy(namespace="b")) == {"y.a.svc.cluster.local"}
    mesh_config = "kind: ConfigMap\nmetadata: istio-system/istio\ndata: {mesh: 'defaultServiceExportTo: [\".\"]'}"
    changes = change(pilot, mesh_config)
    assert CLUSTER in pilot.affected(changes, proxy(namespace="b"))
    assert seen(pilot, proxy(namespace="b")) == set()
    assert seen(pilot, proxy(namespace="a")) == {"x.a.svc.cluster.local", "y.a.svc.cluster.local"}
    change(pilot, gone=[ResourceKey("ConfigMap", "istio-system", "istio")])
    assert seen(pilot, proxy(namespace="b")) == {"y.a.svc.cluster.local"}


def test_of_two_services_of_one_host_ones_own_is_taken() -> None:
    pilot = mesh(entry("a/x", "x.example") + "---\n" + entry("b/x", "x.example").replace("80", "81"))
    assert {name for name in clusters(pilot, proxy(namespace="b")) if "x.example" in name} == {"outbound|81||x.example"}
    assert {name for name in clusters(pilot, proxy(namespace="a")) if "x.example" in name} == {"outbound|80||x.example"}


def test_service_entries_of_one_host_in_one_namespace_are_one_service() -> None:
    second = entry("a/second", "x.example", ", endpoints: [{address: 10.0.0.2}]").replace("80", "81")
    pilot = mesh(entry("a/first", "x.example", ", endpoints: [{address: 10.0.0.1}]") + "---\n" + second)
    names = {name for name in clusters(pilot, proxy()) if "x.example" in name}
    assert names == {"outbound|80||x.example", "outbound|81||x.example"}
    change(pilot, gone=[ResourceKey("ServiceEntry", "a", "first")])
    assert {name for name in clusters(pilot, proxy()) if "x.example" in name} == {"outbound|81||x.example"}


SERVICES = "---\n".join(
    (
        service("a/one"),
        service("a/two"),
        service("b/three"),
        service("b/four", port=8080),
        entry("b/wild", "'*.wild.example'"),
        entry("istio-system/shared", "shared.example"),
    )
)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("['*/*']", {"one.a", "two.a", "three.b", "four.b", "*.wild.example", "shared.example"}),
        ("['./*']", {"one.a", "two.a"}),
        ("['b/*', './one.a.svc.cluster.local']", {"one.a", "three.b", "four.b", "*.wild.example"}),
        ("['*/three.b.svc.cluster.local']", {"three.b"}),
        ("['b/*.wild.example']", {"*.wild.example"}),
        ("['~/*']", set()),
        ("['istio-system/*']", {"shared.example"}),
    ],
)
def test_a_sidecar_narrows(hosts: str, expected: set[str]) -> None:
    pilot = mesh(SERVICES + f"---\nkind: Sidecar\nmetadata: a/default\nspec: {{egress: [{{hosts: {hosts}}}]}}\n")
    full = {name if "example" in name else f"{name}.svc.cluster.local" for name in expected}
    assert seen(pilot, proxy(namespace="a")) == full
    assert len(seen(pilot, proxy(namespace="b"))) == 6
    assert len(seen(pilot, proxy(namespace="a", type=ProxyType.ROUTER))) == 6


def test_the_closest_sidecar_holds() -> None:
    pilot = mesh(
        SERVICES
        + "---\nkind: Sidecar\nmetadata: istio-system/default\nspec: {egress: [{hosts: ['istio-system/*']}]}\n"
        + "---\nkind: Sidecar\nmetadata: a/default\nspec: {egress: [{hosts: ['./one.a.svc.cluster.local']}]}\n"
        + "---\nkind: Sidecar\nmetadata: a/selecting\n"
        + "spec: {workloadSelector: {labels: {app: x}}, egress: [{hosts: ['./two.a.svc.cluster.local']}]}\n"
    )
    assert seen(pilot, proxy(namespace="a")) == {"one.a.svc.cluster.local"}
    assert seen(pilot, proxy(namespace="a", labels={"app": "x"})) == {"two.a.svc.cluster.local"}
    assert seen(pilot, proxy(namespace="b")) == {"shared.example"}
    changes = change(pilot, gone=[ResourceKey("Sidecar", "a", "selecting")])
    assert CLUSTER in pilot.affected(changes, proxy(namespace="a", labels={"app": "x"}))
    assert seen(pilot, proxy(namespace="a", labels={"app": "x"})) == {"one.a.svc.cluster.local"}


def test_egress_on_a_port_has_the_services_of_that_port() -> None:
    pilot = mesh(
        SERVICES
        + "---\nkind: Sidecar\nmetadata: a/default\nspec:\n  egress:\n"
        + "  - {port: {number: 8080, protocol: HTTP, name: x}, bind: 127.0.0.1, hosts: ['*/*']}\n"
        + "  - {hosts: ['./*']}\n"
    )
    first, second = view(pilot, proxy(namespace="a")).egress
    assert set(first.services) == {"four.b.svc.cluster.local"}
    assert (first.bind, first.port.number if first.port else 0) == ("127.0.0.1", 8080)
    assert set(second.services) == {"one.a.svc.cluster.local", "two.a.svc.cluster.local"}


def test_what_a_virtual_service_leads_to_on_a_port_is_seen_with_it() -> None:
    pilot = mesh(
        service("a/front", port=9080)
        + "---\n"
        + "kind: Service\nmetadata: b/other\nspec: {ports: [{name: http, port: 9080}]}\n---\n"
        + "kind: Service\nmetadata: b/elsewhere\nspec: {ports: [{name: http, port: 9081}]}\n---\n"
        + "kind: VirtualService\nmetadata: a/front\nspec: {hosts: [front], http: [{route: ["
        + "{destination: {host: other.b.svc.cluster.local}, weight: 1},"
        + " {destination: {host: elsewhere.b.svc.cluster.local}, weight: 1}]}]}\n---\n"
        + "kind: Sidecar\nmetadata: a/default\n"
        + "spec: {egress: [{port: {number: 9080, name: h, protocol: HTTP}, bind: 127.0.0.1, hosts: ['./*']}]}"
    )
    assert "outbound|9080||other.b.svc.cluster.local" in clusters(pilot, proxy(namespace="a"))
    assert "elsewhere.b.svc.cluster.local" not in seen(pilot, proxy(namespace="a"))


def test_what_a_virtual_service_leads_to_is_seen_with_it() -> None:
    pilot = mesh(
        SERVICES + "---\nkind: Sidecar\nmetadata: a/default\nspec: {egress: [{hosts: ['./one.a.svc.cluster.local']}]}\n"
    )
    node = proxy(namespace="a")
    assert seen(pilot, node) == {"one.a.svc.cluster.local"}
    changes = change(
        pilot,
        "kind: VirtualService\nmetadata: a/one\n"
        "spec: {hosts: [one], http: [{route: [{destination: {host: three.b.svc.cluster.local}}]}]}",
    )
    assert CLUSTER in pilot.affected(changes, node)
    assert seen(pilot, node) == {"one.a.svc.cluster.local", "three.b.svc.cluster.local"}
    assert [resource.name for resource in view(pilot, node).virtual_services()] == ["one"]


@pytest.mark.parametrize(
    ("host", "full"),
    [
        ("one", "one.a.svc.cluster.local"),
        ("nobody", "nobody.a.svc.cluster.local"),
        ("three.b", "three.b.svc.cluster.local"),
        ("three.b.svc", "three.b.svc.cluster.local"),
        ("Three.B.svc.cluster.local", "three.b.svc.cluster.local"),
        ("shared.example", "shared.example"),
        ("no.such.host", "no.such.host"),
        ("*.wild.example", "*.wild.example"),
    ],
)
def test_short_names(host: str, full: str) -> None:
    assert view(mesh(SERVICES), proxy()).resolve(host, "a") == full


def test_a_wildcard_covers_what_no_name_is() -> None:
    found = view(mesh(SERVICES), proxy())
    service_found = found.service("deep.in.wild.example")
    assert service_found is not None and service_found.hostname == "*.wild.example"
    assert found.service("wild.example") is None


def rule(name: str, host: str, balancer: str, more: str = "") -> str:
    return (
        f"---\nkind: DestinationRule\nmetadata: {name}\n"
        f"spec: {{host: {host}, trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}{more}}}\n"
    )


def balancers(pilot: Pilot, host: str = "three.b.svc.cluster.local") -> list[str]:
    """How proxies of a, b and c balance a service of b."""
    found = []
    for namespace in ("a", "b", "c"):
        cluster = clusters(pilot, proxy(namespace=namespace))[f"outbound|80||{host}"]
        found.append(cluster.LbPolicy.Name(cluster.lb_policy))
    return found


def test_destination_rules_of_the_client_go_before_those_of_the_service_and_of_the_root() -> None:
    pilot = mesh(SERVICES)
    host = "three.b.svc.cluster.local"
    assert balancers(pilot) == ["LEAST_REQUEST"] * 3
    change(pilot, rule("istio-system/x", "'*.b.svc.cluster.local'", "ROUND_ROBIN").lstrip("-\n"))
    assert balancers(pilot) == ["ROUND_ROBIN"] * 3
    change(pilot, rule("b/x", host, "RANDOM").lstrip("-\n"))
    assert balancers(pilot) == ["RANDOM"] * 3
    change(pilot, rule("a/x", host, "LEAST_REQUEST").lstrip("-\n"))
    assert balancers(pilot) == ["LEAST_REQUEST", "RANDOM", "RANDOM"]
    change(pilot, rule("b/x", host, "RANDOM", ", exportTo: ['.']").lstrip("-\n"))
    assert balancers(pilot) == ["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"]


def test_an_exact_host_goes_before_a_wildcard_of_the_same_namespace() -> None:
    pilot = mesh(SERVICES + rule("b/wide", "'*.svc.cluster.local'", "RANDOM") + rule("b/x", "three", "ROUND_ROBIN"))
    assert balancers(pilot) == ["ROUND_ROBIN"] * 3
    change(pilot, gone=[ResourceKey("DestinationRule", "b", "x")])
    assert balancers(pilot) == ["RANDOM"] * 3


def test_a_rule_with_a_selector_is_for_those_workloads_of_its_namespace() -> None:
    selecting = ", workloadSelector: {matchLabels: {app: x}}"
    pilot = mesh(SERVICES + rule("a/plain", "three.b.svc.cluster.local", "RANDOM"))
    change(pilot, rule("a/some", "three.b.svc.cluster.local", "ROUND_ROBIN", selecting).lstrip("-\n"))
    name = "outbound|80||three.b.svc.cluster.local"
    assert clusters(pilot, proxy(namespace="a", labels={"app": "x"}))[name].lb_policy == 0
    assert clusters(pilot, proxy(namespace="a", labels={"app": "y"}))[name].lb_policy == 3


def test_rules_of_one_host_are_merged() -> None:
    pilot = mesh(
        SERVICES
        + "---\nkind: DestinationRule\nmetadata: b/one\nspec: {host: three, subsets: [{name: v1, labels: {v: '1'}}]}\n"
        + "---\nkind: DestinationRule\nmetadata: b/two\nspec: {host: three, trafficPolicy: {loadBalancer: {simple: RANDOM}},"
        + " subsets: [{name: v1, labels: {v: other}}, {name: v2, labels: {v: '2'}}]}\n"
    )
    found = view(pilot, proxy()).destination_rule("three.b.svc.cluster.local")
    assert found is not None
    assert found.traffic_policy.load_balancer.simple == "RANDOM"
    assert {name: dict(subset.labels) for name, subset in found.subsets.items()} == {"v1": {"v": "1"}, "v2": {"v": "2"}}
    assert {source.name for source in found.sources} == {"one", "two"}


def test_scopes_are_told_apart_by_labels_that_matter_alone() -> None:
    pilot = mesh(SERVICES)
    one, other = proxy("p", namespace="a", labels={"app": "x"}), proxy("q", namespace="a", labels={"app": "y"})
    assert pilot.scope(one) == pilot.scope(other)
    change(
        pilot,
        "kind: Sidecar\nmetadata: a/x\nspec: {workloadSelector: {labels: {app: x}}, egress: [{hosts: ['./*']}]}",
    )
    assert pilot.scope(one) != pilot.scope(other)
    assert pilot.scope(other) == pilot.scope(proxy("r", namespace="a", labels={"app": "y", "pod": "7"}))


def _entries(**exports: str) -> str:
    """ServiceEntries of one host in the namespace `a`: the first has port 80 and endpoint 10.0.0.1, and so on."""
    return "---\n".join(
        entry(f"a/{name}", "x.example", f", endpoints: [{{address: 10.0.0.{number}}}], exportTo: {export}").replace(
            "number: 80", f"number: {79 + number}"
        )
        for number, (name, export) in enumerate(exports.items(), 1)
    )


def _ports(pilot: Pilot, namespace: str) -> dict[int, list[str]]:
    """The ports of that host that a namespace sees, with the addresses behind them."""
    node = proxy(namespace=namespace)
    found = {}
    for name in clusters(pilot, node):
        if name.endswith("||x.example"):
            assignment = ClusterLoadAssignment.FromString(pilot.resources(node, ENDPOINTS, [name])[name].value)
            found[int(name.split("|")[1])] = [
                one.endpoint.address.socket_address.address
                for place in assignment.endpoints
                for one in place.lb_endpoints
            ]
    return found


FIRST, SECOND, THIRD = {80: ["10.0.0.1"]}, {81: ["10.0.0.2"]}, {82: ["10.0.0.3"]}


@pytest.mark.parametrize(
    ("exports", "expected"),
    [
        (("['*']", "['*']", "['*']"), {"a": FIRST | SECOND | THIRD, "b": FIRST | SECOND | THIRD}),
        (("['*']", "['.']", "[b]"), {"a": FIRST | SECOND, "b": FIRST | THIRD, "c": FIRST}),
        (("['.']", "[b]", "['~']"), {"a": FIRST, "b": SECOND, "c": {}}),
        (("['.', b]", "[b]", "[b, c]"), {"a": FIRST, "b": FIRST | SECOND | THIRD, "c": THIRD, "d": {}}),
        (("[b]", "['*']", "['*']"), {"a": SECOND | THIRD, "b": FIRST | SECOND | THIRD, "c": SECOND | THIRD}),
        (("['~']", "['*']", "[b]"), {"a": SECOND, "b": SECOND | THIRD, "c": SECOND}),
    ],
)
def test_each_entry_of_a_host_is_visible_by_its_own_export_to(
    exports: tuple[str, ...], expected: dict[str, dict[int, list[str]]]
) -> None:
    texts = _entries(**dict(zip(("one", "two", "three"), exports, strict=True)))
    pilot = mesh(texts)
    assert {namespace: _ports(pilot, namespace) for namespace in expected} == expected


def test_entries_of_a_host_that_come_change_and_go() -> None:
    pilot = mesh(_entries(one="['*']", two="['*']"))
    assert _ports(pilot, "b") == FIRST | SECOND
    changes = change(pilot, _entries(one="['*']", two="['.']"))
    assert CLUSTER in pilot.affected(changes, proxy(namespace="b"))
    assert (_ports(pilot, "a"), _ports(pilot, "b")) == (FIRST | SECOND, FIRST)
    change(pilot, _entries(one="['*']", two="['.']").replace("10.0.0.1", "10.0.0.7"))
    assert (_ports(pilot, "a"), _ports(pilot, "b")) == ({80: ["10.0.0.7"]} | SECOND, {80: ["10.0.0.7"]})
    change(pilot, gone=[ResourceKey("ServiceEntry", "a", "one")])
    assert (_ports(pilot, "a"), _ports(pilot, "b")) == (SECOND, {})
    change(pilot, gone=[ResourceKey("ServiceEntry", "a", "two")])
    assert (_ports(pilot, "a"), _ports(pilot, "b")) == ({}, {})
    snapshot = pilot._registry.snapshot
    assert not snapshot.services and not snapshot.endpoints


def test_endpoints_follow_the_workloads_of_an_entry_that_few_see() -> None:
    chosen = entry("a/two", "x.example", ", workloadSelector: {labels: {app: x}}, exportTo: [b]").replace(
        "number: 80", "number: 81"
    )
    pilot = mesh(_entries(one="['*']") + "---\n" + chosen)
    assert (_ports(pilot, "b"), _ports(pilot, "c")) == (FIRST | {81: []}, FIRST)
    workload = "kind: WorkloadEntry\nmetadata: a/w\nspec: {address: 10.0.0.9, labels: {app: x}}\n"
    changes = change(pilot, workload)
    assert ENDPOINTS in pilot.affected(changes, proxy(namespace="b"))
    assert (_ports(pilot, "b"), _ports(pilot, "c")) == (FIRST | {81: ["10.0.0.9"]}, FIRST)
    change(pilot, gone=[ResourceKey("WorkloadEntry", "a", "w")])
    assert _ports(pilot, "b") == FIRST | {81: []}
