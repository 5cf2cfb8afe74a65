from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidecar.config.address import Pipe, SocketAddress
from sidecar.config.core_types import SocketOption
from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.config.listener import AdditionalAddress
from sidecar.core.response_flags import NO_ROUTE_FOUND
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.listener.connection_limits import ConnectionLimit, global_limit, listener_limit
from sidecar.listener.sockets import BindError, queue_length
from tests.sidecar.listener.serving import Recorder, Served, chain, config, ended, exchange, in_thread, run, until


def worker() -> Worker:
    return Worker(asyncio.get_running_loop())


def _no_connections(served: Served) -> bool:
    return not served.listener.connections


def test_every_address_is_served_and_counted(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def main() -> None:
        more = (
            AdditionalAddress(SocketAddress("::1", 0)),
            AdditionalAddress(Pipe(path, 0o600)),
            AdditionalAddress(Pipe(f"@mizzen-test-{os.getpid()}")),
        )
        served = Served(config(additional_addresses=more), worker()).start()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        for at in range(4):
            client = served.connect(at)
            assert await in_thread(exchange, client, b"hello", 5) == b"hello"
            assert served.stats.downstream_cx_active == served.worker_stats.downstream_cx_active == 1
            client.close()
            await until(lambda: not served.listener.connections)
        infos = served.terminal.infos
        addresses = served.listener.local_addresses
        assert [info.local_address for info in infos] == addresses
        assert [info.listener_name for info in infos] == ["l"] * 4
        assert infos[0].remote_address.ip == "127.0.0.1"
        assert infos[1].remote_address.ip == "::1"
        assert infos[2].remote_address.ip is None
        assert len({info.id for info in infos}) == 4
        stats = served.stats
        assert (stats.downstream_cx_total, stats.downstream_cx_active, stats.downstream_cx_destroy) == (4, 0, 4)
        assert sum(stats.downstream_cx_length_ms.view().cumulative.values()) == 4
        assert sum(stats.connections_accepted_per_socket_event.view().cumulative.values()) == 4
        assert len(served.logged) == 4
        assert served.logged[0].connection is infos[0]
        served.listener.close()
        assert "socket" not in os.listdir(tmp_path)
        assert served.listener.local_addresses == []

    run(main)


def test_a_wildcard_listener_knows_the_address_that_was_called() -> None:
    async def main() -> None:
        served = Served(config(address=SocketAddress("0.0.0.0", 0)), worker()).start()
        port = served.listener.local_addresses[0].port
        client = socket.create_connection(("127.0.0.2", port), timeout=5)
        await until(lambda: served.terminal.infos)
        assert served.terminal.infos[0].local_address.text == f"127.0.0.2:{port}"
        client.close()
        served.listener.close()

    run(main)


@pytest.mark.parametrize("compat", [True, False])
def test_ipv4_compat_decides_whether_ipv6_takes_ipv4(compat: bool) -> None:
    async def main() -> None:
        served = Served(config(address=SocketAddress("::", 0, compat)), worker()).start()
        port = served.listener.local_addresses[0].port
        if compat:
            client = socket.create_connection(("127.0.0.1", port), timeout=5)
            await until(lambda: served.terminal.infos)
            assert served.terminal.infos[0].remote_address.ip == "127.0.0.1"
            client.close()
        else:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
        served.listener.close()

    run(main)


def test_an_address_in_use_is_named_with_the_reason_and_nothing_stays_bound() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            more = (AdditionalAddress(SocketAddress("127.0.0.1", port)),)
            served = Served(config(additional_addresses=more, enable_reuse_port=False), worker())
            with pytest.raises(BindError) as caught:
                served.listener.bind()
            assert caught.value.errno == errno.EADDRINUSE
            assert caught.value.strerror == f"listener 'l' cannot listen on 127.0.0.1:{port}: Address already in use"
            assert served.listener.sockets == []

    run(main)


def test_two_listeners_share_a_port_only_with_reuse_port() -> None:
    async def main() -> None:
        first = Served(config(), worker()).start()
        port = first.listener.local_addresses[0].port
        second = Served(config(address=SocketAddress("127.0.0.1", port)), worker()).start()
        assert second.listener.local_addresses[0].port == port
        third = Served(config(address=SocketAddress("127.0.0.1", port), enable_reuse_port=False), worker())
        with pytest.raises(BindError, match="Address already in use"):
            third.listener.bind()
        first.listener.close()
        second.listener.close()

    run(main)


def test_socket_options_and_fast_open_are_set_and_no_delay_is_inherited() -> None:
    async def main() -> None:
        options = (
            SocketOption(socket.SOL_SOCKET, socket.SO_RCVBUF, 70000, "STATE_PREBIND"),
            SocketOption(socket.SOL_SOCKET, socket.SO_PRIORITY, 3, "STATE_BOUND"),
            SocketOption(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 2, "STATE_LISTENING"),
        )
        served = Served(config(socket_options=options, tcp_fast_open_queue_length=7), worker())
        served.listener.bind()
        (sock,) = served.listener.sockets
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 140000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 3
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 7
        served.listener.start()
        client = served.connect()
        client.sendall(b"x")
        await until(lambda: served.terminal.received)
        (connection,) = served.listener.connections
        own: Any = connection
        accepted = own.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.close()
        served.listener.close()

    run(main)


@pytest.mark.skipif(os.geteuid() != 0, reason="transparent sockets need root")
def test_transparent_and_freebind() -> None:
    async def main() -> None:
        served = Served(config(address=SocketAddress("192.0.2.77", 0), transparent=True, freebind=True), worker())
        try:
            served.listener.bind()
        except BindError as error:
            pytest.skip(f"this system does not allow transparent sockets: {error}")
        (sock,) = served.listener.sockets
        assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT)
        served.listener.close()

    run(main)


def test_a_stale_unix_socket_is_replaced_and_anything_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def main() -> None:
        stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stale.bind(str(path))
        stale.close()
        served = Served(config(address=Pipe(str(path))), worker()).start()
        second = Served(config(address=Pipe(str(path))), worker())
        with pytest.raises(BindError, match="Address already in use"):
            second.listener.bind()
        served.listener.close()
        path.write_text("precious")
        with pytest.raises(BindError, match="is not a socket"):
            second.listener.bind()
        assert path.read_text() == "precious"

    run(main)


def test_the_listener_limit_and_the_global_limit_refuse_and_recover() -> None:
    async def main() -> None:
        shared = ConnectionLimit(2)
        first = Served(config(), worker(), limit=ConnectionLimit(1), shared=shared).start()
        second = Served(config(), worker(), shared=shared).start()
        exempt = Served(config(ignore_global_conn_limit=True), worker(), shared=shared).start()
        one = first.connect()
        await until(lambda: first.stats.downstream_cx_active == 1)
        over = first.connect()
        assert await in_thread(ended, over)
        assert first.stats.downstream_cx_overflow == 1
        two = second.connect()
        await until(lambda: second.stats.downstream_cx_active == 1)
        over_all = second.connect()
        assert await in_thread(ended, over_all)
        assert second.stats.downstream_global_cx_overflow == 1
        free = exempt.connect()
        assert await in_thread(exchange, free, b"x", 1) == b"x"
        one.close()
        await until(lambda: first.stats.downstream_cx_active == 0)
        again = first.connect()
        assert await in_thread(exchange, again, b"x", 1) == b"x"
        for sock in (over, two, over_all, free, again):
            sock.close()
        for served in (first, second, exempt):
            served.listener.close()
            await until(partial(_no_connections, served))
        assert shared.active == 0

    run(main)


def test_limits_come_from_the_runtime() -> None:
    runtime = {
        "overload.global_downstream_max_connections": 5,
        "envoy.resource_limits.listener.l.connection_limit": 3.0,
    }
    assert global_limit(runtime).maximum == 5
    assert listener_limit(runtime, "l").maximum == 3
    assert listener_limit(runtime, "other").maximum == float("inf")


def test_running_out_of_descriptors_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        served = Served(config(), worker()).start()
        first = served.connect()
        await until(lambda: served.stats.downstream_cx_active == 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket()
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        hoard = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
        try:
            while True:
                try:
                    hoard.append(os.dup(0))
                except OSError:
                    break
            waiting.connect(("127.0.0.1", served.listener.local_addresses[0].port))
            await until(lambda: any("Too many open files" in record.message for record in caplog.records))
            await asyncio.sleep(0.25)  # more than two rounds of backing off, and it is logged once
            assert sum("Too many open files" in record.message for record in caplog.records) == 1
            assert served.stats.downstream_cx_total == 1
        finally:
            for fd in hoard:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: served.stats.downstream_cx_total == 2)
        assert await in_thread(exchange, first, b"still", 5) == b"still"
        first.close()
        waiting.close()
        served.listener.close()

    run(main)


def test_accepts_per_event_are_bounded() -> None:
    async def main() -> None:
        served = Served(config(max_connections_to_accept_per_socket_event=2), worker())
        served.listener.bind()
        clients = [served.connect() for _ in range(5)]
        served.listener.start()
        await until(lambda: served.stats.downstream_cx_total == 5)
        per_event = served.stats.connections_accepted_per_socket_event.view().cumulative
        assert dict(per_event) == {1: 1, 2: 2}
        for client in clients:
            client.close()
        served.listener.close()

    run(main)


def test_no_matching_chain_closes_and_logs() -> None:
    async def main() -> None:
        nobody = chain("nobody", filter_chain_match=FilterChainMatch(destination_port=1))
        served = Served(config(nobody), worker()).start()
        client = served.connect()
        assert await in_thread(ended, client)
        assert served.stats.no_filter_chain_match == 1
        assert served.stats.downstream_cx_total == 0
        (record,) = served.logged
        assert record.response_flags == NO_ROUTE_FOUND
        assert record.response_code_details == "filter_chain_not_found"
        assert served.listener.limit.active == 0
        client.close()
        served.listener.close()

    run(main)


def test_the_default_chain_takes_what_no_other_does() -> None:
    async def main() -> None:
        nobody = chain("nobody", filter_chain_match=FilterChainMatch(destination_port=1))
        served = Served(config(nobody, default_filter_chain=chain("rest")), worker()).start()
        client = served.connect()
        assert await in_thread(exchange, client, b"x", 1) == b"x"
        assert served.terminals["rest"].infos[0].filter_chain_name == "rest"
        client.close()
        served.listener.close()

    run(main)


def test_drain_serves_what_was_queued_then_accepts_no_more() -> None:
    async def main() -> None:
        served = Served(config(max_connections_to_accept_per_socket_event=2), worker())
        served.listener.bind()
        address = served.listener.local_addresses[0]
        queued = [served.connect() for _ in range(7)]
        served.listener.start()
        served.listener.drain()
        assert served.terminal.drained
        for client in queued:
            assert await in_thread(exchange, client, b"late", 4) == b"late"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((str(address.ip), address.port), timeout=5)
        assert served.stats.downstream_cx_active == 7
        served.listener.close()
        await until(lambda: served.stats.downstream_cx_active == 0)
        assert served.terminal.lost == 7
        for client in queued:
            client.close()

    run(main)


class Refusing:
    """A connection filter that lets ``most`` pass and refuses others after ``delay``."""

    def __init__(self, most: int, delay: float = 0.0) -> None:
        self.most = most
        self.delay = delay
        self.open: list[ConnectionInfo] = []

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        if len(self.open) >= self.most:
            return self.delay
        self.open.append(info)
        return None

    def on_close(self, info: ConnectionInfo) -> None:
        self.open.remove(info)


def test_connection_filters_refuse_and_hear_only_of_what_they_let_pass() -> None:
    async def main() -> None:
        outer, inner = Refusing(2), Refusing(1, delay=0.05)
        served = Served(config(), worker(), build_filters=lambda chain, context: (outer, inner)).start()
        first = served.connect()
        assert await in_thread(exchange, first, b"x", 1) == b"x"
        second = served.connect()
        await until(lambda: len(outer.open) == 2)
        assert served.stats.downstream_cx_active == 2
        third = served.connect()
        assert await in_thread(ended, third)
        assert await in_thread(ended, second)
        assert len(served.terminal.infos) == 1
        await until(lambda: served.stats.downstream_cx_active == 1)
        assert len(outer.open) == len(inner.open) == 1
        first.close()
        await until(lambda: served.stats.downstream_cx_active == 0)
        assert outer.open == inner.open == []
        assert served.stats.downstream_cx_total == served.stats.downstream_cx_destroy == 3
        for sock in (second, third):
            sock.close()
        served.listener.close()

    run(main)


def test_another_protocol_may_take_over() -> None:
    async def main() -> None:
        class Upper(asyncio.Protocol):
            def __init__(self, transport: Any, recorder: Recorder) -> None:
                self.transport = transport
                self.recorder = recorder

            def data_received(self, data: bytes) -> None:
                self.transport.write(data.upper())

            def connection_lost(self, error: Exception | None) -> None:
                self.recorder.lost += 10

        class Switching(Recorder):
            def accept(self, info: ConnectionInfo) -> asyncio.Protocol:
                recorder = self

                class First(asyncio.Protocol):
                    transport: Any

                    def connection_made(self, transport: Any) -> None:
                        self.transport = transport

                    def data_received(self, data: bytes) -> None:
                        upper = Upper(self.transport, recorder)
                        self.transport.get_protocol().switch(upper)
                        upper.data_received(data)

                return First()

        terminal = Switching()
        served = Served(config(), worker(), build_terminal=lambda *_: terminal).start()
        client = served.connect()
        assert await in_thread(exchange, client, b"one", 3) == b"ONE"
        assert await in_thread(exchange, client, b"two", 3) == b"TWO"
        client.close()
        await until(lambda: served.stats.downstream_cx_active == 0)
        assert terminal.lost == 10
        served.listener.close()

    run(main)


def test_connections_wait_while_accepting_is_paused() -> None:
    async def main() -> None:
        served = Served(config(), worker()).start()
        listener = served.listener
        listener.pause_accepting()
        client = served.connect()
        client.sendall(b"hello")
        await until(lambda: queue_length(listener.sockets[0]) == 1)
        await asyncio.sleep(0.02)
        assert served.stats.downstream_cx_total == 0
        assert (listener.queued(), listener.taken) == (1, 0)
        listener.resume_accepting()
        assert await in_thread(client.recv, 5) == b"hello"
        assert (listener.queued(), listener.taken) == (0, 1)
        client.close()
        await until(partial(_no_connections, served))
        listener.close()

    run(main)


def test_a_share_of_connections_is_rejected() -> None:
    async def main() -> None:
        served = Served(config(), worker()).start()
        listener = served.listener
        shed: list[None] = []
        for share, served_of_50 in ((1.0, (0, 0)), (0.5, (10, 40)), (0.0, (50, 50))):
            listener.reject(share, lambda: shed.append(None))
            before, rejected = served.stats.downstream_cx_total, len(shed)
            clients = [served.connect() for _ in range(50)]
            expected = before + rejected + 50
            await until(lambda total=expected: served.stats.downstream_cx_total + len(shed) == total)  # type: ignore[misc]
            accepted = served.stats.downstream_cx_total - before
            assert served_of_50[0] <= accepted <= served_of_50[1]
            for client in clients:
                client.close()
            await until(partial(_no_connections, served))
        assert served.stats.downstream_cx_overload_reject == len(shed) > 50
        assert listener.global_limit.active == 0
        listener.close()

    run(main)


def test_who_has_waited_longest_is_closed() -> None:
    async def main() -> None:
        served = Served(config(max_connections_to_accept_per_socket_event=10), worker()).start()
        listener = served.listener
        listener.pause_accepting()
        clients = [served.connect() for _ in range(20)]
        listener.trim(2.5, 0.5)
        await until(lambda: queue_length(listener.sockets[0]) == 2)
        assert served.stats.downstream_cx_overload_reject == 18
        assert served.stats.downstream_cx_total == 0
        assert [await in_thread(client.recv, 1) for client in clients[:18]] == [b""] * 18
        more = [served.connect() for _ in range(2)]
        await until(lambda: served.stats.downstream_cx_overload_reject == 20)
        listener.resume_accepting()
        for client in more:
            assert await in_thread(exchange, client, b"hello", 5) == b"hello"
        listener.trim(float("inf"), 1.0)
        again = served.connect()
        assert await in_thread(exchange, again, b"hello", 5) == b"hello"
        assert served.stats.downstream_cx_overload_reject == 20
        for client in (*clients, *more, again):
            client.close()
        await until(partial(_no_connections, served))
        listener.close()

    run(main)


@pytest.mark.parametrize("run_in", [uvloop.run, asyncio.run])
def test_connections_are_served_on_both_loops_and_leave_nothing_behind(run_in: Any) -> None:
    async def main() -> None:
        served = Served(config(), worker()).start()
        open_after = []
        for _ in range(5):
            client = served.connect()
            assert await in_thread(exchange, client, b"hello", 5) == b"hello"
            (connection,) = served.listener.connections
            quick = served.listener._by_descriptor
            assert quick == (run_in is uvloop.run)
            assert (connection.opening is not None) == quick  # type: ignore[union-attr]
            client.close()
            await until(lambda: not served.listener.connections)
            assert connection.opening is None  # type: ignore[union-attr]
            open_after.append(len(os.listdir("/proc/self/fd")))
        assert served.terminal.lost == 5
        await until(lambda: not served.worker.tasks)
        assert open_after[-1] == open_after[0]
        served.listener.close()

    run_in(main())


def test_a_connection_aborted_before_it_has_a_transport_ends() -> None:
    async def main() -> None:
        served = Served(config(), worker()).start()
        client = served.connect()
        served.listener._accept(served.listener.sockets[0], 1)
        (connection,) = served.listener.connections
        connection.abort()
        assert await in_thread(ended, client)
        await until(lambda: not served.listener.connections)
        assert served.stats.downstream_cx_active == served.listener.limit.active == 0
        client.close()
        served.listener.close()

    run(main)
