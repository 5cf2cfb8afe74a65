"""What policies cost: 200 of them in a mesh of 1,000 services, of which each proxy has a few. Bounds are wide."""

from __future__ import annotations

import time

from controlplane.model.proxy import Proxy
from controlplane.pilot.generators import LISTENER
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import proxy, resources

SERVICES, POLICIES, NAMESPACES = 1000, 200, 20
SPARE = 4  # how much slower than the machine of the figures this one may be


def policy(number: int, path: str = "/x") -> str:
    rules = ", ".join(
        f"{{from: [{{source: {{principals: [cluster.local/ns/team-{each}/sa/a]}}}}],"
        f" to: [{{operation: {{methods: [GET], paths: ['{path}/{each}/*']}}}}]}}"
        for each in range(10)
    )
    return (
        f"kind: AuthorizationPolicy\nmetadata: team-{number % NAMESPACES}/p-{number}\n"
        f"spec: {{selector: {{matchLabels: {{app: svc-{number}}}}}, rules: [{rules}]}}\n"
    )


def test_two_hundred_policies_and_a_change_of_one() -> None:
    services = [
        f"kind: Service\nmetadata: team-{number % NAMESPACES}/svc-{number}\n"
        f"spec: {{ports: [{{name: http, port: 80}}, {{name: tcp, port: 81}}], selector: {{app: svc-{number}}}}}\n"
        for number in range(SERVICES)
    ]
    everywhere = (
        policy(0).replace("team-0/p-0", "istio-system/all").replace("selector: {matchLabels: {app: svc-0}}, ", "")
    )
    texts = [*services, everywhere, *(policy(number) for number in range(POLICIES))]
    pilot = Pilot()
    pilot.apply({resource.key: resource for resource in resources("---\n".join(texts))})
    nodes = [_node(number) for number in range(POLICIES)]
    began = time.perf_counter()
    for node in nodes:
        pilot.resources(node, LISTENER)
    assert (time.perf_counter() - began) / len(nodes) < 0.01 * SPARE
    (changed,) = resources(policy(7, "/y"))
    began = time.perf_counter()
    changes = pilot.apply({changed.key: changed})
    affected = [node for node in nodes if pilot.affected(changes, node)]
    for node in affected:
        pilot.resources(node, LISTENER)
    took = time.perf_counter() - began
    assert [node.name for node in affected] == ["svc-7"]
    assert took < 0.02 * SPARE


def _node(number: int) -> Proxy:
    found: Proxy = proxy(f"svc-{number}", f"team-{number % NAMESPACES}", labels={"app": f"svc-{number}"})
    return found
