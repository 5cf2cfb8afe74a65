"""How the health of a cluster's endpoints is found out: `envoy.config.core.v3.HealthCheck`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from sidecar.config.address import Address, SocketAddress, is_ip, parse_address
from sidecar.config.core_types import HeaderValueOption, parse_header_value_option, seconds
from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher, parse_string_matcher

_FILE_SINK: Final = "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
_SMALLEST_STATUS, _STATUS_LIMIT = 100, 600
_BODYLESS: Final = frozenset(("GET", "HEAD", "DELETE", "TRACE"))

StatusRanges: TypeAlias = tuple[tuple[int, int], ...]
"""Ranges of status codes, each from its first to before its last."""


@dataclass(frozen=True, slots=True)
class HttpHealthCheck:
    """A request and what its response must be like. `receive` must occur in its body, one behind the other, within the
    first `response_buffer_size` bytes (0: anywhere). A `retriable_statuses` counts against the threshold, another one
    that is not expected is the end at once. `host` is empty where the cluster's name is meant.
    """

    path: str
    host: str = ""
    method: str = "GET"
    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    response_buffer_size: int = 1024
    request_headers_to_add: tuple[HeaderValueOption, ...] = ()
    request_headers_to_remove: tuple[bytes, ...] = ()
    expected_statuses: StatusRanges = ((200, 201),)
    retriable_statuses: StatusRanges = ()
    http2: bool = False
    service_name_matcher: StringMatcher | None = None


@dataclass(frozen=True, slots=True)
class TcpHealthCheck:
    """A connection; with `receive`, `send` is said and the answer must have these, one behind the other.

    `proxy_protocol` is V1, V2 or empty: the version of the PROXY header that is sent first.
    """

    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    proxy_protocol: str = ""


@dataclass(frozen=True, slots=True)
class GrpcHealthCheck:
    """A call of `grpc.health.v1.Health/Check`. `authority` is empty where the cluster's name is meant."""

    service_name: str = ""
    authority: str = ""
    initial_metadata: tuple[HeaderValueOption, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What is asked, how often, and what it takes to be healthy or not. Times are in seconds.

    The intervals are those that apply: where one is not configured it is the one that it falls back to. `min_interval`
    and `max_interval` are the runtime's bounds of all of them, `verify_cluster` the percentage of the checks in which
    the service's name is looked at. `alpn_protocols` go before those of the transport socket.
    `transport_socket_match_criteria` choose one in the endpoint's stead; None is for what the endpoint says.
    """

    checker: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck
    timeout: float
    interval: float
    unhealthy_threshold: int
    healthy_threshold: int
    initial_jitter: float = 0.0
    interval_jitter: float = 0.0
    interval_jitter_percent: int = 0
    no_traffic_interval: float = 60.0
    no_traffic_healthy_interval: float = 60.0
    unhealthy_interval: float = 0.0
    unhealthy_edge_interval: float = 0.0
    healthy_edge_interval: float = 0.0
    min_interval: float = 0.001
    max_interval: float = float("inf")
    verify_cluster: float = 100.0
    reuse_connection: bool = True
    event_log_paths: tuple[str, ...] = ()
    always_log_failures: bool = False
    always_log_success: bool = False
    alpn_protocols: tuple[str, ...] = ()
    transport_socket_match_criteria: tuple[tuple[str, object], ...] | None = None


@dataclass(frozen=True, slots=True)
class EndpointHealthCheck:
    """Where an endpoint is asked for its health: `Endpoint.HealthCheckConfig`. Empty and None say as the endpoint."""

    port_value: int = 0
    hostname: str = ""
    address: Address | None = None
    disable_active_health_check: bool = False


def parse_health_checks(cluster: Node, upstream_protocol: str) -> HealthCheck | None:
    """`Cluster.health_checks`, of which Envoy takes one; `upstream_protocol` is what the cluster speaks."""
    nodes = cluster.children("health_checks")
    if len(nodes) > 1:
        cluster.refuse("has more than one entry, and Envoy takes one", "health_checks", "keep one")
    checks = [_parse_health_check(node) for node in nodes]
    if upstream_protocol == "http1":
        for node, check in zip(nodes, checks, strict=True):
            if isinstance(check.checker, GrpcHealthCheck):
                node.refuse("needs a cluster that speaks HTTP/2", "grpc_health_check", "give it http2_protocol_options")
    return checks[0] if checks else None


def parse_endpoint_health_check(node: Node) -> EndpointHealthCheck | None:
    """`Endpoint.HealthCheckConfig`, None if it says nothing."""
    address = node.child("address")
    other = None if address is None else parse_address(address)
    if isinstance(other, SocketAddress) and not is_ip(other.address):
        node.refuse(f"{other.address!r} is no IP address", "address", "write the address that is to be asked")
    found = EndpointHealthCheck(
        node.get("port_value"), node.get("hostname"), other, node.get("disable_active_health_check")
    )
    return None if found == EndpointHealthCheck() else found


def _parse_health_check(node: Node) -> HealthCheck:
    timeout, interval = seconds(node, "timeout", 0.0), seconds(node, "interval", 0.0)
    no_traffic = seconds(node, "no_traffic_interval", 60.0)
    unhealthy = seconds(node, "unhealthy_interval", interval)
    for name in ("unhealthy_threshold", "healthy_threshold"):
        if not node.has(name):
            node.refuse("is required", name, "say after how many checks a host counts as such")
    runtime = node.context.runtime
    longest = runtime.integer("health_check.max_interval")
    tls = node.child("tls_options")
    criteria = node.struct("transport_socket_match_criteria")
    return HealthCheck(
        _parse_checker(node),
        timeout,
        interval,
        node.wrapped("unhealthy_threshold", 1),
        node.wrapped("healthy_threshold", 1),
        seconds(node, "initial_jitter", 0.0),
        seconds(node, "interval_jitter", 0.0),
        node.get("interval_jitter_percent"),
        no_traffic,
        seconds(node, "no_traffic_healthy_interval", no_traffic),
        unhealthy,
        seconds(node, "unhealthy_edge_interval", unhealthy),
        seconds(node, "healthy_edge_interval", interval),
        max(1, runtime.integer("health_check.min_interval") or 1) / 1000,
        float("inf") if longest is None else longest / 1000,
        100.0 if (found := runtime.number("health_check.verify_cluster")) is None else found,
        node.wrapped("reuse_connection", True),
        _parse_event_logs(node),
        node.get("always_log_health_check_failures"),
        node.get("always_log_health_check_success"),
        () if tls is None else tls.get("alpn_protocols"),
        None if criteria is None else tuple(criteria.items()),
    )


def _parse_event_logs(node: Node) -> tuple[str, ...]:
    paths = []
    for logger in node.children("event_logger"):
        sink = logger.extension(known=(_FILE_SINK,))
        if sink is not None:
            paths.append(sink.get("event_log_path"))
    path = node.get("event_log_path")
    return (*paths, path) if path else tuple(paths)


def _parse_checker(node: Node) -> HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck:
    match node.which("health_checker"):
        case "http_health_check":
            http = node.child("http_health_check")
            assert http is not None
            return _parse_http(http)
        case "tcp_health_check":
            tcp = node.child("tcp_health_check")
            assert tcp is not None
            send, proxy = tcp.child("send"), tcp.child("proxy_protocol_config")
            return TcpHealthCheck(
                b"" if send is None else _parse_payload(send),
                tuple(_parse_payload(payload) for payload in tcp.children("receive")),
                "" if proxy is None else proxy.enum("version"),
            )
        case "grpc_health_check":
            grpc = node.child("grpc_health_check")
            assert grpc is not None
            return GrpcHealthCheck(
                grpc.get("service_name"),
                grpc.get("authority"),
                tuple(parse_header_value_option(option) for option in grpc.children("initial_metadata")),
            )
    return TcpHealthCheck()


def _parse_http(node: Node) -> HttpHealthCheck:
    method = node.enum("method")
    method = "GET" if method == "METHOD_UNSPECIFIED" else method
    if method == "CONNECT":
        node.refuse("CONNECT asks for a tunnel", "method", "name another method")
    payload = node.child("send")
    send = b"" if payload is None else _parse_payload(payload)
    if payload is not None and method in _BODYLESS:
        node.refuse(f"{method} has no body", "send", "remove it, or name a method that has one")
    receive = tuple(_parse_payload(one) for one in node.children("receive"))
    buffer_size = node.wrapped("response_buffer_size", 1024)
    if buffer_size and sum(map(len, receive)) > buffer_size:
        node.refuse(
            f"is longer than the {buffer_size} bytes of response_buffer_size", "receive", "make that as large as this"
        )
    codec = node.enum("codec_client_type")
    if codec not in ("HTTP1", "HTTP2"):
        node.refuse(f"{codec} is not implemented by Mizzen", "codec_client_type", "use HTTP1 or HTTP2")
    matcher = node.child("service_name_matcher")
    return HttpHealthCheck(
        node.get("path"),
        node.get("host"),
        method,
        send,
        receive,
        buffer_size,
        tuple(parse_header_value_option(option) for option in node.children("request_headers_to_add")),
        tuple(name.lower().encode() for name in node.get("request_headers_to_remove")),
        _parse_statuses(node, "expected_statuses") or ((200, 201),),
        _parse_statuses(node, "retriable_statuses"),
        codec == "HTTP2",
        None if matcher is None else parse_string_matcher(matcher),
    )


def _parse_statuses(node: Node, name: str) -> StatusRanges:
    ranges = []
    for child in node.children(name):
        first, last = child.get("start"), child.get("end")
        if first >= last:
            child.refuse(f"begins at {first} and ends before {last}: it is empty", do="make end larger than start")
        elif first < _SMALLEST_STATUS or last > _STATUS_LIMIT:
            child.refuse(
                f"goes from {first} to before {last}, and status codes from 100 to before 600", do="keep within"
            )
        ranges.append((first, last))
    return tuple(ranges)


def _parse_payload(node: Node) -> bytes:
    if node.which("payload") == "binary":
        return bytes(node.get("binary"))
    text = node.get("text")
    try:
        if not text.isalnum():  # fromhex would take blanks
            raise ValueError
        return bytes.fromhex(text)
    except ValueError:
        node.refuse(f"{text!r} is not in hexadecimal", "text", "write two digits for each byte, or use binary")
        return b""
