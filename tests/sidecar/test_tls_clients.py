"""The whole sidecar and clients that come by TLS: names, identities, what is told of them, draining."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.bootstraps import cluster, direct, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import (
    ENOUGH,
    Client,
    client_context,
    connected,
    counted,
    field_of,
    mutual,
    post,
    run,
    secured,
    serving,
    until,
    upstream,
    written,
)
from tests.sidecar.transport.certificates import Authority
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    trusted,
)

FIRST = AUTHORITY.issue("first", ["first.example"])
SECOND = AUTHORITY.issue("second", ["second.example"])


def test_the_server_name_chooses_the_certificate() -> None:
    async def main() -> None:
        async with serving(secured(http_listener("one", 0, [direct("hello")]), FIRST, SECOND)) as server:
            for name, certificate in (("first.example", FIRST), ("second.example", SECOND)):
                async with connected(server.address("one")[1], client_context(names=True), name) as client:
                    assert client.shown == certificate.der
                    assert await client.get() == (200, b"hello")

    run(main())


def test_the_server_name_chooses_the_filter_chain() -> None:
    one = secured(http_listener("one", 0, [direct("first")]), FIRST)
    other = secured(http_listener("two", 0, [direct("second")]), SECOND)
    one["filter_chains"] += other["filter_chains"]
    for chain, name in zip(one["filter_chains"], ("first.example", "second.example"), strict=True):
        chain["filter_chain_match"] = {"server_names": [name]}
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    one["listener_filters"] = [{"name": "tls_inspector", "typed_config": {"@type": inspector}}]

    async def main() -> None:
        async with serving(one) as server:
            for name, certificate in (("first", FIRST), ("second", SECOND)):
                async with connected(server.address("one")[1], client_context(names=True), f"{name}.example") as client:
                    assert client.shown == certificate.der
                    assert await client.get() == (200, name.encode())

    run(main())


OWN = f"by=spiffe://td/server;hash={CLIENT.sha256}"
SENT = "hash=abc;uri=spiffe://td/forged"


@pytest.mark.parametrize(
    ("mode", "with_certificate", "without"),
    [
        ("SANITIZE", None, None),
        ("FORWARD_ONLY", SENT, None),
        ("APPEND_FORWARD", f"{SENT},{OWN};uri=spiffe://td/client", None),
        ("SANITIZE_SET", f"{OWN};uri=spiffe://td/client", None),
        ("ALWAYS_FORWARD_ONLY", SENT, SENT),
    ],
)
def test_what_upstreams_are_told_of_clients(
    mode: str, with_certificate: str | None, without: str | None, tmp_path: Path
) -> None:
    async def told(client: Client, **headers: str) -> str | None:
        found = {field_of((await client.get("/", **headers))[1], b"x-forwarded-client-cert") for _ in range(ENOUGH)}
        assert len(found) == 1
        value = found.pop()
        return None if value is None else value.decode()

    async def main() -> None:
        async with upstream() as service:
            details: dict[str, Any] = {
                "forward_client_cert_details": mode,
                "set_current_client_cert_details": {"uri": True},
            }
            one = http_listener("one", 0, [to_cluster("up")], **details)
            one = secured(one, common={"validation_context": trusted()})
            async with serving(one, clusters=[cluster("up", service.port)]) as server:
                port = server.address("one")[1]
                async with connected(port, client_context(written(tmp_path, CLIENT))) as client:
                    assert await told(client, x_forwarded_client_cert=SENT) == with_certificate
                    alone = f"{OWN};uri=spiffe://td/client" if mode in ("APPEND_FORWARD", "SANITIZE_SET") else None
                    assert await told(client) == alone
                async with connected(port, client_context()) as client:
                    assert await told(client, x_forwarded_client_cert=SENT) == without
                    assert await told(client) is None
                other = AUTHORITY.issue("other", ["spiffe://td/other"])
                async with connected(port, client_context(written(tmp_path, other, "other"))) as client:
                    whose = f"by=spiffe://td/server;hash={other.sha256};uri=spiffe://td/other"
                    assert await told(client) == (None if alone is None else whose)
                assert server.stack is not None
                assert any(server.stack.managers[0].lane.kinds.values())  # it took part in this

    run(main())


def test_rbac_by_the_uri_in_the_certificate(tmp_path: Path) -> None:
    principal = {"authenticated": {"principal_name": {"exact": "spiffe://td/client"}}}
    rules = {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": True}], "principals": [principal]}}}
    one = mutual(http_listener("one", 0, [direct("hello")]))
    manager = one["filter_chains"][0]["filters"][0]["typed_config"]
    rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    manager["http_filters"] = [
        {"name": "rbac", "typed_config": {"@type": rbac, "rules": rules}},
        *manager["http_filters"],
    ]
    stranger = AUTHORITY.issue("other", ["spiffe://td/other"])

    async def main() -> None:
        async with serving(one) as server:
            for certificate, expected in ((CLIENT, 200), (stranger, 403), (CLIENT, 200)):
                context = client_context(written(tmp_path, certificate))
                async with connected(server.address("one")[1], context) as client:
                    for _ in range(ENOUGH):
                        assert (await client.get())[0] == expected

    run(main())


def test_network_rbac_waits_for_the_handshake(tmp_path: Path) -> None:
    principal = {"authenticated": {"principal_name": {"prefix": "spiffe://td/cl"}}}
    rules = {"action": "DENY", "policies": {"p": {"permissions": [{"any": True}], "principals": [principal]}}}
    one = secured(http_listener("one", 0, [direct("hello")]), common={"validation_context": trusted()})
    kind = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
    rbac = {"name": "rbac", "typed_config": {"@type": kind, "rules": rules, "stat_prefix": "judge"}}
    one["filter_chains"][0]["filters"].insert(0, rbac)

    async def main() -> None:
        async with serving(one) as server:
            port = server.address("one")[1]
            async with connected(port, client_context()) as nobody:
                assert await nobody.get() == (200, b"hello")
            async with connected(port, client_context(written(tmp_path, CLIENT))) as client:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.get()
            numbers = counted(server)
            assert (numbers["judge.rbac.allowed"], numbers["judge.rbac.denied"]) == (1, 1)

    run(main())


def test_a_virtual_host_that_requires_tls() -> None:
    async def main() -> None:
        listeners = [http_listener("plain", 0, [direct("hello")]), secured(http_listener("tls", 0, [direct("hello")]))]
        for listener in listeners:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            manager["route_config"]["virtual_hosts"][0]["require_tls"] = "ALL"
        async with serving(*listeners) as server:
            async with connected(server.address("plain")[1], None) as client:
                assert (await client.get())[0] == 301
            async with connected(server.address("tls")[1], client_context()) as client:
                assert await client.get() == (200, b"hello")

    run(main())


def test_a_client_that_never_shakes_hands() -> None:
    one = secured(http_listener("one", 0, [direct("hello")]))
    one["filter_chains"][0]["transport_socket_connect_timeout"] = "0.05s"

    async def main() -> None:
        async with serving(one) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.address("one")[1])
            assert await reader.read() == b""
            writer.close()
            name = "listener.127.0.0.1_0.downstream_cx_transport_socket_connect_timeout"
            assert counted(server)[name] == 1
            await until(lambda: server.stack is not None and not server.stack.connections())

    run(main())


def test_draining_closes_tls_connections_after_their_request() -> None:
    async def main() -> None:
        async with (
            serving(secured(http_listener("one", 0, [direct("hello")]))) as server,
            connected(server.address("one")[1], client_context()) as client,
        ):
            assert (await client.get())[0] == 200
            server.drain_listeners()
            assert (await client.get())[0] == 200
            assert await client.reader.read() == b""

    run(main())


def test_a_failed_health_check_asks_tls_clients_to_close() -> None:
    async def main() -> None:
        async with (
            serving(secured(http_listener("one", 0, [direct("hello")]))) as server,
            connected(server.address("one")[1], client_context()) as client,
        ):
            assert (await client.get())[0] == 200
            await asyncio.to_thread(post, server.admin_address[1], "/healthcheck/fail")
            assert (await client.get())[0] == 200
            assert await client.reader.read() == b""

    run(main())


def test_two_authorities_are_told_apart(tmp_path: Path) -> None:
    other = Authority("Test Root")  # of the same name

    async def main() -> None:
        async with serving(mutual(http_listener("one", 0, [direct("hello")]))) as server:
            context = client_context(written(tmp_path, other.issue("client", ["spiffe://td/client"])))
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                async with connected(server.address("one")[1], context) as client:
                    await client.get()

    run(main())
