"""Congestion control on the loopback interface."""

from __future__ import annotations

import socket

import pytest

from sidecar.core.address import Address
from sidecar.network.loopback import do_not_pace, is_loopback


@pytest.mark.parametrize(
    ("ip", "own"), [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("10.0.0.1", False), (None, False)]
)
def test_which_addresses_are_this_machines(ip: str | None, own: bool) -> None:
    assert is_loopback(Address(ip, 1)) is own


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="this system has no choice of congestion control")
def test_what_is_sent_is_not_paced() -> None:
    with socket.socket() as sock:
        do_not_pace(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"


def test_sockets_without_congestion_control_stay_as_they_are() -> None:
    one, other = socket.socketpair()
    do_not_pace(one)
    one.close()
    other.close()
