"""Failing the health check asks clients to go elsewhere, as Envoy does: on listeners whose `drain_type` is DEFAULT."""

from __future__ import annotations

import asyncio

from sidecar.server import Server
from tests.running import get
from tests.sidecar.bootstraps import bootstrap, direct, http_listener


def closes(port: int) -> bool:
    """Whether a reply says that the connection will be closed."""
    return get(port)[1].get("connection") == "close"


async def order(port: int, path: str) -> None:
    """One order to the administration interface."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


def test_replies_say_close_while_the_health_check_fails() -> None:
    async def ask() -> list[tuple[bool, bool]]:
        both = http_listener("both", 0, [direct("")])
        modify = {**http_listener("modify", 0, [direct("")]), "drain_type": "MODIFY_ONLY"}
        said = []
        async with Server(bootstrap(both, modify, admin=0)) as server:
            ports = [server.address(name)[1] for name in ("both", "modify")]
            for path in ("", "/healthcheck/fail", "/healthcheck/ok"):
                if path:
                    await order(server.admin_address[1], path)
                first, second = [await asyncio.to_thread(closes, port) for port in ports]
                said.append((first, second))
        return said

    assert asyncio.run(ask()) == [(False, False), (True, False), (False, False)]
