"""Active health checks: defaults, every field, and fragments that real Envoy judges in the same way."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.address import SocketAddress
from sidecar.config.core_types import HeaderValueOption
from sidecar.config.health_check import (
    EndpointHealthCheck,
    GrpcHealthCheck,
    HealthCheck,
    HttpHealthCheck,
    TcpHealthCheck,
)
from sidecar.config.matcher import StringMatcher
from sidecar.config.problems import ConfigurationError
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.config.resources import (
    Document,
    bootstrap,
    cluster,
    load,
    load_cluster,
    refusals,
    socket_address,
)

HERE = "static_resources.clusters[0]"
SINK = "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
EVENTS = {"name": "file", "typed_config": {"@type": SINK, "event_log_path": "/dev/null"}}
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
EXPLICIT: Document = {"explicit_http_config": {"http2_protocol_options": {}}}
DOWNSTREAM: Document = {"use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
AUTO: Document = {"auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
TLS: Document = {"name": "tls", "typed_config": {"@type": TLS_CONTEXT}}
ADD: Document = {"header": {"key": "X-A", "value": "%PROTOCOL%"}}


def check(**fields: Any) -> Document:
    """A good TCP health check with these fields changed; None removes one."""
    good = {"timeout": "1s", "interval": "5s", "unhealthy_threshold": 3, "healthy_threshold": 2, "tcp_health_check": {}}
    return {name: value for name, value in {**good, **fields}.items() if value is not None}


def checked(**fields: Any) -> Document:
    return cluster(health_checks=[check(**fields)])


def http(**fields: Any) -> Document:
    return checked(tcp_health_check=None, http_health_check={"path": "/", **fields})


def grpc(protocols: Document | None = None, **fields: Any) -> Document:
    options = {"@type": f"type.googleapis.com/{OPTIONS}", **(protocols or EXPLICIT)}
    checks = [check(tcp_health_check=None, grpc_health_check=fields)]
    return cluster(health_checks=checks, typed_extension_protocol_options={OPTIONS: options})


def tcp(**fields: Any) -> Document:
    return checked(tcp_health_check=fields)


def asked_at(**fields: Any) -> Document:
    endpoint = {"address": socket_address("10.0.0.1", 80), "health_check_config": fields}
    return cluster(
        load_assignment={"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        health_checks=[check()],
    )


def built(document: Document) -> HealthCheck:
    found = load(bootstrap(clusters=[document]))[0].static_resources.clusters[0].health_check
    assert found is not None
    return found


def test_none_is_the_default() -> None:
    made = load_cluster()
    assert made.health_check is None
    assert not made.close_connections_on_host_health_failure
    assert not made.ignore_health_on_host_removal
    assert made.wait_for_warm_on_init


def test_fields_of_the_cluster() -> None:
    made = load_cluster(
        close_connections_on_host_health_failure=True, ignore_health_on_host_removal=True, wait_for_warm_on_init=False
    )
    assert made.close_connections_on_host_health_failure
    assert made.ignore_health_on_host_removal
    assert not made.wait_for_warm_on_init


def test_defaults_are_those_of_envoy() -> None:
    assert built(checked()) == HealthCheck(
        TcpHealthCheck(),
        1.0,
        5.0,
        3,
        2,
        no_traffic_interval=60.0,
        no_traffic_healthy_interval=60.0,
        unhealthy_interval=5.0,
        unhealthy_edge_interval=5.0,
        healthy_edge_interval=5.0,
    )
    assert built(http()).checker == HttpHealthCheck("/", expected_statuses=((200, 201),), response_buffer_size=1024)
    assert built(grpc()).checker == GrpcHealthCheck()


def test_intervals_fall_back_to_one_another() -> None:
    made = built(checked(unhealthy_interval="7s", no_traffic_interval="9s"))
    assert (made.unhealthy_interval, made.unhealthy_edge_interval, made.healthy_edge_interval) == (7.0, 7.0, 5.0)
    assert (made.no_traffic_interval, made.no_traffic_healthy_interval) == (9.0, 9.0)


def test_every_common_field() -> None:
    made = built(
        checked(
            initial_jitter="1s",
            interval_jitter="2s",
            interval_jitter_percent=30,
            no_traffic_interval="4s",
            no_traffic_healthy_interval="5s",
            unhealthy_interval="6s",
            unhealthy_edge_interval="7s",
            healthy_edge_interval="8s",
            reuse_connection=False,
            event_log_path="/dev/stdout",
            event_logger=[EVENTS],
            always_log_health_check_failures=True,
            always_log_health_check_success=True,
            tls_options={"alpn_protocols": ["h2", "x"]},
            transport_socket_match_criteria={"tls": True},
        )
    )
    assert made == HealthCheck(
        TcpHealthCheck(), 1.0, 5.0, 3, 2, 1.0, 2.0, 30, 4.0, 5.0, 6.0, 7.0, 8.0,
        reuse_connection=False, event_log_paths=("/dev/null", "/dev/stdout"), always_log_failures=True,
        always_log_success=True, alpn_protocols=("h2", "x"), transport_socket_match_criteria=(("tls", True),),
    )  # fmt: skip


def test_the_runtime_bounds_intervals() -> None:
    layer = {"health_check.min_interval": 500, "health_check.max_interval": 9000, "health_check.verify_cluster": 40}
    document = bootstrap(clusters=[checked()])
    document["layered_runtime"] = {"layers": [{"name": "static", "static_layer": layer}]}
    made = load(document)[0].static_resources.clusters[0].health_check
    assert made is not None
    assert (made.min_interval, made.max_interval, made.verify_cluster) == (0.5, 9.0, 40.0)


def test_every_field_of_http() -> None:
    fields = {
        "host": "h",
        "path": "/p",
        "method": "POST",
        "send": {"text": "6162"},
        "receive": [{"text": "0aFF"}, {"binary": "YWI="}],
        "response_buffer_size": 0,
        "request_headers_to_add": [ADD],
        "request_headers_to_remove": ["X-B"],
        "expected_statuses": [{"start": 200, "end": 300}],
        "retriable_statuses": [{"start": 500, "end": 600}],
        "codec_client_type": "HTTP2",
        "service_name_matcher": {"prefix": "s"},
    }
    assert built(http(**fields)).checker == HttpHealthCheck(
        "/p",
        "h",
        "POST",
        b"ab",
        (b"\n\xff", b"ab"),
        0,
        (HeaderValueOption(b"x-a", "%PROTOCOL%", "APPEND_IF_EXISTS_OR_ADD", False),),
        (b"x-b",),
        ((200, 300),),
        ((500, 600),),
        True,
        StringMatcher("prefix", b"s", False),
    )


def test_tcp_and_grpc() -> None:
    made = built(tcp(send={"text": "00"}, receive=[{"text": "01"}], proxy_protocol_config={"version": "V2"}))
    assert made.checker == TcpHealthCheck(b"\0", (b"\1",), "V2")
    made = built(grpc(service_name="s", authority="a", initial_metadata=[ADD]))
    assert isinstance(made.checker, GrpcHealthCheck)
    assert (made.checker.service_name, made.checker.authority, len(made.checker.initial_metadata)) == ("s", "a", 1)


def test_where_an_endpoint_is_asked() -> None:
    document = asked_at(
        port_value=81, hostname="h", address=socket_address("10.0.0.2", 0), disable_active_health_check=True
    )
    assignment = load(bootstrap(clusters=[document]))[0].static_resources.clusters[0].load_assignment
    (endpoint,) = assignment.endpoints[0].lb_endpoints
    assert endpoint.health_check_config == EndpointHealthCheck(81, "h", SocketAddress("10.0.0.2", 0), True)


@pytest.mark.parametrize(
    ("document", "place", "words"),
    [
        (cluster(health_checks=[check(), check()]), "health_checks", "more than one"),
        (http(send={"text": "00"}), "health_checks[0].http_health_check.send", "GET has no body"),
        (http(codec_client_type="HTTP3"), "health_checks[0].http_health_check.codec_client_type", "not implemented"),
        (checked(alt_port=80), "health_checks[0].alt_port", "not implemented"),
    ],
)
def test_what_is_wrong_is_named(document: Document, place: str, words: str) -> None:
    (problem,) = refusals(bootstrap(clusters=[document]))
    assert problem[0] == f"{HERE}.{place}" and words in problem[1]


GOOD = {
    "tcp": checked(),
    "everything": checked(
        initial_jitter="0s", interval_jitter="1s", interval_jitter_percent=200, event_logger=[EVENTS, EVENTS],
        tls_options={"alpn_protocols": ["a"]}, transport_socket_match_criteria={"a": "b"},
    ),
    "a threshold of 0": checked(unhealthy_threshold=0, healthy_threshold=0),
    "one byte each": tcp(send={"binary": "AA=="}, receive=[{"text": "ff"}]),
    "binary that is empty": tcp(receive=[{"binary": ""}]),
    "http": http(expected_statuses=[{"start": 100, "end": 600}], retriable_statuses=[{"start": 599, "end": 600}]),
    "a path without a slash": http(path="x"),
    "a body": http(method="OPTIONS", send={"text": "00"}),
    "a large answer": http(receive=[{"text": "00" * 2000}], response_buffer_size=2000),
    "an answer of any size": http(receive=[{"text": "00" * 2000}], response_buffer_size=0),
    "TRACE": http(method="TRACE"),
    "grpc": grpc(service_name="s", initial_metadata=[ADD]),
    "grpc by what the client speaks": grpc(DOWNSTREAM),
    "grpc by what is agreed on": {**grpc(AUTO), "transport_socket": TLS},
    "another port": asked_at(port_value=81),
    "another address": asked_at(address=socket_address("::1", 80)),
    "a socket of the file system": asked_at(address={"pipe": {"path": "/run/x"}}),
}  # fmt: skip

BAD = {
    "two": cluster(health_checks=[check(), check()]),
    "nothing to do": checked(tcp_health_check=None),
    "no timeout": checked(timeout=None),
    "a timeout of 0": checked(timeout="0s"),
    "no interval": checked(interval=None),
    "an interval of 0": checked(interval="0s"),
    "no threshold": checked(unhealthy_threshold=None),
    "no other threshold": checked(healthy_threshold=None),
    "an unhealthy interval of 0": checked(unhealthy_interval="0s"),
    "an edge interval of 0": checked(healthy_edge_interval="0s"),
    "no traffic at all times": checked(no_traffic_interval="0s"),
    "a path that is empty": http(path=""),
    "a host of two lines": http(host="a\nb"),
    "a range backwards": http(expected_statuses=[{"start": 300, "end": 200}]),
    "an empty range": http(retriable_statuses=[{"start": 300, "end": 300}]),
    "a small status": http(expected_statuses=[{"start": 99, "end": 200}]),
    "a large status": http(retriable_statuses=[{"start": 500, "end": 601}]),
    "a tunnel": http(method="CONNECT"),
    "a body of GET": http(send={"text": "00"}),
    "a body of DELETE": http(method="DELETE", send={"text": "00"}),
    "an answer longer than its buffer": http(receive=[{"text": "0000"}], response_buffer_size=1),
    "no digits": tcp(send={"text": "xy"}),
    "half a byte": tcp(receive=[{"text": "012"}]),
    "blanks": tcp(receive=[{"text": "01 02"}]),
    "a payload of nothing": tcp(receive=[{}]),
    "a name": asked_at(address=socket_address("localhost", 80)),
    "a port that is too large": asked_at(port_value=65536),
    "a pseudo-header": http(request_headers_to_add=[{"header": {"key": ":path", "value": "/"}}]),
    "gRPC by HTTP/1": checked(tcp_health_check=None, grpc_health_check={}),
    "a log of no name": checked(event_logger=[{"name": "f", "typed_config": {"@type": SINK}}]),
}  # fmt: skip

STRICTER = {
    "a port that nobody reads": checked(alt_port=80),
    "a service for events": checked(event_service={"grpc_service": {"envoy_grpc": {"cluster_name": "c0"}}}),
}
"""Envoy takes these and does nothing with them."""


def problem_of_ours(document: Document) -> str:
    try:
        load(bootstrap(clusters=[document]))
    except ConfigurationError as error:
        return str(error)
    return ""


def problem_of_envoy(documents: list[Document], directory: Path) -> str:
    try:
        binary = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(f"no real Envoy: {error}")
    file = directory / "envoy.json"
    named = [{**document, "name": f"c{number}"} for number, document in enumerate(documents)]
    file.write_text(json.dumps(bootstrap(clusters=named)))
    command = [binary, "--mode", "validate", "-c", str(file), "--use-dynamic-base-id", "-l", "critical"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr or "refused") if done.returncode else ""


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_are_accepted(name: str) -> None:
    assert problem_of_ours(GOOD[name]) == ""


def test_good_ones_are_accepted_by_envoy(tmp_path: Path) -> None:
    assert problem_of_envoy(list(GOOD.values()), tmp_path) == ""


@pytest.mark.parametrize("name", BAD)
def test_bad_ones_are_refused_by_both(name: str, tmp_path: Path) -> None:
    assert problem_of_ours(BAD[name]) != ""
    assert problem_of_envoy([BAD[name]], tmp_path) != ""


@pytest.mark.parametrize("name", STRICTER)
def test_what_only_mizzen_refuses(name: str, tmp_path: Path) -> None:
    assert problem_of_ours(STRICTER[name]) != ""
    assert problem_of_envoy([STRICTER[name]], tmp_path) == ""
