"""Connections within one machine: there is no network whose congestion could be controlled."""

from __future__ import annotations

import socket

from sidecar.core.address import Address

_UNPACED = b"reno"  # in every Linux kernel, and open to everybody


def is_loopback(address: Address) -> bool:
    """Whether the address is this machine's own."""
    return address.ip is not None and (address.ip.startswith("127.") or address.ip == "::1")


def do_not_pace(sock: socket.socket) -> None:
    """Have the kernel send what is given to it at once.

    Where the system's congestion control is BBR, it spreads a large piece out over time at the bandwidth that it has
    estimated, which on the loopback interface only costs throughput (a fifth, for one stream). Whoever forbids the
    change has what was configured.
    """
    congestion = getattr(socket, "TCP_CONGESTION", None)
    if congestion is not None and sock.family != socket.AF_UNIX:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, congestion, _UNPACED)
        except OSError:
            return
