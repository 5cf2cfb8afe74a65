"""``%MIZZEN(...)%``: for each way to fail, who closed, when, why, on which attempt, and over what connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.telemetry.formatter import FormatError, compile_text
from tests.sidecar.http.running import GET, HELLO, LOG, Client, Sidecar, http_filter, log_to, running

ASPECTS = ("closed_by", "phase", "reason", "attempt", "connection_age", "connection_requests")
FORMAT = " ".join(f"%MIZZEN({aspect})%" for aspect in ASPECTS) + "\n"
MANAGER = {"access_log": [log_to(LOG, {"text_format_source": {"inline_string": FORMAT}})]}
PART = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345"
POST = PART + b"67890"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"
HUNDRED = {"numerator": 100}


def to_up(**fields: Any) -> list[dict[str, Any]]:
    return [{"match": {"prefix": "/"}, "route": {"cluster": "up", **fields}}]


def retry(on: str = "5xx", **fields: Any) -> dict[str, Any]:
    return {"retry_policy": {"retry_on": on, "num_retries": 1, **fields}}


def later(sidecar: Sidecar, client: Client) -> Client:
    """Another request on a connection that has carried one, two seconds old by now."""
    client.send(GET)
    sidecar.hosts[-1].send(HELLO)
    client.receive()
    sidecar.advance(2.0)
    return client


def answered(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.host.send(HELLO)


def refused(sidecar: Sidecar, client: Client) -> None:
    sidecar.dialer.fails = "no way"
    client.send(GET)
    sidecar.advance(0.2)
    sidecar.dialer.fails = ""


def crowded(sidecar: Sidecar, client: Client) -> None:
    other = sidecar.client().send(GET)
    client.send(GET)
    assert client.receive().startswith(b"HTTP/1.1 503 ")
    assert other.receive() == b""


def closed(sidecar: Sidecar, client: Client) -> None:
    client.send(POST)
    sidecar.advance(0.5)
    sidecar.hosts[-1].close()


def closed_later(sidecar: Sidecar, client: Client) -> None:
    later(sidecar, client).send(POST)
    sidecar.hosts[-1].close()


def closed_twice(sidecar: Sidecar, client: Client) -> None:
    client.send(POST)
    sidecar.hosts[-1].close()
    sidecar.advance(0.3)
    sidecar.hosts[-1].close()


def refused_after_an_answer(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.dialer.fails = "no way"
    sidecar.host.send(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    sidecar.advance(0.3)
    sidecar.dialer.fails = ""


def broken_within(sidecar: Sidecar, client: Client) -> None:
    later(sidecar, client).send(GET)
    sidecar.hosts[-1].send(BEGUN).reset()


def nonsense(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.host.send(b"nonsense\r\n\r\n")


def late(sidecar: Sidecar, client: Client) -> None:
    later(sidecar, client).send(GET)
    sidecar.advance(1.1)


def late_within(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.host.send(BEGUN)
    sidecar.advance(1.1)


def left(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.advance(0.25)
    client.reset()


def left_within_the_request(sidecar: Sidecar, client: Client) -> None:
    client.send(PART)
    client.reset()


def left_while_connecting(sidecar: Sidecar, client: Client) -> None:
    sidecar.dialer.waits = True
    client.send(GET)
    client.reset()
    sidecar.dialer.go_on()


def left_within(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.host.send(BEGUN)
    client.reset()


def left_in_the_back_off(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)
    sidecar.host.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    client.reset()


def asked(sidecar: Sidecar, client: Client) -> None:
    client.send(GET)


def slow(sidecar: Sidecar, client: Client) -> None:
    client.send(PART)
    sidecar.advance(1.1)


def unreadable(sidecar: Sidecar, client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n")


FAULT = http_filter("fault.v3.HTTPFault", abort={"http_status": 418, "percentage": HUNDRED})
ONE_REQUEST = {"up": {"circuit_breakers": {"thresholds": [{"max_requests": 1}]}}}
ONE_TRY = retry("connect-failure", per_try_timeout="1s")
NO_HOSTS = {"up": {"load_assignment": {"cluster_name": "up"}}}

Scene = Callable[[Sidecar, Client], None]

SCENES: list[tuple[Scene, dict[str, Any], str]] = [
    (answered, {}, "- - - - - -"),
    (refused, {}, "upstream connection remote_connection_failure 1 - -"),
    (refused, {"routes": to_up(**retry())}, "upstream connection remote_connection_failure 2 - -"),
    (refused_after_an_answer, {"routes": to_up(**retry())}, "upstream connection remote_connection_failure 2 0 0"),
    (crowded, {"clusters": ONE_REQUEST}, "sidecar connection overflow 1 - -"),
    (asked, {"clusters": NO_HOSTS}, "sidecar connection no_healthy_upstream 1 - -"),
    (asked, {"routes": [{"match": {"prefix": "/b"}, "route": {"cluster": "up"}}]}, "sidecar filters route_not_found - - -"),
    (asked, {"filters": [FAULT]}, "sidecar filters fault_filter_abort - - -"),
    (asked, {"routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 503}}]}, "- - - - - -"),
    (closed, {}, "upstream response connection_termination 1 500 0"),
    (closed_later, {}, "upstream response connection_termination 1 2000 1"),
    (closed_twice, {"routes": to_up(**retry())}, "upstream response connection_termination 2 250 0"),
    (nonsense, {}, "sidecar response protocol_error 1 0 0"),
    (broken_within, {}, "upstream body protocol_error 1 2000 1"),
    (late, {"routes": to_up(timeout="1s")}, "sidecar response response_timeout 1 3000 1"),
    (late, {"routes": to_up(**ONE_TRY)}, "sidecar response upstream_per_try_timeout 1 3000 1"),
    (late, {"routes": to_up(timeout="0s", idle_timeout="1s")}, "sidecar response stream_idle_timeout 1 3000 1"),
    (late_within, {"routes": to_up(timeout="1s")}, "sidecar body response_timeout 1 1000 0"),
    (slow, {"manager": {"request_timeout": "1s"}}, "sidecar request request_overall_timeout 1 1000 0"),
    (unreadable, {}, "sidecar request http1.codec_error - - -"),
    (left, {}, "client response downstream_remote_disconnect 1 250 0"),
    (left_within_the_request, {}, "client request downstream_remote_disconnect 1 0 0"),
    (left_while_connecting, {}, "client connection downstream_remote_disconnect 1 - -"),
    (left_within, {}, "client body downstream_remote_disconnect 1 0 0"),
    (left_in_the_back_off, {"routes": to_up(**retry())}, "client connection downstream_remote_disconnect 1 0 0"),
]  # fmt: skip


@pytest.mark.parametrize(("scene", "fields", "expected"), SCENES)
def test_a_way_to_fail(scene: Scene, fields: dict[str, Any], expected: str) -> None:
    manager = {**MANAGER, **fields.get("manager", {})}
    with running(**{**fields, "manager": manager}) as sidecar:
        scene(sidecar, sidecar.client())
        sidecar.loop.settle()
        found = sidecar.log[-1].split()
        if found[4].isdigit():  # timers are late by as much as the wheel is coarse
            found[4] = str(int(found[4]) // 250 * 250)
        assert " ".join(found) == expected


def test_hedged_attempts() -> None:
    policy = {**retry(per_try_timeout="1s"), "hedge_policy": {"hedge_on_per_try_timeout": True}, "timeout": "10s"}
    with running(routes=to_up(**policy), manager=MANAGER) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(1.4)
        sidecar.hosts[1].close()
        sidecar.hosts[0].close()
        assert client.receive().startswith(b"HTTP/1.1 503 ")
        assert sidecar.log[0].split()[:4] == ["upstream", "response", "connection_termination", "2"]


@pytest.mark.parametrize("format", ["%MIZZEN%", "%MIZZEN()%", "%MIZZEN(mood)%"])
def test_what_there_is_not_is_refused(format: str) -> None:
    with pytest.raises(FormatError):
        compile_text(format)
