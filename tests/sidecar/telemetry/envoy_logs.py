"""What real Envoy logs: text and JSON lines of all commands for a few requests and a TCP session."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.differential.envoy_binary import envoy_binary
from tests.sidecar.telemetry.envoy_stats import get

EXTENSIONS = "type.googleapis.com/envoy.extensions."
METADATA: dict[str, Any] = {
    "text": 'q"',
    "number": 3.5,
    "integer": 7,
    "yes": True,
    "null": None,
    "list": [1, 'a"'],
    "object": {"z": 1, "a": "b"},
}
SEPARATOR = "\x01"


@dataclass(frozen=True)
class Entry:
    """One request's line in each format, and the ports at both ends of its connections."""

    text: bytes
    json: bytes
    structured: bytes
    omitting: bytes
    client_port: int
    listener_port: int
    upstream_port: int

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON line, read."""
        facts: dict[str, Any] = json.loads(self.json)
        return facts


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent when Envoy resets a connection."""


class _Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/broken"):
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        for name, value in (
            ("content-length", "5"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("x-quote", 'r"q\\'),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"hello")

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def _typed(name: str, type_url: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": EXTENSIONS + type_url, **config}}


def _log(path: Path, **log_format: Any) -> dict[str, Any]:
    return _typed("file", "access_loggers.file.v3.FileAccessLog", path=str(path), log_format=log_format)


def _bootstrap(directory: Path, upstream: int, commands: Sequence[str], structured: dict[str, Any]) -> dict[str, Any]:
    text = {"inline_string": SEPARATOR.join(f"%{command}%" for command in commands) + "\n"}
    by_command = {command: f"%{command}%" for command in commands}

    def logs(prefix: str) -> list[dict[str, Any]]:
        return [
            _log(directory / f"{prefix}.text", text_format_source=text),
            _log(directory / f"{prefix}.json", json_format=by_command),
            _log(directory / f"{prefix}.structured", json_format=structured),
            _log(directory / f"{prefix}.omitting", json_format=structured, omit_empty_values=True),
        ]

    metadata = {"filter_metadata": {"ns": METADATA}}
    set_metadata = _typed(
        "set", "filters.http.set_metadata.v3.Config", metadata=[{"metadata_namespace": "ns", "value": METADATA}]
    )
    direct = {"status": 203, "body": {"inline_string": "d"}}
    routes = [
        {"name": "direct", "match": {"prefix": "/direct"}, "direct_response": direct},
        {"name": "routed", "match": {"prefix": "/"}, "metadata": metadata, "route": {"cluster": "backend"}},
    ]
    http = _typed(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        access_log=logs("http"),
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[set_metadata, _typed("router", "filters.http.router.v3.Router")],
    )
    tcp = _typed(
        "tcp", "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="tcp", cluster="backend", access_log=logs("tcp")
    )
    endpoint = {"hostname": "backend.local", "address": _address(upstream)}
    host = {"metadata": {"filter_metadata": {"envoy.lb": {"v": "1"}}}, "endpoint": endpoint}
    cluster = {
        "name": "backend",
        "alt_stat_name": "other-name",
        "metadata": {"filter_metadata": {"cns": {"k": "v"}}},
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [host]}]},
    }
    listeners = [
        {"name": name, "address": _address(0), "filter_chains": [{"name": "chain", "filters": [filter]}]}
        for name, filter in (("http", http), ("tcp", tcp))
    ]
    return {
        "node": {"id": "tests", "cluster": "tests"},
        "admin": {"address": _address(0)},
        "static_resources": {"listeners": listeners, "clusters": [cluster]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _until(condition: Any, process: subprocess.Popen[bytes]) -> Any:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert process.poll() is None, "Envoy ended early"
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("Envoy did not get that far in 20 s")


def _exchange(port: int, request: bytes) -> int:
    """Send a request and read the whole reply; the port it was sent from."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(request)
        reply = b""
        while not _complete(reply) and (piece := client.recv(65536)):
            reply += piece
        return int(client.getsockname()[1])


def _complete(reply: bytes) -> bool:
    head, end, body = reply.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: ([0-9]+)", head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


def _listener_ports(admin: Path) -> dict[str, int]:
    host, port = admin.read_text().rsplit(":", 1)
    lines = get((host, int(port)), "/listeners")[1].splitlines()
    return {name: int(address.rsplit(":", 1)[1]) for name, address in (line.split("::") for line in lines)}


def _lines(directory: Path, prefix: str, count: int) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """The lines of each entry in the four formats, once all `count` entries are there."""
    read = [(directory / f"{prefix}.{kind}").read_bytes() for kind in ("text", "json", "structured", "omitting")]
    text, by_command, structured, omitting = (content.splitlines(keepends=True) for content in read)
    if any(len(of_file) != count for of_file in (text, by_command, structured, omitting)):
        return []
    return list(zip(text, by_command, structured, omitting, strict=True))


@contextmanager
def logged_by_envoy(
    directory: Path, commands: Sequence[str], structured: dict[str, Any], requests: Sequence[bytes]
) -> Iterator[list[Entry]]:
    """Entries for each of `requests`, and at the end one for a TCP session. Raises EnvoyUnavailableError."""
    binary = envoy_binary()
    upstream = _Server(("127.0.0.1", 0), _Upstream)
    thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    upstream_port = int(upstream.server_address[1])
    config, admin = directory / "envoy.json", directory / "admin"
    config.write_text(json.dumps(_bootstrap(directory, upstream_port, commands, structured)))
    command = [binary, "-c", str(config), "--admin-address-path", str(admin), "--use-dynamic-base-id"]
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--concurrency", "1", "--file-flush-interval-msec", "20"], stdout=log, stderr=log
        )
    try:
        _until(admin.exists, process)
        ports = _until(lambda: len(found := _listener_ports(admin)) == 2 and found, process)
        clients = []
        for number, request in enumerate(requests, 1):
            clients.append(_exchange(ports["http"], request))
            _until(lambda number=number: _lines(directory, "http", number), process)
        session = _exchange(ports["tcp"], b"GET /tcp HTTP/1.0\r\n\r\n")
        tcp: list[tuple[bytes, bytes, bytes, bytes]] = _until(lambda: _lines(directory, "tcp", 1), process)
        ends = [*((client, ports["http"]) for client in clients), (session, ports["tcp"])]
        logged = [*_lines(directory, "http", len(requests)), *tcp]
        yield [Entry(*lines, *end, upstream_port) for lines, end in zip(logged, ends, strict=True)]
    finally:
        process.terminate()
        process.wait(10)
        upstream.shutdown()
        upstream.server_close()
        thread.join()
