"""A whole mesh whose identities somebody is after: each way is refused in clear words, counted or written down, and harms nobody.

A real control plane, a node agent, and two sidecars that speak mutual TLS; beside them another mesh of the same trust domain.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.cli.api import Api, ApiError
from controlplane.cli.identity import join, renew
from controlplane.cli.kubeconfig import Access
from tests.controlplane.nodeagent.node import Node, RunningAgent
from tests.controlplane.nodeagent.proxies import client, server
from tests.controlplane.whole import Whole, whole
from tests.differential.proxies import Proxy, start
from tests.running import REPOSITORY, free_ports, get, until

PAGE, REVIEWS = "spiffe://cluster.local/ns/shop/sa/page", "spiffe://cluster.local/ns/shop/sa/reviews"
FRIEND, STRANGER = 54322, 54321

# Asks for certificate and key as a proxy does; what it prints is the code and the words, or the names of the secrets. All
# is imported before it becomes the other user, to whom the directory of this checkout may be closed.
ASK = """
import os, sys
import grpc, grpc._channel
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from envoy.service.secret.v3.sds_pb2_grpc import SecretDiscoveryServiceStub
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    asked = DiscoveryRequest(type_url="type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        resource_names=["default"])
    try:
        print(len(next(SecretDiscoveryServiceStub(channel).StreamSecrets(iter([asked]), timeout=10)).resources))
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


class Mesh:
    """All of it; ``page`` and ``reviews`` are the sidecars."""

    def __init__(
        self, directory: Path, node: Node, other: Whole, agent: RunningAgent, page: Proxy, reviews: Proxy
    ) -> None:
        self.directory = directory
        self.node, self.other, self.agent, self.page, self.reviews = node, other, agent, page, reviews
        self.taken = 0

    @property
    def home(self) -> Whole:
        return self.node.mesh

    def works(self) -> None:
        """Page calls reviews, by a new handshake, and the agent serves both."""
        assert get(self.page.ports["in"])[::2] == (200, "hello")
        for name in ("shop/page", "shop/reviews"):
            assert self.agent.metric("mizzen_agent_certificate_good", workload=name) == 1

    def token(self, mesh: Whole, account: str) -> str:
        body = {"namespace": "shop", "serviceAccount": account}
        return str(mesh.api.request("POST", "/mizzen/v1/tokens", body)["token"])

    def place(self) -> Path:
        """A directory of the attacker's own."""
        self.taken += 1
        return self.directory / f"attacker{self.taken}"

    def nobody(self) -> Api:
        """The control plane, to a caller without credentials."""
        return Api(Access(self.home.api.access.server, self.home.api.access.authority, ""))

    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home.directory / "audit.jsonl").read_text().splitlines()]

    def refusals(self) -> list[dict[str, Any]]:
        return [line for line in self.audited() if line["event"] == "refused"]

    def issued(self) -> int:
        found = sum(line["event"] == "issued" for line in self.audited())
        assert found >= 2, "page and reviews"
        return found

    def counted(self, name: str) -> int:
        found = json.loads(self.reviews.admin(f"/stats?format=json&filter=ssl.{name}$")[2])["stats"]
        return sum(one["value"] for one in found if "value" in one and one["name"].startswith("listener."))

    def calls(self, directory: Path) -> bool:
        """Whether reviews answers a caller with the identity in this directory."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.reviews.ports["in"]), timeout=10) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            wrapped.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            return wrapped.recv(12) == b"HTTP/1.1 200"
        return False


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, ExitStack() as ending:
        directory = Path(name)
        directory.chmod(0o711)  # other users come as far as the agent's sockets
        for made in ("home", "other"):
            (directory / made).mkdir()
        node = Node(directory, ending.enter_context(whole(directory / "home")))
        other = ending.enter_context(whole(directory / "other"))
        node.join("page")
        node.join("reviews", uids=(FRIEND, FRIEND + 1))
        agent = ending.enter_context(node.agent())
        client_admin, client_port, server_admin, server_port = free_ports(4)
        documents = (
            client(client_admin, client_port, server_port, node.socket("page"), REVIEWS),
            server(server_admin, server_port, node.socket("reviews"), PAGE),
        )
        ports = ({"admin": client_admin, "in": client_port}, {"admin": server_admin, "in": server_port})
        running = []
        for number in (0, 1):
            running.append(start("sidecar", documents[number], ports[number], directory / str(number)))
            ending.callback(running[-1].stop)
        yield Mesh(directory, node, other, agent, *running)


@pytest.fixture(autouse=True)
def unharmed(mesh: Mesh) -> Iterator[None]:
    """Before and after each attack the mesh works."""
    mesh.works()
    yield
    mesh.works()


def request_for(identity: str) -> str:
    """A signing request that asks for this name."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    signed = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


OTHERS = {
    "another service": REVIEWS,
    "another namespace": "spiffe://cluster.local/ns/istio-system/sa/page",
    "another trust domain": "spiffe://elsewhere/ns/shop/sa/page",
    "the trust domain": "spiffe://cluster.local",
    "a path beyond its own": f"{PAGE}/admin",
    "another writing of its own": "spiffe://CLUSTER.local/ns/shop/sa/page",
}


@pytest.mark.parametrize("asked", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("by", ["certificate", "join token"])
def test_a_request_for_somebody_elses_identity(mesh: Mesh, by: str, asked: str) -> None:
    api, body = mesh.nobody(), {"certificateSigningRequest": request_for(asked)}
    if by == "certificate":
        directory = mesh.node.identities / "shop" / "page"
        api.show_certificate(directory / "chain.pem", directory / "key.pem")
        path = "/mizzen/v1/renew"
    else:
        path, body["token"] = "/mizzen/v1/join", mesh.token(mesh.home, "page")
    issued, refused = mesh.issued(), len(mesh.refusals())
    with pytest.raises(ApiError) as caught:
        api.request("POST", path, body)
    api.close()
    assert caught.value.status in (403, 422) and asked in str(caught.value), caught.value
    assert mesh.issued() == issued
    (line,) = mesh.refusals()[refused:]
    assert asked in line["reason"] and line["requester"].endswith(("shop:page", "join:shop/page")), line


def test_a_join_token_that_was_used(mesh: Mesh) -> None:
    token = mesh.token(mesh.home, "page")
    join(mesh.nobody(), token, mesh.place())
    issued, refused, again = mesh.issued(), len(mesh.refusals()), mesh.place()
    with pytest.raises(ApiError, match="used before") as caught:
        join(mesh.nobody(), token, again)
    assert caught.value.status == 401 and token not in str(caught.value)
    assert mesh.issued() == issued and not (again / "chain.pem").exists()
    (line,) = mesh.refusals()[refused:]
    assert "used before" in line["reason"] and token not in json.dumps(line)


def test_a_join_token_of_another_mesh(mesh: Mesh) -> None:
    """The command does not even show it to a control plane whose root is not the token's; whoever does gets nothing."""
    token, there = mesh.token(mesh.other, "page"), mesh.place()
    server = mesh.home.api.access.server
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli", "join", "--server", server, "--token", token,
         "--identity-dir", str(there)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and token not in done.stderr
    assert "is not the control plane that the token is from" in done.stderr and not there.exists()
    issued, refused = mesh.issued(), len(mesh.refusals())
    with pytest.raises(ApiError) as caught:
        join(mesh.nobody(), token, there)
    assert caught.value.status == 401 and token not in str(caught.value), caught.value
    assert mesh.issued() == issued and not (there / "chain.pem").exists()
    (line,) = mesh.refusals()[refused:]
    assert line["source"].startswith("127.0.0.1:") and token not in json.dumps(line)


def test_the_same_identity_of_another_mesh(mesh: Mesh) -> None:
    """A namesake: the same SPIFFE ID under another root opens no sidecar, and renews nothing at our control plane."""
    other = Api(Access(mesh.other.api.access.server, mesh.other.api.access.authority, ""))
    theirs, ours = mesh.place(), mesh.place()
    join(other, mesh.token(mesh.other, "page"), theirs)
    join(mesh.nobody(), mesh.token(mesh.home, "page"), ours)
    assert mesh.calls(ours)
    before, issued = mesh.counted("fail_verify_error"), mesh.issued()
    assert not mesh.calls(theirs)
    until(lambda: mesh.counted("fail_verify_error") == before + 1, "it is counted")
    with pytest.raises(ApiError):
        renew(mesh.nobody(), theirs)
    assert mesh.issued() == issued


def test_another_identity_of_this_mesh(mesh: Mesh) -> None:
    """A good certificate, of a service that reviews does not expect."""
    directory = mesh.place()
    join(mesh.nobody(), mesh.token(mesh.home, "details"), directory)
    before = mesh.counted("fail_verify_san")
    assert not mesh.calls(directory)
    until(lambda: mesh.counted("fail_verify_san") == before + 1, "it is counted")


@pytest.mark.parametrize("adapted", [False, True], ids=["as it is", "with its names adapted"])
def test_an_identity_directory_copied_to_another_workloads_place(mesh: Mesh, adapted: bool) -> None:
    """So that a process that has the one socket would be given the other's identity, or the agent renew it for nobody."""
    account = "payments" if adapted else "orders"
    copied = mesh.node.identities / "shop" / account
    shutil.copytree(mesh.node.identities / "shop" / "page", copied)
    if adapted:
        document = json.loads((copied / "agent.json").read_text())
        (copied / "agent.json").write_text(json.dumps({**document, "serviceAccount": account}))
    try:
        mesh.agent.wait_for(f"shop/{account}: not served")
        until(lambda: mesh.agent.metric("mizzen_agent_bad_identities") == 1, "it is counted")
        status, words = mesh.agent.ready()
        expected = f"has the certificate of {PAGE}" if adapted else f"is 'page', but the directory is '{account}'"
        assert status == 503 and expected in words
        assert not mesh.node.socket(account).exists()
    finally:
        shutil.rmtree(copied)
    until(lambda: mesh.agent.ready()[0] == 200, "it is forgotten")


def test_an_identity_directory_copied_over_another(mesh: Mesh) -> None:
    """What reviews has been served goes on, and page's identity is not served at its socket."""
    place, kept = mesh.node.identities / "shop" / "reviews", mesh.place()
    shutil.copytree(place, kept)
    try:
        for name in ("chain.pem", "key.pem", "secret.json"):
            shutil.copy(mesh.node.identities / "shop" / "page" / name, place / name)
        mesh.agent.wait_for("shop/reviews: what is there is not taken, what was there goes on")
        mesh.works()
    finally:
        for file in kept.iterdir():
            shutil.copy(file, place / file.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_secrets_asked_for_by_another_user(mesh: Mesh) -> None:
    def ask(account: str, uid: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(mesh.node.socket(account)), str(uid)],
            cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert ask("reviews", FRIEND) == "1"
    before = mesh.agent.metric("mizzen_agent_refused_peers_total", workload="shop/reviews")
    refused = ask("reviews", STRANGER)
    assert refused.startswith(f"PERMISSION_DENIED uid {STRANGER} may not have the identity of shop/reviews"), refused
    assert mesh.agent.metric("mizzen_agent_refused_peers_total", workload="shop/reviews") == before + 1
    assert f"shop/reviews: a process of uid {STRANGER}" in mesh.agent.output
    assert ask("page", STRANGER).startswith("UNAVAILABLE"), "the file itself is closed"
