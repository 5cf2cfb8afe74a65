"""Our lines beside those of real Envoy: the same formats, of the same requests, must give the same octets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.core.address import Address
from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.response_flags import BY_SHORT_NAME
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.telemetry.formatter import FormatContext, compile_text
from sidecar.telemetry.json_format import compile_json
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.sidecar.telemetry.envoy_logs import METADATA, SEPARATOR, Entry, logged_by_envoy
from tests.sidecar.telemetry.finished_streams import LoggedHost, LoggedRoute

SLOTS = {
    "DS_RX_END": "request_complete",
    "US_TX_BEG": "upstream_first_tx",
    "US_TX_END": "upstream_last_tx",
    "US_RX_BEG": "upstream_first_rx",
    "US_RX_END": "upstream_last_rx",
    "DS_TX_BEG": "downstream_first_tx",
    "DS_TX_END": "end",
}
COMMANDS = (
    *(f"COMMON_DURATION(DS_RX_BEG:{point}:{unit})" for point in SLOTS for unit in ("us", "ns")),
    *"""REQ(X-QUOTE) REQ(X-EMPTY) REQ(X-TWICE) REQ(ACCEPT) REQ(HOST) REQ(:AUTHORITY) REQ(:METHOD) REQ(:SCHEME)
    REQ(:PATH) COMMON_DURATION(US_TX_BEG:US_RX_BEG) COMMON_DURATION(DS_TX_BEG:DS_TX_END:us)
    REQ(:PATH):5 REQ(X-NONE?X-QUOTE) REQ(X-QUOTE?:PATH):4 REQ(X-NONE) REQ(X-NONE?X-NEITHER):3 REQ(X-OCTETS) REQ(X-UTF)
    REQ(X-OCTETS):4 REQ(X-UTF):1 REQ(X-QUOTE):0 REQ(USER-AGENT) REQ(X-REQUEST-ID) REQ(X-ENVOY-ORIGINAL-PATH?:PATH)
    RESP(:STATUS) RESP(SET-COOKIE) RESP(X-QUOTE) RESP(X-NONE) TRAILER(X) PATH PATH(NQ) PATH(WQ:PATH) PATH(WQ:ORIG)
    PATH(NQ:ORIG_OR_PATH) QUERY_PARAM(q) QUERY_PARAM(e) QUERY_PARAM(none) QUERY_PARAMS GRPC_STATUS GRPC_STATUS(NUMBER)
    GRPC_STATUS(SNAKE_STRING) GRPC_STATUS_NUMBER LOCAL_REPLY_BODY TRACE_ID PROTOCOL UPSTREAM_PROTOCOL RESPONSE_CODE
    RESPONSE_CODE_DETAILS RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES) RESPONSE_FLAGS RESPONSE_FLAGS_LONG CUSTOM_FLAGS
    CONNECTION_TERMINATION_DETAILS DOWNSTREAM_TRANSPORT_FAILURE_REASON BYTES_RECEIVED BYTES_SENT BYTES_RETRANSMITTED
    PACKETS_RETRANSMITTED UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_TRANSPORT_FAILURE_REASON
    UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_CONNECTION_ID CONNECTION_ID STREAM_ID ROUTE_NAME VIRTUAL_CLUSTER_NAME
    REQUESTED_SERVER_NAME FILTER_CHAIN_NAME HOSTNAME ENVIRONMENT(MIZZEN_UNSET) ACCESS_LOG_TYPE DURATION REQUEST_DURATION
    REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION DOWNSTREAM_HANDSHAKE_DURATION ROUNDTRIP_DURATION
    START_TIME START_TIME() START_TIME(%s) START_TIME(%s.%3f) START_TIME(%s.%6f) START_TIME(%Y%m%dT%H%M%S_%f_%1f_%9f)
    START_TIME(%E3S|%E*S|%E6f|%E*f|%Ez|%z|%Z|%j|%a|%b|%e) UPSTREAM_HOST UPSTREAM_HOST_NAME
    UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT
    UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT DOWNSTREAM_REMOTE_ADDRESS
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(64) DOWNSTREAM_REMOTE_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_LOCAL_ADDRESS
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT DOWNSTREAM_DIRECT_LOCAL_ADDRESS
    DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID DOWNSTREAM_TLS_VERSION DOWNSTREAM_PEER_SUBJECT
    DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END(%Y) UPSTREAM_TLS_CIPHER UPSTREAM_PEER_SUBJECT
    UPSTREAM_SERVER_NAME TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT DYNAMIC_METADATA(ns) DYNAMIC_METADATA(ns:text)
    DYNAMIC_METADATA(ns:text):1 DYNAMIC_METADATA(ns:number) DYNAMIC_METADATA(ns:integer) DYNAMIC_METADATA(ns:yes)
    DYNAMIC_METADATA(ns:null) DYNAMIC_METADATA(ns:list) DYNAMIC_METADATA(ns:object) DYNAMIC_METADATA(ns:object):4
    DYNAMIC_METADATA(ns:object:a) DYNAMIC_METADATA(ns:none) DYNAMIC_METADATA(none) METADATA(ROUTE:ns:text)
    METADATA(DYNAMIC:ns:list) METADATA(DYNAMIC) METADATA(CLUSTER:cns:k) METADATA(UPSTREAM_HOST:envoy.lb)
    CLUSTER_METADATA(cns) UPSTREAM_METADATA(envoy.lb:v) FILTER_STATE(none) FILTER_STATE(none:PLAIN)
    FILTER_STATE(none:TYPED)""".split(),  # noqa: SIM905
)
STRUCTURED: dict[str, Any] = {
    "z": {"y": {"x": "%PROTOCOL%"}, "list": ["%RESPONSE_CODE%", 1, None, True, "%REQ(X-NONE)%", ["%REQ(X-NONE)%"], {}]},
    "empty": {"object": {}, "list": [], "string": ""},
    "mixed": 'é" %RESPONSE_CODE% [%REQ(X-OCTETS)%] [%REQ(X-UTF)%] [%REQ(X-NONE)%] 100%% \t\x7f',
    'k"é': "constant\n",
    "octets": "%REQ(X-OCTETS)%",
    "metadata": "in %DYNAMIC_METADATA(ns:object)% text",
    "number": 1.5,
    "null": None,
}
QUOTE, OCTETS, UTF = b'a"b\\c\td', b'caf\xe9 \xc3\xa9 <&>/"', "é😀".encode()
FIELDS = [(b"x-quote", QUOTE), (b"x-empty", b""), (b"x-twice", b"one"), (b"x-twice", b"two"), (b"accept", b"x"),
          (b"accept", b"y"), (b"x-octets", OCTETS), (b"x-utf", UTF), (b"content-length", b"3")]  # fmt: skip
REQUESTS = (
    b"POST /hello?q=%%20y&q=2&e HTTP/1.1\r\nHost: example.org:81\r\n%b\r\nxyz"
    % b"".join(b"%b: %b\r\n" % field for field in FIELDS),
    b"GET /direct HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /broken HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\n\r\n",
)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Entry]]:
    try:
        with logged_by_envoy(tmp_path_factory.mktemp("envoy"), COMMANDS, STRUCTURED, REQUESTS) as logged:
            yield logged
    except EnvoyUnavailableError as unavailable:
        pytest.skip(f"needs Envoy: {unavailable}")


def _stream(entry: Entry, request: RequestHead | None, response: ResponseHead | None) -> StreamInfo:
    """A stream of which everything that Envoy measured, drew or chose is what its entry says."""
    facts = entry.facts
    address = Address("127.0.0.1", entry.client_port)
    connection = ConnectionInfo(facts["CONNECTION_ID"], Address("127.0.0.1", entry.listener_port), address, 1.0)
    connection.filter_chain_name = "chain"
    stream = StreamInfo(connection, request, float(facts["START_TIME(%s.%6f)"]), 64.0)
    for point, slot in SLOTS.items():
        nanoseconds = facts[f"COMMON_DURATION(DS_RX_BEG:{point}:ns)"]
        if nanoseconds is not None:
            setattr(stream, slot, 64.0 + (nanoseconds + 0.5) / 1e9)
    stream.request_id = (facts["STREAM_ID"] or "").encode()
    stream.upstream_connection_id = facts["UPSTREAM_CONNECTION_ID"]
    stream.response = response
    stream.response_code = 0 if response is None else response.status
    return stream


def _to_upstream(entry: Entry, stream: StreamInfo) -> StreamInfo:
    upstream = Address("127.0.0.1", entry.upstream_port)
    stream.host = LoggedHost(upstream, "backend.local", {"envoy.lb": {"v": "1"}})
    stream.cluster_name = "backend"
    local = entry.facts["UPSTREAM_LOCAL_ADDRESS"]
    stream.upstream_local_address = Address("127.0.0.1", int(local.rpartition(":")[2]))
    stream.attempt_count = 1
    return stream


def _request(entry: Entry, *fields: tuple[bytes, bytes], method: bytes, path: bytes, authority: bytes) -> RequestHead:
    return RequestHead(method, path, authority, [*fields, (b"x-request-id", entry.facts["STREAM_ID"].encode())])


def _routed(entry: Entry) -> StreamInfo:
    request = _request(entry, *FIELDS, method=b"POST", path=b"/hello?q=%20y&q=2&e", authority=b"example.org:81")
    response = ResponseHead(200, [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-quote", b'r"q\\')])
    stream = _to_upstream(entry, _stream(entry, request, response))
    stream.route = LoggedRoute("routed", {"ns": METADATA})
    stream.dynamic_metadata = {"ns": METADATA}
    stream.response_code_details = "via_upstream"
    stream.bytes_received, stream.bytes_sent = 3, 5
    return stream


def _direct(entry: Entry) -> StreamInfo:
    request = _request(entry, method=b"GET", path=b"/direct", authority=b"h")
    stream = _stream(entry, request, ResponseHead(203, []))
    stream.route = LoggedRoute("direct")
    stream.dynamic_metadata = {"ns": METADATA}
    stream.response_code_details = "direct_response"
    stream.bytes_sent = 1
    return stream


def _broken(entry: Entry) -> StreamInfo:
    grpc = (b"content-type", b"application/grpc")
    request = _request(entry, grpc, method=b"GET", path=b"/broken", authority=b"h")
    response = ResponseHead(200, [(b"content-type", b"application/grpc"), (b"grpc-status", b"14")])
    stream = _to_upstream(entry, _stream(entry, request, response))
    stream.route = LoggedRoute("routed", {"ns": METADATA})
    stream.dynamic_metadata = {"ns": METADATA}
    stream.response_code_details = "upstream_reset_before_response_started{connection_termination}"
    stream.response_flags = BY_SHORT_NAME["UC"]
    return stream


def _tcp(entry: Entry) -> StreamInfo:
    stream = _to_upstream(entry, _stream(entry, None, None))
    stream.bytes_received, stream.bytes_sent = entry.facts["BYTES_RECEIVED"], entry.facts["BYTES_SENT"]
    stream.end = stream.start + (entry.facts["DURATION"] + 0.5) / 1e3
    return stream


STREAMS = (_routed, _direct, _broken, _tcp)


def _context(number: int) -> FormatContext:
    kind = "TcpConnectionEnd" if number == STREAMS.index(_tcp) else "DownstreamEnd"
    return FormatContext(kind, {"backend": {"cns": {"k": "v"}}}.get, {"backend": "other-name", "": ""}.__getitem__)


@pytest.mark.parametrize("number", range(len(STREAMS)), ids=lambda number: STREAMS[number].__name__[1:])
def test_the_same_lines(entries: list[Entry], number: int) -> None:
    entry, context = entries[number], _context(number)
    stream = STREAMS[number](entry)
    text = compile_text(SEPARATOR.join(f"%{command}%" for command in COMMANDS) + "\n", context=context)(stream)
    separator = SEPARATOR.encode()
    compared = zip(COMMANDS, text.split(separator), entry.text.split(separator), strict=True)
    assert [(command, ours, theirs) for command, ours, theirs in compared if ours != theirs] == []
    structure = {command: f"%{command}%" for command in COMMANDS}
    assert compile_json(structure, context=context)(stream) == entry.json
    assert compile_json(STRUCTURED, context=context)(stream) == entry.structured
    assert compile_json(STRUCTURED, omit_empty_values=True, context=context)(stream) == entry.omitting


def test_the_host_that_logs_is_this_one(entries: list[Entry]) -> None:
    assert {entry.facts["HOSTNAME"] for entry in entries} == {socket.gethostname()}
