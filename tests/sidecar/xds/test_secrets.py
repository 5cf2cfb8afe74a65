"""Secrets that a management server sends: on both sides of the sidecar, rotated without a connection lost."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.tls_bootstraps import client_context, connected, server_context, upstream
from tests.sidecar.transport.serving import AUTHORITY, CLIENT, SERVER, STRANGERS, inline, trusted
from tests.sidecar.xds.driving import ADS, HandDriven, drive
from tests.sidecar.xds.test_listeners import Sidecar, chain, free_port, listener
from tests.sidecar.xds.test_listeners import inline as answering

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
SECOND = AUTHORITY.issue("second", ["server.example", "127.0.0.1"])


def sds(name: str) -> dict[str, Any]:
    """The secret of that name."""
    return {"name": name, "sds_config": ADS}


def socket(kind: str, **common: Any) -> dict[str, Any]:
    """A transport socket with this common context."""
    return {"name": "tls", "typed_config": {"@type": f"{TLS}{kind}TlsContext", "common_tls_context": common}}


def secured(name: str = "server") -> dict[str, Any]:
    """A filter chain with the discovered certificate."""
    tls = socket("Downstream", tls_certificate_sds_secret_configs=[sds(name)])
    return chain(answering("one"), transport_socket=tls)


def certificate(name: str, of: Any) -> dict[str, Any]:
    return {"name": name, "tls_certificate": inline(of)}


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> HandDriven:
    return drive(monkeypatch)


async def serial(port: int) -> str:
    """Of the certificate that is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_context())
    shown: Any = writer.get_extra_info("peercert")
    writer.close()
    found: str = shown["serialNumber"].lstrip("0").lower()
    return found


def serial_of(of: Any) -> str:
    return f"{of.certificate.serial_number:x}"


async def test_a_listener_waits_for_its_certificate_which_changes_under_open_connections(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, secured())) as sidecar:
        assert driven.wanted("Secret") == ["server"]
        assert not sidecar.starting.done()
        assert await driven.send("Secret", {"server": certificate("server", SERVER)}) == []
        await sidecar.starting
        async with connected(port, client_context()) as client:
            assert (await client.get())[0] == 200
            assert await serial(port) == serial_of(SERVER)
            await driven.send("Secret", {"server": certificate("server", SECOND)}, "2")
            assert await serial(port) == serial_of(SECOND)
            assert (await client.get())[0] == 200
        await driven.send("Listener", [], "3")
        async with asyncio.timeout(5):
            while driven.wanted("Secret"):
                await asyncio.sleep(0.01)
        assert not [one.prefix for one in sidecar.stack.store if one.prefix.startswith("sds.")]


async def test_a_bad_secret_is_rejected_and_the_last_good_one_stays(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, secured())) as sidecar:
        assert await driven.send("Secret", {"server": certificate("server", SERVER)}) == []
        await sidecar.starting
        mixed = inline(SERVER) | {"private_key": inline(CLIENT)["private_key"]}
        for bad, words in (
            ({"name": "server", "tls_certificate": mixed}, "key"),
            ({"name": "server", "validation_context": trusted()}, "is a CertificateValidationContext"),
            ({"name": "server", "generic_secret": {"secret": {"inline_string": "x"}}}, "generic_secret: "),
        ):
            (rejection,) = await driven.send("Secret", {"server": bad}, "2")
            assert rejection.name == "server" and words in rejection.reason, rejection
            assert await serial(port) == serial_of(SERVER)


async def test_connections_are_refused_while_nobody_sends_the_secret(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, secured())) as sidecar:
        (interest,) = [one for one in driven.interests if one.names]
        interest.watcher.on_unavailable()
        await sidecar.starting
        with pytest.raises((ssl.SSLError, OSError)):
            await serial(port)
        assert await driven.send("Secret", {"server": certificate("server", SERVER)}) == []
        assert await serial(port) == serial_of(SERVER)


async def test_a_cluster_waits_for_what_it_checks_endpoints_against(driven: HandDriven, tmp_path: Path) -> None:
    port = free_port()
    tls = socket("Upstream", validation_context_sds_secret_config=sds("roots"))
    route = {"match": {"prefix": "/"}, "route": {"cluster": "secure"}}
    routes = {"name": "r", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}
    async with upstream(server_context(tmp_path)) as backend:
        endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": backend.port}}}
        assigned = {"cluster_name": "secure", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
        cluster = {"name": "secure", "connect_timeout": "1s", "transport_socket": tls, "load_assignment": assigned}
        sidecar = Sidecar(driven, listener("a", port, chain({"route_config": {**routes, "validate_clusters": False}})))
        async with sidecar:
            await sidecar.starting
            stack = sidecar.stack
            assert stack.bootstrap.dynamic_resources is not None
            waiting = asyncio.create_task(stack.xds.discover_clusters(stack.bootstrap.dynamic_resources.lds_config))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            await driven.send("Cluster", [cluster])
            assert list(stack.clusters.warming) == ["secure"]
            async with connected(port, None) as client:
                assert (await client.get())[0] == 503
                await driven.send("Secret", {"roots": {"name": "roots", "validation_context": trusted()}})
                await waiting
                assert (await client.get())[0] == 200
                untrusted = {"name": "roots", "validation_context": trusted(STRANGERS)}
                await driven.send("Secret", {"roots": untrusted}, "2")
                assert (await client.get())[0] == 200  # over the connection that there is
            await driven.send("Cluster", [], "2")
            assert driven.wanted("Secret") == []
