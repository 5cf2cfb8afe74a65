"""Text formats and values of headers: syntax, commands, missing values, errors."""

from __future__ import annotations

import os
import re
import socket
import uuid
from typing import Any

import pytest

from sidecar.core import response_flags as flag
from sidecar.core.address import Address
from sidecar.core.response_flags import NO_ROUTE_FOUND, UPSTREAM_CONNECTION_FAILURE
from sidecar.telemetry.formatter import (
    DEFAULT_LOG_FORMAT,
    FormatContext,
    FormatError,
    compile_header_value,
    compile_text,
)
from sidecar.telemetry.operators import OPERATORS
from tests.sidecar.telemetry.finished_streams import LoggedHost, LoggedRoute, http_stream, tcp_stream


def text(format: str, stream: Any = None, **options: Any) -> bytes:
    return compile_text(format, **options)(http_stream() if stream is None else stream)


def test_the_default_line() -> None:
    stream = http_stream((b"user-agent", b"curl/8"), (b"x-request-id", b"id-1"), (b"x-envoy-original-path", b"/before"))
    assert compile_text(DEFAULT_LOG_FORMAT)(stream) == (
        b'[2023-11-14T22:13:20.250Z] "GET /before HTTP/1.1" 200 - 5 83 250 3 "-" "curl/8" "id-1" "example.org" '
        b'"10.0.0.1:8080"\n'
    )


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("", b""),
        ("no commands", b"no commands"),
        ("100%% of %PROTOCOL%%%", b"100% of HTTP/1.1%"),
        ("%REQ(:METHOD)% %REQ(:PATH):3% %REQ(host)% %REQ(:scheme)%", b"GET /a? example.org http"),
        ("%RESP(:STATUS)% %RESP(X-Envoy-Upstream-Service-Time)% %RESP(a)%", b"200 3 -"),
        ("%REQ(A?:METHOD)% %REQ(:METHOD?A)% %REQ(A?B)% %REQ(A?)%", b"GET GET - -"),
        ("%REQ(:PATH):0%|%REQ(A):0%", b"|-"),
        ("%PATH% %PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:ORIG)% %PATH(WQ:ORIG_OR_PATH)%", b"/a?b=c /a /a?b=c - /a?b=c"),
        ("%QUERY_PARAMS% %QUERY_PARAM(b)% %QUERY_PARAM(z)%", b"b=c c -"),
        ("%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%", b"200 via_upstream"),
        ("%BYTES_RECEIVED% %BYTES_SENT% %BYTES_RETRANSMITTED%", b"5 83 0"),
        ("%DURATION% %REQUEST_DURATION% %REQUEST_TX_DURATION%", b"250 0 62"),
        ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION%", b"125 125"),
        ("%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%", b"62500"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END)% %COMMON_DURATION(DS_TX_BEG:DS_TX_END:ns)%", b"250 125000000"),
        ("%UPSTREAM_HOST% %UPSTREAM_HOST_NAME%", b"10.0.0.1:8080 10.0.0.1:8080"),
        ("%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", b"10.0.0.1:8080 10.0.0.1"),
        ("%UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_PORT%", b"8080 10.0.0.2:3210 3210"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", b"127.0.0.2:4321 127.0.0.2:4321"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%", b"127.0.0.2 4321"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24)%", b"127.0.0.0/24"),
        ("%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_PORT%", b"127.0.0.1:80 80"),
        ("%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%", b"backend backend"),
        ("%CONNECTION_ID% %UPSTREAM_CONNECTION_ID% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", b"7 0 0"),
        ("%ROUTE_NAME% %REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(SNI_FIRST)%", b"- - example.org"),
        ("%UPSTREAM_PROTOCOL% %ACCESS_LOG_TYPE% %CUSTOM_FLAGS%|", b"HTTP/1.1 NotSet |"),
        ("%DOWNSTREAM_TLS_VERSION% %UPSTREAM_PEER_SUBJECT% %TRACE_ID%", b"- - -"),
        ("%START_TIME% %START_TIME(%s.%3f)%", b"2023-11-14T22:13:20.250Z 1700000000.250"),
    ],
)  # fmt: skip
def test_commands(format: str, expected: bytes) -> None:
    assert text(format) == expected


def test_missing_values_are_a_dash_in_logs_and_nothing_in_headers() -> None:
    format = "a%REQ(X)%b%ROUTE_NAME%c%UPSTREAM_PEER_SUBJECT%d%DYNAMIC_METADATA(n:k)%e%RESPONSE_FLAGS%"
    assert text(format) == b"a-b-c-d-e-"
    assert text(format, omit_empty_values=True) == compile_header_value(format)(http_stream()) == b"abcde-"


def test_a_header_that_is_there_and_empty_is_not_missing() -> None:
    assert text("[%REQ(A)%][%REQ(A?:METHOD)%]", http_stream((b"a", b""))) == b"[][]"


def test_of_repeated_headers_the_first_counts_unless_they_are_combined_on_receipt() -> None:
    stream = http_stream((b"x-a", b"1"), (b"x-a", b"2"), (b"accept", b"x"), (b"accept", b"y"), (b"b", b"3"))
    assert text("%REQ(X-A)% %REQ(ACCEPT)% %REQ(B)%", stream) == b"1 x,y 3"
    assert stream.response is not None
    stream.response.add(b"set-cookie", b"a=1")
    stream.response.add(b"set-cookie", b"b=2")
    assert text("%RESP(SET-COOKIE)%", stream) == b"a=1"


def test_trailers_and_sizes_of_messages() -> None:
    stream = http_stream((b"a", b"12"), response_trailers=[(b"x-t", b"one"), (b"x-t", b"two")])
    assert text("%TRAILER(X-T)% %TRAILER(Z?X-T)% %TRAILER(Z)% %RESPONSE_TRAILERS_BYTES%", stream) == b"one one - 12"
    sent = ":methodGET:path/a?b=c:authorityexample.org:schemehttpa12"
    assert text("%REQUEST_HEADERS_BYTES%", stream) == b"%d" % len(sent)
    assert text("%RESPONSE_HEADERS_BYTES%", stream) == b"%d" % len(":status200x-envoy-upstream-service-time3")


def test_query_parameters_are_decoded() -> None:
    stream = http_stream(path=b"/?a=b%20c&d%3d=%41+&e")
    assert text("%QUERY_PARAM(a)%|%QUERY_PARAM(d=)%|%QUERY_PARAM(e)%|%QUERY_PARAM(f)%", stream) == b"b c|A+||-"


def test_flags_have_short_and_long_names() -> None:
    stream = http_stream(response_flags=UPSTREAM_CONNECTION_FAILURE | NO_ROUTE_FOUND)
    assert text("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%", stream) == b"UF,NR UpstreamConnectionFailure,NoRouteFound"


def test_spaces_in_details_become_underscores_unless_allowed() -> None:
    stream = http_stream(response_code_details="a b", upstream_failure_reason="connection refused")
    format = "%RESPONSE_CODE_DETAILS% %RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)% %UPSTREAM_TRANSPORT_FAILURE_REASON%"
    assert text(format, stream) == b"a_b a b connection_refused"


def test_a_duration_before_the_end_runs() -> None:
    stream = http_stream(end=0.0)
    assert text("%DURATION% %RESPONSE_TX_DURATION%", stream) == b"0 -"


@pytest.mark.parametrize(
    ("content_type", "sent", "code", "expected"),
    [
        (b"application/grpc", b"0", 200, b"OK OK 0"),
        (b"application/grpc+proto", b"4", 200, b"DeadlineExceeded DEADLINE_EXCEEDED 4"),
        (b"application/grpc", b"99", 200, b"99 99 99"),
        (b"application/grpc", None, 503, b"Unavailable UNAVAILABLE 14"),
        (b"application/grpc", None, 400, b"Internal INTERNAL 13"),
        (b"application/grpc-web", b"0", 200, b"- - -"),
        (b"text/plain", b"0", 200, b"- - -"),
    ],
)
def test_grpc_status(content_type: bytes, sent: bytes | None, code: int, expected: bytes) -> None:
    trailers = None if sent is None else [(b"grpc-status", sent)]
    stream = http_stream((b"content-type", content_type), response_code=code, response_trailers=trailers)
    assert text("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%", stream) == expected


def test_metadata_of_all_sources() -> None:
    stream = http_stream(
        dynamic_metadata={"ns": {"text": "a b", "number": 3.5, "object": {"z": [1, None], "a": True}}},
        route=LoggedRoute("r", {"rns": {"k": 7}}),
        host=LoggedHost(Address("10.0.0.1", 1), "name.local", {"envoy.lb": {"v": "1"}}),
    )
    context = FormatContext(cluster_metadata={"backend": {"cns": {"k": "cluster"}}}.get)
    format = (
        "%DYNAMIC_METADATA(ns:text)%|%DYNAMIC_METADATA(ns:text):2%|%DYNAMIC_METADATA(ns:number)%|"
        "%DYNAMIC_METADATA(ns:object)%|%DYNAMIC_METADATA(ns:object:a)%|%DYNAMIC_METADATA(ns:object:a:b)%|"
        '%DYNAMIC_METADATA(["ns", "object", "z"])%|%METADATA(ROUTE:rns:k)%|%UPSTREAM_METADATA(envoy.lb:v)%|'
        "%METADATA(UPSTREAM_HOST:envoy.lb)%|%CLUSTER_METADATA(cns:k)%|%METADATA(DYNAMIC)%|%UPSTREAM_HOST_NAME%"
    )
    assert text(format, stream, context=context) == (
        b'a b|a |3.5|{"a":true,"z":[1,null]}|true|-|[1,null]|7|1|{"v":"1"}|cluster|-|name.local'
    )


def test_filter_state() -> None:
    stream = http_stream(filter_state={"text": "t", "object": {"f": 1}, "a$0'b": "odd"})
    format = (
        "%FILTER_STATE(text)% %FILTER_STATE(object:TYPED)% %FILTER_STATE(object:FIELD:f)% %FILTER_STATE(none:PLAIN)%"
    )
    assert text(format, stream) == b't {"f":1} 1 -'
    assert text("%FILTER_STATE(a$0'b)%", stream) == b"odd"


def test_what_the_process_knows() -> None:
    os.environ["MIZZEN_TEST_OF_FORMATS"] = "value"
    context = FormatContext("TcpConnectionEnd", cluster_stat_name=lambda name: f"other-{name}")
    format = (
        "%HOSTNAME%|%ENVIRONMENT(MIZZEN_TEST_OF_FORMATS):3%|%ENVIRONMENT(UNSET_)%|%ACCESS_LOG_TYPE%|%UPSTREAM_CLUSTER%"
    )
    expected = f"{socket.gethostname()}|val|-|TcpConnectionEnd|other-backend"
    assert text(format, context=context) == expected.encode()


def test_every_unique_id_is_another_uuid() -> None:
    first, second = text("%UNIQUE_ID% %UNIQUE_ID%").decode().split()
    assert uuid.UUID(first).version == 4
    assert first != second


def test_a_unix_socket_has_a_path_and_no_port() -> None:
    stream = http_stream(remote_address=Address(None, 0, "/run/socket"))
    format = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_REMOTE_PORT%"
    assert text(format, stream) == b"/run/socket /run/socket -"


def test_a_tcp_session_has_no_values_of_http() -> None:
    format = (
        "%REQ(:PATH)%%REQ(HOST)%%REQ(X)%%RESP(:STATUS)%%RESP(X)%%TRAILER(X)%%PROTOCOL%%UPSTREAM_PROTOCOL%%PATH%"
        "%QUERY_PARAMS%%QUERY_PARAM(a)%%GRPC_STATUS%%ROUTE_NAME%%REQUEST_DURATION% %REQUEST_HEADERS_BYTES% "
        "%RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %UPSTREAM_HOST%"
    )
    assert text(format, tcp_stream()) == b"-------------- 0 0 18 58 1000 10.0.0.1:8080"


def test_every_command_renders_for_http_and_for_tcp() -> None:
    arguments = {"METADATA": "(ROUTE:a)", "MIZZEN": "(phase)", "COMMON_DURATION": "(DS_RX_BEG:DS_TX_END)"}
    for name, operator in OPERATORS.items():
        given = arguments.get(name, "(x)" if operator.arguments == "required" or name == "FILTER_STATE" else "")
        for stream in (http_stream(), tcp_stream()):
            assert re.fullmatch(rb"<[ -~]*>", text(f"<%{name}{given}%>", stream)), name


@pytest.mark.parametrize(
    ("flags", "failure", "expected"),
    [
        (0, "", "- - -"),
        (flag.UPSTREAM_CONNECTION_FAILURE, "refused", "upstream connection remote_connection_failure"),
        (flag.UPSTREAM_CONNECTION_FAILURE, "", "sidecar connection connection_timeout"),
        (flag.NO_HEALTHY_UPSTREAM, "", "sidecar connection no_healthy_upstream"),
        (flag.DURATION_TIMEOUT, "", "sidecar body max_duration_timeout"),
        (flag.UPSTREAM_REMOTE_RESET, "", "upstream body remote_reset"),
    ],
)
def test_why_a_tcp_session_failed(flags: int, failure: str, expected: str) -> None:
    stream = tcp_stream()
    stream.response_flags = flags
    stream.upstream_failure_reason = failure
    assert text("%MIZZEN(closed_by)% %MIZZEN(phase)% %MIZZEN(reason)%", stream) == expected.encode()


def test_the_body_of_a_local_reply_is_the_second_argument() -> None:
    render: Any = compile_text("%LOCAL_REPLY_BODY%!")
    assert render(http_stream(), b"no healthy upstream") == b"no healthy upstream!"
    assert render(http_stream()) == b"!"


@pytest.mark.parametrize(
    ("format", "position", "reason"),
    [
        ("a %", 2, "a command"),
        ("%REQ(A% b", 0, "a command"),
        ("ab%%%", 4, "a command"),
        ("%req(a)%", 0, "a command"),
        ("x %NONESUCH%", 2, "NONESUCH: is not a command"),
        ("%REQ%", 0, "requires arguments"),
        ("%REQ()%", 0, "requires arguments"),
        ("%REQ(A?B?C)%", 0, "one alternative"),
        ("%REQ(A,B)%", 0, "not the name of a header"),
        ("%RESPONSE_CODE:3%", 0, "takes no length"),
        ("%PROTOCOL(x)%", 0, "takes no arguments"),
        ("%START_TIME(%n)%", 0, "line break"),
        ("%COMMON_DURATION(DS_RX_BEG)%", 0, "BEGIN:END"),
        ("%COMMON_DURATION(A:DS_TX_END)%", 0, "points in time"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:s)%", 0, "ms, us or ns"),
        ("%GRPC_STATUS(FOO)%", 0, "CAMEL_STRING"),
        ("%PATH(X)%", 0, "WQ"),
        ("%PATH(WQ:X)%", 0, "ORIG"),
        ("%QUERY_PARAMS(X)%", 0, "DECODED"),
        ("%METADATA(FOO:a)%", 0, "kinds of metadata"),
        ("%FILTER_STATE(x:FOO)%", 0, "PLAIN"),
        ("%FILTER_STATE(x:FIELD)%", 0, "FIELD"),
        ("%FILTER_STATE%", 0, "requires arguments"),
        ("%DYNAMIC_METADATA([1])%", 0, "must be strings"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(129)%", 0, "up to 128"),
        ("%REQUESTED_SERVER_NAME(X)%", 0, "SNI_ONLY"),
    ],
)
def test_wrong_formats_are_refused_with_their_position(format: str, position: int, reason: str) -> None:
    with pytest.raises(FormatError, match=re.escape(reason)) as caught:
        compile_text(format)
    assert caught.value.position == position
    assert f"position {position}:" in str(caught.value)
