"""Bootstraps that Envoy accepts and refuses, as it says itself: `test_load.py` asks it where it is there."""

from __future__ import annotations

from textwrap import indent


def cluster(fields: str) -> str:
    """A bootstrap of one cluster with these fields."""
    head = "static_resources:\n  clusters:\n  - name: a\n    connect_timeout: 1s\n"
    return head + indent(fields.strip() + "\n", "    ")


def assignment(endpoint: str) -> str:
    """A bootstrap whose only endpoint is this."""
    return cluster(f"load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}")


def connection_manager(fields: str = "", *, filters: str = "", domains: str = '["*"]', route: str = "") -> str:
    """A bootstrap of one HTTP listener."""
    route = route or "match: {prefix: /}, direct_response: {status: 200}"
    return f"""\
static_resources:
  listeners:
  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          http_filters:
          {filters}
          - name: r
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          {fields}
          route_config:
            virtual_hosts:
            - name: v
              domains: {domains}
              routes:
              - {{{route}}}
"""


def http_filter(type_name: str, fields: str) -> str:
    """A bootstrap with an HTTP filter before the router."""
    type_url = f"type.googleapis.com/envoy.extensions.filters.http.{type_name}"
    return connection_manager(filters=f'- {{name: f, typed_config: {{"@type": {type_url}, {fields}}}}}')


def transport_socket(fields: str) -> str:
    """A bootstrap whose cluster has a transport socket with this configuration."""
    return cluster(f"transport_socket: {{name: x, typed_config: {fields}}}")


RAW_BUFFER = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
TYPED_STRUCT = f'"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: {RAW_BUFFER}'
LISTENER = "static_resources.listeners[0]"
MANAGER = f"{LISTENER}.filter_chains[0].filters[0].typed_config"
HOST = f"{MANAGER}.route_config.virtual_hosts[0]"
FIRST = f"{HOST}.routes[0]"
CLUSTER = "static_resources.clusters[0]"
ENDPOINT = f"{CLUSTER}.load_assignment.endpoints[0].lb_endpoints[0]"

GOOD: dict[str, str] = {
    "a route": connection_manager(),
    "an admin without an address": "admin: {}",
    "an endpoint": assignment("{endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 1}}}}"),
    "largest head": connection_manager("max_request_headers_kb: 8192"),
    "header names with spaces": connection_manager(
        route="match: {prefix: /, headers: [{name: a b, present_match: true}]}, direct_response: {status: 200}"
    ),
    "one domain for a list": connection_manager(domains='"*"'),
    "a fraction as a name": "static_resources: {clusters: [{name: 1.5}]}",
    "null": cluster("alt_stat_name: ~"),
    "yes": cluster("respect_dns_ttl: yes"),
    "quoted boolean": cluster('respect_dns_ttl: "true"'),
    "hexadecimal": cluster("per_connection_buffer_limit_bytes: 0x10"),
    "quoted hexadecimal": cluster('per_connection_buffer_limit_bytes: "0x10"'),
    "exponent": cluster("per_connection_buffer_limit_bytes: 1e3"),
    "a wrapper as a message": cluster("per_connection_buffer_limit_bytes: {value: 5}"),
    "a duration as a message": cluster("cleanup_interval: {seconds: 5}"),
    "enum in small letters": cluster("lb_policy: random"),
    "enum by number": cluster('lb_policy: "1"'),
    "lowerCamelCase": cluster("altStatName: b"),
    "an alias": cluster("alt_stat_name: &n x\nedsClusterConfig: ~\nmetadata: {filter_metadata: {a: {b: *n}}}"),
    "another host in a type URL": transport_socket(f'{{"@type": {RAW_BUFFER.replace("type.googleapis.com", "a.b")}}}'),
    "a TypedStruct": transport_socket(f"{{{TYPED_STRUCT}, value: {{}}}}"),
    "an empty token bucket": http_filter(
        "local_ratelimit.v3.LocalRateLimit", "stat_prefix: x, token_bucket: {max_tokens: 0, fill_interval: 1s}"
    ),
}

BAD: dict[str, tuple[str, str]] = {
    "number as a name": ("static_resources: {clusters: [{name: 123}]}", f"{CLUSTER}.name"),
    "boolean as a name": ("static_resources: {clusters: [{name: true}]}", f"{CLUSTER}.name"),
    "empty name": ('static_resources: {clusters: [{name: ""}]}', f"{CLUSTER}.name"),
    "number as a boolean": (cluster("respect_dns_ttl: 1"), f"{CLUSTER}.respect_dns_ttl"),
    "fraction": (cluster("per_connection_buffer_limit_bytes: 1.5"), f"{CLUSTER}.per_connection_buffer_limit_bytes"),
    "negative": (cluster("per_connection_buffer_limit_bytes: -1"), f"{CLUSTER}.per_connection_buffer_limit_bytes"),
    "too large": (
        cluster("per_connection_buffer_limit_bytes: 4294967296"),
        f"{CLUSTER}.per_connection_buffer_limit_bytes",
    ),
    "underscores": (
        cluster("per_connection_buffer_limit_bytes: 1_000"),
        f"{CLUSTER}.per_connection_buffer_limit_bytes",
    ),
    "unknown enum": (cluster("lb_policy: FOO"), f"{CLUSTER}.lb_policy"),
    "undefined enum": (cluster("lb_policy: 99"), f"{CLUSTER}.lb_policy"),
    "duration without unit": (cluster("cleanup_interval: 1"), f"{CLUSTER}.cleanup_interval"),
    "duration in ms": (cluster("cleanup_interval: 1ms"), f"{CLUSTER}.cleanup_interval"),
    "duration too fine": (cluster("cleanup_interval: 1.1234567890s"), f"{CLUSTER}.cleanup_interval"),
    "duration too long": (cluster("cleanup_interval: 400000000000s"), f"{CLUSTER}.cleanup_interval"),
    "negative duration": (cluster("cleanup_interval: -1s"), f"{CLUSTER}.cleanup_interval"),
    "nanos of seconds": (cluster("cleanup_interval: {seconds: 1, nanos: 2000000000}"), f"{CLUSTER}.cleanup_interval"),
    "list for a string": (cluster("alt_stat_name: [a]"), f"{CLUSTER}.alt_stat_name"),
    "text for a message": (cluster("load_assignment: x"), f"{CLUSTER}.load_assignment"),
    "list for a message": (cluster("load_assignment: []"), f"{CLUSTER}.load_assignment"),
    "null in a list": (cluster("health_checks: [null]"), f"{CLUSTER}.health_checks[0]"),
    "unknown field": (cluster("foo: 1"), f"{CLUSTER}.foo"),
    "unknown field with null": (cluster("foo: null"), f"{CLUSTER}.foo"),
    "CapitalCamelCase": (cluster("AltStatName: b"), f"{CLUSTER}.AltStatName"),
    "two choices": (cluster("type: STATIC\ncluster_type: {name: x}"), f"{CLUSTER}.cluster_type"),
    "a tag": (cluster("alt_stat_name: !foo 5"), f"{CLUSTER}.alt_stat_name"),
    "empty": ("", ""),
    "a comment": ("# nothing", ""),
    "a list": ("- a", ""),
    "a tab": ("static_resources:\n\tclusters: []\n", ""),
    "unknown type": (
        transport_socket('{"@type": type.googleapis.com/foo.Bar}'),
        f"{CLUSTER}.transport_socket.typed_config.@type",
    ),
    "no type": (transport_socket("{a: b}"), f"{CLUSTER}.transport_socket.typed_config.@type"),
    "type without host": (
        transport_socket('{"@type": envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}'),
        f"{CLUSTER}.transport_socket.typed_config.@type",
    ),
    "unknown field of a type": (
        transport_socket(f'{{"@type": {RAW_BUFFER}, x: 1}}'),
        f"{CLUSTER}.transport_socket.typed_config.x",
    ),
    "unknown field in a TypedStruct": (
        transport_socket(f"{{{TYPED_STRUCT}, value: {{x: 1}}}}"),
        f"{CLUSTER}.transport_socket.typed_config.value.x",
    ),
    "percent over 100": (
        cluster("common_lb_config: {healthy_panic_threshold: {value: 101}}"),
        f"{CLUSTER}.common_lb_config.healthy_panic_threshold.value",
    ),
    "port": (
        assignment("{endpoint: {address: {socket_address: {address: 1.2.3.4, port_value: 65536}}}}"),
        f"{ENDPOINT}.endpoint.address.socket_address.port_value",
    ),
    "no port": (
        assignment("{endpoint: {address: {socket_address: {address: 1.2.3.4}}}}"),
        f"{ENDPOINT}.endpoint.address.socket_address",
    ),
    "no address": (assignment("{endpoint: {address: {}}}"), f"{ENDPOINT}.endpoint.address"),
    "weight of nothing": (assignment("{load_balancing_weight: 0}"), f"{ENDPOINT}.load_balancing_weight"),
    "no timeout": ("static_resources: {clusters: [{name: a, connect_timeout: 0s}]}", f"{CLUSTER}.connect_timeout"),
    "choices of one": (
        cluster("lb_policy: LEAST_REQUEST\nleast_request_lb_config: {choice_count: 1}"),
        f"{CLUSTER}.least_request_lb_config.choice_count",
    ),
    "all ejected and more": (
        cluster("outlier_detection: {max_ejection_percent: 101}"),
        f"{CLUSTER}.outlier_detection.max_ejection_percent",
    ),
    "flush of nothing": ("stats_flush_interval: 0s", "stats_flush_interval"),
    "flush on admin off": ("stats_flush_on_admin: false", "stats_flush_on_admin"),
    "no head": (connection_manager("max_request_headers_kb: 0"), f"{MANAGER}.max_request_headers_kb"),
    "larger head": (connection_manager("max_request_headers_kb: 9000"), f"{MANAGER}.max_request_headers_kb"),
    "via with a line break": (connection_manager('via: "a\\nb"'), f"{MANAGER}.via"),
    "unknown codec": (connection_manager("codec_type: HTTP9"), f"{MANAGER}.codec_type"),
    "no domains": (connection_manager(domains="[]"), f"{HOST}.domains"),
    "no match": (connection_manager(route="match: {}, direct_response: {status: 200}"), f"{FIRST}.match"),
    "two matches": (
        connection_manager(route="match: {prefix: /, path: /}, direct_response: {status: 200}"),
        f"{FIRST}.match.path",
    ),
    "no action": (connection_manager(route="match: {prefix: /}"), FIRST),
    "status": (
        connection_manager(route="match: {prefix: /}, direct_response: {status: 600}"),
        f"{FIRST}.direct_response.status",
    ),
    "slash at the end": (
        connection_manager(route="match: {path_separated_prefix: /a/}, direct_response: {status: 200}"),
        f"{FIRST}.match.path_separated_prefix",
    ),
    "no cluster": (connection_manager(route="match: {prefix: /}, route: {}"), f"{FIRST}.route"),
    "empty cluster": (
        connection_manager(route='match: {prefix: /}, route: {cluster: ""}'),
        f"{FIRST}.route.cluster",
    ),
    "no weighted cluster": (
        connection_manager(route="match: {prefix: /}, route: {weighted_clusters: {clusters: []}}"),
        f"{FIRST}.route.weighted_clusters.clusters",
    ),
    "abort with 100": (
        http_filter("fault.v3.HTTPFault", "abort: {http_status: 100, percentage: {numerator: 1}}"),
        f"{MANAGER}.http_filters[0].typed_config.abort.http_status",
    ),
    "bucket that is not filled": (
        http_filter("local_ratelimit.v3.LocalRateLimit", "stat_prefix: x, token_bucket: {max_tokens: 1}"),
        f"{MANAGER}.http_filters[0].typed_config.token_bucket.fill_interval",
    ),
}

STRICTER: dict[str, tuple[str, str]] = {
    "a key twice": (cluster("alt_stat_name: a\nalt_stat_name: b"), f"{CLUSTER}.alt_stat_name"),
    "a key in both spellings": (cluster("alt_stat_name: a\naltStatName: b"), f"{CLUSTER}.alt_stat_name"),
    "a second document": (cluster("") + "---\n" + cluster(""), ""),
}
"""What Envoy accepts, and we do not: it cannot be meant."""
