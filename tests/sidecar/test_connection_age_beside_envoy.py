"""`max_connection_duration` for clients that come by mutual TLS: they end, no request is lost, the revoked stay out."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.http2_client import Transcript
from tests.differential.http2_frames import opening, request
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, start
from tests.running import until
from tests.sidecar.bootstraps import cluster, http_listener, to_cluster
from tests.sidecar.pool.test_duration_beside_envoy import LIFE, backend
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.xds.agent import Agent
from tests.sidecar.xds.test_agent_socket import (
    FIRST,
    REVOKED,
    ROOT,
    Running,
    bootstrap,
    roots,
    secrets,
)

DRAIN = 0.4
"""Seconds from the end of a connection's life to its close, if nothing is under way."""

KINDS = pytest.mark.parametrize("kind", [ENVOY, SIDECAR])


@contextmanager
def aging(kind: str, directory: Path) -> Iterator[Running]:
    """The proxy of `test_agent_socket`, whose clients' connections last for ``LIFE``."""
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    free = FreePorts()
    ports = {name: free.take() for name in ("admin", "in", "out")}
    with backend() as server, Agent(directory / "agent.sock", secrets()) as agent:
        document = bootstrap(agent.socket, ports, "GRPC")
        inside = document["static_resources"]["listeners"][0]
        age = {"max_connection_duration": f"{LIFE}s"}
        plain = http_listener(
            "in", 0, [to_cluster("behind")], common_http_protocol_options=age, drain_timeout=f"{DRAIN}s"
        )
        inside["filter_chains"][0]["filters"] = plain["filter_chains"][0]["filters"]
        document["static_resources"]["clusters"].append(cluster("behind", server.server_address[1]))
        proxy = start(kind, document, ports, directory / kind)
        try:
            yield Running(proxy, agent, directory)
        finally:
            proxy.stop()


def context(both: Running, one: Certificate = FIRST) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=ROOT.pem.decode())
    made.load_cert_chain(*one.write(both.directory, one.sha256[:8]))
    return made


def reached(both: Running) -> int:
    body = both.proxy.admin("/stats?format=json&filter=^http.in.downstream_cx_max_duration_reached$")[2]
    return sum(one.get("value", 0) for one in json.loads(body)["stats"] if "name" in one)


def connection(both: Running, one: Certificate = FIRST) -> http.client.HTTPSConnection:
    made = http.client.HTTPSConnection("127.0.0.1", both.proxy.ports["in"], timeout=10, context=context(both, one))
    made.auto_open = 0
    made.connect()
    return made


def ask(over: http.client.HTTPConnection, path: str = "/") -> tuple[int, str]:
    """Status, and what it says of the connection."""
    over.request("GET", path)
    response = over.getresponse()
    response.read()
    return response.status, response.getheader("connection", "")


@KINDS
def test_http1(kind: str, tmp_path: Path) -> None:
    with aging(kind, tmp_path) as both:
        idle, busy, asking = connection(both), connection(both), connection(both)
        began = time.monotonic()
        assert [ask(idle), ask(busy), ask(asking)] == [(200, "")] * 3
        busy.request("GET", "/slow")  # three lives
        told = ""
        while not told:
            status, told = ask(asking)
            assert status == 200
        assert told == "close" and time.monotonic() - began >= LIFE - 0.1
        assert asking.sock is None or asking.sock.recv(1) == b""
        assert idle.sock.recv(1) == b""
        assert time.monotonic() - began >= LIFE + DRAIN - 0.1
        response = busy.getresponse()
        assert (response.status, response.getheader("connection")) == (200, "close")
        response.read()
        assert time.monotonic() - began >= 3 * LIFE - 0.1
        assert reached(both) == 3
        again = connection(both)
        assert ask(again) == (200, "")
        again.close()


@KINDS
def test_http2(kind: str, tmp_path: Path) -> None:
    """A stream that is open when the time is over comes to its end, and the connection with it."""
    with aging(kind, tmp_path) as both, socket.create_connection(("127.0.0.1", both.proxy.ports["in"])) as plain:
        plain.settimeout(10)
        began = time.monotonic()
        with context(both).wrap_socket(plain) as client:
            seen = Transcript()

            def read(until: Callable[[], object]) -> None:
                while not until() and (data := client.recv(65536)):
                    with suppress(OSError):
                        client.sendall(seen.receive(data))
                assert until()

            client.sendall(opening() + request(1) + request(3, path="/slow"))  # three lives
            read(lambda: seen.goaways)
            assert seen.over([1]) and not seen.over([3])
            assert LIFE - 0.1 <= time.monotonic() - began < 3 * LIFE
            read(lambda: seen.over([3]))
            assert [(":status", "200") in (seen.stream(number).head or []) for number in (1, 3)] == [True, True]
            assert seen.stream(3).ended and seen.stream(3).body == b"2"
            assert time.monotonic() - began >= 3 * LIFE - 0.1
            assert {code for code, _ in seen.goaways} == {"NO_ERROR"} and seen.goaways[-1][1] >= 3
            while data := client.recv(65536):  # until it is closed
                seen.receive(data)
        assert reached(both) == 1


@KINDS
def test_a_revoked_peer_is_out_when_its_connection_is_old(kind: str, tmp_path: Path) -> None:
    """Revocation ends no connection by itself; its age does, and there is no way back."""
    with aging(kind, tmp_path) as both:
        open_, other = connection(both, REVOKED), connection(both)
        assert ask(open_) == (200, "")
        revoked = {"inline_string": ROOT.revoke(REVOKED).decode()}
        both.agent.set(ROOTCA=roots(ROOT, crl=revoked, only_verify_leaf_cert_crl=True))
        both.counts("sds.ROOTCA.update_success", 2)
        assert open_.sock.recv(1) == b"" and other.sock.recv(1) == b""
        until(lambda: both.shown(REVOKED) == "", "it is refused")
        assert both.shown() != ""
