"""Whatever changes in whatever order: what is made step by step is what is made at once, and who gets something else is told."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest

from controlplane.model.proxy import Locality, Proxy, ProxyType
from controlplane.model.resource import Resource, ResourceKey
from controlplane.pilot.generators import ENDPOINTS, LISTENER, SECRET, TYPES
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import change, mesh, proxy, resources

STEPS = 50
BALANCERS = ("{simple: RANDOM}", "{simple: ROUND_ROBIN}", "{consistentHash: {httpHeaderName: x-user}}")
HOSTS = ("one", "two", "one.a", "three.b.svc.cluster.local", "x.example", "*.example", "*.b.svc.cluster.local")

SELECTORS = ("", "selector: {matchLabels: {app: one}}, ", "selector: {matchLabels: {istio: gateway}}, ")
KEY_SETS = ("https://keys.example/jwks", "http://one.a.svc.cluster.local/jwks", "http://x.example:81/jwks")


def variants(chance: random.Random) -> Iterator[str]:
    """Documents of all kinds, for ever: few names, so that they meet each other."""
    while True:
        namespace = chance.choice(("a", "b", "istio-system"))
        export = chance.choice(("", "", ", exportTo: ['.']", ", exportTo: ['*']", ", exportTo: [a]"))
        name = chance.choice(("one", "two", "three"))
        host = chance.choice(HOSTS)
        number = chance.choice((80, 81, 9080))
        protocol = chance.choice(("http", "grpc", "tcp", "x"))
        yield chance.choice(
            (
                f"kind: Service\nmetadata: {namespace}/{name}\n"
                f"spec: {{ports: [{{name: {protocol}, port: {number}}}], selector: {{app: {name}}}}}",
                f"kind: WorkloadEntry\nmetadata: {namespace}/{name}-{chance.randrange(3)}\n"
                f"spec: {{address: 10.0.0.{chance.randrange(9)}, labels: {{app: {chance.choice(('one', 'two'))},"
                f" version: v{chance.randrange(2)}{chance.choice(('', ', security.istio.io/tlsMode: istio'))}}},"
                f" serviceAccount: {chance.choice(('x', 'y'))}, locality: {chance.choice(('eu/one', 'us', 'eu/two'))}}}",
                f"kind: ServiceEntry\nmetadata: {namespace}/{name}\n"
                f"spec: {{hosts: [{chance.choice(('x.example', 'y.example'))}], location: MESH_INTERNAL,"
                f" resolution: {chance.choice(('STATIC', 'DNS'))},"
                f" workloadSelector: {{labels: {{app: one}}}},"
                f" ports: [{{number: {number}, name: p, protocol: {protocol if protocol != 'x' else 'HTTP'}}}]{export}}}",
                f"kind: DestinationRule\nmetadata: {namespace}/{name}\n"
                f"spec: {{host: '{host}', trafficPolicy: {{loadBalancer: {chance.choice(BALANCERS)},"
                f" outlierDetection: {{consecutive5xxErrors: {chance.randrange(1, 4)}}}"
                f"{chance.choice(('', ', tls: {mode: SIMPLE, credentialName: one}', ', tls: {mode: ISTIO_MUTUAL}'))}}},"
                f" subsets: [{{name: v{chance.randrange(2)}, labels: {{version: v1}}}}]{export}}}",
                f"kind: VirtualService\nmetadata: {namespace}/{name}\n"
                f"spec: {{hosts: ['{host}'], gateways: [{chance.choice(('mesh', 'a/gw', 'mesh, a/gw'))}],"
                f" http: [{{timeout: {chance.randrange(1, 4)}s, route: [{{destination: {{host: {chance.choice(HOSTS[:5])},"
                f" port: {{number: {number}}}}}}}]}}]{export}}}",
                f"kind: Sidecar\nmetadata: {namespace}/default\n"
                f"spec: {{egress: [{{hosts: [{chance.choice(('./*', '*/*', 'b/*', 'istio-system/*'))!r}]}}]}}",
                f"kind: Sidecar\nmetadata: {namespace}/selecting\n"
                f"spec: {{workloadSelector: {{labels: {{app: one}}}}, egress: [{{hosts: ['*/*.b.svc.cluster.local']}}]}}",
                f"kind: Gateway\nmetadata: a/gw\n"
                f"spec: {{selector: {{istio: gateway}}, servers: [{{port: {{number: {number}, name: http, protocol: HTTP}},"
                " hosts: ['*']}]}",
                "kind: ConfigMap\nmetadata: istio-system/istio\n"
                f"data: {{mesh: 'connectTimeout: {chance.randrange(1, 3)}s\n\n"
                f"  outboundTrafficPolicy: {{mode: {chance.choice(('ALLOW_ANY', 'REGISTRY_ONLY'))}}}\n\n"
                f"  defaultHttpRetryPolicy: {{attempts: {chance.randrange(3)}}}\n\n"
                f"  trustDomainAliases: [{chance.choice(('', 'old.example'))}]\n\n"
                "  extensionProviders: [{name: ask, envoyExtAuthzGrpc: {service: one.a.svc.cluster.local,"
                f" port: {number}}}}}]'}}",
                f"kind: VirtualService\nmetadata: {namespace}/delegate\n"
                f"spec: {{http: [{{timeout: {chance.randrange(1, 9)}s, route: [{{destination: {{host: one.a}}}}]}}]{export}}}",
                f"kind: VirtualService\nmetadata: {namespace}/{name}\n"
                f"spec: {{hosts: ['{host}'], http: [{{match: [{{sourceLabels: {{app: {name}}}}}],"
                " route: [{destination: {host: two}}]}, {delegate: {name: delegate, namespace: a}}]}",
                f"kind: PeerAuthentication\nmetadata: {namespace}/{name}\n"
                f"spec: {{{chance.choice(('', 'selector: {matchLabels: {app: one}}, portLevelMtls: {80: {mode: DISABLE}}, '))}"
                f"mtls: {{mode: {chance.choice(('UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT'))}}}}}",
                f"kind: EnvoyFilter\nmetadata: {namespace}/{name}\n"
                f"spec: {{{chance.choice(('', 'workloadSelector: {labels: {app: one}}, '))}configPatches: [{{applyTo: CLUSTER,"
                f" match: {{context: {chance.choice(('SIDECAR_OUTBOUND', 'SIDECAR_INBOUND', 'GATEWAY', 'ANY'))}}},"
                f" patch: {{operation: MERGE, value: {{connect_timeout: {chance.randrange(1, 9)}s}}}}}},"
                " {applyTo: ROUTE_CONFIGURATION, match: {context: ANY}, patch: {operation: MERGE,"
                f" value: {{max_direct_response_body_size_bytes: {number}}}}}}},"
                " {applyTo: LISTENER, match: {context: ANY}, patch: {operation: MERGE,"
                f" value: {{per_connection_buffer_limit_bytes: {number}}}}}}}]}}",
                f"kind: Telemetry\nmetadata: {namespace}/{name}\n"
                f"spec: {{accessLogging: [{{disabled: {chance.choice(('true', 'false'))},"
                " providers: [{name: envoy}]}]}",
                f"kind: Secret\nmetadata: {namespace}/{chance.choice(('one', 'one-cacert'))}\n"
                f"stringData: {{ca.crt: roots-{chance.randrange(2)}}}",
                f"kind: AuthorizationPolicy\nmetadata: {namespace}/{name}\n"
                f"spec: {{{chance.choice(SELECTORS)}action: {chance.choice(('ALLOW', 'DENY', 'AUDIT'))},"
                f" rules: [{{to: [{{operation: {{ports: ['{number}']}}}}],"
                f" from: [{{source: {{principals: [cluster.local/ns/{namespace}/sa/{name}]}}}}]}}]}}",
                f"kind: AuthorizationPolicy\nmetadata: {namespace}/{name}\n"
                f"spec: {{{chance.choice(SELECTORS)}action: CUSTOM, provider: {{name: {chance.choice(('ask', 'nobody'))}}},"
                " rules: [{}]}",
                f"kind: RequestAuthentication\nmetadata: {namespace}/{name}\n"
                f"spec: {{{chance.choice(SELECTORS)}jwtRules: [{{issuer: i{chance.randrange(2)},"
                f" jwksUri: '{chance.choice(KEY_SETS)}'}}]}}",
                f"kind: Endpoints\nmetadata: {namespace}/{name}\n"
                f"subsets: [{{addresses: [{{ip: 10.0.1.{chance.randrange(5)}}}], ports: [{{name: {protocol}, port: 7000}}]}}]",
            )
        )


PROXIES = (
    proxy("one-1", "a", labels={"app": "one"}, address="10.0.0.1", locality=Locality("eu", "one")),
    proxy("two-1", "b", labels={"app": "two"}, address="10.0.1.2", HTTP_PROXY_PORT="15002"),
    proxy("captured", "b", labels={"app": "one"}, address="10.0.0.3", INTERCEPTION_MODE="REDIRECT"),
    proxy("known", "b", labels={"app": "one"}, address="10.0.0.7", INTERCEPTION_MODE="REDIRECT", SDS_AGENT="true"),
    proxy("known-2", "a", labels={"app": "one"}, address="10.0.0.2", SDS_AGENT="true"),
    proxy("elsewhere", "c", address="10.0.0.4", HTTP_PROXY_PORT="15002"),
    proxy("gateway", "a", type=ProxyType.ROUTER, labels={"istio": "gateway"}, address="10.0.0.5"),
    proxy("client", "a", type=ProxyType.PROXYLESS, address="10.0.0.6"),
    proxy("server", "a", type=ProxyType.PROXYLESS, labels={"app": "one"}, address="10.0.0.8", SDS_AGENT="true"),
)

Seen = dict[str, dict[str, str]]


def everything(pilot: Pilot, node: Proxy) -> Seen:
    """The version of each resource of each type."""
    found = {
        type_url: {name: one.version for name, one in pilot.resources(node, type_url).items()} for type_url in TYPES
    }
    if node.type is ProxyType.PROXYLESS:
        name = f"xds.istio.io/grpc/lds/inbound/{node.addresses[0]}:80"
        found[LISTENER][name] = pilot.resources(node, LISTENER, [name])[name].version
    return found


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@pytest.mark.parametrize("seed", range(5))
def test_step_by_step_is_at_once(seed: int) -> None:
    chance = random.Random(seed)
    documents = variants(chance)
    pilot = Pilot()
    current: dict[ResourceKey, Resource] = {}
    seen = {node.id: everything(pilot, node) for node in PROXIES}
    for step in range(STEPS):
        batch: dict[ResourceKey, Resource | None] = {}
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            if current and chance.random() < 0.25:
                batch[chance.choice(sorted(current))] = None
            else:
                (resource,) = resources(next(documents))
                batch[resource.key] = resource
        changes = pilot.apply(batch)
        for key, resource_or_none in batch.items():
            if resource_or_none is None:
                current.pop(key, None)
            else:
                current[key] = resource_or_none
        told = {node.id: set(pilot.affected(changes, node)) for node in PROXIES}
        fresh = Pilot()
        fresh.apply(current)
        for node in PROXIES:
            before, after = seen[node.id], everything(pilot, node)
            assert after == everything(fresh, node), (seed, step, node.id, list(batch))
            different = {type_url for type_url in TYPES if changed(before[type_url], after[type_url])}
            assert different <= told[node.id], (seed, step, node.id, list(batch))
            names = sorted(before[ENDPOINTS].keys() & after[ENDPOINTS].keys())
            stale = changed(before[ENDPOINTS], after[ENDPOINTS]) & set(names)
            assert stale <= set(pilot.affected_names(changes, ENDPOINTS, names)), (seed, step, node.id, list(batch))
            seen[node.id] = after


def test_the_secrets_of_a_rule_come_and_go_with_its_service() -> None:
    pilot = mesh(
        "kind: DestinationRule\nmetadata: a/far\n"
        "spec: {host: x.example, trafficPolicy: {tls: {mode: SIMPLE, credentialName: far}}}\n---\n"
        "kind: Secret\nmetadata: {name: far, namespace: a}\nstringData: {ca.crt: roots}"
    )
    node = proxy("client", "a")
    assert not pilot.resources(node, SECRET)
    changes = change(
        pilot,
        "kind: ServiceEntry\nmetadata: a/far\n"
        "spec: {hosts: [x.example], resolution: DNS, ports: [{number: 443, name: http, protocol: HTTP}]}",
    )
    assert SECRET in pilot.affected(changes, node)
    assert list(pilot.resources(node, SECRET)) == ["kubernetes://far-cacert"]
    changes = change(pilot, gone=[ResourceKey("ServiceEntry", "a", "far")])
    assert SECRET in pilot.affected(changes, node)
    assert not pilot.resources(node, SECRET)
