"""The headers of the PROXY protocol that go before connections to endpoints, read back by the listener's own parser."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.tls_options import TransportSocketOptions
from sidecar.listener.proxy_header import ProxyHeader, parse_v1, parse_v2
from sidecar.pool.proxy_header import ProxiedPools, compile_header, version_1, version_2

V4 = (Address("10.1.2.3", 1111), Address("10.9.9.9", 65535))
V6 = (Address("2001:db8::1", 1), Address("2001:db8::2", 2))
UNIX = (Address(None, path="/run/a"), Address(None, path="/run/b"))
MIXED = (V4[0], V6[1])


class Stats:
    upstream_cx_tx_bytes_total = 0


@pytest.mark.parametrize("ends", [V4, V6])
def test_both_versions_say_who_is_at_the_ends(ends: tuple[Address, Address]) -> None:
    first, second = version_1(*ends), version_2(*ends)
    assert parse_v1(first) == ProxyHeader(len(first), 1, *ends)
    assert parse_v2(second) == ProxyHeader(len(second), 2, *ends)


@pytest.mark.parametrize("ends", [UNIX, MIXED, MIXED[::-1]])
def test_what_cannot_be_said_is_not_made_up(ends: tuple[Address, Address]) -> None:
    assert version_1(*ends) == b"PROXY UNKNOWN\r\n"
    assert parse_v2(version_2(*ends)) == ProxyHeader(16, 2)


def test_a_connection_of_the_sidecars_own_speaks_for_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        ends = Address(*sock.getsockname()), Address(*sock.getpeername())
        for options in (None, TransportSocketOptions()):
            stats = Stats()
            line = compile_header("V1", stats)(sock, options)
            assert parse_v1(line) == ProxyHeader(len(line), 1, *ends)
            local = compile_header("V2", stats)(sock, options)
            assert parse_v2(local) == ProxyHeader(16, 2)
            assert stats.upstream_cx_tx_bytes_total == len(line) + len(local)
        told = compile_header("V1", Stats())(sock, TransportSocketOptions(proxied=V6))
        assert told == b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"


def test_a_downstream_connection_has_connections_of_its_own() -> None:
    made: list[TransportSocketOptions] = []

    class Pool:
        def acquire(self, sink: Any, priority: int) -> Any:
            return self

    def make(options: TransportSocketOptions) -> Pool:
        made.append(options)
        return Pool()

    named = TransportSocketOptions(server_name="a.example")
    pools = ProxiedPools(lambda request: named, make)

    def sink(number: int, source: Address) -> Any:
        connection = ConnectionInfo(number, V4[1], source, 0.0)
        return SimpleNamespace(request=None, stream=SimpleNamespace(connection=connection))

    first, same, other = (pools.acquire(sink(1, source), 0) for source in (V4[0], V4[0], Address("10.1.2.3", 1112)))
    assert first is same and first is not other
    ours: Any = pools.acquire(sink(0, V4[0]), 0)  # the sidecar's own client
    mirrored: Any = pools.acquire(SimpleNamespace(request=None, connection=sink(1, V4[0]).stream.connection), 0)  # type: ignore[arg-type]
    assert ours is mirrored and ours not in (first, other)
    proxied = [(V4[0], V4[1]), (Address("10.1.2.3", 1112), V4[1]), None]
    assert made == [TransportSocketOptions(server_name="a.example", proxied=one) for one in proxied]


class Looked:
    """A pool that counts how often somebody looks whether it is used."""

    looks = 0
    pending = ()

    def __init__(self, used: bool) -> None:
        self.used = used

    @property
    def all(self) -> set[int]:
        Looked.looks += 1
        return {1} if self.used else set()

    def acquire(self, sink: Any, priority: int) -> Any:
        return None


def downstream(number: int) -> Any:
    """A request of a connection that nobody else has."""
    connection = ConnectionInfo(number, V4[1], Address("10.1.2.3", number), 0.0)
    return SimpleNamespace(request=None, stream=SimpleNamespace(connection=connection))


@pytest.mark.parametrize(("used", "most"), [(True, 3000), (False, 64)])
def test_many_downstream_connections_are_not_all_looked_at_for_each_new_one(
    used: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pools that are used the work is in proportion to them; those that nobody uses do not heap up."""
    monkeypatch.setattr(Looked, "looks", 0)
    pools = ProxiedPools(lambda request: TransportSocketOptions(), lambda options: Looked(used))
    kept: list[int] = []
    for number in range(1, 3001):
        pools.acquire(downstream(number), 0)
        kept.append(len(pools.pools))
    assert max(kept) <= most
    assert Looked.looks <= 2 * 3000


def test_pools_that_nobody_uses_any_more_go_before_there_are_twice_as_many() -> None:
    made: list[Looked] = []

    def make(options: TransportSocketOptions) -> Looked:
        made.append(Looked(True))
        return made[-1]

    pools = ProxiedPools(lambda request: TransportSocketOptions(), make)
    for number in range(1, 2001):
        pools.acquire(downstream(number), 0)
        if number == 1000:
            for pool in made:
                pool.used = False
    assert list(pools.pools.values()) == made[1000:]
