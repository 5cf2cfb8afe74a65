"""Services and endpoints from all kinds of resources that tell them, and what a change of them amounts to."""

from __future__ import annotations

import random

import pytest

from controlplane.model.changes import Changes
from controlplane.model.registry import Registry
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Health, PortProtocol, ServiceKey, parse_protocol, select_protocol
from tests.controlplane.pilot.mesh import resources

HOST = "web.shop.svc.cluster.local"
WEB = "kind: Service\nmetadata: shop/web\nspec: {ports: [{name: http, port: 80, targetPort: web}], selector: {app: web}}\n"
POD = """
kind: Pod
metadata: {name: web-%d, namespace: shop, labels: {app: web, version: v%d, topology.kubernetes.io/region: eu}}
spec: {serviceAccountName: web, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.0.0.%d, phase: Running, conditions: [{type: Ready, status: "%s"}]}
"""
SLICE = """
kind: EndpointSlice
metadata: {name: web-abc, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-1}}
- {addresses: [10.0.0.2], conditions: {ready: false}, zone: z2}
- {addresses: [10.0.0.3], conditions: {ready: false, terminating: true}}
"""
ENDPOINTS = """
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets:
- {addresses: [{ip: 10.0.0.8}], notReadyAddresses: [{ip: 10.0.0.9}], ports: [{name: http, port: 8081}]}
"""


def applied(registry: Registry, *texts: str, gone: tuple[ResourceKey, ...] = ()) -> Changes:
    changed: dict[ResourceKey, Resource | None] = {
        resource.key: resource for text in texts for resource in resources(text)
    }
    changed.update(dict.fromkeys(gone))
    return registry.apply(changed)


def found(registry: Registry, host: str = HOST, namespace: str = "shop") -> list[str]:
    """`ADDRESS:PORT HEALTH`, of the only port."""
    endpoints = registry.snapshot.endpoints[ServiceKey(namespace, host)]
    return [f"{one.address}:{next(iter(one.ports.values()))} {one.health}" for one in endpoints]


def test_pods_of_a_selector() -> None:
    registry = Registry()
    applied(registry, WEB, POD % (1, 1, 1, "True"), POD % (2, 2, 2, "False"))
    assert found(registry) == ["10.0.0.1:8080 HEALTHY", "10.0.0.2:8080 UNHEALTHY"]
    (first, _) = registry.snapshot.endpoints[ServiceKey("shop", HOST)]
    assert (first.service_account, first.locality.region) == ("web", "eu")


def test_slices_go_before_endpoints_and_pods() -> None:
    registry = Registry()
    applied(registry, WEB, POD % (1, 1, 1, "True"))
    assert found(registry) == ["10.0.0.1:8080 HEALTHY"]
    applied(registry, ENDPOINTS)
    assert found(registry) == ["10.0.0.8:8081 HEALTHY", "10.0.0.9:8081 UNHEALTHY"]
    changes = applied(registry, SLICE)
    # The slice names a Pod, so that the service account is known again: clusters, which verify it, are to be made anew.
    assert changes == Changes(frozenset({ResourceKey("Service", "shop", "web")}), frozenset({HOST}), frozenset({HOST}))
    assert applied(registry, SLICE.replace("10.0.0.3", "10.0.0.4")) == Changes(endpoints=frozenset({HOST}))
    applied(registry, SLICE)
    assert found(registry) == ["10.0.0.1:8080 HEALTHY", "10.0.0.2:8080 UNHEALTHY", "10.0.0.3:8080 DRAINING"]
    applied(registry, gone=(ResourceKey("EndpointSlice", "shop", "web-abc"), ResourceKey("Endpoints", "shop", "web")))
    assert found(registry) == ["10.0.0.1:8080 HEALTHY"]


def test_listed_endpoints_follow_the_labels_of_their_pods() -> None:
    registry = Registry()
    applied(registry, WEB, SLICE)
    assert registry.snapshot.endpoints[ServiceKey("shop", HOST)][0].labels == {}
    changes = applied(registry, POD % (1, 7, 1, "True"))
    assert HOST in changes.endpoints
    assert registry.snapshot.endpoints[ServiceKey("shop", HOST)][0].labels["version"] == "v7"


def test_a_service_may_count_what_is_not_ready() -> None:
    registry = Registry()
    applied(registry, WEB.replace("spec: {", "spec: {publishNotReadyAddresses: true, "), POD % (2, 2, 2, "False"))
    assert found(registry) == ["10.0.0.2:8080 HEALTHY"]
    applied(registry, SLICE)
    assert found(registry) == ["10.0.0.1:8080 HEALTHY", "10.0.0.2:8080 HEALTHY", "10.0.0.3:8080 DRAINING"]


def test_what_is_ready_is_taken_even_while_it_ends() -> None:
    registry = Registry()
    applied(registry, WEB, SLICE.replace("{ready: false, terminating: true}", "{ready: true, terminating: true}"))
    assert found(registry)[2] == "10.0.0.3:8080 HEALTHY"


PORTS = "kind: Service\nmetadata: shop/web\nspec: {ports: [{name: http, port: 80}, {name: metrics, port: 90}]}\n"
SUBSETS = """
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets:
- {addresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 8080}]}
- {addresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 8080}, {name: metrics, port: 9090}]}
- {addresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 8081}]}
"""


def test_an_address_may_be_listed_several_times_with_other_ports() -> None:
    registry = Registry()
    applied(registry, PORTS, SUBSETS)
    endpoints = registry.snapshot.endpoints[ServiceKey("shop", HOST)]
    assert [(one.address, one.ports) for one in endpoints] == [
        ("10.0.0.1", {80: 8080}),
        ("10.0.0.1", {90: 9090}),
        ("10.0.0.1", {80: 8081}),
    ]


ENTRY = """
kind: ServiceEntry
metadata: {name: %s, namespace: shop}
spec: {hosts: [x.example], resolution: STATIC, ports: [{number: %d, name: p%d, protocol: TCP}], endpoints: [{address: %s}]}
"""


def test_endpoints_of_an_entry_have_its_ports_alone() -> None:
    registry = Registry()
    applied(registry, ENTRY % ("one", 80, 80, "10.0.0.1"), ENTRY % ("two", 81, 81, "10.0.0.2"))
    endpoints = registry.snapshot.endpoints[ServiceKey("shop", "x.example")]
    assert [(one.address, one.ports) for one in endpoints] == [("10.0.0.1", {80: 80}), ("10.0.0.2", {81: 81})]


def test_the_same_again_is_no_change() -> None:
    registry = Registry()
    applied(registry, WEB, SLICE)
    before = registry.snapshot.endpoints
    assert not applied(registry, SLICE)
    assert registry.snapshot.endpoints[ServiceKey("shop", HOST)] is before[ServiceKey("shop", HOST)]


def test_endpoints_of_names_are_a_part_of_the_cluster() -> None:
    registry = Registry()
    text = (
        "kind: ServiceEntry\nmetadata: shop/x\nspec: {hosts: [x.example], resolution: DNS,"
        " workloadSelector: {labels: {app: x}}, ports: [{number: 80, name: http, protocol: HTTP}]}\n"
    )
    applied(registry, text)
    changes = applied(
        registry, "kind: WorkloadEntry\nmetadata: shop/x-1\nspec: {address: one.example, labels: {app: x}}\n"
    )
    assert ResourceKey("ServiceEntry", "shop", "x") in changes.resources and not changes.endpoints


def test_health_alone_is_no_change_of_the_workload() -> None:
    registry = Registry()
    entry = "kind: WorkloadEntry\nmetadata: shop/x-1\nspec: {address: 10.0.0.5, labels: {app: web}, ports: {http: 1}}\n"
    assert applied(registry, WEB, entry).resources
    changes = applied(registry, entry + "status: {conditions: [{type: Healthy, status: 'False'}]}\n")
    assert changes == Changes(endpoints=frozenset({HOST}))
    assert found(registry) == ["10.0.0.5:1 UNHEALTHY"]
    assert [one.health for one in registry.snapshot.endpoints[ServiceKey("shop", HOST)]] == [Health.UNHEALTHY]


def test_whatever_the_order_the_mesh_is_the_same() -> None:
    """Changes one by one, in any order, with detours, end where all of them at once do."""
    texts = [WEB, SLICE, ENDPOINTS, *(POD % (n, n, n, "True") for n in range(1, 5))]
    texts += [
        f"kind: WorkloadEntry\nmetadata: shop/vm-{n}\nspec: {{address: 10.1.0.{n}, labels: {{app: web, n: '{n}'}}}}\n"
        for n in range(3)
    ]
    texts.append(
        "kind: ServiceEntry\nmetadata: shop/vms\nspec: {hosts: [vms.example, other.example], resolution: STATIC,"
        " workloadSelector: {labels: {app: web}}, ports: [{number: 80, name: http, protocol: HTTP}]}\n"
    )
    everything = [resource for text in texts for resource in resources(text)]
    wanted = Registry()
    wanted.apply({resource.key: resource for resource in everything})
    for seed in range(30):
        chance = random.Random(seed)
        registry = Registry()
        steps = [*everything, *chance.choices(everything, k=8)]
        chance.shuffle(steps)
        for resource in steps:
            registry.apply({resource.key: None if chance.random() < 0.3 else resource})
        for resource in chance.sample(everything, len(everything)):
            registry.apply({resource.key: resource})
        assert registry.snapshot.endpoints == wanted.snapshot.endpoints, seed
        assert registry.snapshot.services.keys() == wanted.snapshot.services.keys()
        for resource in chance.sample(everything, len(everything)):
            registry.apply({resource.key: None})
        assert not registry.snapshot.services and not registry.snapshot.endpoints


@pytest.mark.parametrize(
    ("number", "name", "app_protocol", "transport", "expected"),
    [
        (80, "http", "", "TCP", PortProtocol.HTTP),
        (80, "http-web", "", "TCP", PortProtocol.HTTP),
        (80, "httpx", "", "TCP", PortProtocol.AUTO),
        (80, "grpc-web", "", "TCP", PortProtocol.GRPC_WEB),
        (80, "grpc-web-2", "", "TCP", PortProtocol.GRPC_WEB),
        (80, "grpc-other", "", "TCP", PortProtocol.GRPC),
        (80, "mongo", "", "TCP", PortProtocol.MONGO),
        (80, "http", "tcp", "TCP", PortProtocol.TCP),
        (80, "tcp", "kubernetes.io/h2c", "TCP", PortProtocol.HTTP2),
        (80, "", "kubernetes.io/wss", "TCP", PortProtocol.HTTPS),
        (80, "x", "unheard-of", "TCP", PortProtocol.AUTO),
        (80, "", "", "TCP", PortProtocol.AUTO),
        (3306, "", "", "TCP", PortProtocol.TCP),
        (3306, "http", "", "TCP", PortProtocol.HTTP),
        (3306, "", "unheard-of", "TCP", PortProtocol.TCP),
        (80, "tcp", "http-web", "TCP", PortProtocol.HTTP),
        (53, "dns", "", "UDP", PortProtocol.UDP),
    ],
)
def test_protocol_selection(number: int, name: str, app_protocol: str, transport: str, expected: PortProtocol) -> None:
    assert select_protocol(number, name, app_protocol, transport) is expected


def test_protocols_are_named_in_any_case() -> None:
    assert parse_protocol("Http2") is PortProtocol.HTTP2
    assert parse_protocol("GRPC-WEB") is PortProtocol.GRPC_WEB
    assert parse_protocol("AUTO") is PortProtocol.AUTO
