"""Generated configurations: a thousand clusters of ten endpoints, a hundred policies, as a control plane writes them."""

from __future__ import annotations

CLUSTERS = 1000
ENDPOINTS = 10

_HEAD = """\
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: $admin_port}}
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          codec_type: HTTP1
          route_config:
            name: local_route
            virtual_hosts:
"""
_VIRTUAL_HOST = """\
            - name: {name}
              domains: ["{name}.shop.svc.cluster.local", "{name}.shop.svc.cluster.local:8080"]
              routes:
              - match: {{prefix: /}}
                route: {{cluster: {name}}}
"""
_LAST_VIRTUAL_HOST = """\
            - name: backend
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: backend}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $backend_port_1}}}
"""
_CLUSTER = """\
  - name: {name}
    type: STATIC
    connect_timeout: 1s
    lb_policy: LEAST_REQUEST
    circuit_breakers:
      thresholds:
      - {{priority: DEFAULT, max_connections: 1024, max_pending_requests: 1024, max_requests: 1024, max_retries: 3}}
    outlier_detection: {{consecutive_5xx: 5, interval: 10s, base_ejection_time: 30s, max_ejection_percent: 50}}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
"""
_ENDPOINT = """\
        - endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}
"""


def large_configuration(clusters: int = CLUSTERS, endpoints: int = ENDPOINTS) -> str:
    """A template like those in `configurations/`, about 1.6 MB of YAML in block style at the default size."""
    names = [f"service-{number:04}" for number in range(clusters)]
    parts = [_HEAD]
    parts += [_VIRTUAL_HOST.format(name=name) for name in names]
    parts.append(_LAST_VIRTUAL_HOST)
    for number, name in enumerate(names):
        parts.append(_CLUSTER.format(name=name))
        parts += [
            _ENDPOINT.format(address=f"10.{number // 250}.{number % 250}.{endpoint + 1}", port=8080)
            for endpoint in range(endpoints)
        ]
    return "".join(parts)


_ROUTER = "          - name: envoy.filters.http.router\n"
_RBAC = """\
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
"""
_POLICY = """\
                  "ns[shop]-policy[p{number:03}]-rule[0]":
                    permissions:
                    - and_rules:
                        rules:
                        - or_rules:
                            rules:
                            - header: {{name: ":method", string_match: {{exact: GET}}}}
                            - header: {{name: ":method", string_match: {{exact: POST}}}}
                        - or_rules:
                            rules:
                            - url_path: {{path: {{exact: "{exact}"}}}}
                            - url_path: {{path: {{prefix: "/api/{number:03}/"}}}}
                    principals:
                    - direct_remote_ip: {{address_prefix: 127.0.0.0, prefix_len: 8}}
"""


def with_policies(template: str, policies: int) -> str:
    """A template with an RBAC filter before its router; of its policies the last is the one that lets `/` pass."""
    rules = "".join(
        _POLICY.format(number=number, exact="/" if number == policies - 1 else f"/exact/{number:03}")
        for number in range(policies)
    )
    before, router, after = template.partition(_ROUTER)
    return f"{before}{_RBAC}{rules}{router}{after}"
