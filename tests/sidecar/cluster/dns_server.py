"""A DNS server for tests, on loopback and an ephemeral UDP port: answers A and AAAA from a table that tests change."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from typing import Any

A, AAAA = 1, 28
SERVFAIL, NXDOMAIN = 2, 3


class DnsServer(asyncio.DatagramProtocol):
    """`records` maps (name, type) to (ttl, addresses). A name in `failing` gets that response code; `silent` drops all.

    `asked` lists the questions in order.
    """

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], tuple[int, list[str]]] = {}
        self.failing: dict[str, int] = {}
        self.silent = False
        self.asked: list[tuple[str, int]] = []
        self.port = 0
        self._transport: Any = None

    async def start(self) -> DnsServer:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    def close(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        name = ".".join(labels).lower()
        kind = struct.unpack_from("!H", data, at + 1)[0]
        self.asked.append((name, kind))
        if self.silent:
            return
        known = any(key[0] == name for key in self.records)
        ttl, addresses = self.records.get((name, kind), (0, []))
        code = self.failing.get(name, 0 if known else NXDOMAIN)
        if code:
            addresses = []
        answers = b"".join(
            struct.pack("!HHHIH", 0xC00C, kind, 1, ttl, len(packed)) + packed
            for packed in (ipaddress.ip_address(address).packed for address in addresses)
        )
        head = data[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, len(addresses), 0, 0)
        self._transport.sendto(head + data[12 : at + 5] + answers, addr)
