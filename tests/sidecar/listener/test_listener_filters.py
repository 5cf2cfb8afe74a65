from __future__ import annotations

import asyncio
import os
import socket
import struct
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.address import Pipe, SocketAddress
from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.config.listener_filters import (
    AndMatch,
    AnyMatch,
    DestinationPortRange,
    HttpInspector,
    ListenerFilter,
    NotMatch,
    OriginalDst,
    OrMatch,
    ProxyProtocol,
    TlsInspector,
    TlvRule,
)
from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.listener.directory import Directory
from sidecar.listener.listener_filter import compile_predicate
from sidecar.listener.original_dst import address_of_ipv4, address_of_ipv6
from tests.sidecar.listener.serving import Served, chain, config, ended, exchange, in_thread, run, until
from tests.sidecar.listener.test_client_hello import REAL
from tests.sidecar.listener.test_proxy_header import TLV, V4, v2

TLS = ListenerFilter("tls", TlsInspector())
HTTP = ListenerFilter("http", HttpInspector())
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"


def worker() -> Worker:
    return Worker(asyncio.get_running_loop())


def served_with(*filters: ListenerFilter, **fields: Any) -> Served:
    return Served(config(chain("only"), listener_filters=filters, **fields), worker()).start()


def seen(served: Served, size: int) -> bool:
    """Whether a connection waits of which so many bytes were looked at."""
    return any(pending.seen == size for pending in served.listener.pending)


def at_rest(served: Served) -> bool:
    return not served.listener.limit.active


def test_the_tls_inspector_chooses_the_chain_and_takes_nothing() -> None:
    async def main() -> None:
        chains = (
            chain("www", filter_chain_match=FilterChainMatch(server_names=(".example.com",), transport_protocol="tls")),
            chain("plain", filter_chain_match=FilterChainMatch(transport_protocol="raw_buffer")),
        )
        served = Served(config(*chains, listener_filters=(TLS,)), worker()).start()
        client = served.connect()
        for at in range(0, len(REAL), 200):  # in pieces, each of them seen before the next is sent
            client.sendall(REAL[at : at + 200])
            if at + 200 < len(REAL):
                await until(partial(seen, served, at + 200))
        assert await in_thread(exchange, client, b"", len(REAL)) == REAL
        (info,) = served.terminals["www"].infos
        assert info.requested_server_name == "www.example.com"
        assert info.application_protocols == ("h2", "http/1.1")
        assert info.transport_protocol == "tls"
        plain = served.connect()
        assert await in_thread(exchange, plain, b"hello", 5) == b"hello"
        assert served.terminals["plain"].infos[0].transport_protocol == "raw_buffer"
        stats = served.filter_stats.tls
        assert (stats.tls_found, stats.sni_found, stats.alpn_found, stats.tls_not_found) == (1, 1, 1, 1)
        assert served.stats.downstream_pre_cx_active == 0
        client.close()
        plain.close()
        served.listener.close()

    run(main)


def test_waiting_for_more_does_not_spin() -> None:
    async def main() -> None:
        served = served_with(TLS)
        client = served.connect()
        client.sendall(REAL[:100])
        await until(partial(seen, served, 100))
        before = os.times()
        await asyncio.sleep(0.3)
        after = os.times()
        assert after.user + after.system - before.user - before.system < 0.15
        client.sendall(REAL[100:])
        assert await in_thread(exchange, client, b"", len(REAL)) == REAL
        client.close()
        served.listener.close()

    run(main)


def test_a_peer_that_leaves_in_the_middle_is_noticed() -> None:
    async def main() -> None:
        served = served_with(TLS)
        for sent in (b"", REAL[:50]):
            client = served.connect()
            client.sendall(sent)
            await until(partial(seen, served, len(sent)))
            client.close()
            await until(lambda: not served.listener.pending)
        assert served.stats.downstream_listener_filter_remote_close == 2
        assert served.stats.downstream_pre_cx_active == served.listener.limit.active == 0
        assert served.stats.downstream_cx_total == 0
        served.listener.close()

    run(main)


def test_a_client_hello_that_is_too_large_or_broken_closes_where_configured() -> None:
    async def main() -> None:
        served = served_with(ListenerFilter("tls", TlsInspector(300)))
        client = served.connect()
        client.sendall(b"\x16\x03\x01\x40\x00\x01\x00\x10\x00")
        assert await in_thread(ended, client)
        assert served.filter_stats.tls.client_hello_too_large == 1
        client.close()
        served.listener.close()
        for strict in (False, True):
            inspector = TlsInspector(close_connection_on_client_hello_parsing_errors=strict)
            served = served_with(ListenerFilter("tls", inspector))
            client = served.connect()
            client.sendall(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
            if strict:
                assert await in_thread(ended, client)
            else:
                assert await in_thread(exchange, client, b"", 10) == b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
            assert served.filter_stats.tls.tls_not_found == 1
            client.close()
            served.listener.close()

    run(main)


@pytest.mark.parametrize(
    ("data", "protocols"),
    [
        (b"GET / HTTP/1.1\r\n", ("http/1.1",)),
        (b"OPTIONS * HTTP/1.0\r\n", ("http/1.0",)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ("h2c",)),
        (b"PRINT /x HTTP/1.1\r\n", ("http/1.1",)),
        (b"\x00\x01", ()),
        (b"GET /\x00", ()),
        (b"GET / HTTP/1.2\r\n", ()),
        (b"GET  / HTTP/1.1\r\n", ()),
        (b"A" * 8192, ()),
        (REAL, ()),
    ],
)
def test_the_http_inspector(data: bytes, protocols: tuple[str, ...]) -> None:
    async def main() -> None:
        served = served_with(TLS, HTTP)
        for size in (len(data), 1):
            client = served.connect()
            sent = data if size > 1 or len(data) > 100 else b""
            client.sendall(sent)
            if not sent:
                await in_thread(_slowly, client, data)
            assert await in_thread(exchange, client, b"", len(data)) == data
            assert served.terminal.infos[-1].application_protocols == (
                protocols if data != REAL else ("h2", "http/1.1")
            )
            client.close()
        served.listener.close()

    run(main)


def _slowly(sock: socket.socket, data: bytes) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in data:
        sock.sendall(bytes((byte,)))


@pytest.mark.parametrize("header", [V1, v2(body=V4 + TLV)], ids=["v1", "v2"])
@pytest.mark.parametrize("slow", [False, True])
def test_the_proxy_protocol_header_is_taken_exactly(header: bytes, slow: bool) -> None:
    async def main() -> None:
        rules = (TlvRule(2, "from", "authority"), TlvRule(9, "from", "absent"))
        served = served_with(ListenerFilter("proxy", ProxyProtocol(rules)), HTTP)
        client = served.connect()
        request = b"GET / HTTP/1.1\r\n\r\n"
        if slow:
            await in_thread(_slowly, client, header + request)
        else:
            client.sendall(header + request)
        assert await in_thread(exchange, client, b"", len(request)) == request
        (info,) = served.terminal.infos
        assert info.remote_address.text == "192.0.2.1:1234"
        assert info.local_address.text == "198.51.100.2:443"
        assert info.direct_remote_address.ip == info.direct_local_address.ip == "127.0.0.1"
        assert info.application_protocols == ("http/1.1",)
        proxy = served.filter_stats.proxy
        if header == V1:
            assert (proxy.v1.found, proxy.v2.found, info.metadata) == (1, 0, None)
        else:
            assert (proxy.v1.found, proxy.v2.found) == (0, 1)
            assert info.metadata == {"from": {"authority": "hello"}}
            assert info.proxy_protocol_tlvs == {2: b"hello", 0xEA: b""}
        client.close()
        served.listener.close()

    run(main)


def test_proxy_protocol_without_a_header_of_a_disallowed_version_or_malformed() -> None:
    async def main() -> None:
        optional = ProxyProtocol(allow_requests_without_proxy_protocol=True, disallowed_versions=frozenset({"V1"}))
        cases = [
            (ProxyProtocol(), b"GET / HTTP/1.1\r\n\r\n", False),
            (ProxyProtocol(), b"PROXY TCP4 nonsense\r\n", False),
            (ProxyProtocol(), b"PROXY TCP4 224.0.0.1 198.51.100.2 1234 443\r\n", False),
            (optional, b"GET / HTTP/1.1\r\n\r\n", True),
            (optional, V1, False),
        ]
        counted = []
        for own, data, served_it in cases:
            served = served_with(ListenerFilter("proxy", own))
            client = served.connect()
            client.sendall(data)
            if served_it:
                assert await in_thread(exchange, client, b"", len(data)) == data
            else:
                assert await in_thread(ended, client)
                assert served.listener.limit.active == 0
            stats = served.filter_stats.proxy
            counted.append(
                (stats.headers.not_found_disallowed, stats.headers.not_found_allowed, stats.v1.error,
                 stats.v1.disallowed, stats.errors.downstream_cx_proxy_proto_error)
            )  # fmt: skip
            client.close()
            served.listener.close()
        assert counted == [(1, 0, 0, 0, 1), (0, 0, 1, 0, 1), (0, 0, 1, 0, 1), (0, 1, 0, 0, 0), (0, 0, 0, 1, 0)]

    run(main)


@pytest.mark.parametrize("go_on", [False, True])
def test_the_timeout_of_the_listener_filters(go_on: bool) -> None:
    async def main() -> None:
        served = served_with(TLS, listener_filters_timeout=0.1, continue_on_listener_filters_timeout=go_on)
        client = served.connect()
        client.sendall(REAL[:20])
        if go_on:
            assert await in_thread(exchange, client, b"", 20) == REAL[:20]
        else:
            assert await in_thread(ended, client)
        assert served.stats.downstream_pre_cx_timeout == 1
        assert served.stats.downstream_pre_cx_active == 0
        client.close()
        served.listener.close()

    run(main)


def test_a_unix_socket_is_inspected_too(tmp_path: Path) -> None:
    async def main() -> None:
        served = served_with(TLS, address=Pipe(str(tmp_path / "socket")))
        client = served.connect()
        client.sendall(REAL[:100])
        await until(partial(seen, served, 100))
        client.sendall(REAL[100:])
        assert await in_thread(exchange, client, b"", len(REAL)) == REAL
        assert served.terminal.infos[0].requested_server_name == "www.example.com"
        client.close()
        served.listener.close()

    run(main)


def test_connections_that_are_looked_at_end_with_the_listener() -> None:
    async def main() -> None:
        served = served_with(TLS)
        client = served.connect()
        await until(lambda: served.listener.pending)
        served.listener.close()
        assert await in_thread(ended, client)
        assert served.listener.limit.active == served.stats.downstream_pre_cx_active == 0
        client.close()

    run(main)


def test_predicates() -> None:
    info = ConnectionInfo(1, Address("127.0.0.1", 80), Address("127.0.0.1", 1), 0.0)
    at_80, below_80 = DestinationPortRange(80, 81), DestinationPortRange(1, 80)
    for predicate, holds in (
        (at_80, True),
        (below_80, False),
        (AnyMatch(), True),
        (NotMatch(at_80), False),
        (OrMatch((below_80, at_80)), True),
        (AndMatch((below_80, at_80)), False),
        (AndMatch((AnyMatch(), NotMatch(below_80))), True),
    ):
        assert compile_predicate(predicate)(info) is holds


def test_a_disabled_filter_is_left_out() -> None:
    async def main() -> None:
        served = served_with(ListenerFilter("tls", TlsInspector(), AnyMatch()))
        client = served.connect()
        await until(lambda: served.terminals["only"].infos)  # without a byte of the client
        client.close()
        served.listener.close()

    run(main)


def test_addresses_as_the_kernel_writes_them() -> None:
    v4 = struct.pack("=H", socket.AF_INET) + struct.pack(">H", 8080) + socket.inet_aton("192.0.2.7") + bytes(8)
    assert address_of_ipv4(v4).text == "192.0.2.7:8080"
    packed = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    v6 = struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", 8080, 0) + packed + bytes(4)
    assert address_of_ipv6(v6).text == "[2001:db8::7]:8080"


def test_a_connection_that_was_not_redirected_keeps_its_address() -> None:
    async def main() -> None:
        served = served_with(ListenerFilter("original_dst", OriginalDst()))
        client = served.connect()
        assert await in_thread(exchange, client, b"x", 1) == b"x"
        (info,) = served.terminal.infos
        assert info.local_address == served.listener.local_addresses[0]
        client.close()
        served.listener.close()

    run(main)


def test_use_original_dst_hands_over_to_the_listener_of_that_address() -> None:
    """The PROXY header restores an address, as a redirection does."""

    async def main() -> None:
        directory, same = Directory(), worker()
        proxy = (ListenerFilter("proxy", ProxyProtocol()),)
        first = Served(config(chain("own"), listener_filters=proxy, use_original_dst=True), same, directory=directory)
        first.start()
        virtual = {"bind_to_port": False}
        exact = Served(config(address=SocketAddress("198.51.100.2", 443), **virtual), same, directory=directory)
        wildcard = Served(
            config(chain(filter_chain_match=FilterChainMatch(prefix_ranges=(ip_network("198.51.100.0/24"),))),
                   address=SocketAddress("0.0.0.0", 8443), listener_filters=(TLS,), **virtual),
            same,
            directory=directory,
        )  # fmt: skip
        exact.start()
        wildcard.start()
        for port, target in ((443, exact), (8443, wildcard), (9, first)):
            client = first.connect()
            client.sendall(V1.replace(b" 443\r", b" %d\r" % port) + b"hello")
            assert await in_thread(exchange, client, b"", 5) == b"hello"
            assert target.terminal.infos[0].local_address.text == f"198.51.100.2:{port}"
            assert target.stats.downstream_cx_active == target.listener.limit.active == 1
            client.close()
            await until(partial(at_rest, target))
        assert first.stats.downstream_cx_total == 1
        assert wildcard.filter_stats.tls.tls_not_found == 1
        for served in (first, exact, wildcard):
            served.listener.close()

    run(main)
