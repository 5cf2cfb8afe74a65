"""The same contexts and the same clients, with real Envoy and with ours: who is let in, what is shown, said and counted."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar.config.tls import DOWNSTREAM_TLS, parse_downstream_tls_context
from sidecar.transport.failures import TlsFailure
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.config.building import build
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    SERVER,
    STRANGERS,
    Document,
    Inner,
    dial,
    downstream,
    echo,
    in_thread,
    inline,
    originating,
    run,
    serving,
    surroundings,
    trusted,
    upstream,
)

TYPES = "type.googleapis.com/envoy.extensions."
COUNTERS = (
    "connection_error", "handshake", "session_reused", "no_certificate", "fail_verify_no_cert", "fail_verify_error",
    "fail_verify_san", "fail_verify_cert_hash",
)  # fmt: skip
EXPIRED = AUTHORITY.issue("expired", ["spiffe://td/client"], days=(-3, -1))
STRANGER = STRANGERS.issue("stranger", ["spiffe://td/client"])
REVOKED = AUTHORITY.issue("revoked", ["spiffe://td/client"])
NAMELESS = AUTHORITY.issue("nameless")
OTHER = AUTHORITY.issue("other", ["other.example", "*.other.example"])
RSA = AUTHORITY.issue("rsa", ["server.example"], kind="rsa")


def context(*certificates: Certificate, validation: Document | None = None, **fields: Any) -> Document:
    common: Document = {"tls_certificates": [inline(one) for one in certificates or (SERVER,)]}
    if validation is not None:
        common["validation_context"] = validation
    common.update(fields.pop("common", {}))
    return {"common_tls_context": common, **fields}


def san(kind: str, **matcher: str) -> Document:
    return {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": matcher}]}


def two_roots(**fields: Any) -> Document:
    """Both authorities, of which one has a list of revoked certificates."""
    both = {"inline_string": (AUTHORITY.pem + STRANGERS.pem).decode()}
    return {"trusted_ca": both, "crl": {"inline_string": AUTHORITY.revoke(REVOKED).decode()}, **fields}


CONTEXTS: dict[str, Document] = {
    "plain": context(common={"alpn_protocols": ["h2", "http/1.1"]}),
    "required": context(validation=trusted(), require_client_certificate=True),
    "optional": context(validation=trusted()),
    "names": context(validation=trusted(**san("URI", prefix="spiffe://td/"))),
    "wrong_name": context(validation=trusted(**san("DNS", exact="nobody.example"))),
    "digest": context(validation=trusted(verify_certificate_hash=[CLIENT.sha256])),
    "revoking": context(validation=trusted(crl={"inline_string": AUTHORITY.revoke(REVOKED).decode()})),
    "half_revoking": context(validation=two_roots()),
    "half_revoking_leaves": context(validation=two_roots(only_verify_leaf_cert_crl=True)),
    "lenient": context(validation=trusted(allow_expired_certificate=True), require_client_certificate=True),
    "new_only": context(common={"tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}),
    "several": context(SERVER, OTHER, RSA),
    "scanning": context(OTHER, RSA, full_scan_certs_on_sni_mismatch=True),
}


class Client(NamedTuple):
    """One way to come."""

    certificate: Certificate | None = None
    name: str = "server.example"
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    alpn: tuple[str, ...] = ()
    suites: str = ""
    bytes: bytes = b""


ONE_TWO = ssl.TLSVersion.TLSv1_2
CLIENTS = [
    Client(),
    Client(CLIENT),
    Client(EXPIRED),
    Client(STRANGER),
    Client(REVOKED),
    Client(NAMELESS),
    Client(CLIENT, version=ONE_TWO),
    Client(EXPIRED, version=ONE_TWO),
    Client(name="a.other.example"),
    Client(name="a.b.other.example"),
    Client(name="127.0.0.1"),
    Client(alpn=("http/1.1", "h2")),
    Client(alpn=("spdy",)),
    Client(version=ONE_TWO, suites="ECDHE-RSA-AES128-GCM-SHA256"),
    Client(bytes=b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    Client(bytes=b"\x00no TLS at all, and long enough"),
]


class Outcome(NamedTuple):
    """What a client saw."""

    accepted: bool
    subject: str = ""
    version: str = ""
    alpn: str = ""
    cipher: str = ""


def visit(port: int, client: Client, directory: Path) -> Outcome:
    """Come as this client."""
    if client.bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(client.bytes)
            try:
                while plain.recv(1000):
                    pass
            except OSError:
                pass
        return Outcome(False)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.load_verify_locations(cadata=AUTHORITY.pem.decode())
    trust.minimum_version = trust.maximum_version = client.version
    if client.suites:
        trust.set_ciphers(client.suites)
    if client.alpn:
        trust.set_alpn_protocols(list(client.alpn))
    if client.certificate is not None:
        trust.load_cert_chain(*client.certificate.write(directory, client.certificate.sha256[:8]))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            trust.wrap_socket(plain, server_hostname=client.name) as wrapped,
        ):
            wrapped.sendall(b"ping")
            if wrapped.recv(4) != b"ping":
                return Outcome(False)
            shown: Any = wrapped.getpeercert()
            cipher = wrapped.cipher()
            return Outcome(
                True,
                shown["subject"][0][0][1],
                wrapped.version() or "",
                wrapped.selected_alpn_protocol() or "",
                "" if cipher is None else cipher[0],
            )
    except OSError:
        return Outcome(False)


@contextmanager
def envoy(document: Document, directory: Path) -> Iterator[int]:
    """A running Envoy with this configuration, and its administration port."""
    try:
        binary = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(f"needs a real Envoy: {error}")
    admin_file = directory / "admin"
    document["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
    path = directory / "envoy.json"
    path.write_text(json.dumps(document))
    with open(directory / "envoy.log", "wb") as log:
        process = subprocess.Popen(
            [binary, "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--file-flush-interval-msec", "20",
             "--admin-address-path", str(admin_file)],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (directory / "envoy.log").read_text()
            try:
                port = int(admin_file.read_text().rpartition(":")[2])
                if get(port, "/ready").strip() == "LIVE":
                    break
            except (OSError, ValueError):
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        return str(response.read().decode())


def listening(admin: int) -> dict[str, int]:
    """The ports of Envoy's listeners by their names, which chose them themselves."""
    lines = (line.partition("::") for line in get(admin, "/listeners").splitlines())
    return {name: int(address.rpartition(":")[2]) for name, _, address in lines}


def listener(name: str, tls: Document, log: Path) -> Document:
    """An echo (by a TCP proxy) behind TLS, logging why TLS failed."""
    access_log = {
        "name": "log",
        "typed_config": {
            "@type": TYPES + "access_loggers.file.v3.FileAccessLog",
            "path": str(log),
            "log_format": {"text_format_source": {"inline_string": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n"}},
        },
    }
    proxy = {"@type": TYPES + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": "echo"}
    return {
        "name": name,
        "stat_prefix": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "access_log": [access_log],
        "filter_chains": [
            {
                "transport_socket": {
                    "name": "tls",
                    "typed_config": {"@type": TYPES + "transport_sockets.tls.v3.DownstreamTlsContext", **tls},
                },
                "filters": [{"name": "proxy", "typed_config": proxy}],
            }
        ],
    }


def cluster(name: str, port: int, tls: Document | None = None) -> Document:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    document: Document = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    }
    if tls is not None:
        typed = {"@type": TYPES + "transport_sockets.tls.v3.UpstreamTlsContext", **tls}
        document["transport_socket"] = {"name": "tls", "typed_config": typed}
    return document


async def echoing() -> asyncio.Server:
    async def give_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    return await asyncio.start_server(give_back, "127.0.0.1", 0)


def test_servers_let_in_the_same_clients_and_say_the_same(tmp_path: Path) -> None:
    async def test() -> None:
        behind = await echoing()
        listeners = [listener(name, tls, tmp_path / f"{name}.log") for name, tls in CONTEXTS.items()]
        resources = {"listeners": listeners, "clusters": [cluster("echo", behind.sockets[0].getsockname()[1])]}
        different: list[tuple[object, ...]] = []
        with envoy({"static_resources": resources}, tmp_path) as admin:
            ports = listening(admin)
            for name, tls in CONTEXTS.items():
                config = build(DOWNSTREAM_TLS, tls, parse_downstream_tls_context)
                async with serving(config) as server:
                    for client in CLIENTS:
                        theirs = await in_thread(visit, ports[name], client, tmp_path)
                        ours = await in_thread(visit, server.port, client, tmp_path)
                        if theirs != ours:
                            different.append((name, client, theirs, ours))
                    await server.until(lambda server=server: len(server.connections) == len(CLIENTS))  # type: ignore[misc]
                    reasons = await in_thread(wait_for_lines, tmp_path / f"{name}.log", len(CLIENTS))
                    our_reasons = [reason.replace(" ", "_") or "-" for reason in server.reasons]
                    for client, their_reason, our_reason in zip(CLIENTS, reasons, our_reasons, strict=True):
                        if their_reason != our_reason:
                            different.append((name, client, their_reason, our_reason))
                    text = await in_thread(get, admin, f"/stats?filter=listener.{name}.ssl")
                    counted = dict(line.split(": ") for line in text.splitlines())
                    for counter in COUNTERS:
                        theirs_counted = int(counted.get(f"listener.{name}.ssl.{counter}", 0))
                        if theirs_counted != getattr(server.stats, counter):
                            different.append((name, counter, theirs_counted, getattr(server.stats, counter)))
        behind.close()
        assert different == [], "\n".join(map(str, different))

    run(test())


def wait_for_lines(path: Path, count: int) -> list[str]:
    deadline = time.monotonic() + 10
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count or time.monotonic() > deadline:
            return lines
        time.sleep(0.02)


UPSTREAMS: list[tuple[Document, Certificate]] = [
    ({"validation_context": trusted()}, SERVER),
    ({"validation_context": trusted()}, EXPIRED),
    ({"validation_context": trusted(allow_expired_certificate=True)}, EXPIRED),
    ({"validation_context": trusted()}, STRANGER),
    ({"validation_context": trusted(trust_chain_verification="ACCEPT_UNTRUSTED")}, STRANGER),
    ({"validation_context": trusted(**san("DNS", exact="server.example"))}, SERVER),
    ({"validation_context": trusted(**san("DNS", exact="SERVER.example"))}, SERVER),
    ({"validation_context": trusted(**san("DNS", exact="x.wild.example"))}, SERVER),
    ({"validation_context": trusted(**san("DNS", exact="x.y.wild.example"))}, SERVER),
    ({"validation_context": trusted(**san("DNS", suffix=".wild.example"))}, SERVER),
    ({"validation_context": trusted(**san("URI", exact="spiffe://td/server"))}, SERVER),
    ({"validation_context": trusted(**san("URI", exact="server.example"))}, SERVER),
    ({"validation_context": trusted(**san("IP_ADDRESS", exact="127.0.0.1"))}, SERVER),
    ({"validation_context": trusted(verify_certificate_hash=[SERVER.sha256])}, SERVER),
    ({"validation_context": trusted(verify_certificate_hash=["00" * 32])}, SERVER),
    ({"validation_context": trusted(trust_chain_verification="ACCEPT_UNTRUSTED", **san("DNS", exact="x"))}, STRANGER),
    ({"validation_context": trusted(trust_chain_verification="ACCEPT_UNTRUSTED", **san("DNS", exact="x"))}, SERVER),
    (
        {
            "validation_context": trusted(
                trust_chain_verification="ACCEPT_UNTRUSTED", verify_certificate_hash=["00" * 32]
            )
        },
        STRANGER,
    ),
    ({"validation_context": {"verify_certificate_hash": [STRANGER.sha256]}}, STRANGER),
    ({"validation_context": {"verify_certificate_hash": [SERVER.sha256]}}, STRANGER),
    ({"tls_certificates": [inline(CLIENT)]}, SERVER),
    ({}, STRANGER),
]


def test_clients_accept_the_same_servers_and_say_the_same(tmp_path: Path) -> None:
    """Envoy's side is told by its access log; the servers are ours for both."""

    async def test() -> None:
        around = surroundings()
        log = tmp_path / "up.log"
        different: list[tuple[object, ...]] = []
        servers = []
        clusters: list[Document] = []
        listeners: list[Document] = []
        for number, (common, certificate) in enumerate(UPSTREAMS):
            config = downstream(certificate, validation=trusted())
            manager = serving(config, lambda: Inner(echo, keep_half_open=False), around=around)
            server = await manager.__aenter__()
            servers.append((manager, server))
            clusters.append(cluster(f"c{number}", server.port, {"common_tls_context": common}))
            plain = listener(f"l{number}", {}, log)
            chain = plain["filter_chains"][0]
            del chain["transport_socket"]
            chain["filters"][0]["typed_config"]["cluster"] = f"c{number}"
            plain["access_log"][0]["typed_config"]["log_format"]["text_format_source"]["inline_string"] = (
                "%UPSTREAM_TRANSPORT_FAILURE_REASON%\n"
            )
            listeners.append(plain)
        try:
            with envoy({"static_resources": {"listeners": listeners, "clusters": clusters}}, tmp_path) as admin:
                ports = listening(admin)
                for number, (common, _) in enumerate(UPSTREAMS):
                    port = servers[number][1].port
                    theirs = await in_thread(talk_plainly, ports[f"l{number}"])
                    their_reason = (await in_thread(wait_for_lines, log, number + 1))[-1]
                    tls = originating(upstream(common=common, validation=common.get("validation_context", {})), around)
                    reason = ""
                    try:
                        connection, _ = await dial(tls, port)
                        connection.abort()
                    except TlsFailure as failure:
                        reason = failure.words
                    ours = not reason
                    if theirs != ours or their_reason != (reason.replace(" ", "_") or "-"):
                        different.append((number, common.keys(), theirs, ours, their_reason, reason))
                    text = await in_thread(get, admin, f"/stats?filter=cluster.c{number}.ssl")
                    counted = dict(line.split(": ") for line in text.splitlines())
                    for counter in COUNTERS:
                        seen = int(counted.get(f"cluster.c{number}.ssl.{counter}", 0))
                        if "ACCEPT_UNTRUSTED" in str(common) and counter.startswith("fail_verify"):
                            continue  # Envoy verifies and counts even when the outcome does not matter
                        if seen != getattr(tls.stats, counter):
                            different.append((number, counter, seen, getattr(tls.stats, counter)))
        finally:
            for manager, _ in servers:
                await manager.__aexit__(None, None, None)
        assert different == [], "\n".join(map(str, different))

    run(test())


def talk_plainly(port: int, question: bytes = b"ping", answer: bytes = b"ping") -> bool:
    """Whether a plain client gets this answer to this question."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        try:
            plain.sendall(question)
            return plain.recv(len(answer)) == answer
        except OSError:
            return False


def test_half_close_through_envoy_and_ours(tmp_path: Path) -> None:
    """A client ends its side, and gets the whole answer afterwards: through Envoy's TLS to our server and back."""

    async def test() -> None:
        async with serving(downstream()) as server:
            proxied = cluster("c", server.port, {"common_tls_context": {"validation_context": trusted()}})
            plain = listener("l", context(), tmp_path / "log")
            plain["filter_chains"][0]["filters"][0]["typed_config"]["cluster"] = "c"
            with envoy({"static_resources": {"listeners": [plain], "clusters": [proxied]}}, tmp_path) as admin:
                port = listening(admin)["l"]
                connection, inner = await dial(originating(upstream(), server.surroundings), port)
                connection.write(b"question")
                connection.write_eof()
                there = await server.first()
                await there.until(lambda: "eof" in there.events)
                assert there.received == b"question"
                there.transport.write(b"x" * 300_000)
                there.transport.write_eof()
                await inner.until(lambda: "eof" in inner.events)
                assert inner.received == b"question" + b"x" * 300_000

    run(test())
