"""A drain, in every state of a connection: what is under way is finished, and then the connection closes."""

from __future__ import annotations

from typing import Any

from tests.sidecar.http.running import GET, HELLO, running, user_filter
from tests.sidecar.http.test_user_filters import PausesRequest

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


def test_an_idle_connection_closes_at_once() -> None:
    with running() as sidecar:
        fresh = sidecar.client()
        used = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        sidecar.manager.drain()
        assert fresh.closed and used.closed


def _closes_with_its_response(sidecar: Any, client: Any) -> None:
    reply = client.receive()
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n") and reply.endswith(b"hello")
    assert b"\r\nconnection: close\r\n" in reply
    assert client.closed
    assert len(sidecar.log) == 1


def test_within_a_head() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET[:9])
        sidecar.manager.drain()
        assert not client.closed
        client.send(GET[9:])
        sidecar.host.send(HELLO)
        _closes_with_its_response(sidecar, client)


def test_within_a_body() -> None:
    with running() as sidecar:
        client = sidecar.client().send(POST + b"bo")
        sidecar.manager.drain()
        client.send(b"dy")
        assert sidecar.host.receive().endswith(b"body")
        sidecar.host.send(HELLO)
        _closes_with_its_response(sidecar, client)


def test_before_the_host_is_reached() -> None:
    with running() as sidecar:
        sidecar.dialer.waits = True
        client = sidecar.client().send(GET)
        sidecar.manager.drain()
        sidecar.dialer.go_on()
        sidecar.host.send(HELLO)
        _closes_with_its_response(sidecar, client)


def test_while_the_host_works() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        sidecar.manager.drain()
        sidecar.host.send(HELLO)
        _closes_with_its_response(sidecar, client)


def test_while_a_filter_waits() -> None:
    one = PausesRequest({})
    with running(None, {"one": lambda config: one}, filters=[user_filter("one")]) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.manager.drain()
        one.streams[0].resume_request()
        sidecar.host.send(HELLO)
        _closes_with_its_response(sidecar, client)


def test_within_a_response() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO[:-3])
        sidecar.manager.drain()
        sidecar.host.send(HELLO[-3:])
        assert client.receive().endswith(b"hello")  # its head could not tell
        assert client.closed


def test_what_is_pipelined_is_cut_off_with_a_close() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET * 3)
        sidecar.manager.drain()
        sidecar.host.send(HELLO)
        _closes_with_its_response(sidecar, client)


def test_between_two_turns_of_pipelined_requests() -> None:
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}}]
    with running(routes=routes) as sidecar:
        client = sidecar.client()
        client.transport.receive(GET * 100)
        sidecar.manager.drain()
        assert client.receive().count(b"here") in (32, 33)
        assert client.closed


def test_an_upgraded_connection_goes_on() -> None:
    with running(manager={"upgrade_configs": [{"upgrade_type": "websocket"}]}) as sidecar:
        client = sidecar.client().send(
            GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        )
        sidecar.host.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        sidecar.manager.drain()
        client.receive()
        sidecar.host.send(b"frame")
        assert client.receive() == b"frame"
        assert not client.closed
