"""What happens to channels when connections end: GOAWAY, their longest life, a drain, an upstream that starts anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.differential.proxies import SIDECAR, Proxy
from tests.grpc import messages as m
from tests.grpc.bootstraps import Document, bootstrap, cluster, listener, to
from tests.grpc.client import PlainStub, TestStub, open_channel
from tests.grpc.conftest import Setting
from tests.grpc.http2_client import Http2Client
from tests.grpc.service import Service
from tests.grpc.subjects import KINDS, eventually, proxy_of, stats
from tests.grpc.test_interop import BOUND, Requests

LIVE = 0.5  # seconds that a connection may last


@contextmanager
def proxy_before(
    service: Service,
    kind: str,
    directory: Path,
    *,
    upstream: Document | None = None,
    route: Document | None = None,
    **manager: Any,
) -> Iterator[Proxy]:
    """A proxy of its own in front of a service."""

    def made(ports: Mapping[str, int]) -> Document:
        front = listener("plain", ports["plain"], [to("grpc", **(route or {}))], **manager)
        return bootstrap([front], [cluster("grpc", service.port, **(upstream or {}))], ports["admin"])

    with proxy_of(kind, ("plain",), made, directory) as proxy:
        yield proxy


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.stop()


@contextmanager
def stopping(service: Service) -> Iterator[Service]:
    try:
        yield service
    finally:
        service.stop()


class Calling:
    """A thread that calls again and again; ``failures`` should stay empty. A context manager."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = PlainStub(channel)
        self.calls = 0
        self.slowest = 0.0
        self.failures: list[object] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(0.001):
            began = time.monotonic()
            try:
                assert self.stub.echo(b"%d" % self.calls, timeout=BOUND) == b"%d" % self.calls
            except (grpc.RpcError, AssertionError) as error:
                self.failures.append(error)
            self.calls += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def more(self, count: int) -> None:
        """Wait until so many more calls are over."""
        until = self.calls + count
        eventually(lambda: self.calls >= until, f"{count} more calls; failed: {self.failures}", 20)

    def __enter__(self) -> Calling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(BOUND)


def test_a_long_life_ends_without_a_lost_call(kind: str, service: Service, tmp_path: Path) -> None:
    """``max_connection_duration``: GOAWAY, calls under way end well, and the channel goes on with a new connection."""
    common: Document = {"common_http_protocol_options": {"max_connection_duration": f"{LIVE}s"}, "drain_timeout": "1s"}
    with proxy_before(service, kind, tmp_path, **common) as proxy, open_channel(proxy.ports["plain"]) as channel:
        requests = Requests()
        lasting = PlainStub(channel).converse(iter(requests), timeout=BOUND)
        with Calling(channel) as calling:
            began = time.monotonic()
            while time.monotonic() - began < LIVE + 0.5:
                requests.send(b"still")
                assert next(lasting) == b"still"
            requests.half_close()
            assert list(lasting) == [b"bye"]
            eventually(lambda: stats(proxy)["http.plain.downstream_cx_max_duration_reached"] >= 2, "several lives", 10)
            calling.more(10)
        assert not calling.failures
        assert calling.slowest < 1.0
        counted = stats(proxy, "http.plain.downstream_cx_total")
        assert counted["http.plain.downstream_cx_total"] >= 3


def test_a_drain_moves_the_channel_and_loses_no_call(kind: str, service: Service, tmp_path: Path) -> None:
    """While health checks fail every connection is told to go; new ones are taken, and told so, too."""
    with proxy_before(service, kind, tmp_path, drain_timeout="0.5s") as proxy:
        with open_channel(proxy.ports["plain"]) as channel, Calling(channel) as calling:
            calling.more(5)
            before = stats(proxy)["http.plain.downstream_cx_total"]
            assert proxy.admin("/healthcheck/fail", "POST")[0] == 200
            eventually(lambda: stats(proxy)["http.plain.downstream_cx_total"] > before, "another connection")
            calling.more(20)
            assert proxy.admin("/healthcheck/ok", "POST")[0] == 200
            calling.more(20)
        assert not calling.failures
        assert stats(proxy)["http.plain.downstream_cx_drain_close"] >= 1


def test_goaway_comes_in_two_stages(kind: str, service: Service, tmp_path: Path) -> None:
    """First with the largest stream id, so that what is on its way counts; after ``drain_timeout`` with the last one
    (RFC 9113 section 6.8). A stream that is open all the while ends well, and then the connection does."""
    with (
        proxy_before(service, kind, tmp_path, drain_timeout="0.3s") as proxy,
        Http2Client(proxy.ports["plain"]) as client,
    ):
        fields = [("content-type", "application/grpc"), ("te", "trailers")]
        path = "/mizzen.Plain/Converse"
        message = b"\0\0\0\0\1x"
        lasting = client.request(path, "POST", fields=fields, end=False)
        client.send(lasting, message)
        client.until(lambda: client.responses[lasting].body == message)
        assert proxy.admin("/healthcheck/fail", "POST")[0] == 200
        assert client.get("/mizzen.Plain/Echo", fields=fields, body=message).field("grpc-status") == "0"
        client.until(lambda: client.goaways)
        began = time.monotonic()
        assert client.goaways == [(0, 2**31 - 1)]
        client.until(lambda: len(client.goaways) == 2)
        assert 0.2 < time.monotonic() - began < 1.0
        assert client.goaways[1] == (0, lasting + 2)
        client.send(lasting, message, end=True)
        client.until(lambda: client.closed or client.responses[lasting].ended)
        assert client.responses[lasting].body == message * 2 + b"\0\0\0\0\3bye"
        assert client.responses[lasting].field("grpc-status") == "0"
        while not client.closed:
            client.receive()


@pytest.mark.parametrize("own", [kind for kind in KINDS if kind == SIDECAR])
def test_a_drain_of_the_process_lets_calls_end(own: str, service: Service, tmp_path: Path) -> None:
    """SIGTERM: a call that is under way ends well. The sidecar only: Envoy ends at once."""
    with proxy_before(service, own, tmp_path) as proxy, open_channel(proxy.ports["plain"]) as channel:
        requests = Requests()
        call = PlainStub(channel).converse(iter(requests), timeout=BOUND)
        requests.send(b"before")
        assert next(call) == b"before"
        proxy.process.terminate()
        eventually(lambda: "draining" in proxy.log(), "the drain has begun")
        requests.send(b"after")
        assert next(call) == b"after"
        requests.half_close()
        assert list(call) == [b"bye"]
        assert proxy.process.wait(10) == 0


def test_keep_alive_pings_of_clients_are_answered(setting: Setting, listener_name: str) -> None:
    """A channel that sends pings without calls, and would leave when they are not answered."""
    often = [
        ("grpc.keepalive_time_ms", 100), ("grpc.keepalive_timeout_ms", 500),
        ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0),
    ]  # fmt: skip
    with setting.channel(listener_name, often) as channel:
        stub = TestStub(channel)
        stub.empty_call(m.Empty(), timeout=BOUND)
        name = f"http.{listener_name}.downstream_cx_total"
        before = stats(setting.proxy)[name]
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append)
        with setting.channel(listener_name) as other:  # so that there is something to wait for
            lasting = PlainStub(other).forever(b"pings", timeout=0.7)
            with pytest.raises(grpc.RpcError):
                list(lasting)
        stub.empty_call(m.Empty(), timeout=BOUND)
        assert stats(setting.proxy)[name] == before + 1  # the other channel's
        assert set(states) <= {grpc.ChannelConnectivity.READY}


def test_keep_alive_pings_of_the_proxy(kind: str, tmp_path: Path) -> None:
    """``connection_keepalive`` on both sides of the proxy: peers that answer keep their connections."""
    keepalive = {"interval": "0.1s", "timeout": "1s"}
    service = Service(
        options=[("grpc.http2.min_ping_interval_without_data_ms", 10), ("grpc.http2.max_ping_strikes", 0)]
    )
    with (
        stopping(service),
        proxy_before(
            service,
            kind,
            tmp_path,
            upstream={"protocol": {"connection_keepalive": keepalive}},
            http2_protocol_options={"connection_keepalive": keepalive},
        ) as proxy,
    ):
        with open_channel(proxy.ports["plain"]) as channel:
            call = PlainStub(channel).forever(b"kept", timeout=0.6)
            with pytest.raises(grpc.RpcError):
                list(call)
            assert PlainStub(channel).echo(b"x", timeout=BOUND) == b"x"
        counted = stats(proxy)
        assert counted["http.plain.downstream_cx_total"] == counted["cluster.grpc.upstream_cx_total"] == 1
        assert not counted.get("http2.keepalive_timeout") and not counted.get("cluster.grpc.http2.keepalive_timeout")


def test_an_upstream_that_starts_anew(kind: str, tmp_path: Path) -> None:
    """Calls that its end cuts off fail as UNAVAILABLE, later ones too, until it is there again; the channel stays."""
    first = Service()
    port = first.port
    with proxy_before(first, kind, tmp_path) as proxy, open_channel(proxy.ports["plain"]) as channel:
        stub = PlainStub(channel)
        call = stub.forever(b"cut off", timeout=BOUND)
        assert next(call) == b"first"
        first.plain.calls.wait("begun", b"cut off")
        first.stop()
        with pytest.raises(grpc.RpcError) as cut:
            next(call)
        assert cut.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
        with pytest.raises(grpc.RpcError) as refused:
            stub.echo(b"nobody", timeout=BOUND)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        second = Service(port)
        try:
            assert stub.echo(b"again", timeout=BOUND) == b"again"
            assert stats(proxy)["http.plain.downstream_cx_total"] == 1
        finally:
            second.stop()


def test_goaway_of_the_upstream_loses_no_call(kind: str, tmp_path: Path) -> None:
    """A server that ends its connections all the time (grpcio's ``max_connection_age``)."""
    service = Service(options=[("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 2000)])
    with (
        stopping(service),
        proxy_before(service, kind, tmp_path) as proxy,
        open_channel(proxy.ports["plain"]) as channel,
    ):
        with Calling(channel) as calling:
            eventually(lambda: stats(proxy)["cluster.grpc.upstream_cx_total"] >= 4, "several connections", 10)
            calling.more(10)
        assert not calling.failures
        assert stats(proxy)["http.plain.downstream_cx_total"] == 1


def test_more_streams_than_a_connection_takes(kind: str, service: Service, tmp_path: Path) -> None:
    """10 streams on each connection: the pool opens more connections, and no call waits for another."""
    narrow = {"protocol": {"max_concurrent_streams": 10}}
    with (
        proxy_before(service, kind, tmp_path, upstream=narrow) as proxy,
        open_channel(proxy.ports["plain"]) as channel,
    ):
        stub = PlainStub(channel)
        calls = [stub.forever(b"%d" % number, timeout=BOUND) for number in range(35)]
        assert {next(call) for call in calls} == {b"first"}
        counted = stats(proxy)
        assert counted["cluster.grpc.upstream_cx_active"] == 4
        assert counted["http.plain.downstream_cx_total"] == 1
        for call in calls:
            call.cancel()
        for number in range(35):
            service.plain.calls.wait("over", b"%d" % number)


def test_a_server_that_takes_fewer_streams_than_we_thought(kind: str, tmp_path: Path) -> None:
    """Its SETTINGS come when streams are already on their way: what it resets (with CANCEL) is tried again."""
    narrow = Service(options=[("grpc.max_concurrent_streams", 10)])
    retry = {"retry_on": "reset", "num_retries": 10, "retry_back_off": {"base_interval": "0.01s"}}
    with (
        stopping(narrow),
        proxy_before(
            narrow,
            kind,
            tmp_path,
            upstream={"circuit_breakers": {"thresholds": [{"max_retries": 1000}]}},
            route={"retry_policy": retry},
        ) as proxy,
        open_channel(proxy.ports["plain"]) as channel,
    ):
        calls = [PlainStub(channel).echo.future(b"%d" % number, timeout=BOUND) for number in range(100)]
        assert [call.result() for call in calls] == [b"%d" % number for number in range(100)]


def test_more_calls_than_the_proxy_takes_streams(kind: str, service: Service, tmp_path: Path) -> None:
    """10 streams on a connection of a client: its other calls wait for them in the client, and all are answered."""
    with (
        proxy_before(service, kind, tmp_path, http2_protocol_options={"max_concurrent_streams": 10}) as proxy,
        open_channel(proxy.ports["plain"]) as channel,
    ):
        stub = PlainStub(channel)
        assert stub.echo(b"first", timeout=BOUND) == b"first"  # so that the proxy's settings are known
        calls = [stub.echo.future(b"%d" % number, timeout=BOUND) for number in range(200)]
        assert [call.result() for call in calls] == [b"%d" % number for number in range(200)]
        assert not stats(proxy, "http2.stream_refused_errors").get("http2.stream_refused_errors")
        assert stats(proxy)["http.plain.downstream_cx_total"] == 1


def test_idle_connections_end_and_calls_make_new_ones(kind: str, service: Service, tmp_path: Path) -> None:
    idle = {"idle_timeout": "0.3s"}
    with (
        proxy_before(
            service, kind, tmp_path, upstream={"common": idle}, common_http_protocol_options=idle, drain_timeout="0.1s"
        ) as proxy,
        open_channel(proxy.ports["plain"]) as channel,
    ):
        stub = PlainStub(channel)
        assert stub.echo(b"x", timeout=BOUND) == b"x"
        names = ("http.plain.downstream_cx_idle_timeout", "cluster.grpc.upstream_cx_idle_timeout")
        eventually(lambda: [stats(proxy)[name] for name in names] == [1, 1], "both connections have been idle")
        eventually(lambda: not stats(proxy)["http.plain.downstream_cx_active"], "the client's connection has ended")
        call = stub.forever(b"not idle", timeout=0.7)  # a connection with a call is not idle
        assert next(call) == b"first"
        with pytest.raises(grpc.RpcError) as over:
            next(call)
        assert over.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
