"""Somebody sets the wall clock of a proxy that runs: whose time is over stays out, and who is good comes in again afterwards."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

import pytest

from tests.differential.proxies import ENVOY, SIDECAR
from tests.sidecar.wall_clock import WallClock, needs_compiler
from tests.sidecar.xds.agent import Agent
from tests.sidecar.xds.test_agent_socket import FIRST, ROOT, Running, running, secrets
from tests.sidecar.xds.test_old_sessions import Visitor, refusals

pytestmark = needs_compiler
DAYS = 86400
VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
KINDS = pytest.mark.parametrize("kind", [ENVOY, SIDECAR])


def open_connection(both: Running) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=ROOT.pem.decode())
    context.load_cert_chain(*FIRST.write(both.directory, "open"))
    made = http.client.HTTPSConnection("127.0.0.1", both.proxy.ports["in"], timeout=10, context=context)
    made.auto_open = 0
    made.connect()
    return made


@KINDS
@VERSIONS
def test_it_is_set_while_the_proxy_runs(
    kind: str, version: ssl.TLSVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WallClock(tmp_path, monkeypatch)
    with Agent(tmp_path / "agent.sock", secrets()) as agent, running(kind, tmp_path, agent, "GRPC") as both:
        visitor = Visitor(both.proxy.ports["in"], tmp_path, version)
        assert [visitor.visit(), visitor.visit()] == [(True, False), (True, True)]
        stays = open_connection(both)
        stays.request("GET", "/")
        assert stays.getresponse().read() == b"inside"
        for ahead in (2 * DAYS, -2 * DAYS):
            clock.set(ahead)
            before = refusals(both)
            newcomer = Visitor(both.proxy.ports["in"], tmp_path, version)
            assert newcomer.visit() == (False, False)
            assert refusals(both) == before + 1
            if kind == SIDECAR:  # Envoy does not look at the dates again when a session is resumed
                assert not visitor.visit(keep=False)[0]
                assert refusals(both) == before + 2
            assert both.ask() == 503, "nor is the endpoint believed"
            stays.request("GET", "/")
            assert stays.getresponse().read() == b"inside"
            clock.set(0)
            newcomer.session = None
            assert [newcomer.visit(), newcomer.visit()] == [(True, False), (True, True)]
            assert both.ask() == 200
        stays.close()


@KINDS
@VERSIONS
def test_it_was_ahead_when_the_proxy_started(
    kind: str, version: ssl.TLSVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WallClock(tmp_path, monkeypatch, 2 * DAYS)
    with Agent(tmp_path / "agent.sock", secrets()) as agent, running(kind, tmp_path, agent, "GRPC") as both:
        visitor = Visitor(both.proxy.ports["in"], tmp_path, version)
        assert visitor.visit() == (False, False)
        clock.set(0)
        visitor.session = None
        assert [visitor.visit(), visitor.visit()] == [(True, False), (True, True)]
        assert [both.ask() for _ in range(3)] == [200] * 3
