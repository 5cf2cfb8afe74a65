"""Certificates and roots from a node agent over a Unix socket: real Envoy and our sidecar serve, count and show the same."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.differential import proxies
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start
from tests.running import get, until
from tests.sidecar.bootstraps import address, cluster, direct, http_listener, to_cluster
from tests.sidecar.transport.certificates import Authority, Certificate
from tests.sidecar.transport.serving import inline
from tests.sidecar.xds.agent import Agent, agent_cluster, sds

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
ID = "spiffe://cluster.local/ns/shop/sa/page"
ROOT, OTHER_ROOT = Authority("Mesh Root"), Authority("Next Root")
FIRST, SECOND = ROOT.issue("", [ID]), ROOT.issue("", [ID])
REVOKED = ROOT.issue("", [ID])
UNDER_OTHER = OTHER_ROOT.issue("", [ID])


def certificate(one: Certificate) -> dict[str, Any]:
    return {"tls_certificate": inline(one)}


def roots(*authorities: Authority, **fields: Any) -> dict[str, Any]:
    pem = b"".join(one.pem for one in authorities).decode()
    return {"validation_context": {"trusted_ca": {"inline_string": pem}, **fields}}


def mutual(kind: str, api_type: str, **fields: Any) -> dict[str, Any]:
    """A transport socket as Istio's: certificate and roots are the agent's, names are the configuration's."""
    matched = {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}]}
    common = {
        "tls_certificate_sds_secret_configs": [sds("default", api_type)],
        "combined_validation_context": {
            "default_validation_context": matched,
            "validation_context_sds_secret_config": sds("ROOTCA", api_type),
        },
    }
    return {"name": "tls", "typed_config": {"@type": TLS + kind, "common_tls_context": common, **fields}}


def bootstrap(path: Path, ports: dict[str, int], api_type: str) -> dict[str, Any]:
    """One listener with mutual TLS, and one without, behind which a cluster leads to the other by mutual TLS."""
    inside = http_listener("in", ports["in"], [direct("inside")])
    inside["stat_prefix"] = "in"
    inside["filter_chains"][0]["transport_socket"] = mutual(
        "DownstreamTlsContext", api_type, require_client_certificate=True
    )
    peer = cluster("peer", ports["in"])
    peer["transport_socket"] = mutual("UpstreamTlsContext", api_type)
    once = {"common_http_protocol_options": {"max_requests_per_connection": 1}}  # so that each request shakes hands
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    peer["typed_extension_protocol_options"] = {
        options: {
            "@type": f"type.googleapis.com/{options}", **once, "explicit_http_config": {"http_protocol_options": {}},
        }
    }  # fmt: skip
    return {
        "node": {"id": "sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local", "cluster": "page.shop"},
        "admin": {"address": address(ports["admin"])},
        "static_resources": {
            "listeners": [inside, http_listener("out", ports["out"], [to_cluster("peer")])],
            "clusters": [agent_cluster(path), peer],
        },
    }


class Running:
    """A proxy and its agent."""

    def __init__(self, proxy: Proxy, agent: Agent, directory: Path) -> None:
        self.proxy, self.agent, self.directory = proxy, agent, directory

    @property
    def kind(self) -> str:
        return self.proxy.kind

    def ask(self) -> int:
        """The status of a request that goes out, and comes in, by mutual TLS."""
        return get(self.proxy.ports["out"])[0]

    def shown(self, client: Certificate = FIRST, authority: Authority = ROOT) -> str:
        """The serial number of the certificate that a client of this certificate is shown; empty if it is refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=authority.pem.decode())
        context.load_cert_chain(*client.write(self.directory, client.sha256[:8]))
        with suppress(OSError):
            plain = socket.create_connection(("127.0.0.1", self.proxy.ports["in"]), timeout=10)
            with plain, context.wrap_socket(plain) as wrapped:
                wrapped.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                if wrapped.recv(12) == b"HTTP/1.1 200":
                    found: Any = wrapped.getpeercert()
                    return str(found["serialNumber"]).lower().lstrip("0")
        return ""

    def listed(self) -> set[str]:
        """The serial numbers of the certificates in /certs."""
        shown = json.loads(self.proxy.admin("/certs")[2])["certificates"]
        return {one["serial_number"].lstrip("0") for context in shown for one in context.get("cert_chain", [])}

    def stats(self, *names: str) -> dict[str, int]:
        """These counters."""
        body = self.proxy.admin("/stats?format=json")[2]
        found = {one["name"]: one["value"] for one in json.loads(body)["stats"] if "name" in one}
        return {name: found[name] for name in names}

    def counts(self, name: str, value: int) -> None:
        until(lambda: self.stats(name)[name] == value, f"{name}: {value}; there: {self.stats(name)}")


def serial(one: Certificate) -> str:
    return f"{one.certificate.serial_number:x}"


@contextmanager
def running(kind: str, directory: Path, agent: Agent, api_type: str) -> Iterator[Running]:
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    free = FreePorts()
    ports = {name: free.take() for name in ("admin", "in", "out")}
    proxy = start(kind, bootstrap(agent.socket, ports, api_type), ports, directory)
    try:
        yield Running(proxy, agent, directory)
    finally:
        proxy.stop()


UPDATES = (
    "listener.in.server_ssl_socket_factory.ssl_context_update_by_sds",
    "cluster.peer.client_ssl_socket_factory.ssl_context_update_by_sds",
)
COUNTED = (
    *UPDATES,
    "listener.in.server_ssl_socket_factory.downstream_context_secrets_not_ready",
    "listener.in.server_ssl_socket_factory.upstream_context_secrets_not_ready",
    "cluster.peer.client_ssl_socket_factory.upstream_context_secrets_not_ready",
    "listener.in.ssl.fail_verify_error",
    "listener.in.ssl.fail_verify_san",
    "listener.in.ssl.connection_error",
    "cluster.peer.ssl.fail_verify_error",
    "sds.default.update_success",
    "sds.default.update_rejected",
    "sds.default.key_rotation_failed",
    "sds.ROOTCA.update_success",
    "sds.ROOTCA.update_rejected",
)


def secrets() -> dict[str, Any]:
    return {"default": certificate(FIRST), "ROOTCA": roots(ROOT)}


def beside(directory: Path, scenario: Callable[[Running], Any], api_type: str = "GRPC") -> Any:
    """What a scenario saw and counted, with both."""
    seen = {}
    for kind in (ENVOY, SIDECAR):
        own = directory / kind
        own.mkdir()
        with Agent(own / "agent.sock", secrets()) as agent, running(kind, own, agent, api_type) as both:
            found = scenario(both)
            seen[kind] = found, both.stats(*COUNTED)
    assert seen[ENVOY][0] == seen[SIDECAR][0]
    envoys, ours = seen[ENVOY][1], seen[SIDECAR][1]
    assert {name: (envoys[name], ours[name]) for name in COUNTED if envoys[name] != ours[name]} == {}
    return seen[SIDECAR]


def rotation(both: Running) -> Any:
    seen: list[Any] = [both.ask(), both.shown() == serial(FIRST), both.listed() == {serial(FIRST)}]
    connection = http.client.HTTPConnection("127.0.0.1", both.proxy.ports["out"], timeout=10)
    connection.request("GET", "/")
    seen.append(connection.getresponse().read())
    both.agent.set(default=certificate(SECOND))
    both.counts("sds.default.update_success", 2)
    until(lambda: both.shown() == serial(SECOND), "the new certificate")
    seen += [both.ask(), both.listed() == {serial(SECOND)}]
    connection.request("GET", "/")
    seen.append(connection.getresponse().read())
    connection.close()
    both.agent.set(ROOTCA=roots(ROOT, OTHER_ROOT))
    both.counts("sds.ROOTCA.update_success", 2)
    until(lambda: both.shown(UNDER_OTHER) == serial(SECOND), "the other root is trusted")
    both.agent.set(default=certificate(UNDER_OTHER))
    both.counts("sds.default.update_success", 3)
    seen.append(both.ask())
    both.agent.set(ROOTCA=roots(OTHER_ROOT))
    both.counts("sds.ROOTCA.update_success", 3)
    seen += [
        both.ask(),
        both.shown(FIRST, OTHER_ROOT) == "",
        both.shown(UNDER_OTHER, OTHER_ROOT) == serial(UNDER_OTHER),
    ]
    return seen


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_certificate_and_roots_rotate(api_type: str, tmp_path: Path) -> None:
    seen, _ = beside(tmp_path, rotation, api_type)
    assert seen == [200, True, True, b"inside", 200, True, b"inside", 200, 200, True, True]


def restart(both: Running) -> Any:
    seen: list[Any] = [both.ask()]
    both.agent.stop()
    seen += [both.ask(), both.shown() == serial(FIRST)]
    both.agent.set(default=certificate(SECOND))
    both.agent.start()
    until(lambda: both.shown() == serial(SECOND), "the certificate of the agent that is back", 30)
    both.counts("sds.default.update_success", 2)
    both.counts("sds.ROOTCA.update_success", 2)
    seen.append(both.ask())
    streams = [request for request in both.agent.asked if request.HasField("node")]
    seen.append({request.node.id for request in streams})
    return seen


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
def test_the_last_secrets_are_served_while_the_agent_is_away(api_type: str, tmp_path: Path) -> None:
    node = "sidecar~127.0.0.1~page-1.shop~shop.svc.cluster.local"
    seen, _ = beside(tmp_path, restart, api_type)
    assert seen == [200, 200, True, 200, {node}]


def bad(both: Running) -> Any:
    mixed = certificate(SECOND)
    mixed["tls_certificate"]["private_key"] = inline(FIRST)["private_key"]
    both.agent.set(default=mixed)
    both.counts("sds.default.update_rejected", 1)
    seen = [both.ask(), both.shown() == serial(FIRST), len(both.agent.refused)]
    both.agent.set(ROOTCA={"validation_context": {"trusted_ca": {"inline_string": "no certificate"}}})
    both.counts("sds.ROOTCA.update_rejected", 1)
    return [*seen, both.ask(), both.shown() == serial(FIRST), len(both.agent.refused)]


def test_secrets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    seen, _ = beside(tmp_path, bad)
    assert seen == [200, True, 1, 200, True, 2]


def revocation(both: Running) -> Any:
    def with_list(*revoked: Certificate) -> dict[str, Any]:
        return roots(ROOT, crl={"inline_string": ROOT.revoke(*revoked).decode()}, only_verify_leaf_cert_crl=True)

    seen = [both.shown(REVOKED) == serial(FIRST)]
    both.agent.set(ROOTCA=with_list(REVOKED))
    both.counts("sds.ROOTCA.update_success", 2)
    until(lambda: both.shown(REVOKED) == "", "the revoked one is refused")
    refused = both.stats("listener.in.ssl.fail_verify_error")["listener.in.ssl.fail_verify_error"]
    seen += [both.shown() == serial(FIRST), both.ask(), refused]
    both.agent.set(ROOTCA=with_list(FIRST))
    both.counts("sds.ROOTCA.update_success", 3)
    return [*seen, both.ask(), both.shown(REVOKED) == serial(FIRST)]


def test_a_revoked_certificate_fails_its_next_handshake(tmp_path: Path) -> None:
    seen, counted = beside(tmp_path, revocation)
    assert seen == [True, True, 200, 1, 503, True]
    assert counted["cluster.peer.ssl.fail_verify_error"] >= 1


@pytest.mark.parametrize("kind", [ENVOY, SIDECAR])
def test_a_listener_waits_for_its_first_secrets(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    monkeypatch.setattr(proxies, "START_SECONDS", 30.0)
    free = FreePorts()
    ports = {name: free.take() for name in ("admin", "in", "out")}
    agent = Agent(tmp_path / "agent.sock", secrets())

    def up() -> bool:
        with suppress(OSError, http.client.HTTPException):
            return get(ports["admin"], "/ready")[0] == 503
        return False

    def watch() -> str:
        """What is wrong while the agent is away, which then comes."""
        try:
            until(up, "it runs, and is not ready", 25)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with suppress(OSError), socket.create_connection(("127.0.0.1", ports["in"]), timeout=0.5) as plain:
                context.wrap_socket(plain)
                return "it served without a certificate"
            return ""
        except AssertionError as error:
            return str(error)
        finally:
            agent.start()

    with futures.ThreadPoolExecutor(1) as beside_it:
        watched = beside_it.submit(watch)
        proxy = start(kind, bootstrap(agent.socket, ports, "GRPC"), ports, tmp_path / kind)
        try:
            assert watched.result(20) == ""
            assert get(ports["out"])[0] == 200
        finally:
            proxy.stop()
            agent.stop()
