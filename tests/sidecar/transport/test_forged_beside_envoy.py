"""Certificates that prove nothing, shown by clients and by servers: real Envoy and ours refuse, count and name each."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start
from tests.running import get, until
from tests.sidecar.bootstraps import address, cluster, direct, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import downstream_socket, file_log, originating
from tests.sidecar.transport.certificates import Authority, Certificate
from tests.sidecar.transport.forging import (
    Relay,
    altered,
    badly_signed,
    certificate_message,
    self_signed,
    with_a_key_of_ones_own,
    with_chain,
)

ROOT, NOBODY = Authority("Mesh Root"), Authority("Nobody")
BETWEEN, OTHER_BETWEEN = Authority("Between", ROOT), Authority("Another Between", ROOT)
ID = "spiffe://cluster.local/ns/shop/sa/page"
GOOD, BELOW, REVOKED = ROOT.issue("", [ID]), BETWEEN.issue("", [ID]), ROOT.issue("", [ID])
OWN = ROOT.issue("", ["spiffe://cluster.local/ns/shop/sa/reviews"])
VICTIM = ROOT.issue("", ["spiffe://cluster.local/ns/shop/sa/admin"])
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

WELCOME = {"good": GOOD, "good, below another": BELOW}
FORGED = {
    "self-signed": self_signed(ID),
    "self-signed in the root's name": self_signed(ID, ROOT.name),
    "self-signed, and may sign": self_signed(ID, ROOT.name, signs=True),
    "of an unknown root": NOBODY.issue("", [ID]),
    "of an unknown root with ours above it": with_chain(NOBODY.issue("", [ID]), ROOT),
    "with a key of one's own": with_a_key_of_ones_own(VICTIM),
    "with another's chain": with_chain(BELOW, OTHER_BETWEEN),
    "with its chain cut": with_chain(BELOW),
    "with another name": altered(GOOD, b"/sa/page", b"/sa/root"),
    "with a bit of its signature turned": badly_signed(GOOD),
    "expired": ROOT.issue("", [ID], days=(-3, -1)),
    "not yet valid": ROOT.issue("", [ID], days=(1, 3)),
    "of another trust domain": ROOT.issue("", ["spiffe://elsewhere/ns/shop/sa/page"]),
    "of another service": ROOT.issue("", ["page.shop.example"]),
    "of nobody": ROOT.issue(""),
    "revoked": REVOKED,
}
CHANGED: dict[str, Callable[[bytes], bytes]] = {
    "another's in its place": lambda _: certificate_message(VICTIM.der),
    "another's before it": lambda _: certificate_message(VICTIM.der, GOOD.der),
    "cut in half": lambda _: certificate_message(GOOD.der[: len(GOOD.der) // 2]),
    "cut by a byte": lambda _: certificate_message(GOOD.der[:-1]),
    "longer than itself": lambda _: certificate_message(GOOD.der + b"\x00"),
    "an empty one": lambda _: certificate_message(b""),
    "none": lambda _: certificate_message(),
    "a message that ends early": lambda message: message[:1] + b"\x00\x00\x20" + message[4:36],
    "a list that says less than it has": lambda message: message[:4] + b"\x00\x00\x04" + message[7:],
}
"""What becomes of a good client's certificate message on its way, in TLS 1.2."""

COUNTERS = (
    "connection_error", "handshake", "no_certificate", "fail_verify_no_cert", "fail_verify_error", "fail_verify_san",
)  # fmt: skip


def validation() -> dict[str, Any]:
    revoked = (ROOT.revoke(REVOKED) + BETWEEN.revoke()).decode()
    return {
        "trusted_ca": {"inline_string": ROOT.pem.decode()},
        "crl": {"inline_string": revoked},
        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}],
    }


@contextmanager
def running(kind: str, directory: Path, *upstreams: int) -> Iterator[Proxy]:
    """A proxy with a listener that wants certificates of the mesh, and one of plain HTTP for each of these servers."""
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    free = FreePorts()
    outs = [f"out{number}" for number in range(len(upstreams))]
    ports = {name: free.take() for name in ("admin", "in", *outs)}
    inside = http_listener("in", ports["in"], [direct("inside")])
    inside["filter_chains"][0]["transport_socket"] = downstream_socket(
        OWN, common={"validation_context": validation()}, require_client_certificate=True
    )
    inside["stat_prefix"] = "in"
    inside["access_log"] = [file_log(str(directory / "in.log"), "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n")]
    listeners, clusters = [inside], []
    for name, port in zip(outs, upstreams, strict=True):
        out = http_listener(name, ports[name], [to_cluster(name)], log=str(directory / f"{name}.log"))
        (log,) = out["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
        words = "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n"
        log["typed_config"]["log_format"] = {"text_format_source": {"inline_string": words}}
        listeners.append(out)
        behind = originating(cluster(name, port), OWN, validation=validation())
        context = behind["transport_socket"]["typed_config"]["common_tls_context"]
        context["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_3"}
        clusters.append(behind)
    document = {
        "admin": {"address": address(ports["admin"])},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
    directory.mkdir()
    proxy = start(kind, document, ports, directory)
    try:
        yield proxy
    finally:
        proxy.stop()


def counted(proxy: Proxy, prefix: str) -> dict[str, int]:
    body = proxy.admin(f"/stats?format=json&filter=^{prefix}.ssl.")[2]
    found = {one["name"]: one["value"] for one in json.loads(body)["stats"] if "name" in one}
    return {name: found.get(f"{prefix}.ssl.{name}", 0) for name in COUNTERS}


def ended(proxy: Proxy) -> int:
    """The connections that the listener has seen the end of."""
    name = "listener.in.downstream_cx_destroy"
    return int(proxy.admin(f"/stats?filter=^{name}$")[2].rpartition(" ")[2])


def lines(path: Path, count: int) -> list[str]:
    def read() -> list[str]:
        return path.read_text().splitlines() if path.exists() else []

    until(lambda: len(read()) == count, f"{count} lines in {path.name}: {read()}")
    return read()


def visit(port: int, one: Certificate, version: ssl.TLSVersion, directory: Path) -> bool:
    """Whether a client with this certificate is answered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=ROOT.pem.decode())
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*one.write(directory, "client"))
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        wrapped.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return wrapped.recv(12) == b"HTTP/1.1 200"
    return False


def clients(kind: str, directory: Path) -> dict[str, tuple[bool, str, dict[str, int]]]:
    """Of each client: whether it was let in, what the access log says, and what was counted."""
    seen: dict[str, tuple[bool, dict[str, int]]] = {}
    with running(kind, directory) as proxy:
        before = counted(proxy, "listener.in")

        def note(what: str, answered: bool) -> None:
            nonlocal before
            until(lambda: ended(proxy) == len(seen) + 1, f"the end of {what}")
            now = counted(proxy, "listener.in")
            seen[what] = answered, {name: now[name] - before[name] for name in now if now[name] != before[name]}
            before = now

        for version in VERSIONS:
            for what, one in {**WELCOME, **FORGED}.items():
                note(f"{what}, {version.name}", visit(proxy.ports["in"], one, version, directory))
        for what, message in CHANGED.items():
            with Relay(proxy.ports["in"], message) as relay:
                note(f"{what}, on the way", visit(relay.port, GOOD, ssl.TLSVersion.TLSv1_2, directory))
                assert relay.changed == 1
        note("good in the end", visit(proxy.ports["in"], GOOD, ssl.TLSVersion.TLSv1_3, directory))
        reasons = lines(directory / "in.log", len(seen))
    return {
        what: (answered, reason, counts)
        for (what, (answered, counts)), reason in zip(seen.items(), reasons, strict=True)
    }


def said(seen: dict[str, tuple[bool, str, dict[str, int]]], what: str) -> str:
    """The last reason of those that the access log has for a client."""
    return seen[what][1].replace(" ", "_").replace("-", "_").rpartition("|")[2]


OTHER_WORDS = {
    "longer than itself, on the way",  # CERT_LENGTH_MISMATCH
    "an empty one, on the way",  # CANNOT_PARSE_LEAF_CERT
    "a message that ends early, on the way",  # LENGTH_MISMATCH
    "a list that says less than it has, on the way",
}
"""Where OpenSSL, which is ours, sees another fault first than BoringSSL, which is Envoy's."""


def test_clients_get_no_access(tmp_path: Path) -> None:
    theirs, ours = (clients(kind, tmp_path / kind) for kind in (ENVOY, SIDECAR))
    welcome = {f"{what}, {version.name}" for what in WELCOME for version in VERSIONS} | {"good in the end"}
    for what, (answered, reason, counts) in ours.items():
        assert answered == (what in welcome), what
        if answered:
            assert reason == "-" and counts == {"handshake": 1}, what
        else:
            assert len(reason) > 10 and counts and "handshake" not in counts, (what, reason, counts)
    different = [
        (what, theirs[what], ours[what])
        for what in ours
        if theirs[what][::2] != ours[what][::2] or (said(theirs, what) != said(ours, what) and what not in OTHER_WORDS)
    ]
    assert different == [], "\n".join(map(str, different))


class Impostor:
    """A server that shows this certificate, and answers whoever believes it. A context manager."""

    def __init__(self, one: Certificate, version: ssl.TLSVersion, directory: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = self.context.maximum_version = version
        self.context.load_cert_chain(*one.write(directory, "server"))
        self.answered = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            plain.settimeout(10)
            with suppress(OSError), plain, self.context.wrap_socket(plain, server_side=True) as wrapped:
                if wrapped.recv(65536):
                    self.answered += 1
                    wrapped.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)


@pytest.mark.parametrize("version", VERSIONS, ids=("1.2", "1.3"))
def test_servers_are_asked_nothing(version: ssl.TLSVersion, tmp_path: Path) -> None:
    shown = {**WELCOME, **FORGED}
    seen: dict[str, list[Any]] = {}
    for kind in (ENVOY, SIDECAR):
        servers = [Impostor(one, version, tmp_path) for one in shown.values()]
        directory = tmp_path / kind
        with running(kind, directory, *(server.port for server in servers)) as proxy:
            found = seen[kind] = []
            for number, server in enumerate(servers):
                with server:
                    status = get(proxy.ports[f"out{number}"])[0]
                found.append([status, server.answered, counted(proxy, f"cluster.out{number}")])
            for number, one in enumerate(found):
                one += lines(directory / f"out{number}.log", 1)
    for what, theirs, ours in zip(shown, seen[ENVOY], seen[SIDECAR], strict=True):
        status, answered, counts, line = ours
        if what in WELCOME:
            assert (status, answered, line) == (200, 1, "200 - -"), what
        else:
            assert (status, answered) == (503, 0) and line.startswith("503 UF "), (what, line)
            assert len(line) > 20 and counts["handshake"] == 0, (what, line)
        assert theirs[:3] == ours[:3], (what, theirs, ours)
