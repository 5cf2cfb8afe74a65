"""The `openssl` command as the client and as the server, with real Envoy and with ours: the same ones get through."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sidecar.config.tls import DOWNSTREAM_TLS, UPSTREAM_TLS, parse_downstream_tls_context, parse_upstream_tls_context
from sidecar.transport.failures import TlsFailure
from tests.sidecar.config.building import build
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    OPENSSL,
    SERVER,
    Document,
    dial,
    in_thread,
    needs_openssl,
    originating,
    run,
    serving,
    surroundings,
    trusted,
)
from tests.sidecar.transport.test_against_envoy import (
    EXPIRED,
    OTHER,
    REVOKED,
    RSA,
    STRANGER,
    cluster,
    context,
    echoing,
    envoy,
    listener,
    listening,
    san,
    talk_plainly,
)

pytestmark = needs_openssl

CRL = {"inline_string": AUTHORITY.revoke(REVOKED).decode()}


def only(version: str) -> Document:
    return {"tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version}}


CONTEXTS: dict[str, Document] = {
    "anybody": context(common={"alpn_protocols": ["h2", "http/1.1"]}),
    "required": context(validation=trusted(crl=CRL), require_client_certificate=True),
    "asked": context(validation=trusted(**san("URI", prefix="spiffe://td/"))),
    "old": context(common=only("TLSv1_2")),
    "new": context(common=only("TLSv1_3")),
    "named": context(SERVER, OTHER, RSA, require_sni=True),
}

CLIENTS: dict[str, tuple[Certificate | None, tuple[str, ...]]] = {
    "nobody": (None, ()),
    "client": (CLIENT, ()),
    "client by TLS 1.2": (CLIENT, ("-tls1_2",)),
    "expired": (EXPIRED, ()),
    "expired by TLS 1.2": (EXPIRED, ("-tls1_2",)),
    "wrong root": (STRANGER, ()),
    "wrong root by TLS 1.2": (STRANGER, ("-tls1_2",)),
    "revoked": (REVOKED, ()),
    "TLS 1.3 only": (None, ("-tls1_3",)),
    "TLS 1.2 only": (None, ("-tls1_2",)),
    "TLS 1.1 only": (None, ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")),
    "wrong ALPN": (None, ("-alpn", "spdy/3")),
    "right ALPN": (None, ("-alpn", "spdy/3,http/1.1")),
    "no name": (None, ("-noservername",)),
    "one curve": (None, ("-curves", "P-256")),
    "another curve": (None, ("-curves", "P-384")),
    "no common suite": (None, ("-tls1_2", "-cipher", "AES128-SHA")),
    "RSA only": (None, ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")),
    "fragments": (None, ("-split_send_frag", "512", "-max_send_frag", "512")),
}


DIFFERENT = {("named", "no name"), *((name, "another curve") for name in CONTEXTS)}
"""Envoy 1.40 reads `require_sni` and does not ask for a name. It has no curve but X25519 and P-256 where none is named;
Python's ssl module has all of OpenSSL's there, or one.
"""


def answered(arguments: list[str]) -> str:
    """What a command writes first when it is given "ping"; it is ended then."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0)
    assert process.stdin is not None and process.stdout is not None
    limit = threading.Timer(20, process.kill)
    limit.start()
    try:
        process.stdin.write(b"ping")
        return process.stdout.read(4).decode()
    except BrokenPipeError:
        return ""
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def visit(port: int, certificate: Certificate | None, options: tuple[str, ...], directory: Path) -> str:
    """What `openssl s_client` got back for "ping"; its own check of the server is part of it."""
    shown: tuple[str, ...] = ()
    if certificate is not None:
        name = certificate.sha256[:8]
        shown = ("-cert", str(directory / f"{name}.pem"), "-key", str(directory / f"{name}.key"))
    named = () if "-noservername" in options else ("-servername", "server.example")
    arguments = [
        str(OPENSSL), "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(directory / "authority"),
        "-verify_return_error", "-quiet", *named, *shown, *options,
    ]  # fmt: skip
    return await in_thread(answered, arguments)


def test_servers_let_in_the_same_openssl_clients(tmp_path: Path) -> None:
    (tmp_path / "authority").write_bytes(AUTHORITY.pem)
    for certificate in (CLIENT, EXPIRED, STRANGER, REVOKED):
        certificate.write(tmp_path, certificate.sha256[:8])

    async def test() -> None:
        behind = await echoing()
        listeners = [listener(name, tls, tmp_path / f"{name}.log") for name, tls in CONTEXTS.items()]
        resources = {"listeners": listeners, "clusters": [cluster("echo", behind.sockets[0].getsockname()[1])]}
        different = []
        seen = set()
        with envoy({"static_resources": resources}, tmp_path) as admin:
            ports = listening(admin)
            for name, tls in CONTEXTS.items():
                config = build(DOWNSTREAM_TLS, tls, parse_downstream_tls_context)
                async with serving(config) as server:
                    for client, (certificate, options) in CLIENTS.items():
                        theirs, ours = await asyncio.gather(
                            visit(ports[name], certificate, options, tmp_path),
                            visit(server.port, certificate, options, tmp_path),
                        )
                        seen.add((name, ours == "ping"))
                        if theirs != ours and (name, client) not in DIFFERENT:
                            different.append((name, client, theirs, ours, server.reasons[-1:]))
        behind.close()
        assert different == [], "\n".join(map(str, different))
        assert len(seen) == 2 * len(CONTEXTS), "each context lets somebody in, and somebody not"

    run(test())


SERVERS: dict[str, tuple[Certificate, tuple[str, ...]]] = {
    "good": (SERVER, ()),
    "good by TLS 1.2": (SERVER, ("-tls1_2",)),
    "TLS 1.3 only": (SERVER, ("-tls1_3",)),
    "TLS 1.1 only": (SERVER, ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")),
    "expired": (EXPIRED, ()),
    "wrong root": (STRANGER, ()),
    "wrong name": (OTHER, ()),
    "revoked": (REVOKED, ()),
    "RSA": (RSA, ()),
    "wrong ALPN": (SERVER, ("-alpn", "spdy/3")),
    "right ALPN": (SERVER, ("-alpn", "spdy/3,h2")),
    "wants a certificate": (SERVER, ("-Verify", "2", "-verify_return_error")),
    "wants a certificate by TLS 1.2": (SERVER, ("-tls1_2", "-Verify", "2", "-verify_return_error")),
    "no common suite": (SERVER, ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA")),
}

ASKED: dict[str, Document] = {
    "nothing": {},
    "root": {"validation_context": trusted()},
    "name": {"validation_context": trusted(**san("DNS", exact="server.example"))},
    "revocation": {"validation_context": trusted(crl=CRL)},
    "both versions": {"validation_context": trusted(), "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}},
    "ALPN": {"validation_context": trusted(), "alpn_protocols": ["h2"]},
    "shown": {
        "validation_context": trusted(),
        "tls_certificates": context(CLIENT)["common_tls_context"]["tls_certificates"],
    },
}


@asynccontextmanager
async def s_server(certificate: Certificate, options: tuple[str, ...], directory: Path) -> AsyncIterator[int]:
    """A running `openssl s_server`, which answers lines backwards, on a port of the system's choice."""
    assert OPENSSL is not None
    chain, key = certificate.write(directory, certificate.sha256[:8])
    process = await asyncio.create_subprocess_exec(
        OPENSSL, "s_server", "-accept", "0", "-cert", str(chain), "-key", str(key), "-CAfile",
        str(directory / "authority"), "-rev", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = 0
        async with asyncio.timeout(10):
            while not port:
                line = (await process.stdout.readline()).decode()
                if line.startswith("ACCEPT"):
                    port = int(line.rpartition(":")[2])
        yield port
    finally:
        process.kill()
        await process.wait()


def test_clients_accept_the_same_openssl_servers(tmp_path: Path) -> None:
    (tmp_path / "authority").write_bytes(AUTHORITY.pem)

    async def test() -> None:
        around = surroundings()
        cases = [(server, asked) for server in SERVERS for asked in ASKED]
        different = []
        outcomes = set()
        managers = {name: s_server(*server, tmp_path) for name, server in SERVERS.items()}
        theirs = {name: await manager.__aenter__() for name, manager in managers.items()}
        try:
            listeners, clusters = [], []
            for server, asked in cases:
                name = f"{server}/{asked}"
                clusters.append(cluster(name, theirs[server], {"common_tls_context": ASKED[asked]}))
                plain = listener(name, {}, tmp_path / "log")
                chain = plain["filter_chains"][0]
                del chain["transport_socket"]
                chain["filters"][0]["typed_config"]["cluster"] = name
                listeners.append(plain)
            with envoy({"static_resources": {"listeners": listeners, "clusters": clusters}}, tmp_path) as admin:
                ports = listening(admin)
                for server, asked in cases:
                    envoys = await in_thread(talk_plainly, ports[f"{server}/{asked}"], b"ping\n", b"gnip\n")
                    tls = originating(
                        build(UPSTREAM_TLS, {"common_tls_context": ASKED[asked]}, parse_upstream_tls_context), around
                    )
                    ours, reason = False, ""
                    try:
                        connection, inner = await dial(tls, theirs[server])
                        connection.write(b"ping\n")
                        await inner.until(
                            lambda inner=inner: (
                                len(inner.received) >= 5 or "lost" in inner.events or "eof" in inner.events
                            )
                        )  # type: ignore[misc]
                        ours = inner.received == b"gnip\n"
                        connection.abort()
                    except TlsFailure as failure:
                        reason = failure.words
                    outcomes.add((asked, ours))
                    if envoys != ours:
                        different.append((server, asked, envoys, ours, reason))
                    tls.close()
        finally:
            for manager in managers.values():
                await manager.__aexit__(None, None, None)
        assert different == [], "\n".join(map(str, different))
        assert len(outcomes) == 2 * len(ASKED), "whatever is asked, somebody meets it, and somebody does not"

    run(test())
