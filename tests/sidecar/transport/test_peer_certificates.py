"""What clients and endpoints must show, and what they are shown."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.x509 import KeyUsage

from sidecar.config.tls import UpstreamTlsContext
from sidecar.core.tls_options import TransportSocketOptions
from sidecar.transport.downstream import checked
from sidecar.transport.failures import TlsFailure
from sidecar.transport.verification import NO_VERIFICATION
from tests.sidecar.transport.certificates import Authority, Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    CURL,
    OPENSSL,
    SERVER,
    STRANGERS,
    Document,
    Inner,
    client_context,
    command,
    dial,
    downstream,
    echo,
    exchange,
    in_thread,
    inline,
    needs_curl,
    needs_openssl,
    on_loop,
    originating,
    respond,
    run,
    serving,
    surroundings,
    trusted,
    upstream,
    versions,
)

VERIFY_FAILED = "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: "
X509 = VERIFY_FAILED + "X509_verify_cert: certificate verification error at depth 0: "
EXPIRED = AUTHORITY.issue("old", ["server.example", "spiffe://td/client"], days=(-3, -1))
FUTURE = AUTHORITY.issue("new", ["server.example", "spiffe://td/client"], days=(1, 3))
STRANGER = STRANGERS.issue("stranger", ["server.example", "spiffe://td/client"])
REVOKED = AUTHORITY.issue("revoked", ["spiffe://td/client"])
CRL = {"inline_string": AUTHORITY.revoke(REVOKED).decode()}


# client certificates


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("certificate", "validation", "required", "counter", "words"),
    [
        (CLIENT, {}, True, "", ""),
        (CLIENT, {}, False, "", ""),
        (None, {}, False, "", ""),
        (None, {}, True, "fail_verify_no_cert",
         "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:"
         "peer did not provide required client certificate:TLS_error_end"),
        (EXPIRED, {}, True, "fail_verify_error", X509 + "certificate has expired:TLS_error_end"),
        (EXPIRED, {}, False, "fail_verify_error", X509 + "certificate has expired:TLS_error_end"),
        (FUTURE, {}, True, "fail_verify_error", X509 + "certificate is not yet valid:TLS_error_end"),
        (EXPIRED, {"allow_expired_certificate": True}, True, "", ""),
        (STRANGER, {}, True, "fail_verify_error", X509 + "unable to get local issuer certificate:TLS_error_end"),
        (STRANGER, {}, False, "fail_verify_error", X509 + "unable to get local issuer certificate:TLS_error_end"),
        (CLIENT, {"crl": CRL}, True, "", ""),
        (REVOKED, {}, True, "", ""),
        (REVOKED, {"crl": CRL}, True, "fail_verify_error",
         X509 + "certificate revocation check against provided CRLs failed: certificate revoked:TLS_error_end"),
        (REVOKED, {"crl": CRL, "only_verify_leaf_cert_crl": True}, True, "fail_verify_error",
         X509 + "certificate revocation check against provided CRLs failed: certificate revoked:TLS_error_end"),
        (CLIENT, {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}}]},
         True, "", ""),
        (CLIENT, {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://td/x"}}]},
         True, "fail_verify_san",
         VERIFY_FAILED + "SAN matcher, certificate SANs are [spiffe://td/client, client.example]:TLS_error_end"),
        (None, {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}}]},
         False, "fail_verify_no_cert",
         "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:"
         "peer did not provide required client certificate:TLS_error_end"),
        (CLIENT, {"verify_certificate_hash": [CLIENT.sha256.upper()]}, True, "", ""),
        (CLIENT, {"verify_certificate_hash": ["00" * 32]}, True, "fail_verify_cert_hash",
         VERIFY_FAILED + "cert hash and spki:TLS_error_end"),
    ],
)  # fmt: skip
def test_client_certificates(
    tmp_path: Path,
    version: ssl.TLSVersion,
    certificate: Certificate | None,
    validation: Document,
    required: bool,
    counter: str,
    words: str,
) -> None:
    def answer(port: int, context: ssl.SSLContext) -> bytes:
        try:
            return exchange(port, context)
        except OSError:
            return b""

    async def test() -> None:
        context = client_context(certificate, tmp_path)
        context.minimum_version = context.maximum_version = version
        config = downstream(validation=trusted(**validation), require_client_certificate=required)
        async with serving(config) as server:
            assert await in_thread(answer, server.port, context) == (b"" if counter else b"ping")
            await server.until(lambda: server.stats.set())
            assert getattr(server.stats, counter or "handshake") == 1
            assert server.stats.connection_error == 0
            assert server.reasons == [words]
            assert server.inners == [] if counter else server.inners[0].received == b"ping"

    run(test())


@on_loop
async def test_a_certificate_under_an_intermediate_needs_the_intermediate(tmp_path: Path) -> None:
    middle = Authority("Middle", parent=AUTHORITY)
    certificate = middle.issue("below", ["spiffe://td/below"])
    alone = Certificate(certificate.certificate, certificate.key)
    for validation, shown, good in (
        (trusted(), certificate, True),
        (trusted(), alone, False),
        (trusted(middle), alone, True),
    ):
        async with serving(downstream(validation=validation, require_client_certificate=True)) as server:
            context = client_context(shown, tmp_path)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            if good:
                assert await in_thread(exchange, server.port, context) == b"ping"
                length = 2 if shown is certificate else 1
                assert len(server.connections[0].info.tls.chain) == length
            else:
                with pytest.raises(OSError):
                    await in_thread(exchange, server.port, context)
                assert server.stats.fail_verify_error == 1


@pytest.mark.parametrize("authorities", [[AUTHORITY], [STRANGERS, AUTHORITY], [STRANGERS]])
@on_loop
async def test_the_issuer_is_sent_with_a_lone_certificate_when_it_is_trusted(authorities: list[Authority]) -> None:
    """What OpenSSL does by itself, at the price of a verification in every handshake."""
    roots = b"# comments between\n".join(authority.pem for authority in authorities).decode()
    validation = {"trusted_ca": {"inline_string": roots}}
    async with serving(downstream(validation=validation)) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        assert connection.tls is not None
        issuer = [ssl.PEM_cert_to_DER_cert(AUTHORITY.pem.decode())] if AUTHORITY in authorities else []
        assert list(connection.tls.chain) == [SERVER.der, *issuer]


# upstream


@pytest.mark.parametrize(
    ("shown", "fields", "validation", "counter", "words"),
    [
        (SERVER, {}, {}, "", ""),
        (EXPIRED, {}, {}, "fail_verify_error", X509 + "certificate has expired:TLS_error_end"),
        (EXPIRED, {}, {"allow_expired_certificate": True}, "", ""),
        (STRANGER, {}, {}, "fail_verify_error", X509 + "unable to get local issuer certificate:TLS_error_end"),
        (STRANGER, {}, {"trust_chain_verification": "ACCEPT_UNTRUSTED"}, "", ""),
        (SERVER, {"sni": "server.example", "auto_sni_san_validation": True}, {}, "", ""),
        (SERVER, {"sni": "a.wild.example", "auto_sni_san_validation": True}, {}, "", ""),
        (SERVER, {"sni": "other.example", "auto_sni_san_validation": True}, {}, "fail_verify_san",
         VERIFY_FAILED + "SAN matcher, certificate SANs are [server.example, *.wild.example, spiffe://td/server]"),
        (SERVER, {}, {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a.wild.example"}}]},
         "", ""),
        (SERVER, {}, {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a.b.wild.example"}}]},
         "fail_verify_san", VERIFY_FAILED + "SAN matcher"),
        (SERVER, {}, {"match_typed_subject_alt_names": [{"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}]},
         "", ""),
        (SERVER, {}, {"verify_certificate_hash": ["11" * 32]}, "fail_verify_cert_hash",
         VERIFY_FAILED + "cert hash and spki:TLS_error_end"),
    ],
)  # fmt: skip
@on_loop
async def test_what_an_endpoint_must_show(
    shown: Certificate, fields: Document, validation: Document, counter: str, words: str
) -> None:
    async with serving(downstream(shown), lambda: Inner(echo)) as server:
        tls = originating(upstream(validation=trusted(**validation), **fields), server.surroundings)
        if counter:
            with pytest.raises(TlsFailure) as raised:
                await dial(tls, server.port)
            if "IP" not in words:
                assert raised.value.words.startswith(words.removesuffix("]")[:150])
            assert getattr(tls.stats, counter) == 1 and tls.stats.handshake == 0
        else:
            connection, inner = await dial(tls, server.port)
            connection.write(b"hello")
            await inner.until(lambda: inner.received == b"hello")
            assert tls.stats.handshake == 1


@on_loop
async def test_the_server_name_that_is_sent() -> None:
    names = [AUTHORITY.issue(name, [name]) for name in ("default.example", "a.example", "b.example")]
    async with serving(downstream(*names)) as server:
        around = server.surroundings
        cases: tuple[tuple[UpstreamTlsContext, dict[str, Any], str], ...] = (
            (upstream(sni="a.example"), {}, "a.example"),
            (upstream(sni="a.example"), {"options": TransportSocketOptions("b.example")}, "b.example"),
            (upstream(sni="a.example", auto_host_sni=True), {"hostname": "b.example"}, "b.example"),
            (upstream(sni="a.example", auto_host_sni=True), {}, "a.example"),
            (upstream(sni="a.example"), {"hostname": "b.example"}, "a.example"),
            (upstream(), {}, "default.example"),
        )
        for config, options, expected in cases:
            connection, _ = await dial(originating(config, around), server.port, **options)
            assert connection.tls is not None and connection.tls.peer is not None
            assert connection.tls.peer.dns_sans == (expected.encode(),)
        with pytest.raises(TlsFailure, match="SAN matcher"):
            await dial(
                originating(upstream(sni="a.example"), around),
                server.port,
                options=TransportSocketOptions("", ("b.example",)),
            )
        with pytest.raises(TlsFailure, match="names mean nothing without a trusted_ca"):
            await dial(
                originating(upstream(validation={}), around),
                server.port,
                options=TransportSocketOptions("", ("a.example",)),
            )


@on_loop
async def test_a_certificate_that_cannot_be_read_is_refused() -> None:
    """Two names of which one is no name at all: OpenSSL does not mind."""
    odd = AUTHORITY.issue("odd", ["good.example", "x" * 10 + ".example"])
    broken = odd.der.replace(b"x" * 10 + b".example", b"\xff" * 10 + b".example")
    assert broken != odd.der
    async with serving(downstream()) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        assert connection.ssl_object is not None
        tls, failure = checked(connection.ssl_object, broken, None, "", NO_VERIFICATION, 0.0)
        assert failure is not None and failure.words.endswith("the certificate cannot be read:TLS_error_end")
        assert tls.peer is None


@on_loop
async def test_our_client_certificate_is_shown_to_endpoints() -> None:
    config = downstream(validation=trusted(), require_client_certificate=True)
    async with serving(config) as server:
        await dial(originating(upstream(CLIENT), server.surroundings), server.port)
        await server.first()
        tls = server.connections[0].info.tls
        assert tls.uri_sans == (b"spiffe://td/client",) and tls.subject == b"CN=client" and tls.presented
        inner = Inner()
        with pytest.raises(TlsFailure) as raised:
            await dial(originating(upstream(), server.surroundings), server.port, inner)
        assert raised.value.words == (
            "TLS_error:|268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end"
        )
        assert inner.events == []


@on_loop
async def test_an_rsa_key_that_must_not_sign_is_refused_when_that_is_enforced() -> None:
    usage = KeyUsage(False, False, True, False, False, False, False, False, False)
    odd = AUTHORITY.issue("odd", ["odd.example"], kind="rsa", usage=usage)
    async with serving(downstream(odd)) as server:
        with pytest.raises(TlsFailure):
            await dial(originating(upstream(enforce_rsa_key_usage=True), server.surroundings), server.port)


@needs_openssl
@on_loop
async def test_an_openssl_server_is_spoken_to(tmp_path: Path) -> None:
    certificate, key = SERVER.write(tmp_path, "server")
    assert OPENSSL is not None
    process = await asyncio.create_subprocess_exec(
        OPENSSL, "s_server", "-accept", "127.0.0.1:0", "-cert", str(certificate), "-key", str(key), "-rev", "-tls1_3",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = 0
        async with asyncio.timeout(10):
            while not port:
                line = (await process.stdout.readline()).decode()
                if line.startswith("ACCEPT"):
                    port = int(line.rpartition(":")[2])
        tls = originating(upstream(common=versions("TLSv1_2", "TLSv1_3"), sni="server.example"), surroundings())
        connection, inner = await dial(tls, port)
        connection.write(b"abc\n")
        await inner.until(lambda: inner.received == b"cba\n")
        assert connection.tls is not None and connection.tls.version == "TLSv1.3"
        connection.write_eof()
        await inner.until(lambda: "eof" in inner.events or "lost" in inner.events)
        connection.abort()
    finally:
        process.kill()
        await process.wait()


@needs_curl
@on_loop
async def test_curl_is_served() -> None:
    common = {"alpn_protocols": ["http/1.1"]}
    async with serving(downstream(common=common), lambda: Inner(respond)) as server:
        assert CURL is not None
        for version in ("--tls-max=1.2", "--tlsv1.3"):
            status, output = await command(
                CURL, "-sk", *version.split("="), "-m", "10", f"https://127.0.0.1:{server.port}/"
            )
            assert (status, output) == (0, "hello")
        assert server.stats.handshake == 2


@on_loop
async def test_an_upstream_that_speaks_no_tls_is_a_connection_error() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    tls = originating(upstream(), surroundings())
    with pytest.raises(TlsFailure) as raised:
        await dial(tls, listener.sockets[0].getsockname()[1])
    assert "268435703" in raised.value.words and tls.stats.connection_error == 1
    listener.close()


@on_loop
async def test_an_upstream_that_closes_within_the_handshake_has_no_words() -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    listener = await asyncio.start_server(closing, "127.0.0.1", 0)
    tls = originating(upstream(), surroundings())
    with pytest.raises(TlsFailure) as raised:
        await dial(tls, listener.sockets[0].getsockname()[1])
    assert raised.value.words == "" and tls.stats.connection_error == 0
    listener.close()


@on_loop
async def test_encrypted_keys_and_bundles_are_opened() -> None:
    encrypted = inline(SERVER)
    encrypted["private_key"] = {"inline_string": SERVER.encrypted_key_pem(b"secret").decode()}
    encrypted["password"] = {"inline_string": "secret"}
    bundle = pkcs12.serialize_key_and_certificates(
        b"server", SERVER.key, SERVER.certificate, None, BestAvailableEncryption(b"secret")
    )
    bundled = {"pkcs12": {"inline_bytes": base64.b64encode(bundle).decode()}, "password": {"inline_string": "secret"}}
    for certificate in (encrypted, bundled):
        async with serving(downstream(common={"tls_certificates": [certificate]})) as server:
            assert await in_thread(exchange, server.port, client_context()) == b"ping"
