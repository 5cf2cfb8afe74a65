"""Handshakes that succeed and that do not: versions, suites, curves, names."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from tests.sidecar.transport.serving import (
    AUTHORITY,
    OPENSSL,
    SERVER,
    client_context,
    command,
    downstream,
    exchange,
    in_thread,
    needs_openssl,
    on_loop,
    parameters,
    restricted,
    serving,
    versions,
)


@on_loop
async def test_a_handshake_is_counted_and_described() -> None:
    async with serving(downstream()) as server:
        assert await in_thread(exchange, server.port, client_context()) == b"ping"
        assert server.stats.set() == {"handshake": 1, "no_certificate": 1}
        assert server.stats.named == {"ciphers.TLS_AES_256_GCM_SHA384": 1, "versions.TLSv1.3": 1}
        tls = server.connections[0].info.tls
        assert (tls.version, tls.cipher, tls.presented, tls.resumed) == (
            "TLSv1.3", "TLS_AES_256_GCM_SHA384", False, False,
        )  # fmt: skip
        assert tls.local.subject == b"CN=server"
        assert tls.local.uri_sans == (b"spiffe://td/server",)


@pytest.mark.parametrize(
    ("theirs", "agreed"),
    [
        (restricted(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "TLSv1.2"),
        (restricted(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3), "TLSv1.3"),
    ],
    ids=["1.2", "1.3"],
)
@on_loop
async def test_versions_that_both_sides_have(theirs: ssl.SSLContext, agreed: str) -> None:
    async with serving(downstream()) as server:
        assert await in_thread(exchange, server.port, theirs) == b"ping"
        assert server.connections[0].info.tls.version == agreed


@on_loop
async def test_a_version_that_we_do_not_want_is_refused_in_envoys_words() -> None:
    async with serving(downstream(common=versions("TLSv1_3", "TLSv1_3"))) as server:
        with pytest.raises(ssl.SSLError):
            await in_thread(exchange, server.port, restricted(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2))
        await server.until(lambda: server.reasons == [
            "TLS_error:|268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL:TLS_error_end"
        ])  # fmt: skip
        assert server.stats.set() == {"connection_error": 1}
        assert server.inners == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@on_loop
async def test_old_versions_only_when_configured() -> None:
    context = client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    common = parameters(
        tls_minimum_protocol_version="TLSv1_0",
        tls_maximum_protocol_version="TLSv1_1",
        cipher_suites=["ECDHE-ECDSA-AES128-SHA"],
    )
    async with serving(downstream(common=common)) as server:
        assert await in_thread(exchange, server.port, context) == b"ping"
        assert server.stats.named["versions.TLSv1.1"] == 1


@on_loop
async def test_cipher_suites_are_those_of_the_configuration() -> None:
    common = parameters(tls_maximum_protocol_version="TLSv1_2", cipher_suites=["ECDHE-ECDSA-AES128-GCM-SHA256"])
    one_two = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
    async with serving(downstream(common=common)) as server:
        assert await in_thread(exchange, server.port, restricted(*one_two)) == b"ping"
        assert server.stats.named["ciphers.ECDHE-ECDSA-AES128-GCM-SHA256"] == 1
        with pytest.raises(ssl.SSLError):
            await in_thread(exchange, server.port, restricted(*one_two, "ECDHE-ECDSA-AES256-GCM-SHA384"))
        await server.until(lambda: server.stats.connection_error)
        assert server.reasons[1].endswith(":NO_SHARED_CIPHER:TLS_error_end")


@pytest.mark.parametrize(("client_wins", "agreed"), [(False, "AES128"), (True, "AES256")])
@on_loop
async def test_whose_preference_decides_the_suite(client_wins: bool, agreed: str) -> None:
    suites = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"]
    theirs = restricted(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2, ":".join(reversed(suites)))
    config = downstream(common=parameters(cipher_suites=suites), prefer_client_ciphers=client_wins)
    async with serving(config) as server:
        await in_thread(exchange, server.port, theirs)
        assert agreed in server.connections[0].info.tls.cipher


@on_loop
async def test_a_curve_that_the_client_lacks_is_no_common_ground() -> None:
    async with serving(downstream(common=parameters(ecdh_curves=["P-384"]))) as server:
        context = client_context()
        assert await in_thread(exchange, server.port, context) == b"ping"
        context.set_ecdh_curve("prime256v1")
        with pytest.raises(ssl.SSLError):
            await in_thread(exchange, server.port, context)
        assert server.stats.named["curves.P-384"] == 1


# certificates by name


@needs_openssl
@pytest.mark.parametrize(
    ("name", "kind", "subject"),
    [
        ("a.example", "", "a"),
        ("A.Example", "", "a"),
        ("x.b.example", "", "b"),
        ("x.y.b.example", "", "default"),
        ("b.example", "", "default"),
        ("both.example", "ECDSA+SHA256", "both ecdsa"),
        ("both.example", "RSA-PSS+SHA256", "both rsa"),
        ("", "", "default"),
    ],
)
@on_loop
async def test_the_certificate_is_chosen_by_name_and_key(name: str, kind: str, subject: str) -> None:
    certificates = [
        AUTHORITY.issue("default", ["default.example"]),
        AUTHORITY.issue("a", ["a.example"]),
        AUTHORITY.issue("b", ["*.b.example"]),
        AUTHORITY.issue("both rsa", ["both.example"], kind="rsa"),
        AUTHORITY.issue("both ecdsa", ["both.example"]),
    ]
    async with serving(downstream(*certificates)) as server:
        assert OPENSSL is not None
        arguments = ["-servername", name] if name else ["-noservername"]
        if kind:
            arguments += ["-sigalgs", kind]
        _, output = await command(OPENSSL, "s_client", "-connect", f"127.0.0.1:{server.port}", *arguments)
        assert f"subject=CN = {subject}\n" in output


@on_loop
async def test_a_scan_of_all_certificates_when_no_name_fits() -> None:
    rsa_only = client_context()
    rsa_only.check_hostname = False
    rsa_only.maximum_version = ssl.TLSVersion.TLSv1_2
    rsa_only.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    certificates = [SERVER, AUTHORITY.issue("rsa", ["rsa.example"], kind="rsa")]
    async with serving(downstream(*certificates, full_scan_certs_on_sni_mismatch=True)) as server:
        assert await in_thread(exchange, server.port, rsa_only, "other.example") == b"ping"
    async with serving(downstream(*certificates)) as server:
        with pytest.raises(ssl.SSLError):
            await in_thread(exchange, server.port, rsa_only, "other.example")


@on_loop
async def test_what_a_listener_filter_has_read_is_not_read_again() -> None:
    other = AUTHORITY.issue("a", ["a.example"])
    async with serving(downstream(SERVER, other)) as server:
        connection = server.tls.accept(_inspected("a.example"))
        assert connection.server_name == "a.example"
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: connection, "127.0.0.1", 0)
        context = client_context()
        context.check_hostname = False
        port = listener.sockets[0].getsockname()[1]
        answer = in_thread(exchange, port, context, "server.example")
        assert await answer == b"ping"
        assert connection.info.tls.local.subject == b"CN=a"
        listener.close()


def _inspected(name: str) -> ConnectionInfo:
    info = ConnectionInfo(1, Address("127.0.0.1"), Address("127.0.0.1"), 0.0)
    info.transport_protocol = "tls"
    info.requested_server_name = name
    return info


@on_loop
async def test_a_client_without_a_name_is_refused_when_one_is_required() -> None:
    async with serving(downstream(require_sni=True)) as server:
        assert await in_thread(exchange, server.port, client_context()) == b"ping"
        with pytest.raises(OSError):
            await in_thread(exchange, server.port, client_context(), "127.0.0.1")
        assert server.stats.set() == {"handshake": 1, "no_certificate": 1, "connection_error": 1}


@on_loop
async def test_a_client_hello_in_single_bytes_is_understood() -> None:
    def trickle(port: int) -> bytes:
        context = client_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    for byte in outgoing.read():
                        plain.sendall(bytes((byte,)))
                    incoming.write(plain.recv(65536))
            client.write(b"small")
            plain.sendall(outgoing.read())
            while True:
                incoming.write(plain.recv(65536))
                try:
                    return client.read()
                except ssl.SSLWantReadError:
                    continue

    async with serving(downstream(SERVER, AUTHORITY.issue("a", ["a.example"]))) as server:
        assert await in_thread(trickle, server.port) == b"small"
        assert server.connections[0].info.tls.server_name == "a.example"
        assert server.connections[0].info.tls.local.subject == b"CN=a"
