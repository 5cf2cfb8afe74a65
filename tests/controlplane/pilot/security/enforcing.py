"""Many workloads with policies of their own in one proxy: each is entered by a port for HTTP and one for TCP, over mutual TLS.

What is generated is run as it is, but that TLS with static certificates is put around its filter chains: whoever connects
has the identity of its certificate, or none.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from google.protobuf.json_format import MessageToDict

from controlplane.pilot.generators import CLUSTER
from tests.controlplane.pilot.answering import Answering
from tests.controlplane.pilot.scene import Scene, sidecar
from tests.controlplane.pilot.security.policy_model import Facts
from tests.controlplane.pilot.static_bootstrap import cluster_names
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import FreePorts, Proxy, start
from tests.sidecar.transport.certificates import Authority

SERVER_NAME = "own.shop.svc.cluster.local"


class Workload(NamedTuple):
    """A workload by its namespace, which its policies are in, and its ports."""

    namespace: str
    http: int
    tcp: int


def some_workloads(number: int) -> list[Workload]:
    """Workloads on ports that are free."""
    take = FreePorts().take
    return [Workload(f"case-{index}", take(), take()) for index in range(number)]


class Certificates:
    """An authority of the test, and certificates of identities, made when they are asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority()
        self.server = self.authority.issue(names=["spiffe://cluster.local/ns/shop/sa/own", SERVER_NAME])
        (directory / "roots.pem").write_bytes(self.authority.pem)
        self._contexts: dict[str | None, ssl.SSLContext] = {}

    def context(self, identity: str | None) -> ssl.SSLContext:
        """A client's: with the certificate of an identity (a SPIFFE ID without its scheme), or with none."""
        found = self._contexts.get(identity)
        if found is None:
            found = self._contexts[identity] = ssl.create_default_context(cafile=str(self.directory / "roots.pem"))
            found.check_hostname = False
            if identity is not None:
                made = self.authority.issue(names=[f"spiffe://{identity}"])
                found.load_cert_chain(*made.write(self.directory, f"client-{len(self._contexts)}"))
        return found

    def socket(self) -> Any:
        """The transport socket of a server that asks for a certificate, and does without."""
        context = tls_pb2.DownstreamTlsContext()
        common = context.common_tls_context
        certificate = common.tls_certificates.add()
        certificate.certificate_chain.inline_string = self.server.pem.decode()
        certificate.private_key.inline_string = self.server.key_pem.decode()
        common.validation_context.trusted_ca.inline_string = self.authority.pem.decode()
        return context


class Enforcing:
    """A running proxy with all the workloads."""

    def __init__(self, proxy: Proxy, certificates: Certificates, servers: Answering) -> None:
        self.proxy = proxy
        self.servers = servers
        self._certificates = certificates
        self._open: dict[tuple[int, str | None], http.client.HTTPSConnection] = {}

    def ask(self, workload: Workload, facts: Facts) -> int | bool:
        """The status of a request, or whether a connection is answered."""
        return self.answer(workload, facts)[0] if facts.http else self._connects(workload, facts)

    def answer(self, workload: Workload, facts: Facts, token: str = "") -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of a request's answer."""
        headers = {"host": facts.host, **facts.headers}
        if token:
            headers["authorization"] = f"Bearer {token}"
        place = (workload.http, facts.identity)
        for _ in range(2):
            connection = self._open.pop(place, None) or http.client.HTTPSConnection(
                "127.0.0.1", workload.http, context=self._certificates.context(facts.identity), timeout=10
            )
            with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
                connection.request(facts.method, facts.path, headers=headers)
                response = connection.getresponse()
                body = response.read()
                self._open[place] = connection
                return response.status, {name.lower(): value for name, value in response.getheaders()}, body
        raise AssertionError(f"no answer from {workload}")

    def _connects(self, workload: Workload, facts: Facts) -> bool:
        context = self._certificates.context(facts.identity)
        with (
            contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError),
            socket.create_connection(("127.0.0.1", workload.tcp), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=facts.sni or None) as secure,
        ):
            secure.sendall(b"\0")
            return secure.recv(100) != b""
        return False

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self.proxy.stop()


def documents(workload: Workload, policies: Sequence[Mapping[str, Any]], app: str) -> str:
    """YAML of a workload's service, and of its policies: `action`, `rules`, ..., `kind`, and `dryRun`."""
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "own", "namespace": workload.namespace},
            "spec": {
                "selector": {"app": app},
                "ports": [{"name": "http", "port": workload.http}, {"name": "tcp", "port": workload.tcp}],
            },
        }
    ]
    for number, policy in enumerate(policies):
        spec = {key: value for key, value in policy.items() if key not in ("dryRun", "kind", "namespace")}
        metadata: dict[str, Any] = {"name": f"p{number}", "namespace": workload.namespace}
        if policy.get("dryRun"):
            metadata["annotations"] = {"istio.io/dry-run": "true"}
        kind = policy.get("kind", "AuthorizationPolicy")
        made.append({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
    return yaml.safe_dump_all(made)


@contextlib.contextmanager
def enforcing(
    kind: str,
    tables: Mapping[Workload, Sequence[Mapping[str, Any]]],
    directory: Path,
    *,
    mesh: Mapping[str, Any] | None = None,
    more: str = "",
    clusters: Sequence[Mapping[str, Any]] = (),
    app: str = "own",
) -> Iterator[Enforcing]:
    """A proxy that has all the workloads (`some_workloads`), each with its policies.

    ``more`` are other resources, ``clusters`` other clusters.
    """
    texts = [documents(workload, table, app) for workload, table in tables.items()]
    scene = Scene(*texts, *([more] if more else ()), mesh=mesh)
    certificates = Certificates(directory)
    listeners: dict[str, Any] = {}
    fetched: dict[str, Any] = {}
    for workload in tables:
        node = sidecar("own-1", workload.namespace, LABELS={"app": app}, HTTP_PROXY_PORT="")
        for name, made in scene.pilot.resources(node, CLUSTER).items():
            if name.startswith("jwks|"):
                fetched[name] = MessageToDict(Cluster.FromString(made.value), preserving_proto_field_name=True)
        for name, listener in scene.listeners(node).items():
            for chain in listener.filter_chains:
                chain.transport_socket.name = "envoy.transport_sockets.tls"
                chain.transport_socket.typed_config.Pack(certificates.socket())
            listeners[name] = listener
    assert len(listeners) == 2 * len(tables), sorted(listeners)
    admin = FreePorts().take()
    with Answering(["app"]) as servers:
        names = cluster_names(listeners)
        described = {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {
                "listeners": [MessageToDict(each, preserving_proto_field_name=True) for each in listeners.values()],
                "clusters": [
                    *(static_cluster(name, servers.ports["app"]) for name in sorted(names)),
                    *fetched.values(),
                    *clusters,
                ],
            },
        }
        ports = {"admin": admin} | {f"{each.namespace}-{port}": port for each in tables for port in each[1:]}
        try:
            proxy = start(kind, described, ports, directory)
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
        found = Enforcing(proxy, certificates, servers)
        try:
            yield found
        finally:
            found.close()


def static_cluster(name: str, port: int) -> dict[str, Any]:
    """A cluster of one server on loopback."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": name,
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def at(workload: Workload, facts: Facts) -> Facts:
    """Facts of a request or connection that is for a workload."""
    return replace(facts, port=workload.http if facts.http else workload.tcp)
