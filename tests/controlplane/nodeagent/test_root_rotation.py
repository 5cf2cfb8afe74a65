"""The root is replaced, and leaves every few seconds, under load: no request fails.

A control plane, a node agent, callers and services with our sidecar and real Envoy, automatic mTLS under STRICT; every pair of
them, over HTTP/1.1 and HTTP/2; connections between the proxies end after a few requests, so that there are always new handshakes.
"""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.controlplane.nodeagent.node import Node, node
from tests.controlplane.nodeagent.proxies import _bootstrap, _listener
from tests.controlplane.nodeagent.test_proxies import need
from tests.differential.proxies import start
from tests.running import free_ports, until

pytestmark = pytest.mark.skipif(shutil.which("h2load") is None, reason="there is no h2load")

POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: shop}
spec:
  host: "*.shop.svc.cluster.local"
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 25}}}
"""
# What would tell of a handshake that failed and was made good by a retry.
FAILURES = re.compile(
    r"(ssl\.(fail_verify_\w+|connection_error)|upstream_rq_retry|upstream_cx_connect_fail|upstream_rq_5xx|"
    r"downstream_cx_ssl_error): (\d+)$"
)


class Mesh:
    """``callers`` are the ports of forward proxies, ``services`` names with ports, by the kind of proxy; services that end in
    "2" are called over HTTP/2.
    """

    def __init__(self, one: Node) -> None:
        self.node = one
        self.admins: dict[str, int] = {}
        self.callers: dict[str, int] = {}
        self.services: dict[str, int] = {}

    def troubles(self) -> dict[str, int]:
        """By proxy and statistic."""
        found = {}
        for name, port in self.admins.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as response:
                for line in response.read().decode().splitlines():
                    if (match := FAILURES.search(line)) and int(match[3]) and "xds-grpc" not in line:
                        found[f"{name} {line.split(': ')[0]}"] = int(match[3])
        return found

    def handshakes(self) -> int:
        """Of all proxies, as servers and as clients."""
        total = 0
        for port in self.admins.values():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats?filter=ssl.handshake", timeout=10) as response:
                total += sum(int(line.rpartition(" ")[2]) for line in response.read().decode().splitlines())
        return total


@contextmanager
def meshed(directory: Path, lifetime: float) -> Iterator[Mesh]:
    need("envoy")
    with node(directory) as one, ExitStack() as ending:
        mesh = Mesh(one)
        names = {
            "page": "sidecar",
            "edge": "envoy",
            "reviews": "sidecar",
            "ratings2": "sidecar",
            "details": "envoy",
            "prices2": "envoy",
        }
        for name in names:
            one.join(name, lifetime=lifetime)
        mesh_agent = ending.enter_context(one.agent())
        admin, app = free_ports(2)
        action = {"direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
        running = start(
            "sidecar",
            _bootstrap("app", admin, _listener(app, action), []),
            {"in": app, "admin": admin},
            directory / "app",
        )
        ending.callback(running.stop)
        for number, (name, kind) in enumerate(names.items(), 10):
            proxy_port, admin, inbound = free_ports(3)
            text = one.mesh.mizzen(
                "bootstrap", "--namespace", "shop", "--service", name, "--address", f"127.0.2.{number}",
                "--port", str(inbound), "--app", f"127.0.0.1:{app}", "--proxy-port", str(proxy_port),
                "--admin-port", str(admin), "--protocol", "http2" if name.endswith("2") else "http",
                "--agent-socket", str(one.socket(name)),
            )  # fmt: skip
            ports = {"admin": admin, "proxy": proxy_port, "inbound": inbound}
            running = start(kind, yaml.safe_load(text), ports, directory / name)
            ending.callback(running.stop)
            mesh.admins[name] = admin
            if name in ("page", "edge"):
                mesh.callers[name] = proxy_port
            else:
                mesh.services[name] = inbound
        one.mesh.apply(POLICIES)
        one.mesh.settle(len(names))
        for caller in mesh.callers.values():
            for name, port in mesh.services.items():
                until(lambda: get(caller, name, port) == 200, f"{name} answers")  # noqa: B023
        yield mesh
        assert mesh_agent.metric("mizzen_agent_sds_nacks_total", workload="shop/page") == 0


def get(proxy: int, name: str, port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", proxy, timeout=10)
    try:
        connection.request("GET", "/", headers={"host": f"{name}.shop.svc.cluster.local:{port}"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


class Load:
    """HTTP/1.1 from threads to every service, a connection for each request; HTTP/2 by h2load."""

    def __init__(self, mesh: Mesh, seconds: float, pause: float) -> None:
        self.found: Counter[Any] = Counter()
        self._mesh = mesh
        self._pause = pause
        self._end = time.monotonic() + seconds
        self._threads = [
            threading.Thread(target=self._call, args=(caller, name, port))
            for caller in mesh.callers.values()
            for name, port in mesh.services.items()
        ]
        self._h2 = [
            subprocess.Popen(
                [
                    "h2load",
                    f"--duration={seconds:.0f}",
                    "--clients=2",
                    "--max-concurrent-streams=2",
                    "--rps=25",
                    f"--connect-to=127.0.0.1:{caller}",
                    f"http://{name}.shop.svc.cluster.local:{port}/",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for caller in mesh.callers.values()
            for name, port in mesh.services.items()
        ]
        for thread in self._threads:
            thread.start()

    def _call(self, caller: int, name: str, port: int) -> None:
        while time.monotonic() < self._end:
            try:
                self.found[get(caller, name, port)] += 1
            except Exception as error:
                self.found[repr(error)] += 1
            time.sleep(self._pause)

    def finish(self) -> tuple[dict[Any, int], Counter[str]]:
        """What became of the requests: over HTTP/1.1 by status, over HTTP/2 as h2load counts."""
        for thread in self._threads:
            thread.join(60)
        counted: Counter[str] = Counter()
        for process in self._h2:
            text = process.communicate(timeout=60)[0]
            requests = re.search(r"requests: .*? (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
            statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
            assert requests is not None and statuses is not None, text
            for name, value in zip(("done", "succeeded", "failed", "errored"), requests.groups(), strict=True):
                counted[name] += int(value)
            for name, value in zip(("2xx", "3xx", "4xx", "5xx"), statuses.groups(), strict=True):
                counted[name] += int(value)
        return dict(self.found), counted


def rotated(directory: Path, *, seconds: float, lifetime: float, pause: float) -> None:
    with meshed(directory, lifetime) as mesh:
        api = mesh.node.mesh.api
        handshakes, renewed = mesh.handshakes(), len(api.request("GET", "/mizzen/v1/certificates"))
        before = mesh.troubles()
        load = Load(mesh, seconds, pause)
        try:
            time.sleep(min(2.0, seconds / 10))
            old = api.request("GET", "/mizzen/v1/authority")
            assert old["rotation"] is None
            begun = time.monotonic()
            api.request("POST", "/mizzen/v1/authority/rotation", {})
            gates = {}

            def done() -> bool:
                rotation = api.request("GET", "/mizzen/v1/authority")["rotation"]
                gates.setdefault(rotation["gate"] if rotation else 4, time.monotonic() - begun)
                return rotation is None

            until(done, f"the old root has left: {gates}", timeout=seconds)
        finally:
            http1, http2 = load.finish()
        troubles = {name: count - before.get(name, 0) for name, count in mesh.troubles().items()}
        handshakes = mesh.handshakes() - handshakes
        (root,) = api.request("GET", "/mizzen/v1/certificates/authority")
        issued = (mesh.node.mesh.directory / "audit.jsonl").read_text().count('"event":"issued"')
        print(
            f"\ngates after {gates}; HTTP/1.1 {http1}; HTTP/2 {dict(http2)}; {handshakes} handshakes; {issued} leaves"
        )
        assert "CN=root" in root["subject"]
        assert set(http1) == {200} and http1[200] > 20 * seconds, http1
        assert http2["failed"] == http2["errored"] == http2["5xx"] == http2["4xx"] == 0, http2
        assert http2["2xx"] == http2["succeeded"] > 20 * seconds, http2
        assert not any(troubles.values()), troubles
        assert handshakes > seconds and renewed
        for name, admin in mesh.admins.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/certs", timeout=10) as response:
                assert root["serial"] in response.read().decode().lower(), f"{name} has the new root"


def test_no_request_fails(tmp_path: Path) -> None:
    rotated(tmp_path, seconds=18, lifetime=6, pause=0.02)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_no_request_fails_for_two_minutes(tmp_path: Path) -> None:
    rotated(tmp_path, seconds=120, lifetime=10, pause=0.02)
