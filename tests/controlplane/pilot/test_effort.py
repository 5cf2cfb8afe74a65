"""What translation costs, in a mesh of 1,000 services with 10 endpoints each. Bounds are wide: machines differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import pytest

from controlplane.model.proxy import Proxy
from controlplane.pilot.generators import CLUSTER, ENDPOINTS, TYPES
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import change, proxy, resources

SERVICES, WORKLOADS, NAMESPACES = 1000, 10, 20
SPARE = 4  # how much slower than the machine of the figures this one may be


def documents() -> str:
    found = []
    for number in range(SERVICES):
        namespace = f"team-{number % NAMESPACES}"
        found.append(
            f"kind: Service\nmetadata: {namespace}/svc-{number}\n"
            f"spec: {{ports: [{{name: http, port: 80}}], selector: {{app: svc-{number}}}}}\n"
        )
        found += [workload(number, each) for each in range(WORKLOADS)]
    return "---\n".join(found)


def workload(number: int, each: int, more: int = 0) -> str:
    address = f"10.{number // 250}.{number % 250}.{each + more}"
    return (
        f"kind: WorkloadEntry\nmetadata: team-{number % NAMESPACES}/svc-{number}-{each}\n"
        f"spec: {{address: {address}, labels: {{app: svc-{number}}}}}\n"
    )


@pytest.fixture(scope="module")
def large() -> Pilot:
    pilot = Pilot()
    pilot.apply({resource.key: resource for resource in resources(documents())})
    return pilot


def everything(pilot: Pilot, node: Proxy) -> None:
    for type_url in TYPES:
        pilot.resources(node, type_url)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_a_scope_from_nothing(large: Pilot) -> None:
    node = proxy(namespace="team-0", HTTP_PROXY_PORT="15002")
    assert seconds(lambda: everything(large, node)) < 0.5 * SPARE
    assert len(large.resources(node, CLUSTER)) > SERVICES
    assert len(large.resources(node, ENDPOINTS)) == SERVICES


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("endpoint", lambda n: workload(7, 3, 20 + n)),
        (
            "virtual service",
            lambda n: (
                "kind: VirtualService\nmetadata: team-7/svc-7\n"
                f"spec: {{hosts: [svc-7], http: [{{timeout: {n + 1}s, route: [{{destination: {{host: svc-7}}}}]}}]}}\n"
            ),
        ),
    ],
)
def test_one_change(large: Pilot, what: str, text: Callable[[int], str]) -> None:
    node = proxy(namespace="team-0", HTTP_PROXY_PORT="15002")
    everything(large, node)
    took = []
    for number in range(15):
        (resource,) = resources(text(number))
        took.append(seconds(lambda r=resource: (large.apply({r.key: r}), everything(large, node))))  # type: ignore[misc]
    assert median(took) < 0.005 * SPARE


def test_many_proxies_of_a_scope_cost_little_more_than_one(large: Pilot) -> None:
    first = proxy("first", namespace="team-1")
    everything(large, first)
    others = [proxy(f"p-{number}", namespace="team-1", address=f"127.0.2.{number}") for number in range(100)]
    assert seconds(lambda: [everything(large, other) for other in others]) < 0.5 * SPARE
    assert all(large.resources(other, CLUSTER) is large.resources(first, CLUSTER) for other in others)


def test_what_is_not_asked_for_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.pilot.memo._FLOOR", 100)
    pilot = Pilot()
    node = proxy(HTTP_PROXY_PORT="15002")
    sizes, brief = [], []
    for number in range(400):
        change(
            pilot,
            "kind: ServiceEntry\nmetadata: a/x\nspec: {hosts: [x.example], resolution: STATIC,"
            f" ports: [{{number: {80 + number}, name: http, protocol: HTTP}}]}}",
        )
        everything(pilot, node)
        sizes.append(len(pilot._memo))
        brief.append(len(pilot._memo.brief))
    assert max(sizes) < 800 < 400 * 3  # each round makes three or more
    assert max(brief) < 30


def test_endpoints_that_come_and_go_cost_clusters_nothing(large: Pilot) -> None:
    node = proxy("steady", namespace="team-0")
    everything(large, node)
    for number in range(150):
        (resource,) = resources(workload(7, 3, 20 + number % 50))
        large.apply({resource.key: resource})
    (rule,) = resources("kind: DestinationRule\nmetadata: team-7/svc-7\nspec: {host: svc-7}")
    before = large.resources(node, CLUSTER)
    large.apply({rule.key: rule})
    after = large.resources(node, CLUSTER)
    name = "outbound|80||svc-8.team-8.svc.cluster.local"
    assert after is not before and after[name] is before[name]
    assert seconds(lambda: large.resources(proxy("other", namespace="team-0"), CLUSTER)) < 0.005 * SPARE
