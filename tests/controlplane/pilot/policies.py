"""Traffic policies, one of each sort, by a name: services of that name have a DestinationRule that says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

POLICIES: Mapping[str, dict[str, Any]] = yaml.safe_load("""
none: {}
round-robin: {loadBalancer: {simple: ROUND_ROBIN}}
random: {loadBalancer: {simple: RANDOM}}
least-request: {loadBalancer: {simple: LEAST_REQUEST}}
least-conn: {loadBalancer: {simple: LEAST_CONN}}
passthrough: {loadBalancer: {simple: PASSTHROUGH}}
ring: {loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 512}}}}
ring-by-source: {loadBalancer: {consistentHash: {useSourceIp: true}}}
maglev: {loadBalancer: {consistentHash: {httpQueryParameterName: user, maglev: {tableSize: 1009}}}}
cookie: {loadBalancer: {consistentHash: {httpCookie: {name: session, path: /, ttl: 60s}, minimumRingSize: 2048}}}
warm-up: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 30s, minimumPercent: 20.0, aggression: 1.5}}}
warm-up-old: {loadBalancer: {simple: LEAST_REQUEST, warmupDurationSecs: 45s}}
distribute:
  loadBalancer:
    localityLbSetting: {distribute: [{from: eu/*, to: {eu/one/*: 80, us/*: 20}}]}
failover:
  outlierDetection: {consecutive5xxErrors: 3}
  loadBalancer: {localityLbSetting: {failover: [{from: eu, to: us}]}}
failover-labels:
  outlierDetection: {consecutive5xxErrors: 3}
  loadBalancer: {localityLbSetting: {failoverPriority: [topology.istio.io/network, version=v1]}}
no-locality: {loadBalancer: {localityLbSetting: {enabled: false}}}
pool:
  connectionPool:
    tcp:
      maxConnections: 100
      connectTimeout: 30ms
      idleTimeout: 5s
      maxConnectionDuration: 60s
      tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}
    http:
      http1MaxPendingRequests: 10
      http2MaxRequests: 1000
      maxRequestsPerConnection: 50
      maxRetries: 3
      idleTimeout: 15s
      maxConcurrentStreams: 100
upgrade: {connectionPool: {http: {h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 100}}}
client-protocol: {connectionPool: {http: {useClientProtocol: true}}}
retry-budget: {retryBudget: {percent: 25.0, minRetryConcurrency: 10}}
outlier:
  outlierDetection:
    consecutive5xxErrors: 7
    consecutiveGatewayErrors: 4
    splitExternalLocalOriginErrors: true
    consecutiveLocalOriginFailures: 6
    interval: 5s
    baseEjectionTime: 90s
    maxEjectionPercent: 50
    minHealthPercent: 30
outlier-off: {outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 0}}
tls-disable: {tls: {mode: DISABLE}}
tls-simple: {tls: {mode: SIMPLE}}
tls-simple-names: {tls: {mode: SIMPLE, sni: example.com, subjectAltNames: [example.com, "spiffe://cluster.local/ns/a/sa/b"]}}
tls-unverified: {tls: {mode: SIMPLE, sni: example.com, insecureSkipVerify: true}}
tls-istio: {tls: {mode: ISTIO_MUTUAL}}
proxy-protocol: {proxyProtocol: {version: V2}}
by-port:
  loadBalancer: {simple: RANDOM}
  connectionPool: {tcp: {maxConnections: 5}}
  portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: ROUND_ROBIN}}]
""")


def service(name: str, port: str = "{name: http, port: 9080}") -> str:
    """A Service with one port and a workload."""
    return (
        f"kind: Service\nmetadata: shop/{name}\nspec: {{ports: [{port}], selector: {{app: {name}}}}}\n---\n"
        f"kind: WorkloadEntry\nmetadata: shop/{name}-1\n"
        f"spec: {{address: 10.0.0.1, labels: {{app: {name}, version: v1}}, locality: eu/one/a}}\n---\n"
        f"kind: WorkloadEntry\nmetadata: shop/{name}-2\n"
        f"spec: {{address: 10.0.0.2, labels: {{app: {name}, version: v2}}, locality: us/two/b, weight: 3}}\n"
    )


def rule(name: str, policy: Mapping[str, Any]) -> str:
    """A DestinationRule with that policy, and the subsets v1, and v2 with an outlier detection of its own."""
    spec = {
        "host": name,
        "trafficPolicy": dict(policy) or None,
        "subsets": [
            {"name": "v1", "labels": {"version": "v1"}},
            {
                "name": "v2",
                "labels": {"version": "v2"},
                "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 9}},
            },
        ],
    }
    return yaml.safe_dump(
        {
            "kind": "DestinationRule",
            "metadata": f"shop/{name}",
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
    )


def every_policy() -> str:
    """A mesh with a service for each policy."""
    return "---\n".join(service(name) + "---\n" + rule(name, policy) for name, policy in POLICIES.items())
