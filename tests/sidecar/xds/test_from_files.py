"""The whole sidecar from files: listeners, routes, clusters, endpoints and secrets, changed by moving others onto them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from sidecar.server import Server
from tests.sidecar.tls_bootstraps import client_context, connected, upstream
from tests.sidecar.transport.serving import SERVER
from tests.sidecar.transport.serving import inline as pem
from tests.sidecar.xds.beside import TYPES, URL
from tests.sidecar.xds.driving import assignment
from tests.sidecar.xds.test_listeners import Client, chain, free_port, listener, routes

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


class Files:
    """A `DiscoveryResponse` for each kind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = 0

    def source(self, kind: str) -> dict[str, Any]:
        return {"path_config_source": {"path": str(self.directory / f"{kind}.json")}, "resource_api_version": "V3"}

    def write(self, kind: str, *resources: dict[str, Any]) -> None:
        """Replace the file by moving another one onto it."""
        self.version += 1
        packed = [{"@type": URL + TYPES[kind], **one} for one in resources]
        response = {"version_info": str(self.version), "type_url": URL + TYPES[kind], "resources": packed}
        new = self.directory / f"{kind}.new"
        new.write_text(json.dumps(response))
        os.replace(new, self.directory / f"{kind}.json")


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_all_of_it(tmp_path: Path) -> None:
    files = Files(tmp_path)
    port, secure = free_port(), free_port()
    async with upstream() as one, upstream() as two:
        eds = {"eds_config": files.source("endpoints")}
        files.write("endpoints", assignment("a", one.port))
        files.write("cluster", {"name": "a", "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": eds})
        to_cluster = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}
        table = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [to_cluster]}]}
        files.write("routes", table)
        rds = {"rds": {"route_config_name": "r", "config_source": files.source("routes")}}
        secret = {"name": "s", "sds_config": files.source("secret")}
        context = {"common_tls_context": {"tls_certificate_sds_secret_configs": [secret]}}
        socket = {"name": "tls", "typed_config": {"@type": TLS, **context}}
        files.write("secret", {"name": "s", "tls_certificate": pem(SERVER)})
        over_tls = listener("secure", secure, chain(rds, transport_socket=socket))
        files.write("listener", listener("plain", port, chain(rds)), over_tls)
        config = {
            "node": {"id": "test", "cluster": "test"},
            "dynamic_resources": {"cds_config": files.source("cluster"), "lds_config": files.source("listener")},
        }
        async with Server(config) as server:
            client = await Client.to(port)
            assert (await client.get())[0] == 200 and len(one.heads) == 1
            async with connected(secure, client_context()) as secured:
                assert (await secured.get())[0] == 200 and len(one.heads) == 2
            files.write("endpoints", assignment("a", two.port))

            async def moved() -> bool:
                return (await client.get())[0] == 200 and bool(two.heads)

            await until(moved)
            files.write("routes", routes("r", "direct"))

            async def direct() -> bool:
                return await client.get() == (200, "direct")

            await until(direct)
            files.write("listener", over_tls)

            async def gone() -> bool:
                return [one.config.name for one in (server.stack.listeners if server.stack else ())] == ["secure"]

            await until(gone)
            client.close()
