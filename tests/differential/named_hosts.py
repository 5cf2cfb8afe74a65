"""Servers at several addresses, and a DNS server whose names lead to them, for both proxies."""

from __future__ import annotations

import asyncio
import socket
import threading

from tests.differential.blocks import Message, typed
from tests.sidecar.cluster.dns_server import AAAA, A, DnsServer

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
RESOLVER = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


class Hosts:
    """Servers at one port of several addresses, which answer with their address, and the names that lead to them."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.dns = DnsServer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()

    async def _start(self) -> None:
        await self.dns.start()
        for host in HOSTS:
            await asyncio.start_server(self._serve, host, self.port, reuse_address=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(host), host.encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def name(self, name: str, *hosts: str) -> None:
        """From now on a name leads to these addresses."""
        self.dns.records[(name, A)] = (1, list(hosts))
        self.dns.records[(name, AAAA)] = (1, [])

    def resolver(self) -> Message:
        """The `typed_dns_resolver_config` that asks for these names."""
        servers = [{"socket_address": {"address": "127.0.0.1", "port_value": self.dns.port}}]
        return typed("envoy.network.dns_resolver.cares", RESOLVER, resolvers=servers)

    def close(self) -> None:
        async def end() -> None:
            self.dns.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
