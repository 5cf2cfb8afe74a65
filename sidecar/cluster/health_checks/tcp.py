"""Checks by TCP: that a connection is made, or that the host answers some bytes with others.

Source: Envoy's `core.v3.HealthCheck.TcpHealthCheck` and its TCP health checker.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.cluster.health_checks.http import contains
from sidecar.cluster.health_checks.results import NETWORK, NETWORK_TIMEOUT, Outcome
from sidecar.cluster.health_checks.streams import Connections
from sidecar.config.health_check import TcpHealthCheck
from sidecar.core.address import Address, from_socket_name

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL = b"\x20\x00\x00\x00"  # version 2, command LOCAL, nothing of addresses
_MOST = 1 << 16
"""Octets of an answer that are kept while what is expected has not come."""


class TcpProbe:
    """Asks one host by TCP. A connection is used again where an answer is expected and ``reuse`` says so."""

    __slots__ = ("_asking", "_connection", "_dialling", "config", "connections", "outcome", "reuse")

    def __init__(self, config: TcpHealthCheck, reuse: bool, outcome: Outcome, connections: Connections) -> None:
        self.config = config
        self.reuse = reuse
        self.outcome = outcome
        self.connections = connections
        self._asking = False
        self._connection: CheckConnection | None = None
        self._dialling = False

    def start(self) -> None:
        self._asking = True
        if self._connection is not None:
            self._say(self._connection)
            return
        host = self.outcome.host
        address = self.connections.address_of(host)
        connection = self._connection = CheckConnection(self, address)
        self._dialling = True
        self.connections.dial(host, address, connection, self._dialled)

    def timed_out(self) -> None:
        self._asking = False
        self._end_connection()

    def close(self) -> None:
        self.timed_out()

    def on_answer(self, connection: CheckConnection, answer: bytes) -> bool:
        """Bytes have come; whether they are what is expected."""
        if not self._asking or not self.config.receive or not contains(answer, self.config.receive):
            return False
        self._asking = False
        self.outcome.succeeded()
        if not self.reuse:
            self._end_connection()
        return True

    def on_lost(self, connection: CheckConnection) -> None:
        """The host has closed the connection: that it does so between two checks counts as one that has failed."""
        if connection is self._connection and not self._dialling:
            self._connection = None
            self._asking = False
            self.outcome.failed(NETWORK)

    def _dialled(self, connection: CheckConnection, failure: str | None, timed_out: bool) -> None:
        if connection is not self._connection:
            connection.end()  # nobody wants it any more
            return
        self._dialling = False
        if failure is not None or (connection.lost and self.config.receive):
            self._asking = False
            self._end_connection()
            self.outcome.failed(NETWORK_TIMEOUT if timed_out else NETWORK)
        elif not self.config.receive:
            self._asking = False
            self._end_connection()
            self.outcome.succeeded()
        else:
            self._say(connection)
            connection.deliver()

    def _say(self, connection: CheckConnection) -> None:
        transport = connection.transport
        data = self.config.send
        if self.config.proxy_protocol:
            data = _proxy_header(self.config.proxy_protocol, transport, connection.address) + data
        if data:
            transport.write(data)

    def _end_connection(self) -> None:
        connection, self._connection = self._connection, None
        self._dialling = False
        if connection is not None:
            connection.end()

    def __repr__(self) -> str:
        return f"<TcpProbe {self.outcome.host!r}{', asking' if self._asking else ''}>"


class CheckConnection(asyncio.Protocol):
    """A connection for checks, and what the host has said on it since the last one."""

    def __init__(self, probe: TcpProbe, address: Address) -> None:
        self.probe = probe
        self.address = address
        self.transport: Any = None
        self.answer = b""
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.answer = (self.answer + data)[:_MOST]
        self.deliver()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.probe.on_lost(self)

    def deliver(self) -> None:
        """Let the probe see what has come."""
        if self.answer and self.probe.on_answer(self, self.answer):
            self.answer = b""

    def end(self) -> None:
        """Close it without a word."""
        if self.transport is not None:
            self.transport.abort()

    def __repr__(self) -> str:
        return f"<CheckConnection to {self.address.text}{', lost' if self.lost else ''}>"


def _proxy_header(version: str, transport: Any, target: Address) -> bytes:
    """The PROXY header: version 1 says who speaks to whom, version 2 that the connection is the proxy's own."""
    if version == "V2":
        return _SIGNATURE + _LOCAL
    sock = transport.get_extra_info("socket")
    source = from_socket_name(sock.family, sock.getsockname())
    if target.ip is None or source.ip is None:
        return b"PROXY UNKNOWN\r\n"
    family = "TCP6" if ":" in target.ip else "TCP4"
    return f"PROXY {family} {source.ip} {target.ip} {source.port} {target.port}\r\n".encode()
