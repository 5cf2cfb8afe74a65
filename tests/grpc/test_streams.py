"""Streams pass message by message, and what ends them reaches the other side at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import grpc
import pytest

from tests.grpc.bootstraps import AUTHORITY
from tests.grpc.client import PlainStub
from tests.grpc.conftest import Setting
from tests.grpc.http2_client import Http2Client
from tests.grpc.service import PlainService
from tests.grpc.subjects import eventually, stats
from tests.grpc.test_interop import BOUND, Requests, failure

AT_ONCE = 0.25  # seconds: several hundred loop ticks, and far from every timer that could help


@pytest.fixture
def stub(setting: Setting, listener_name: str) -> Iterator[PlainStub]:
    with setting.channel(listener_name) as channel:
        yield PlainStub(channel)


@pytest.fixture
def plain(setting: Setting, listener_name: str) -> PlainService:
    """The service that these calls come to, with nothing seen yet."""
    found = setting.behind(listener_name).plain
    found.calls.seen.clear()
    return found


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_requests_are_not_kept_back(stub: PlainStub, plain: PlainService, size: int) -> None:
    """Each message is at the server before the next is sent, and the half close after the last."""
    requests = Requests()
    call = stub.collect.future(iter(requests), timeout=BOUND)
    for number in range(20):
        message = bytes([number]) * size + bytes([number])
        requests.send(message)
        plain.calls.wait("message", message)
    assert not any(name == "half closed" for name, _, _ in plain.calls.seen)
    requests.half_close()
    plain.calls.wait("half closed")
    assert call.result() == b"%d" % (20 * (size + 1))


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_responses_are_not_kept_back(stub: PlainStub, size: int) -> None:
    """Each response is here before the next request is sent; after the half close the server still has something."""
    requests = Requests()
    call = stub.converse(iter(requests), timeout=BOUND)
    for number in range(20):
        message = bytes([number]) * size
        requests.send(message)
        assert next(call) == message
    requests.half_close()
    assert list(call) == [b"bye"]
    assert call.code() is grpc.StatusCode.OK


def test_initial_metadata_comes_before_the_first_message(stub: PlainStub, plain: PlainService) -> None:
    name = uuid.uuid4().bytes
    call = stub.forever(name, timeout=BOUND)
    assert call.initial_metadata() is not None
    assert next(call) == b"first"
    call.cancel()
    plain.calls.wait("over", name)


def test_a_cancellation_reaches_the_server_at_once(stub: PlainStub, plain: PlainService) -> None:
    took = []
    for _ in range(10):
        name = uuid.uuid4().bytes
        call = stub.forever(name, timeout=BOUND)
        assert next(call) == b"first"
        cancelled = time.monotonic()
        call.cancel()
        took.append(plain.calls.wait("over", name) - cancelled)
    assert max(took) < AT_ONCE, took


def test_a_cancelled_upload_ends_at_the_server_at_once(stub: PlainStub, plain: PlainService) -> None:
    requests = Requests()
    call = stub.converse(iter(requests), timeout=BOUND)
    requests.send(b"one")
    assert next(call) == b"one"
    call.cancel()
    requests.half_close()
    assert failure(call)[0] is grpc.StatusCode.CANCELLED


def test_a_channel_that_goes_away_ends_its_calls_at_the_server(
    setting: Setting, listener_name: str, plain: PlainService
) -> None:
    name = uuid.uuid4().bytes
    channel = setting.channel(listener_name)
    call = PlainStub(channel).forever(name, timeout=BOUND)
    assert next(call) == b"first"
    closed = time.monotonic()
    channel.close()
    assert plain.calls.wait("over", name) - closed < AT_ONCE


def test_the_deadline_of_the_client_ends_the_call_at_the_server(stub: PlainStub, plain: PlainService) -> None:
    name = uuid.uuid4().bytes
    began = time.monotonic()
    call = stub.forever(name, timeout=0.3)
    assert failure(call)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.25 < time.monotonic() - began < 0.3 + AT_ONCE
    assert plain.calls.wait("over", name) - began < 0.3 + AT_ONCE


def test_the_deadline_is_kept_by_the_proxy(setting: Setting, listener_name: str) -> None:
    """``grpc_timeout_header_max`` makes ``grpc-timeout`` the route's deadline, where neither client nor server keep it."""
    with Http2Client(setting.proxy.ports[listener_name], AUTHORITY.pem if listener_name == "tls" else None) as client:
        began = time.monotonic()
        fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "200m")]
        endless = client.request("/echo", "POST", fields=[*fields, ("x-mark", "deadline")], end=False)
        answer = client.response(endless)
        assert 0.15 < time.monotonic() - began < 0.2 + AT_ONCE
        assert (answer.status, answer.field("grpc-status")) == (200, "4")
        assert answer.field("grpc-message") is not None


def test_the_deadline_is_told_to_the_server(stub: PlainStub) -> None:
    assert 10 < float(stub.deadline(b"", timeout=15)) <= 15
    assert float(stub.deadline(b"")) == -1


def test_a_slow_reader_stops_the_server_and_nobody_else(
    setting: Setting, listener_name: str, plain: PlainService
) -> None:
    """Of 256 MB that the server has, only what windows and buffers hold leaves it while the client does not read.

    The windows are small because those of Envoy's default, filled by a few streams that nobody reads, leave no room
    for others on the same connection.
    """
    metadata = [("x-mark", "small windows")]
    with setting.channel(listener_name) as channel:
        stub = PlainStub(channel)
        call = stub.pour(b"%d %d" % (256, 1 << 20), metadata=metadata, timeout=BOUND)
        assert next(call) == bytes(1 << 20)
        began = time.monotonic()
        for number in range(50):
            assert stub.echo(b"%d" % number, metadata=metadata, timeout=BOUND) == b"%d" % number
        assert time.monotonic() - began < 2
        poured = max(value for name, value, _ in tuple(plain.calls.seen) if name == "poured")
        assert poured < 64, f"{poured} MB have left the server"
        call.cancel()


def test_nothing_is_left_under_way(setting: Setting) -> None:
    """Runs behind the others: every gauge of calls is back at 0."""

    def active() -> dict[str, int]:
        found = stats(setting.proxy, "rq_active")
        return {name: value for name, value in found.items() if value and ".admin." not in name}

    eventually(lambda: not active(), f"no call under way: {active()}")
