"""What is told, logged and counted of HTTP/2 streams that do not end well, to clients and to hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sidecar.codec import http2_frames as wire
from tests.sidecar.http.http2_peer import Field
from tests.sidecar.http.running import Sidecar, log_to
from tests.sidecar.http.test_http2_timers import GET, OK, Peer, speaking

LOG = [
    log_to(
        "/log", {"text_format_source": {"inline_string": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}
    )
]
LENIENT = {"override_stream_error_on_invalid_http_message": True}
SERVED: list[Field] = [(b":status", b"200")]


@pytest.fixture
def pair() -> Iterator[tuple[Sidecar, Peer]]:
    with speaking(access_log=LOG) as (sidecar, client):
        yield sidecar, client


def begun(sidecar: Sidecar, client: Peer) -> tuple[Peer, int]:
    """A request that has come to the host, and its stream there."""
    client.wire.open(GET, True)
    client.wire.flush()
    host = Peer(sidecar.hosts[-1], True)
    (asked,) = [one for one in host.seen() if one[0] == "head"]
    return host, asked[1]


@pytest.mark.parametrize(
    ("code", "answered", "line"),
    [
        (wire.CANCEL, False, "0 DR http2.remote_reset"),
        (wire.CANCEL, True, "200 DR http2.remote_reset"),
        (wire.PROTOCOL_ERROR, False, "0 DPE http2.remote_reset"),
        (wire.REFUSED_STREAM, False, "0 DR http2.remote_refuse"),
        (wire.NO_ERROR, False, "0 DR http2.remote_reset"),
        (wire.NO_ERROR, True, "200 - via_upstream"),
    ],
)
def test_the_code_of_a_clients_reset_shows_in_the_log(
    pair: tuple[Sidecar, Peer], code: int, answered: bool, line: str
) -> None:
    sidecar, client = pair
    host, number = begun(sidecar, client)
    if answered:
        host.wire.head(host.wire.streams[number], SERVED, False)
        host.wire.flush()
        assert client.kinds() == ["head"]
    client.wire.reset(client.wire.streams[1], code)
    client.wire.flush()
    assert sidecar.log == [line + "\n"]
    assert host.seen() == [("reset", number, wire.INTERNAL_ERROR)]


@pytest.mark.parametrize(
    ("fields", "lenient", "line"),
    [
        ([*GET, (b"Capital", b"1")], True, "0 DPE http2.invalid.header.field"),
        ([*GET, (b"Capital", b"1")], False, "0 DPE http2.invalid.header.field"),
        (GET[:2], True, "0 DPE http2.violation.of.messaging.rule"),
        ([*GET, *[(b"x-%d" % number, b"") for number in range(120)]], False, "0 DR http2.too_many_headers"),
        ([*GET, (b"x", b"a" * 70000)], False, "0 DR http2.header_list_size_too_large"),
        ([*GET, (b"a_b", b"1")], False, "0 DR http2.unexpected_underscore"),
    ],
)
def test_a_request_that_is_refused_by_its_head_is_logged_and_counted(
    fields: list[Field], lenient: bool, line: str
) -> None:
    common = {"headers_with_underscores_action": "REJECT_REQUEST"}
    options = LENIENT if lenient else {}
    with speaking(access_log=LOG, http2_protocol_options=options, common_http_protocol_options=common) as (
        sidecar,
        client,
    ):
        client.wire.open(fields, True)
        client.wire.flush()
        assert sidecar.log == [line + "\n"]
        assert sidecar.stat("http.in.downstream_rq_total") == 1
        assert sidecar.stat("http.in.downstream_rq_rx_reset") == 1
        assert sidecar.stat("http.in.downstream_rq_active") == 0
        ended = "DPE" in line and not lenient
        assert client.kinds() == (["goaway"] if ended else ["reset"])


def test_a_head_that_does_not_come_to_its_end_is_logged() -> None:
    for wait, line in ((False, "0 DPE http2.unexpected_frame\n"), (True, "0 DPE request_header_timeout\n")):
        with speaking(access_log=LOG, request_headers_timeout="2s") as (sidecar, client):
            client.wire.frame(wire.HEADERS, wire.END_STREAM, 1, client.wire.encoder.block(GET))
            client.wire.flush()
            assert sidecar.log == []
            if wait:
                sidecar.advance(2.1)
            else:
                client.wire.ping()
                client.wire.flush()
            assert sidecar.log == [line]
            assert client.kinds() == ["goaway"]


@pytest.mark.parametrize(("code", "line"), [
    (wire.PROTOCOL_ERROR, "502 UPE upstream_reset_before_response_started{protocol_error}"),
    (wire.INTERNAL_ERROR, "503 UR upstream_reset_before_response_started{remote_reset}"),
])  # fmt: skip
def test_the_code_of_a_hosts_reset_shows_in_the_answer(pair: tuple[Sidecar, Peer], code: int, line: str) -> None:
    sidecar, client = pair
    host, number = begun(sidecar, client)
    host.wire.reset(host.wire.streams[number], code)
    host.wire.flush()
    assert sidecar.log == [line + "\n"]
    assert "head" in client.kinds()


def test_a_malformed_response_ends_with_its_connection_and_counts_as_reset_here(pair: tuple[Sidecar, Peer]) -> None:
    sidecar, client = pair
    host, number = begun(sidecar, client)
    host.wire.head(host.wire.streams[number], [*OK, (b"Capital", b"1")], True)
    host.wire.flush()
    assert sidecar.log == ["502 UPE upstream_reset_before_response_started{protocol_error}\n"]
    assert sidecar.stat("cluster.up.upstream_rq_tx_reset") == 1
    assert sidecar.stat("cluster.up.http2.rx_messaging_error") == 1
    assert sidecar.stat("cluster.up.upstream_cx_destroy_with_active_rq") == 0


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_response_without_a_body_ends_with_its_head_for_a_client_of_http1(status: bytes) -> None:
    with speaking() as (sidecar, _):
        client = sidecar.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        host = Peer(sidecar.hosts[-1], True)
        (asked,) = [one for one in host.seen() if one[0] == "head"]
        stream = host.wire.streams[asked[1]]
        host.wire.head(stream, [(b":status", status)], False)
        host.wire.data(stream, b"body", True)
        host.wire.flush()
        received = client.receive()
        assert received.startswith(b"HTTP/1.1 " + status) and received.endswith(b"\r\n\r\n")
        assert b"transfer-encoding" not in received
        assert not client.closed
        assert host.seen() == [("reset", asked[1], wire.PROTOCOL_ERROR)]


def test_the_scheme_is_the_requests_own_and_http_or_https(pair: tuple[Sidecar, Peer]) -> None:
    sidecar, client = pair
    host: Peer | None = None
    for number, (scheme, forwarded, expected) in enumerate(
        [(b"HTTP", b"", b"http"), (b"ftp", b"", b"http"), (b"ftp", b"https", b"https"), (b"http", b"https", b"http")]
    ):
        fields = [(name, scheme if name == b":scheme" else value) for name, value in GET]
        client.wire.open([*fields, (b"x-forwarded-proto", forwarded)] if forwarded else fields, True)
        client.wire.flush()
        host = host or Peer(sidecar.hosts[-1], True)
        (asked,) = [one for one in host.seen() if one[0] == "head"]
        assert (b":scheme", expected) in [tuple(field[:2]) for field in asked[2]], number
