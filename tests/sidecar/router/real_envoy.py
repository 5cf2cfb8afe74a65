"""Real Envoy with route configurations, each on a listener of its own, before an upstream that shows what it got."""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.differential.envoy_binary import envoy_binary

_TYPES = "type.googleapis.com/envoy.extensions.filters."


class _Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body leave together: no waiting for delayed acknowledgements

    def do_GET(self) -> None:
        target = self.requestline.split(" ")[1]  # self.path has its leading slashes merged
        pairs = [("path", target), *((name.lower(), value) for name, value in self.headers.items())]
        body = json.dumps(pairs).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-m-up", "one")
        self.send_header("x-m-up", "two")
        self.send_header("x-m-other", "three")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@dataclass
class Answer:
    """What came back; ``seen`` is what the upstream received, if the request got there."""

    status: int
    headers: list[tuple[str, str]]
    body: str
    seen: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The first value of a response header."""
        return next((value for key, value in self.headers if key == name), None)


class RealEnvoy:
    """A running Envoy. ``ask`` sends one request to the listener of the route configuration that is named."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def ask(
        self,
        configuration: str,
        path: str = "/",
        host: str = "example.com",
        headers: Sequence[tuple[str, str]] = (),
        method: str = "GET",
    ) -> Answer:
        """Send a request with exactly these headers and a host."""
        connection = self._connections.get(configuration)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._ports[configuration], timeout=10)
            self._connections[configuration] = connection
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("host", host)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        body = response.read().decode()
        seen = [(name, value) for name, value in json.loads(body)] if body.startswith("[[") else []
        return Answer(response.status, [(k.lower(), v) for k, v in response.getheaders()], body, seen)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()


def _listener(name: str, routes: Mapping[str, Any], router: Mapping[str, Any]) -> dict[str, Any]:
    manager = {
        "@type": _TYPES + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": routes,
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [
            {"name": "router", "typed_config": {"@type": _TYPES + "http.router.v3.Router", **router}},
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def _cluster(name: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "name": name,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _get_json(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _wait_for_ports(process: subprocess.Popen[bytes], admin_file: Path, log: Path, count: int) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"Envoy did not start: {log.read_text()[-2000:]}")
        if admin_file.exists() and (text := admin_file.read_text()):
            found = _get_json(int(text.rpartition(":")[2]), "/listeners?format=json")["listener_statuses"]
            if len(found) == count:
                return {status["name"]: status["local_address"]["socket_address"]["port_value"] for status in found}
        time.sleep(0.02)
    raise AssertionError(f"Envoy is not ready: {log.read_text()[-2000:]}")


@contextmanager
def running(
    directory: Path, configurations: Mapping[str, Mapping[str, Any]], router: Mapping[str, Any] | None = None
) -> Iterator[RealEnvoy]:
    """Envoy with these route configurations; their clusters may be ``a`` and ``b``. Raises EnvoyUnavailableError."""
    binary = envoy_binary()
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    upstream.daemon_threads = True
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    bootstrap = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [_listener(name, routes, router or {}) for name, routes in configurations.items()],
            "clusters": [_cluster(name, upstream.server_address[1]) for name in ("a", "b")],
        },
    }
    config, admin_file, log = directory / "envoy.json", directory / "admin", directory / "log"
    config.write_text(json.dumps(bootstrap))
    arguments = [
        "-c",
        str(config),
        "--concurrency",
        "1",
        "--admin-address-path",
        str(admin_file),
        "--log-level",
        "error",
    ]
    arguments += ["--base-id", str(random.randrange(1, 1 << 28)), "--log-path", str(log)]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        envoy = RealEnvoy(_wait_for_ports(process, admin_file, log, len(configurations)))
        try:
            yield envoy
        finally:
            envoy.close()
    finally:
        process.terminate()
        process.wait(timeout=10)
        upstream.shutdown()
        upstream.server_close()
