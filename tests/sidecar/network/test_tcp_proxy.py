from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar.config.network_filters import ClusterWeight, TcpProxy
from sidecar.core.address import Address
from sidecar.core.response_flags import short_names
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.network.relay import MakeFlow, Pipes, best_flows, copying, splicing
from tests.sidecar.listener.serving import ended, in_thread, run, until
from tests.sidecar.network.proxying import FakeCluster, Proxied, Upstream, drained, receive

KINDS = [
    pytest.param(best_flows, id="best"),
    pytest.param(lambda: copying(65536), id="copy"),
    pytest.param(lambda: splicing(Pipes(4096)), id="small pipes", marks=pytest.mark.skipif(
        not hasattr(os, "splice"), reason="this system has no splice")),
]  # fmt: skip


def worker() -> Worker:
    return Worker(asyncio.get_running_loop())


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_go_both_ways_whole_and_half_closes_are_passed_on(kind: Callable[[], MakeFlow]) -> None:
    async def main() -> None:
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        proxied = Proxied(worker(), cluster, make_flow=kind())
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        request, response = os.urandom(3_000_000), os.urandom(5_000_000)
        sending = asyncio.ensure_future(in_thread(client.sendall, request))
        answering = asyncio.ensure_future(in_thread(server.sendall, response))
        assert await in_thread(receive, server, len(request)) == request
        assert await in_thread(receive, client, len(response)) == response
        await asyncio.gather(sending, answering)
        client.shutdown(socket.SHUT_WR)
        assert await in_thread(receive, server, 1) == b""
        await in_thread(server.sendall, b"after the half-close")
        server.close()
        assert await in_thread(receive, client, 100) == b"after the half-close"
        await until(lambda: proxied.logged)
        (record,) = proxied.logged
        assert (record.bytes_received, record.bytes_sent) == (len(request), len(response) + 20)
        assert (record.upstream_bytes_sent, record.upstream_bytes_received) == (len(request), len(response) + 20)
        assert proxied.stats.downstream_cx_rx_bytes_total == cluster.stats.upstream_cx_tx_bytes_total == len(request)
        assert proxied.stats.downstream_cx_tx_bytes_total == len(response) + 20
        assert record.response_flags == 0
        assert record.cluster_name == "c"
        assert record.host is cluster.hosts[0]
        assert record.upstream_local_address is not None
        assert cluster.at_rest()
        assert proxied.served.logged == [record]
        assert proxied.served.stats.downstream_cx_active == 0
        assert (cluster.stats.upstream_cx_total, cluster.stats.upstream_cx_destroy) == (1, 1)
        assert cluster.stats.upstream_cx_destroy_remote == 1
        client.close()
        proxied.close()
        upstream.close()

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_a_receiver_that_does_not_read_stops_the_sender_and_nothing_is_lost(kind: Callable[[], MakeFlow]) -> None:
    async def main() -> None:
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        proxied = Proxied(worker(), cluster, make_flow=kind())
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        total = 64 << 20
        sending = asyncio.ensure_future(in_thread(_send_and_close, client, total))
        await until(lambda: proxied.stats.downstream_flow_control_paused_reading_total)
        before = -1
        while before != proxied.stats.downstream_cx_rx_bytes_total:  # until all buffers are full
            before = proxied.stats.downstream_cx_rx_bytes_total
            await asyncio.sleep(0.1)
        assert before < total // 2
        assert not sending.done()
        assert await in_thread(drained, server) == total
        await sending
        assert proxied.stats.downstream_flow_control_resumed_reading_total > 0
        server.close()
        await until(lambda: proxied.logged)
        assert proxied.logged[0].bytes_received == total
        assert cluster.at_rest()
        client.close()
        proxied.close()
        upstream.close()

    run(main)


def _send_and_close(sock: socket.socket, total: int) -> None:
    piece = bytes(1 << 20)
    sock.settimeout(15)
    for _ in range(total // len(piece)):
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_of_one_side_ends_the_other(side: str) -> None:
    async def main() -> None:
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        proxied = Proxied(worker(), cluster)
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        client.sendall(b"x")
        assert await in_thread(receive, server, 1) == b"x"
        gone, left = (client, server) if side == "client" else (server, client)
        reset(gone)
        with pytest.raises(ConnectionResetError):
            await in_thread(receive, left, 1)
        await until(lambda: proxied.logged)
        assert short_names(proxied.logged[0].response_flags) == (b"UR" if side == "server" else b"-")
        assert cluster.at_rest()
        assert not proxied.served.listener.connections
        remote = cluster.stats.upstream_cx_destroy_remote
        assert remote == (1 if side == "server" else 0)
        left.close()
        proxied.close()
        upstream.close()

    run(main)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [4, 20_000], ids=["one-piece", "several"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_that_comes_with_bytes_ends_the_other_side_after_them(
    side: str, size: int, kind: Callable[[], MakeFlow]
) -> None:
    """In one turn of the loop: libuv tells of an error once, whatever there is to read before it."""

    async def main() -> None:
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        proxied = Proxied(worker(), cluster, make_flow=kind())
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        gone, left = (client, server) if side == "client" else (server, client)
        last = os.urandom(size)
        gone.sendall(last)
        reset(gone)
        left.settimeout(5)
        assert await in_thread(receive, left, size) == last
        with pytest.raises(ConnectionResetError):
            await in_thread(receive, left, 1)
        await until(lambda: proxied.logged)
        assert cluster.at_rest()
        assert not proxied.served.listener.connections
        left.close()
        proxied.close()
        upstream.close()

    run(main)


def test_what_the_upstream_said_before_it_refused_more_arrives() -> None:
    """The upstream answers and closes with bytes of the client unread, so that writing to it fails."""

    async def main() -> None:
        upstream = Upstream()
        proxied = Proxied(worker(), FakeCluster("c", [upstream.address]))
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        sending = asyncio.ensure_future(in_thread(_send_ignoring_errors, client))
        await until(lambda: proxied.stats.downstream_cx_rx_bytes_total > 1 << 20)
        await in_thread(server.sendall, b"enough")
        await until(lambda: proxied.stats.downstream_cx_tx_bytes_total == 6)
        reset(server)
        assert await in_thread(receive, client, 6) == b"enough"
        await sending
        await until(lambda: proxied.logged)
        client.close()
        proxied.close()
        upstream.close()

    run(main)


def _send_ignoring_errors(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.sendall(bytes(32 << 20))


def test_a_refused_connection_is_tried_again_on_another_host() -> None:
    async def main() -> None:
        upstream = Upstream()
        closed = Upstream()
        closed.close()
        cluster = FakeCluster("c", [closed.address, upstream.address])
        proxied = Proxied(worker(), cluster, own=TcpProxy("t", "c", max_connect_attempts=2))
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        server.sendall(b"hello")
        assert await in_thread(receive, client, 5) == b"hello"
        server.close()
        client.close()
        await until(lambda: proxied.logged)
        (record,) = proxied.logged
        assert record.attempt_count == 2
        assert record.host is cluster.hosts[1]
        assert short_names(record.response_flags) == b"UF"
        assert cluster.hosts[0].cx_connect_fail == cluster.stats.upstream_cx_connect_fail == 1
        assert cluster.at_rest()
        proxied.close()
        upstream.close()

    run(main)


def test_every_reason_not_to_connect_closes_with_its_flags() -> None:
    async def main() -> None:
        closed = Upstream()
        closed.close()
        refused = FakeCluster("c", [closed.address])
        full = FakeCluster("c", [closed.address])
        full.breakers[0].max_connections = 0
        cases = [
            (Proxied(worker(), FakeCluster("c", []), own=TcpProxy("t", "other")), b"NC"),
            (Proxied(worker(), FakeCluster("c", [])), b"UH"),
            (Proxied(worker(), full), b"UO"),
            (Proxied(worker(), refused), b"UF,URX"),
        ]
        for proxied, flags in cases:
            client = proxied.connect()
            assert await in_thread(ended, client)
            (record,) = proxied.logged
            assert short_names(record.response_flags) == flags
            assert all(cluster.at_rest() for cluster in proxied.by_name.values())
            client.close()
            proxied.close()
        assert cases[0][0].stats.downstream_cx_no_route == 1
        assert cases[1][0].by_name["c"].stats.upstream_cx_none_healthy == 1
        assert full.stats.upstream_cx_overflow == 1
        assert refused.stats.upstream_cx_connect_attempts_exceeded == 1
        assert cases[3][0].logged[0].upstream_failure_reason == "delayed connect error: Connection refused"

    run(main)


def test_the_connect_timeout() -> None:
    async def main() -> None:
        silent = socket.socket()
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = silent.getsockname()
        fill = [socket.socket() for _ in range(3)]
        for sock in fill:  # once its queue is full, the kernel drops what else wants to connect
            sock.setblocking(False)
            sock.connect_ex(address)
        cluster = FakeCluster("c", [Address("127.0.0.1", address[1])], connect_timeout=0.1)
        proxied = Proxied(worker(), cluster)
        client = proxied.connect()
        assert await in_thread(ended, client)
        assert cluster.stats.upstream_cx_connect_timeout == cluster.stats.upstream_cx_connect_fail == 1
        assert short_names(proxied.logged[0].response_flags) == b"UF,URX"
        assert cluster.at_rest()
        for sock in (*fill, silent, client):
            sock.close()
        proxied.close()

    run(main)


def test_the_idle_timeout_counts_from_the_last_byte() -> None:
    async def main() -> None:
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        proxied = Proxied(worker(), cluster, own=TcpProxy("t", "c", idle_timeout=0.2))
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        clock = asyncio.get_running_loop().time
        for _ in range(3):
            await asyncio.sleep(0.1)
            server.sendall(b"x")
            await in_thread(receive, client, 1)
        last = clock()
        assert proxied.stats.idle_timeout == 0
        assert await in_thread(ended, client)
        assert clock() - last > 0.15
        assert proxied.stats.idle_timeout == 1
        assert await in_thread(ended, server)
        assert cluster.at_rest()
        client.close()
        server.close()
        proxied.close()
        upstream.close()

    run(main)


def test_weighted_clusters_and_metadata() -> None:
    async def main() -> None:
        upstream = Upstream()
        clusters = [FakeCluster(name, [upstream.address]) for name in "abc"]
        weights = (
            ClusterWeight("a", 1, {"stage": "canary"}),
            ClusterWeight("b", 3, {"version": 1.0}),
            ClusterWeight("c", 0),
        )
        proxied = Proxied(worker(), *clusters, own=TcpProxy("t", weighted_clusters=weights))
        for _ in range(60):
            client = proxied.connect()
            server = await in_thread(upstream.accept)
            server.close()
            client.close()
        a, b, c = (len(cluster.asked) for cluster in clusters)
        assert a + b == 60
        assert 4 <= a <= 28
        assert c == 0
        assert clusters[0].asked[0][0] == (("stage", '"canary"'),)
        assert clusters[1].asked[0][0] == (("version", "1"),)
        proxied.close()
        upstream.close()

    run(main)


def test_sni_cluster_makes_the_server_name_the_cluster() -> None:
    async def main() -> None:
        proxied = Proxied(worker(), FakeCluster("c", []), by_sni=True)
        info = ConnectionInfo(1, Address("127.0.0.1", 1), Address("127.0.0.1", 2), 0.0)
        assert proxied.proxy.choose(info) == ("c", None)
        info.requested_server_name = "other.example"
        assert proxied.proxy.choose(info) == ("other.example", None)
        proxied.close()

    run(main)


def test_a_unix_socket_upstream(tmp_path: Path) -> None:
    async def main() -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(tmp_path / "up"))
        listening.listen()
        upstream = Upstream(listening)
        proxied = Proxied(worker(), FakeCluster("c", [upstream.address]))
        client = proxied.connect()
        server = await in_thread(upstream.accept)
        client.sendall(b"ping")
        assert await in_thread(receive, server, 4) == b"ping"
        server.sendall(b"pong")
        assert await in_thread(receive, client, 4) == b"pong"
        server.close()
        client.close()
        await until(lambda: proxied.logged)
        proxied.close()
        upstream.close()

    run(main)


def test_closing_the_listener_ends_sessions_also_while_they_connect() -> None:
    async def main() -> None:
        upstream = Upstream()
        silent = socket.socket()
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        fill = [socket.socket() for _ in range(3)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(silent.getsockname())
        cluster = FakeCluster("c", [upstream.address, Address("127.0.0.1", silent.getsockname()[1])])
        proxied = Proxied(worker(), cluster)
        first = proxied.connect()
        server = await in_thread(upstream.accept)
        second = proxied.connect()
        await until(lambda: cluster.stats.upstream_rq_pending_active == 1)
        proxied.close()
        assert await in_thread(ended, first)
        assert await in_thread(ended, second)
        assert cluster.at_rest()
        assert len(proxied.logged) == 2
        await until(lambda: not proxied.proxy.worker.tasks)
        for sock in (*fill, silent, first, second, server):
            sock.close()
        upstream.close()

    run(main)


def test_sessions_leave_no_descriptors_behind() -> None:
    async def main() -> None:
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        proxied = Proxied(worker(), cluster)

        async def once(how: int) -> None:
            client = proxied.connect()
            server = await in_thread(upstream.accept)
            client.sendall(bytes(1000))
            await in_thread(receive, server, 1000)
            if how % 2:
                reset(client)
            client.close()
            server.close()

        await once(0)
        await until(cluster.at_rest)
        before = len(os.listdir("/proc/self/fd"))
        for how in range(20):
            await once(how)
        await until(cluster.at_rest)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        proxied.close()
        upstream.close()

    run(main)


def test_pipes_are_reused_and_one_with_bytes_in_it_is_not() -> None:
    pipes = Pipes(65536)
    first = pipes.take()
    pipes.give_back(first, True)
    assert pipes.take() == first
    os.write(first[1], b"left over")
    pipes.give_back(first, False)
    second = pipes.take()
    with pytest.raises(BlockingIOError):
        os.read(second[0], 1)
    pipes.give_back(second, True)
    pipes.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(second[0], 1)
