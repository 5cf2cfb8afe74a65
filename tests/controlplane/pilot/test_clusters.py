"""DestinationRules, field by field, in the clusters that come of them; and what services of each resolution become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from google.protobuf.json_format import MessageToDict

from controlplane.model.proxy import Locality, ProxyType
from controlplane.pilot.generators import ENDPOINTS
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import addresses, assignment, change, clusters, mesh, proxy
from tests.controlplane.pilot.policies import POLICIES, rule, service

HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

EXPECTED: Mapping[str, Any] = yaml.safe_load("""
none:
  lb_policy: LEAST_REQUEST
  connect_timeout: 10s
  common_lb_config: {healthy_panic_threshold: {}, locality_weighted_lb_config: {}}
  circuit_breakers:
    thresholds:
    - max_connections: 4294967295
      max_pending_requests: 4294967295
      max_requests: 4294967295
      retry_budget: {budget_percent: {value: 20.0}, min_retry_concurrency: 3}
      track_remaining: true
round-robin: {lb_policy: null}
random: {lb_policy: RANDOM}
least-request: {lb_policy: LEAST_REQUEST}
least-conn: {lb_policy: LEAST_REQUEST}
passthrough: {lb_policy: CLUSTER_PROVIDED, type: ORIGINAL_DST, eds_cluster_config: null}
ring: {lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: "512"}}
ring-by-source: {lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: "1024"}}
maglev: {lb_policy: MAGLEV, maglev_lb_config: {table_size: "1009"}}
cookie: {lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: "2048"}}
warm-up:
  round_robin_lb_config:
    slow_start_config:
      slow_start_window: 30s
      min_weight_percent: {value: 20.0}
      aggression: {default_value: 1.5}
warm-up-old: {least_request_lb_config: {slow_start_config: {slow_start_window: 45s}}}
distribute: {common_lb_config: {locality_weighted_lb_config: {}}}
no-locality: {common_lb_config: {locality_weighted_lb_config: null}}
pool:
  connect_timeout: 0.030s
  circuit_breakers:
    thresholds: [{max_connections: 100, max_pending_requests: 10, max_requests: 1000, max_retries: 3, retry_budget: null}]
  upstream_connection_options: {tcp_keepalive: {keepalive_probes: 3, keepalive_time: 7200, keepalive_interval: 75}}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      common_http_protocol_options: {idle_timeout: 15s, max_requests_per_connection: 50, max_connection_duration: 60s}
      explicit_http_config: {http_protocol_options: {}}
upgrade:
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 100}}
client-protocol:
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}
retry-budget:
  circuit_breakers:
    thresholds: [{retry_budget: {budget_percent: {value: 25.0}, min_retry_concurrency: 10}}]
outlier:
  outlier_detection:
    consecutive_5xx: 7
    enforcing_consecutive_5xx: 100
    consecutive_gateway_failure: 4
    enforcing_consecutive_gateway_failure: 100
    split_external_local_origin_errors: true
    consecutive_local_origin_failure: 6
    enforcing_consecutive_local_origin_failure: 100
    interval: 5s
    base_ejection_time: 90s
    max_ejection_percent: 50
    enforcing_success_rate: 0
  common_lb_config: {healthy_panic_threshold: {value: 30.0}}
outlier-off: {outlier_detection: {enforcing_consecutive_5xx: 0, enforcing_consecutive_gateway_failure: 0}}
tls-disable: {transport_socket: null}
tls-simple:
  transport_socket:
    typed_config:
      common_tls_context: {validation_context: {trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}}}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}
tls-simple-names:
  transport_socket:
    typed_config:
      sni: example.com
      common_tls_context:
        validation_context:
          match_typed_subject_alt_names:
          - {san_type: DNS, matcher: {exact: example.com}}
          - {san_type: URI, matcher: {exact: "spiffe://cluster.local/ns/a/sa/b"}}
  typed_extension_protocol_options: null
tls-unverified: {transport_socket: {typed_config: {common_tls_context: null, sni: example.com}}}
tls-istio: {type: STATIC, load_assignment: {endpoints: null}, transport_socket: null}
proxy-protocol:
  transport_socket: {name: envoy.transport_sockets.upstream_proxy_protocol, typed_config: {config: {version: V2}}}
by-port:
  lb_policy: null
  circuit_breakers: {thresholds: [{max_connections: 4294967295}]}
""")


def holds(expected: Any, found: Any, path: str = "") -> None:
    """Every field of ``expected`` is in ``found``; null stands for one that is not set (or has its default)."""
    if isinstance(expected, Mapping):
        assert isinstance(found, Mapping), f"{path} is {found!r}"
        for key, value in expected.items():
            if value is None:
                assert not found.get(key), f"{path}.{key} is {found[key]!r}"
            else:
                assert key in found, f"{path}.{key} is missing"
                holds(value, found[key], f"{path}.{key}")
    elif isinstance(expected, list):
        assert len(expected) == len(found), f"{path} is {found!r}"
        for index, value in enumerate(expected):
            holds(value, found[index], f"{path}[{index}]")
    else:
        assert found == expected, f"{path} is {found!r}"


def document(cluster: Any) -> Any:
    return MessageToDict(cluster, preserving_proto_field_name=True)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_policy_in_its_cluster(name: str) -> None:
    pilot = mesh(service(name) + "---\n" + rule(name, POLICIES[name]))
    captured = {"INTERCEPTION_MODE": "REDIRECT"} if name == "passthrough" else {}
    found = clusters(pilot, proxy(namespace="shop", **captured))[f"outbound|9080||{name}.shop.svc.cluster.local"]
    holds(EXPECTED[name], document(found))


def test_connections_that_are_not_captured_have_no_address_to_pass_on_to() -> None:
    pilot = mesh(service("passthrough") + "---\n" + rule("passthrough", POLICIES["passthrough"]))
    found = document(clusters(pilot, proxy(namespace="shop"))["outbound|9080||passthrough.shop.svc.cluster.local"])
    holds({"type": "EDS", "lb_policy": "LEAST_REQUEST"}, found)


def test_every_policy_has_its_expectation_or_is_about_endpoints() -> None:
    assert set(POLICIES) - set(EXPECTED) == {"failover", "failover-labels"}


def test_subsets_override_what_they_say_and_inherit_the_rest() -> None:
    pilot = mesh(service("a") + "---\n" + rule("a", POLICIES["outlier"] | POLICIES["random"]))
    found = document(clusters(pilot, proxy(namespace="shop"))["outbound|9080|v2|a.shop.svc.cluster.local"])
    holds({"lb_policy": "RANDOM", "outlier_detection": {"consecutive_5xx": 9, "interval": None}}, found)


def test_metadata_says_where_a_cluster_comes_from() -> None:
    pilot = mesh(service("a") + "---\n" + rule("a", {}))
    found = document(clusters(pilot, proxy(namespace="shop"))["outbound|9080|v1|a.shop.svc.cluster.local"])
    assert found["metadata"]["filter_metadata"]["istio"] == {
        "config": "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/a",
        "services": [{"host": "a.shop.svc.cluster.local", "name": "a", "namespace": "shop"}],
        "subset": "v1",
    }
    assert "alt_stat_name" not in found


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("{name: http, port: 80}", None),
        ("{name: http2-web, port: 80}", {"explicit_http_config": {"http2_protocol_options": {}}}),
        ("{name: grpc, port: 80}", {"explicit_http_config": {"http2_protocol_options": {}}}),
        ("{name: grpc-web, port: 80}", {"explicit_http_config": {"http2_protocol_options": {}}}),
        (
            "{name: x, port: 80, appProtocol: kubernetes.io/h2c}",
            {"explicit_http_config": {"http2_protocol_options": {}}},
        ),
        ("{name: tcp, port: 80}", None),
        ("{name: mysql, port: 80}", None),
        ("{port: 3306}", None),
        (
            "{name: who-knows, port: 80}",
            {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}},
        ),
    ],
)
def test_the_protocol_of_a_port_is_that_of_its_connections(port: str, expected: Any) -> None:
    pilot = mesh(service("a", port))
    (found,) = [c for name, c in clusters(pilot, proxy()).items() if name.startswith("outbound|")]
    options = document(found).get("typed_extension_protocol_options", {}).get(HTTP)
    if expected is None:
        assert options is None
    else:
        holds(expected, options)


def test_the_mesh_can_upgrade_all_of_http() -> None:
    pilot = mesh(service("a"))
    change(
        pilot,
        "kind: ConfigMap\nmetadata: istio-system/istio\n"
        'data: {mesh: "h2UpgradePolicy: UPGRADE\\nconnectTimeout: 3s\\ntcpKeepalive: {time: 60s}"}',
    )
    found = document(clusters(pilot, proxy())["outbound|9080||a.shop.svc.cluster.local"])
    holds({"explicit_http_config": {"http2_protocol_options": {}}}, found["typed_extension_protocol_options"][HTTP])
    holds({"connect_timeout": "3s", "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 60}}}, found)


def told(pilot: Pilot, settings: str) -> None:
    """Change the mesh's configuration."""
    change(pilot, f"kind: ConfigMap\nmetadata: istio-system/istio\ndata: {{mesh: '{settings}'}}")


def test_statistics_can_have_other_names() -> None:
    pilot = mesh(service("a", "{name: http, port: 80, targetPort: 8080}") + "---\n" + rule("a", {}))
    told(
        pilot,
        'outboundClusterStatName: "%SERVICE%_%SERVICE_PORT%_%SERVICE_PORT_NAME%_%SUBSET_NAME%"\n\n'
        '  inboundClusterStatName: "%SERVICE_FQDN%_%TARGET_PORT%"',
    )
    found = clusters(pilot, proxy("a-1", "shop", labels={"app": "a"}))
    assert found["outbound|80|v1|a.shop.svc.cluster.local"].alt_stat_name == "a.shop_80_http_v1"
    assert found["inbound|8080||"].alt_stat_name == "a.shop.svc.cluster.local_8080"


def test_the_mesh_can_leave_certificates_unverified() -> None:
    pilot = mesh(service("a") + "---\n" + rule("a", POLICIES["tls-simple"]))
    told(pilot, "verifyCertificateAtClient: false")
    found = document(clusters(pilot, proxy(namespace="shop"))["outbound|9080||a.shop.svc.cluster.local"])
    holds(
        {"transport_socket": {"typed_config": {"common_tls_context": None}}, "typed_extension_protocol_options": None},
        found,
    )


ENTRY = """
kind: ServiceEntry
metadata: shop/entry
spec:
  hosts: [api.example.com]
  resolution: %s
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  endpoints: %s
"""


def looked_up(family: str, **fields: bool) -> dict[str, Any]:
    settings = {"dns_refresh_rate": "60s", "respect_dns_ttl": True, "dns_lookup_family": family, **fields}
    return {"name": "envoy.clusters.dns", "typed_config": settings}


@pytest.mark.parametrize(
    ("resolution", "endpoints", "expected"),
    [
        (
            "DNS",
            "[]",
            {"type": None, "lb_policy": "LEAST_REQUEST", "dns_refresh_rate": None, "cluster_type": looked_up("ALL")},
        ),
        ("DNS_ROUND_ROBIN", "[]", {"cluster_type": looked_up("V4_PREFERRED", all_addresses_in_single_endpoint=True)}),
        ("STATIC", "[{address: 10.1.1.1}]", {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}),
        ("NONE", "[]", {"cluster_type": looked_up("ALL")}),  # what was sent to the proxy has no other address
    ],
)
def test_a_resolution_decides_how_endpoints_are_found(resolution: str, endpoints: str, expected: Any) -> None:
    pilot = mesh(ENTRY % (resolution, endpoints))
    holds(expected, document(clusters(pilot, proxy())["outbound|80||api.example.com"]))


@pytest.mark.parametrize(
    ("host", "more", "expected", "where"),
    [
        ("one.example.com", "", "envoy.clusters.dns", ["one.example.com:80"]),
        ("one.example.com", ", addresses: [10.5.5.5, 10.6.0.0/16]", "STATIC", ["10.5.5.5:80"]),
        ("'*.example.com'", "", "envoy.clusters.dynamic_forward_proxy", []),
        ("'*.example.com'", ", addresses: [10.6.0.0/16]", "envoy.clusters.dynamic_forward_proxy", []),
    ],
)
def test_without_resolution(host: str, more: str, expected: str, where: list[str]) -> None:
    """Captured connections keep their address; the others go where the service's addresses or its name lead."""
    pilot = mesh(
        f"kind: ServiceEntry\nmetadata: shop/entry\nspec: {{hosts: [{host}], resolution: NONE{more},"
        " ports: [{number: 80, name: http, protocol: HTTP}]}\n"
    )
    name = f"outbound|80||{host.strip(chr(39))}"
    plain = clusters(pilot, proxy())[name]
    assert (plain.cluster_type.name or plain.DiscoveryType.Name(plain.type)) == expected
    assert addresses(plain.load_assignment) == where
    captured = document(clusters(pilot, proxy("other", INTERCEPTION_MODE="REDIRECT"))[name])
    holds({"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "common_lb_config": None}, captured)


def test_names_are_looked_up_with_their_target_port() -> None:
    pilot = mesh(ENTRY % ("DNS", "[]"))
    found = clusters(pilot, proxy())["outbound|80||api.example.com"]
    assert addresses(found.load_assignment) == ["api.example.com:8080"]
    change(pilot, ENTRY % ("DNS", "[{address: a.example.com, ports: {http: 81}}, {address: b.example.com, weight: 4}]"))
    found = clusters(pilot, proxy())["outbound|80||api.example.com"]
    assert addresses(found.load_assignment) == ["a.example.com:81", "b.example.com:8080"]
    assert [one.load_balancing_weight.value for one in found.load_assignment.endpoints[0].lb_endpoints] == [1, 4]


def test_a_subset_of_a_name_that_is_looked_up_for_each_connection() -> None:
    """Envoy wants exactly one name there; a subset without one has no endpoints, and is no reason to refuse."""
    pilot = mesh(
        ENTRY
        % ("DNS_ROUND_ROBIN", "[{address: a.example.com, labels: {v: a}}]")
        + "---\nkind: DestinationRule\nmetadata: shop/api\n"
        "spec: {host: api.example.com, subsets: [{name: a, labels: {v: a}}, {name: c, labels: {v: c}}]}\n"
    )
    found = clusters(pilot, proxy(namespace="shop"))
    assert addresses(found["outbound|80|a|api.example.com"].load_assignment) == ["a.example.com:8080"]
    nobody = found["outbound|80|c|api.example.com"]
    assert (nobody.type, addresses(nobody.load_assignment)) == (nobody.STATIC, [])


def test_workloads_of_a_service_entry_by_their_labels() -> None:
    pilot = mesh("""
kind: ServiceEntry
metadata: shop/selected
spec:
  hosts: [selected.example.com]
  resolution: STATIC
  location: MESH_INTERNAL
  workloadSelector: {labels: {app: x}}
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
---
kind: WorkloadEntry
metadata: shop/x-1
spec: {address: 10.0.0.1, labels: {app: x}}
---
kind: WorkloadEntry
metadata: shop/x-2
spec: {address: 10.0.0.2, labels: {app: x}, ports: {http: 9999}, weight: 7}
---
kind: WorkloadEntry
metadata: shop/y-1
spec: {address: 10.0.0.3, labels: {app: y}}
---
kind: WorkloadEntry
metadata: elsewhere/x-3
spec: {address: 10.0.0.4, labels: {app: x}}
""")
    found = assignment(pilot, proxy(), "outbound|80||selected.example.com")
    assert addresses(found) == ["10.0.0.1:8080", "10.0.0.2:9999"]
    assert found.endpoints[0].load_balancing_weight.value == 8


def test_weights_of_all_sizes_fit() -> None:
    text = service("a") + "".join(
        f"---\nkind: WorkloadEntry\nmetadata: shop/a-{n}\nspec: {{address: 10.0.1.{n}, labels: {{app: a}}, weight: {w}}}\n"
        for n, w in enumerate((4294967295, 4294967295, 2147483648, 1))
    )
    found = assignment(mesh(text), proxy(), "outbound|9080||a.shop.svc.cluster.local")
    weights = [one.load_balancing_weight.value for each in found.endpoints for one in each.lb_endpoints]
    assert sum(weights) < 2**32 and min(weights) >= 1
    assert sorted(weights)[-1] == sorted(weights)[-2] > 1.9 * sorted(weights)[-3]


def test_names_do_not_spoil_addresses() -> None:
    """Envoy refuses a load assignment with one name in it, and all the others with it."""
    text = (
        service("a")
        + "---\nkind: WorkloadEntry\nmetadata: shop/a-3\nspec: {address: a.example.com, labels: {app: a}}\n"
    )
    found = assignment(mesh(text), proxy(), "outbound|9080||a.shop.svc.cluster.local")
    assert sorted(addresses(found)) == ["10.0.0.1:9080", "10.0.0.2:9080"]


def test_mutual_tls_without_an_identity_is_closed_and_with_one_is_istios() -> None:
    pilot = mesh(service("a") + "---\n" + rule("a", POLICIES["tls-istio"]))
    name = "outbound|9080||a.shop.svc.cluster.local"
    closed = document(clusters(pilot, proxy(namespace="shop"))[name])
    assert "identity" in closed["metadata"]["filter_metadata"]["istio"]["closed"]
    agent = document(clusters(pilot, proxy(namespace="shop", SDS_AGENT="true"))[name])
    context = agent["transport_socket"]["typed_config"]
    assert context["sni"] == "outbound_.9080_._.a.shop.svc.cluster.local"
    assert context["common_tls_context"]["tls_certificate_sds_secret_configs"][0]["name"] == "default"
    assert agent["type"] == "EDS"


def test_a_gateway_that_passes_tls_on_has_clusters_by_server_name() -> None:
    pilot = mesh(service("a"))
    gateway = proxy("gw", "edge", type=ProxyType.ROUTER, labels={"istio": "gateway"})
    name = "outbound_.9080_._.a.shop.svc.cluster.local"
    assert name not in clusters(pilot, gateway)
    change(
        pilot,
        "kind: Gateway\nmetadata: edge/gw\nspec: {selector: {istio: gateway}, servers: [{port: {number: 15443, name: tls,"
        " protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}]}",
    )
    assert name in clusters(pilot, gateway)
    assert addresses(assignment(pilot, gateway, name)) == ["10.0.0.1:9080", "10.0.0.2:9080"]
    assert name not in clusters(pilot, proxy())


def test_inbound_goes_to_the_application() -> None:
    pilot = mesh(service("a", "{name: http, port: 80, targetPort: 8080}"))
    node = proxy("a-1", "shop", labels={"app": "a"}, APP_ENDPOINTS={"8080": "127.0.0.1:3000"})
    assert addresses(clusters(pilot, node)["inbound|8080||"].load_assignment) == ["127.0.0.1:3000"]
    plain = proxy("a-2", "shop", labels={"app": "a"}, address="127.0.1.2")
    assert addresses(clusters(pilot, plain)["inbound|8080||"].load_assignment) == ["127.0.0.1:8080"]
    captured = proxy("a-3", "shop", labels={"app": "a"}, address="127.0.1.3", INTERCEPTION_MODE="REDIRECT")
    found = clusters(pilot, captured)
    assert found["inbound|8080||"].type == found["inbound|8080||"].ORIGINAL_DST
    assert found["InboundPassthroughCluster"].upstream_bind_config.source_address.address == "127.0.0.6"
    change(
        pilot,
        "kind: Sidecar\nmetadata: shop/a\nspec: {ingress: [{port: {number: 7000, protocol: HTTP2, name: x},"
        " defaultEndpoint: 'unix:///tmp/app'}]}",
    )
    inbound = {name: one for name, one in clusters(pilot, plain).items() if name.startswith("inbound")}
    assert set(inbound) == {"inbound|7000||"}
    pipe = inbound["inbound|7000||"].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.pipe
    assert pipe.path == "/tmp/app"


def test_the_port_of_a_pod_is_the_one_that_its_clients_use() -> None:
    pilot = mesh(
        "kind: Service\nmetadata: shop/a\n"
        "spec: {selector: {app: a}, ports: [{name: http, port: 80, targetPort: 9090}]}\n---\nkind: Pod\n"
        "metadata: {name: a-1, namespace: shop, labels: {app: a}}\n"
        "spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\n"
        "status: {podIP: 10.0.0.1, phase: Running}"
    )
    node = proxy("a-1", "shop", labels={"app": "a"}, address="10.0.0.1")
    assert addresses(assignment(pilot, node, "outbound|80||a.shop.svc.cluster.local")) == ["10.0.0.1:9090"]
    assert [name for name in clusters(pilot, node) if name.startswith("inbound")] == ["inbound|9090||"]


def test_a_workload_has_all_the_ports_that_it_is_listed_with() -> None:
    pilot = mesh(
        "kind: Service\nmetadata: shop/a\nspec: {ports: [{name: http, port: 80}, {name: more, port: 90}]}\n---\n"
        "kind: Endpoints\nmetadata: shop/a\nsubsets: [{addresses: [{ip: 10.0.0.1}], ports: [{name: http, port: 8080}]},"
        " {addresses: [{ip: 10.0.0.1}], ports: [{name: more, port: 9090}]}]"
    )
    found = clusters(pilot, proxy("a-1", "shop", address="10.0.0.1"))
    assert [name for name in found if name.startswith("inbound")] == ["inbound|8080||", "inbound|9090||"]


def test_an_upgrade_to_http2_is_offered_with_tls() -> None:
    for upgrade, expected in (("UPGRADE", ["h2"]), ("DO_NOT_UPGRADE", [])):
        policy = {"tls": {"mode": "SIMPLE"}, "connectionPool": {"http": {"h2UpgradePolicy": upgrade}}}
        pilot = mesh(service("a") + "---\n" + rule("a", policy))
        found = clusters(pilot, proxy())["outbound|9080||a.shop.svc.cluster.local"]
        context = tls_pb2.UpstreamTlsContext.FromString(found.transport_socket.typed_config.value)
        assert list(context.common_tls_context.alpn_protocols) == expected


def test_a_server_may_be_known_by_its_address() -> None:
    names = ["10.0.0.1", "a.example", "spiffe://a/b"]
    policy = {"tls": {"mode": "SIMPLE", "caCertificates": "/ca", "subjectAltNames": names}}
    pilot = mesh(service("a") + "---\n" + rule("a", policy))
    found = clusters(pilot, proxy())["outbound|9080||a.shop.svc.cluster.local"]
    context = tls_pb2.UpstreamTlsContext.FromString(found.transport_socket.typed_config.value)
    matchers = context.common_tls_context.validation_context.match_typed_subject_alt_names
    assert [
        (common_pb2.SubjectAltNameMatcher.SanType.Name(each.san_type), each.matcher.exact) for each in matchers
    ] == [
        ("IP_ADDRESS", "10.0.0.1"),
        ("DNS", "a.example"),
        ("URI", "spiffe://a/b"),
    ]


HERE = Locality("eu", "one", "a")


def test_failover_makes_priorities_of_distance() -> None:
    text = service("a") + "---\n" + rule("a", POLICIES["failover"])
    text += (
        "---\nkind: WorkloadEntry\nmetadata: shop/a-3\nspec: {address: 10.0.0.3, labels: {app: a}, locality: eu/two}\n"
    )
    text += (
        "---\nkind: WorkloadEntry\nmetadata: shop/a-4\nspec: {address: 10.0.0.4, labels: {app: a}, locality: asia}\n"
    )
    pilot = mesh(text)
    name = "outbound|9080||a.shop.svc.cluster.local"

    def priorities(locality: Locality) -> dict[str, int]:
        found = assignment(pilot, proxy(namespace="shop", locality=locality), name)
        return {each.locality.region + each.locality.zone: each.priority for each in found.endpoints}

    assert priorities(HERE) == {"euone": 0, "eutwo": 1, "ustwo": 2, "asia": 3}
    assert priorities(Locality("us", "two", "b")) == {"ustwo": 0, "euone": 1, "eutwo": 1, "asia": 1}
    assert set(priorities(Locality()).values()) == {0}


def test_where_a_proxy_is_its_workload_may_say() -> None:
    pilot = mesh(service("a") + "---\n" + rule("a", POLICIES["failover"]))
    name = "outbound|9080||a.shop.svc.cluster.local"
    node = proxy("a-2", "shop", labels={"app": "a"}, address="10.0.0.2")
    assert [each.priority for each in assignment(pilot, node, name).endpoints] == [1, 0]  # it is a-2, in us/two/b
    entry = "kind: WorkloadEntry\nmetadata: shop/a-2\nspec: {address: 10.0.0.2, labels: {app: a}, locality: eu/one/a}\n"
    changes = change(pilot, entry)
    assert ENDPOINTS in pilot.affected(changes, node)
    assert [each.priority for each in assignment(pilot, node, name).endpoints] == [0]
    registering = proxy("x", "shop", address="10.0.0.9", AUTO_REGISTER_GROUP="here")
    change(pilot, "kind: WorkloadGroup\nmetadata: shop/here\nspec: {template: {locality: us/two/b}}\n")
    assert [each.priority for each in assignment(pilot, registering, name).endpoints] == [0]
    change(pilot, service("a"))
    assert [each.priority for each in assignment(pilot, registering, name).endpoints] == [1, 0]


def test_without_outlier_detection_there_is_no_failover() -> None:
    pilot = mesh(service("a"))
    found = assignment(pilot, proxy(locality=HERE), "outbound|9080||a.shop.svc.cluster.local")
    assert {each.priority for each in found.endpoints} == {0}
    assert [each.load_balancing_weight.value for each in found.endpoints] == [1, 3]


def test_distribution_gives_shares_to_localities() -> None:
    pilot = mesh(service("distribute") + "---\n" + rule("distribute", POLICIES["distribute"]))
    name = "outbound|9080||distribute.shop.svc.cluster.local"
    found = assignment(pilot, proxy(namespace="shop", locality=HERE), name)
    assert [(each.locality.region, each.load_balancing_weight.value) for each in found.endpoints] == [
        ("eu", 80),
        ("us", 20),
    ]
    found = assignment(pilot, proxy(namespace="shop", locality=Locality("asia")), name)
    assert [each.load_balancing_weight.value for each in found.endpoints] == [1, 3]


def test_who_distributes_does_not_fail_over() -> None:
    policy = {**POLICIES["distribute"], "outlierDetection": {"consecutive5xxErrors": 3}}
    pilot = mesh(service("a") + "---\n" + rule("a", policy))
    node = proxy(namespace="shop", locality=Locality("us", "two"))  # nothing is said of clients there
    found = assignment(pilot, node, "outbound|9080||a.shop.svc.cluster.local")
    assert [each.priority for each in found.endpoints] == [0, 0]


def test_failover_by_labels_in_order() -> None:
    pilot = mesh(service("a") + "---\n" + rule("a", POLICIES["failover-labels"]))
    node = proxy(namespace="shop", labels={"topology.istio.io/network": "n1"}, locality=HERE)
    name = "outbound|9080||a.shop.svc.cluster.local"
    assert {each.priority for each in assignment(pilot, node, name).endpoints} == {0}  # neither has the label
    change(
        pilot,
        "kind: WorkloadEntry\nmetadata: shop/a-2\nspec: {address: 10.0.0.2,"
        " labels: {app: a, version: v2, topology.istio.io/network: n1}}",
    )
    found = assignment(pilot, node, name)
    assert [(each.priority, addresses_of(each)) for each in found.endpoints] == [(0, ["10.0.0.2"]), (1, ["10.0.0.1"])]


def addresses_of(locality: Any) -> list[str]:
    return [one.endpoint.address.socket_address.address for one in locality.lb_endpoints]


def test_health_is_what_the_status_of_the_entry_says() -> None:
    pilot = mesh(service("a"))
    node = proxy()
    name = "outbound|9080||a.shop.svc.cluster.local"
    unhealthy = (
        "kind: WorkloadEntry\nmetadata: shop/a-1\nspec: {address: 10.0.0.1, labels: {app: a, version: v1}, locality: eu/one/a}\n"
        "status: {conditions: [{type: Healthy, status: %s}]}\n"
    )
    changes = change(pilot, unhealthy % "'False'")
    assert changes.endpoints == {"a.shop.svc.cluster.local"} and not changes.resources
    found = assignment(pilot, node, name)
    assert [one.health_status for each in found.endpoints for one in each.lb_endpoints] == [2, 0]
    change(pilot, unhealthy % "'True'")
    found = assignment(pilot, node, name)
    assert [one.health_status for each in found.endpoints for one in each.lb_endpoints] == [0, 0]


def test_names_of_a_service_entry_are_asked_for_with_any_tls() -> None:
    """Else a chain to the system's roots would do for TCP, of whatever server."""
    entry = """
kind: ServiceEntry
metadata: shop/entry
spec:
  hosts: [ext.example]
  ports: [{number: 443, name: tcp-x, protocol: TCP}, {number: 444, name: http, protocol: HTTP}]
  resolution: DNS
  location: MESH_EXTERNAL
  subjectAltNames: [pinned.example]
---
kind: DestinationRule
metadata: shop/rule
spec: {host: ext.example, trafficPolicy: {tls: {mode: SIMPLE%s}}}
"""
    for told, names, server_name in (
        ("", ["pinned.example"], "ext.example"),
        (", sni: other.example", ["pinned.example"], "other.example"),
        (", subjectAltNames: [own.example]", ["own.example"], ""),
    ):
        made = clusters(mesh(entry % told), proxy(namespace="shop"))
        for port in (443, 444):
            cluster = made[f"outbound|{port}||ext.example"]
            context = tls_pb2.UpstreamTlsContext.FromString(cluster.transport_socket.typed_config.value)
            found = context.common_tls_context.validation_context.match_typed_subject_alt_names
            assert [each.matcher.exact for each in found] == names
            assert context.sni == server_name
            assert b"auto_s" not in str(cluster.typed_extension_protocol_options).encode()


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("true", True),
        (True, True),
        ("1", True),
        (None, False),
        ("no", False),
        ("off", False),
        ("", False),
        (False, False),
    ],
)
def test_only_who_says_so_has_an_identity(told: object, known: bool) -> None:
    assert proxy(SDS_AGENT=told).has_identity is known
