"""Upgrades and CONNECT: bytes both ways once both sides agree, and never before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.running import GET, HELLO, running

WEBSOCKET = GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n"
ALLOWED = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
TUNNEL: dict[str, Any] = {
    "manager": {"upgrade_configs": [{"upgrade_type": "CONNECT"}]},
    "routes": [
        {
            "match": {"connect_matcher": {}},
            "route": {"cluster": "up", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]},
        }
    ],
}


def test_bytes_pass_both_ways_when_the_host_agrees() -> None:
    with running(manager=ALLOWED) as sidecar:
        client = sidecar.client().send(WEBSOCKET)
        asked = sidecar.host.receive()
        assert b"\r\nconnection: Upgrade\r\n" in asked and b"\r\nupgrade: websocket\r\n" in asked
        sidecar.host.send(SWITCHING + b"early")
        reply = client.receive()
        assert reply.startswith(b"HTTP/1.1 101 ") and reply.endswith(b"\r\n\r\nearly")
        client.send(b"to the host \x00\xff")
        assert sidecar.host.receive() == b"to the host \x00\xff"
        sidecar.host.send(GET)  # means nothing here
        assert client.receive() == GET


def test_what_the_client_sends_early_waits_for_the_hosts_agreement() -> None:
    with running(manager=ALLOWED) as sidecar:
        client = sidecar.client().send(WEBSOCKET + b"early", b" bytes")
        assert sidecar.host.receive().endswith(b"\r\n\r\n")
        sidecar.host.send(SWITCHING)
        assert sidecar.host.receive() == b"early bytes"
        assert client.receive().startswith(b"HTTP/1.1 101 ")


def test_a_host_that_does_not_agree_never_sees_early_bytes() -> None:
    with running(manager=ALLOWED) as sidecar:
        client = sidecar.client().send(WEBSOCKET + GET)
        host = sidecar.host.send(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        assert client.receive().startswith(b"HTTP/1.1 403 ")
        assert host.receive().count(b"GET ") == 1
        assert len(sidecar.log) == 1


def test_an_upgrade_that_is_not_allowed_is_refused() -> None:
    with running() as sidecar:
        client = sidecar.client().send(WEBSOCKET)
        assert client.receive().startswith(b"HTTP/1.1 403 ")
        assert sidecar.hosts == []
        assert sidecar.stat("http.in.downstream_rq_ws_on_non_ws_route") == 1


@pytest.mark.parametrize("who", ["client", "host"])
@pytest.mark.parametrize("way", ["close", "reset"])
def test_either_side_ends_an_upgraded_connection(who: str, way: str) -> None:
    with running(manager=ALLOWED) as sidecar:
        client = sidecar.client().send(WEBSOCKET)
        host = sidecar.host.send(SWITCHING, b"12345")
        client.send(b"123")
        getattr(client if who == "client" else host, way)()
        assert client.closed and host.closed
        (line,) = sidecar.log
        assert line.split()[3] == "101" and line.split()[6:8] == ["3", "5"]


def test_an_upgraded_connection_has_back_pressure() -> None:
    limited = {"per_connection_buffer_limit_bytes": 5000}
    with running(manager=ALLOWED, listener=limited, clusters={"up": limited}) as sidecar:
        client = sidecar.client().send(WEBSOCKET)
        host = sidecar.host.send(SWITCHING)
        host.transport.room = client.transport.room = 0
        for _ in range(10):
            client.send(b"c" * 2000)
            host.send(b"h" * 2000)
        assert not client.transport.reading and not host.transport.reading
        host.transport.take(1 << 20)
        client.transport.take(1 << 20)
        assert host.receive().endswith(b"c" * 20_000)
        assert client.receive().endswith(b"h" * 20_000)


def test_connect_ends_here_and_its_payload_goes_to_the_host() -> None:
    with running(**TUNNEL) as sidecar:
        client = sidecar.client().send(CONNECT)
        assert client.receive().startswith(b"HTTP/1.1 200 OK\r\n")
        client.send(b"hello")
        assert sidecar.host.receive() == b"hello"
        sidecar.host.send(b"there")
        assert client.receive() == b"there"


def test_a_tunnel_takes_no_connection_that_was_used() -> None:
    routes = [*TUNNEL["routes"], {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]
    with running(manager=TUNNEL["manager"], routes=routes) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        client.receive()
        sidecar.client().send(CONNECT, b"raw")
        used, fresh = sidecar.hosts
        assert used.closed
        assert fresh.receive() == b"raw"


def test_tunnels_are_no_requests_that_a_breaker_counts() -> None:
    """They are connections, as in Envoy, and bounded as these are."""
    routes = [*TUNNEL["routes"], {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]
    one = {"up": {"circuit_breakers": {"thresholds": [{"max_requests": 1, "max_connections": 4}]}}}
    with running(manager=TUNNEL["manager"], routes=routes, clusters=one) as sidecar:
        tunnels = [sidecar.client().send(CONNECT) for _ in range(3)]
        assert all(tunnel.receive().startswith(b"HTTP/1.1 200 ") for tunnel in tunnels)
        client = sidecar.client().send(GET)
        assert sidecar.client().send(GET).receive().startswith(b"HTTP/1.1 503 ")
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")
        for tunnel in tunnels:
            tunnel.close()
        client.send(GET)
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")


def test_connect_is_refused_unless_configured() -> None:
    with running() as sidecar:
        client = sidecar.client().send(CONNECT)
        assert client.receive().split()[1] in (b"403", b"404")
        assert client.closed
        assert sidecar.hosts == []
