"""Upgrades between clients and hosts of HTTP/2: what accepts them, and how they end and are logged (RFC 8441)."""

from __future__ import annotations

import pytest

from sidecar.codec import http2_frames as wire
from tests.sidecar.http.http2_peer import Field
from tests.sidecar.http.running import log_to
from tests.sidecar.http.test_http2_timers import Peer, speaking

LOG_FORMAT = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %BYTES_SENT%\n"
SETTINGS = {
    "access_log": [log_to("/log", {"text_format_source": {"inline_string": LOG_FORMAT}})],
    "http2_protocol_options": {"allow_connect": True},
    "upgrade_configs": [{"upgrade_type": "websocket"}],
}
WEBSOCKET: list[Field] = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":path", b"/"),
    (b":authority", b"a"),
]


def data_of(peer: Peer) -> bytes:
    """What has come of the tunnel."""
    return b"".join(one[2] for one in peer.seen() if one[0] == "data")


@pytest.mark.parametrize("status", [b"200", b"201"])
@pytest.mark.parametrize("host_ends_first", [False, True])
def test_every_2xx_accepts_an_extended_connect(status: bytes, host_ends_first: bool) -> None:
    with speaking({"allow_connect": True}, **SETTINGS) as (sidecar, client):
        there = client.wire.open(WEBSOCKET, False)
        client.wire.flush()
        assert there is not None
        host = Peer(sidecar.hosts[-1], True)
        host.wire.settings({wire.ENABLE_CONNECT_PROTOCOL: 1})
        (asked,) = [one for one in host.seen() if one[0] == "head"]
        assert (b":protocol", b"websocket") in [tuple(field[:2]) for field in asked[2]]
        here = host.wire.streams[asked[1]]
        host.wire.head(here, [(b":status", status)], False)
        host.wire.flush()
        (head,) = client.seen()
        assert head[0] == "head" and (b":status", status) in [tuple(field[:2]) for field in head[2]]
        client.wire.data(there, b"hello", False)
        client.wire.flush()
        assert data_of(host) == b"hello"
        host.wire.data(here, b"HELLO", False)
        host.wire.flush()
        assert data_of(client) == b"HELLO"
        for peer, stream in [(host, here), (client, there)] if host_ends_first else [(client, there), (host, here)]:
            if not stream.dead:
                peer.wire.data(stream, b"", True)
                peer.wire.flush()
                host.seen()
                client.seen()
        logged = "101" if status == b"200" else "201"  # as Envoy, in terms of HTTP/1.1 where those have a word for it
        assert sidecar.log == [f"{logged} - via_upstream 5 5\n"]


def test_the_answer_to_an_upgrade_that_has_ended_has_the_service_time() -> None:
    with speaking({"allow_connect": True}, **SETTINGS) as (sidecar, client):
        client.wire.open(WEBSOCKET, True)
        client.wire.flush()
        host = Peer(sidecar.hosts[-1], True)
        (asked,) = [one for one in host.seen() if one[0] == "head"]
        host.wire.head(host.wire.streams[asked[1]], [(b":status", b"200")], False)
        host.wire.flush()
        (head,) = client.seen()
        assert (b"x-envoy-upstream-service-time", b"0") in [tuple(field[:2]) for field in head[2]]
