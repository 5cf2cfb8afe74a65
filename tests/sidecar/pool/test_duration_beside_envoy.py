"""`max_connection_duration` of a cluster: connections end when they are old, with no request lost, in real Envoy and in ours."""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start
from tests.running import get, until
from tests.sidecar.bootstraps import address, cluster, http_listener, to_cluster
from tests.sidecar.pool.asking import over_http2

LIFE = 0.6
"""Seconds."""

NGINX = shutil.which("nginx")


class Slow(socketserver.StreamRequestHandler):
    """Answers with the number of the connection; what /slow asks for takes three lives of a connection."""

    def handle(self) -> None:
        server: Any = self.server
        server.count += 1
        number = server.count
        while line := self.rfile.readline():
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            if b"/slow" in line:
                time.sleep(3 * LIFE)
            body = str(number).encode()
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        server.ended += 1


class Backend(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Slow)
        self.count = self.ended = 0


@contextmanager
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(kind: str, behind: dict[str, Any], directory: Path) -> Iterator[Proxy]:
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    free = FreePorts()
    ports = {name: free.take() for name in ("admin", "out")}
    document = {
        "admin": {"address": address(ports["admin"])},
        "static_resources": {
            "listeners": [http_listener("out", ports["out"], [to_cluster("behind")])],
            "clusters": [behind],
        },
    }
    proxy = start(kind, document, ports, directory)
    try:
        yield proxy
    finally:
        proxy.stop()


def reached(proxy: Proxy) -> int:
    body = proxy.admin("/stats?format=json&filter=cluster.behind.upstream_cx_max_duration_reached")[2]
    return sum(one.get("value", 0) for one in json.loads(body)["stats"] if "name" in one)


def aged(behind: dict[str, Any], **protocol: Any) -> dict[str, Any]:
    return over_http2(
        behind,
        common_http_protocol_options={"max_connection_duration": f"{LIFE}s"},
        explicit_http_config=protocol or {"http_protocol_options": {}},
    )


@pytest.mark.parametrize("kind", [ENVOY, SIDECAR])
def test_http1(kind: str, tmp_path: Path) -> None:
    with backend() as server, running(kind, aged(cluster("behind", server.server_address[1])), tmp_path) as proxy:
        first = get(proxy.ports["out"])[2]
        until(lambda: server.ended == 1, "the idle connection ends")
        assert (first, reached(proxy)) == ("1", 1)
        assert get(proxy.ports["out"], "/slow")[::2] == (200, "2")  # older than it may be when the answer comes
        until(lambda: server.ended == 2, "the busy connection ends behind its answer")
        assert (get(proxy.ports["out"])[2], reached(proxy)) == ("3", 2)
        deadline = time.monotonic() + 3 * LIFE  # always busy: none grows old
        statuses = set()
        while time.monotonic() < deadline:
            statuses.add(get(proxy.ports["out"])[0])
        assert statuses == {200} and 4 <= server.count <= 8, server.count


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
@pytest.mark.parametrize("kind", [ENVOY, SIDECAR])
def test_http2(kind: str, tmp_path: Path) -> None:
    assert NGINX is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ access_log off; "
        f"server {{ listen 127.0.0.1:{port} http2; keepalive_requests 1000000; location / {{ return 200 page; }} }} }}"
    )
    server = subprocess.Popen(
        [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        with running(kind, aged(cluster("behind", port), http2_protocol_options={}), tmp_path / kind) as proxy:
            until(lambda: get(proxy.ports["out"], "/page")[0] == 200, "nginx answers")
            until(lambda: reached(proxy) == 1, "the idle connection ends")
            deadline = time.monotonic() + 3 * LIFE
            statuses = set()
            while time.monotonic() < deadline:
                statuses.add(get(proxy.ports["out"], "/page")[0])
            assert statuses == {200} and 3 <= reached(proxy) <= 6, reached(proxy)
    finally:
        server.terminate()
        server.wait()
