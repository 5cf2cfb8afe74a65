"""The whole sidecar and real Envoy on the same bootstrap with TLS: what clients, endpoints and logs see of either."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar import Server
from sidecar.telemetry.operators.tls import TLS as COMMANDS
from tests.sidecar.bootstraps import cluster, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import (
    client_context,
    connected,
    file_log,
    mutual,
    originating,
    run,
    server_context,
    upstream,
    written,
)
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import AUTHORITY, CLIENT, in_thread
from tests.sidecar.transport.test_against_envoy import envoy, listening, wait_for_lines

Document = dict[str, Any]

UPSTREAM = AUTHORITY.issue("upstream", ["up.example", "spiffe://td/up", "10.1.2.3"])
"""What endpoints show."""

RAW = {
    "name": "raw",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass
class Proxy:
    """One of the two: its listeners' ports by name, and the folder of its logs."""

    name: str
    ports: dict[str, int]
    folder: Path

    async def lines(self, log: str, count: int) -> list[str]:
        """So many lines of an access log."""
        return await in_thread(wait_for_lines, self.folder / log, count)


@asynccontextmanager
async def both(
    folder: Path, make: Callable[[Path], tuple[list[Document], list[Document]]]
) -> AsyncIterator[list[Proxy]]:
    """Envoy and ours with the listeners and clusters that ``make`` gives for the folder of their logs."""
    documents = []
    for name in ("envoy", "ours"):
        (folder / name).mkdir()
        listeners, clusters = make(folder / name)
        documents.append({"static_resources": {"listeners": listeners, "clusters": clusters}})
    names = [listener["name"] for listener in listeners]
    with envoy(documents[0], folder / "envoy") as admin:
        async with Server(documents[1]) as server:
            ours = {name: server.address(name)[1] for name in names}
            yield [Proxy("envoy", listening(admin), folder / "envoy"), Proxy("ours", ours, folder / "ours")]


@dataclass
class Service:
    """An HTTP server behind TLS that remembers the server names it was asked for."""

    port: int = 0
    names: list[str | None] = field(default_factory=list)

    def asked(self, _object: Any, name: str | None, _context: Any) -> None:
        self.names.append(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def service(
    folder: Path, certificate: Certificate = UPSTREAM, *, mutual: bool = False, version: str = ""
) -> AsyncIterator[Service]:
    """A service on a port of the system's choice."""
    made = Service()
    context = server_context(folder, certificate, mutual=mutual)
    if version:
        context.maximum_version = getattr(ssl.TLSVersion, version)
    context.sni_callback = made.asked
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_what_logs_say_of_tls_on_both_sides(version: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with service(tmp_path, mutual=True, version=version) as there:
            names = list(COMMANDS)
            text = "\n".join(f"{name}=%{name}%" for name in names) + "\n"

            def make(folder: Path) -> tuple[list[Document], list[Document]]:
                one = mutual(http_listener("one", 0, [to_cluster("up")]))
                http = one["filter_chains"][0]["filters"][0]["typed_config"]
                http["access_log"] = [file_log(str(folder / "log"), text)]
                up = originating(cluster("up", there.port), CLIENT, sni="Up.example")
                up["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"] = {
                    "tls_maximum_protocol_version": "TLSv1_3"
                }
                return [one], [up]

            async with both(tmp_path, make) as proxies:
                logged = []
                for proxy in proxies:
                    context = client_context(written(tmp_path, CLIENT))
                    context.maximum_version = getattr(ssl.TLSVersion, version)
                    async with connected(proxy.ports["one"], context) as client:
                        assert await client.get() == (200, b"ok")
                    lines = dict(line.split("=", 1) for line in await proxy.lines("log", len(names)))
                    for name in names:
                        if name.endswith("TLS_SESSION_ID") and lines[name] != "-":
                            assert len(lines[name]) == 64
                            lines[name] = "drawn by chance"
                    taken = int(lines.pop("DOWNSTREAM_HANDSHAKE_DURATION"))
                    assert taken < 10_000 and (taken >= 0 or proxy.name == "envoy")  # which counts from the request
                    logged.append(lines)
                theirs, ours = logged
                assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}
                assert ours["UPSTREAM_PEER_URI_SAN"] == "spiffe://td/up"
                assert ours["UPSTREAM_LOCAL_URI_SAN"] == "spiffe://td/client"
                assert ours["UPSTREAM_TLS_VERSION"] == version.replace("_", ".")

    run(main())


ASKS: dict[str, tuple[Document, Document]] = {
    "sni": ({"auto_sni": True}, {"sni": "configured.example"}),
    "both": ({"auto_sni": True, "auto_san_validation": True}, {}),
    "san": ({"auto_san_validation": True}, {}),
    "header": ({"auto_sni": True, "override_auto_sni_header": "x-sni"}, {}),
}
"""`upstream_http_protocol_options` and what the `UpstreamTlsContext` has besides."""

NAMING: list[tuple[str, str, dict[str, str]]] = [
    ("sni", "a.example", {}),
    ("sni", "a.example:8443", {}),
    ("sni", "A.Example", {}),
    ("sni", "b.example", {}),
    ("sni", "127.0.0.1:99", {}),
    ("sni/rewritten", "a.example", {}),
    ("both", "up.example", {}),
    ("both", "wrong.example", {}),
    ("both", "10.1.2.3", {}),
    ("both", "10.1.2.4", {}),
    ("san", "up.example:1", {}),
    ("san", "wrong", {}),
    ("header", "a.example", {}),
    ("header", "a.example", {"x-sni": "o.example:77"}),
    ("header", "a.example", {"x-sni": "10.0.0.1"}),
    ("header/added", "a.example", {}),
]


def test_names_that_requests_give(tmp_path: Path) -> None:
    """Which names are sent, on how many connections, and who is trusted."""

    async def main() -> None:
        seen = []
        async with service(tmp_path) as there:

            def make(folder: Path) -> tuple[list[Document], list[Document]]:
                added = {"header": {"key": "x-sni", "value": "added.example"}}
                routes = [
                    {
                        "match": {"prefix": "/sni/rewritten"},
                        "route": {"cluster": "sni", "host_rewrite_literal": "rewritten.example"},
                    },
                    {
                        "match": {"prefix": "/header/added"},
                        "route": {"cluster": "header"},
                        "request_headers_to_add": [added],
                    },
                    *({"match": {"prefix": f"/{name}"}, "route": {"cluster": name}} for name in ASKS),
                ]
                clusters = []
                for name, (asked, fields) in ASKS.items():
                    made = originating(cluster(name, there.port), **fields)
                    made["typed_extension_protocol_options"] = {
                        HTTP_OPTIONS: {
                            "@type": f"type.googleapis.com/{HTTP_OPTIONS}",
                            "explicit_http_config": {"http_protocol_options": {}},
                            "upstream_http_protocol_options": asked,
                        }
                    }
                    clusters.append(made)
                return [http_listener("one", 0, routes)], clusters

            async with both(tmp_path, make) as proxies:
                for proxy in proxies:
                    found = []
                    for path, host, headers in NAMING:
                        there.names.clear()
                        async with connected(proxy.ports["one"], None) as client:
                            status, _ = await client.get(f"/{path}", host=host, **headers)
                        found.append((status, list(there.names)))
                    seen.append(found)
        theirs, ours = seen
        pairs = zip(NAMING, ours, theirs, strict=True)
        assert [(asked, got, expected) for asked, got, expected in pairs if got != expected] == []
        assert ours[0] == (200, ["a.example"]) and ours[7][0] == 503

    run(main())


def test_endpoints_that_are_spoken_to_differently(tmp_path: Path) -> None:
    """Of the endpoints of one cluster some want TLS, one does not, and one would, but is not labelled so."""

    async def main() -> None:
        async with service(tmp_path) as first, service(tmp_path) as second, upstream() as plain:

            def make(folder: Path) -> tuple[list[Document], list[Document]]:
                up = cluster("up", first.port)
                secure = originating({}, sni="up.example")["transport_socket"]
                up["transport_socket_matches"] = [
                    {"name": "named", "match": {"kind": "tls", "name": True}, "transport_socket": secure},
                    {"name": "plain", "match": {"kind": "plain"}, "transport_socket": RAW},
                    {"name": "any", "match": {}, "transport_socket": originating({})["transport_socket"]},
                ]
                labels = [{"kind": "tls", "name": True, "more": 1}, {"kind": "tls"}, {"kind": "plain"}]
                ports = [first.port, second.port, plain.port]
                [locality] = up["load_assignment"]["endpoints"]
                locality["lb_endpoints"] = [
                    {
                        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
                        "metadata": {"filter_metadata": {"envoy.transport_socket_match": label}},
                    }
                    for port, label in zip(ports, labels, strict=True)
                ]
                return [http_listener("one", 0, [to_cluster("up")])], [up]

            async with both(tmp_path, make) as proxies:
                for proxy in proxies:
                    first.names.clear()
                    second.names.clear()
                    before = len(plain.heads)
                    async with connected(proxy.ports["one"], None) as client:
                        for _ in range(9):
                            status, _ = await client.get()
                            assert status == 200
                    assert first.names == ["up.example"] and second.names == [None]
                    assert len(plain.heads) == before + 3

    run(main())
