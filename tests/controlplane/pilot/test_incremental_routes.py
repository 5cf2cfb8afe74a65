"""What is made anew after a change is the same as if all of it were: one history of a mesh against a fresh start at each step."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from controlplane.model.parsing import parse
from controlplane.model.resource import Resource, ResourceKey
from controlplane.pilot.routes import virtual_hosts
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.scene import LISTENER, ROUTES, gateway, sidecar

NAMES = ("a", "b", "c", "d")
PROXIES = (
    sidecar(),
    sidecar("captured-1", INTERCEPTION_MODE="REDIRECT"),
    sidecar(namespace="away"),
    gateway({"app": "edge"}),
)


def service(rng: random.Random) -> str:
    name = rng.choice(NAMES)
    port = rng.choice(
        ("{name: http, port: 80}", "{name: tcp, port: 80}", "{name: http, port: 8080}", "{name: x, port: 80}")
    )
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {rng.choice(("shop", "away"))}}}
spec: {{ports: [{port}], selector: {{app: {name}}}, clusterIP: {rng.choice(("10.0.0.1", "None"))}}}
"""


def virtual_service(rng: random.Random) -> str:
    action = rng.choice(
        (
            f"route: [{{destination: {{host: {rng.choice(NAMES)}}}}}]",
            f"timeout: {rng.randint(1, 9)}s, route: [{{destination: {{host: {rng.choice(NAMES)}, subset: v1}}}}]",
            f"delegate: {{name: inner-{rng.randint(1, 2)}, namespace: shop}}",
            "redirect: {uri: /x}",
        )
    )
    match = rng.choice(("", "match: [{uri: {prefix: /p}}], ", "match: [{sourceNamespace: away}], "))
    host = rng.choice((*NAMES, "stranger.example", "'*.shop.svc.cluster.local'", "'*.example'"))
    gateways = rng.choice(("", "gateways: [edge, mesh]", "gateways: [shop/edge]"))
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs-{rng.randint(1, 4)}, namespace: {rng.choice(("shop", "away"))}}}
spec:
  hosts: [{host}]
  http: [{{{match}{action}}}]
  {gateways}
"""


def delegate(rng: random.Random) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: inner-{rng.randint(1, 2)}, namespace: shop}}
spec:
  http: [{{timeout: {rng.randint(1, 9)}s, route: [{{destination: {{host: {rng.choice(NAMES)}}}}}]}}]
"""


def tcp_route(rng: random.Random) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: tcp-{rng.randint(1, 2)}, namespace: {rng.choice(("shop", "away"))}}}
spec:
  hosts: [{rng.choice(NAMES)}]
  tcp: [{{route: [{{destination: {{host: {rng.choice(NAMES)}, subset: v{rng.randint(1, 2)}}}}}]}}]
"""


def destination_rule(rng: random.Random) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: rule-{rng.randint(1, 3)}, namespace: shop}}
spec:
  host: {rng.choice(NAMES)}
  trafficPolicy:
    connectionPool: {{tcp: {{idleTimeout: {rng.randint(1, 3)}s}}}}
    loadBalancer: {{consistentHash: {{httpHeaderName: x-{rng.randint(1, 3)}}}}}
"""


def sidecar_resource(rng: random.Random) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: scope, namespace: {rng.choice(("shop", "away"))}}}
spec: {{egress: [{{hosts: ["{rng.choice(("./*", "*/*", "shop/a.shop.svc.cluster.local"))}"]}}]}}
"""


GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
"""


MAKERS = (
    service,
    service,
    virtual_service,
    virtual_service,
    virtual_service,
    delegate,
    destination_rule,
    sidecar_resource,
    tcp_route,
)


def change(
    rng: random.Random, step: int, present: dict[ResourceKey, Resource], changed: dict[ResourceKey, Resource | None]
) -> None:
    """Change, add or remove a resource."""
    if present and rng.random() < 0.2:
        key = rng.choice(sorted(present))
        del present[key]
        changed[key] = None
    else:
        resource = parse(yaml.safe_load(GATEWAY if step == 0 else rng.choice(MAKERS)(rng)))
        present[resource.key] = changed[resource.key] = resource


@pytest.mark.parametrize("seed", range(6))
def test_a_history_of_changes_comes_to_what_a_fresh_start_makes(seed: int) -> None:
    rng = random.Random(seed)
    pilot = Pilot()
    present: dict[ResourceKey, Resource] = {}
    for step in range(60):
        changed: dict[ResourceKey, Resource | None] = {}
        for _ in range(rng.choice((1, 1, 1, 3))):
            change(rng, step, present, changed)
        pilot.apply(changed)
        fresh = Pilot()
        fresh.apply(dict(present))
        for proxy in PROXIES:
            for type_url in (ROUTES, LISTENER):
                found = {name: each.value for name, each in pilot.resources(proxy, type_url).items()}
                expected = {name: each.value for name, each in fresh.resources(proxy, type_url).items()}
                assert found == expected, (step, proxy.id, type_url, changed)


def test_what_did_not_change_is_the_same_object() -> None:
    pilot = Pilot()
    rng = random.Random(7)
    texts = (GATEWAY, virtual_service(rng), *(service(rng) for _ in range(20)))
    resources = [parse(yaml.safe_load(text)) for text in texts]
    pilot.apply({resource.key: resource for resource in resources})
    before = {proxy.id: dict(pilot.resources(proxy, ROUTES)) for proxy in PROXIES}
    hidden = parse(
        yaml.safe_load(
            delegate(rng).replace("spec:", "spec:\n  hosts: [a]\n  exportTo: ['.']").replace("shop", "other")
        )
    )
    again = parse(yaml.safe_load(GATEWAY))
    pilot.apply({hidden.key: hidden, again.key: again})
    for proxy in PROXIES:
        after = pilot.resources(proxy, ROUTES)
        assert after.keys() == before[proxy.id].keys()
        assert all(each is before[proxy.id][name] for name, each in after.items())


def test_after_many_changes_of_endpoints_one_rule_costs_one_virtual_host(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"svc-{number}" for number in range(20)]
    services = [
        f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{ports: [{{name: http, port: 80}}], selector: {{app: {name}}}}}
"""
        for name in names
    ]
    pilot = Pilot()
    rule = virtual_service_of(names[0], 1)
    pilot.apply({resource.key: resource for resource in (parse(yaml.safe_load(text)) for text in (*services, rule))})
    for proxy in PROXIES[:2]:
        pilot.resources(proxy, ROUTES)
    for number in range(300):
        entry = f"""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: one, namespace: shop}}
spec: {{address: 10.0.{number // 250}.{number % 250}, labels: {{app: {names[1]}}}}}
"""
        resource = parse(yaml.safe_load(entry))
        pilot.apply({resource.key: resource})
    made: list[str] = []
    make = virtual_hosts.virtual_host

    def counting(name: str, *rest: Any, **more: Any) -> Any:
        made.append(name)
        return make(name, *rest, **more)

    monkeypatch.setattr(virtual_hosts, "virtual_host", counting)
    resource = parse(yaml.safe_load(virtual_service_of(names[0], 2)))
    pilot.apply({resource.key: resource})
    for proxy in PROXIES[:2]:
        pilot.resources(proxy, ROUTES)
    # One for the forward proxy and one for the port, whose domains are others.
    assert made == [f"{names[0]}.shop.svc.cluster.local:80"] * 2


def virtual_service_of(name: str, seconds: int) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: shop}}
spec: {{hosts: [{name}], http: [{{timeout: {seconds}s, route: [{{destination: {{host: {name}}}}}]}}]}}
"""
