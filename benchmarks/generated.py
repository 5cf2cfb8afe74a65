"""The large configuration: a thousand clusters of ten endpoints, as a control plane would write it."""

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
