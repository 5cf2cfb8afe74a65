"""Sessions of before, offered again when their peer is revoked or its root gone: they open nothing, in Envoy and in ours."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.differential.proxies import ENVOY, SIDECAR
from tests.running import until
from tests.sidecar.transport.certificates import Authority
from tests.sidecar.xds.agent import Agent
from tests.sidecar.xds.test_agent_socket import (
    OTHER_ROOT,
    REVOKED,
    ROOT,
    UNDER_OTHER,
    Running,
    certificate,
    roots,
    running,
    secrets,
)

ANOTHER = Authority("Mesh Root")
"""A root of the same name, with another key."""


def revoking(both: Running) -> None:
    revoked = {"inline_string": ROOT.revoke(REVOKED).decode()}
    both.agent.set(ROOTCA=roots(ROOT, crl=revoked, only_verify_leaf_cert_crl=True))


def without_its_root(both: Running) -> None:
    both.agent.set(ROOTCA=roots(OTHER_ROOT))


def with_a_root_of_the_same_name(both: Running) -> None:
    both.agent.set(ROOTCA=roots(ANOTHER))


CHANGES = (revoking, without_its_root, with_a_root_of_the_same_name)


class Visitor:
    """A client with a certificate, which keeps the session of each visit and offers it at the next one."""

    def __init__(self, port: int, directory: Path, version: ssl.TLSVersion) -> None:
        self.port = port
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.context.minimum_version = self.context.maximum_version = version
        self.context.load_cert_chain(*REVOKED.write(directory, "visitor"))
        self.session: ssl.SSLSession | None = None

    def visit(self, keep: bool = True) -> tuple[bool, bool]:
        """Whether it is answered, and whether its session was taken."""
        answered = reused = False
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=10) as plain,
            self.context.wrap_socket(plain, session=self.session) as wrapped,
        ):
            reused = bool(wrapped.session_reused)
            wrapped.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            answered = wrapped.recv(12) == b"HTTP/1.1 200"
            if keep:
                self.session = wrapped.session
        return answered, reused


def refusals(both: Running) -> int:
    name = "listener.in.ssl.fail_verify_error"
    return both.stats(name)[name]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [ENVOY, SIDECAR])
def test_servers_verify_anew(
    kind: str, change: Callable[[Running], None], version: ssl.TLSVersion, tmp_path: Path
) -> None:
    with Agent(tmp_path / "agent.sock", secrets()) as agent, running(kind, tmp_path, agent, "GRPC") as both:
        visitor = Visitor(both.proxy.ports["in"], tmp_path, version)
        assert [visitor.visit(), visitor.visit()] == [(True, False), (True, True)]
        assert visitor.session is not None and visitor.session.has_ticket
        change(both)
        both.counts("sds.ROOTCA.update_success", 2)
        before = refusals(both)
        until(lambda: visitor.visit(keep=False) == (False, False), "the old session opens nothing")
        until(lambda: refusals(both) == before + 1, "and it is counted")
        for _ in range(3):
            assert visitor.visit(keep=False) == (False, False)
        until(lambda: refusals(both) == before + 4, "each time")
        agent.set(ROOTCA=roots(ROOT))  # so it was this change that kept it out
        both.counts("sds.ROOTCA.update_success", 3)
        until(lambda: visitor.visit(keep=False)[0], "it may come again")


@pytest.mark.parametrize("kind", [ENVOY, SIDECAR])
def test_a_session_of_before_the_certificate_was_renewed_is_no_way_in_either(kind: str, tmp_path: Path) -> None:
    """Rotation of the leaf and of the root in one go: what was kept on either side is of no use."""
    with Agent(tmp_path / "agent.sock", secrets()) as agent, running(kind, tmp_path, agent, "GRPC") as both:
        visitor = Visitor(both.proxy.ports["in"], tmp_path, ssl.TLSVersion.TLSv1_3)
        assert [visitor.visit(), visitor.visit()] == [(True, False), (True, True)]
        agent.set(default=certificate(UNDER_OTHER), ROOTCA=roots(OTHER_ROOT))
        both.counts("sds.default.update_success", 2)
        both.counts("sds.ROOTCA.update_success", 2)
        until(lambda: visitor.visit(keep=False) == (False, False), "the old session opens nothing")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [ENVOY, SIDECAR])
def test_clients_verify_anew(kind: str, change: Callable[[Running], None], tmp_path: Path) -> None:
    """The proxy's own sessions, with an endpoint whose certificate is good no more (here itself, by its other listener)."""
    there = {"default": certificate(REVOKED), "ROOTCA": roots(ROOT)}
    with Agent(tmp_path / "agent.sock", there) as agent, running(kind, tmp_path, agent, "GRPC") as both:
        resumed, refused = "cluster.peer.ssl.session_reused", "cluster.peer.ssl.fail_verify_error"
        assert [both.ask() for _ in range(4)] == [200] * 4
        assert both.stats(resumed)[resumed] >= 1
        change(both)
        both.counts("sds.ROOTCA.update_success", 2)
        until(lambda: both.ask() == 503, "the endpoint is refused")
        before = both.stats(resumed, refused)
        assert [both.ask() for _ in range(3)] == [503] * 3
        assert both.stats(resumed, refused) == {resumed: before[resumed], refused: before[refused] + 3}
