"""A real Envoy with one of everything whose statistics we have, after some traffic, and what its /stats pages say."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.differential.envoy_binary import envoy_binary

FILTERS = "type.googleapis.com/envoy.extensions.filters."
EXTENSIONS = "type.googleapis.com/envoy.extensions."
ANYONE = {"permissions": [{"any": True}], "principals": [{"any": True}]}


def _typed(name: str, type_url: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": type_url, **config}}


def _http_filters() -> list[dict[str, Any]]:
    gzip = EXTENSIONS + "compression.gzip."
    everyone = {"action": "ALLOW", "policies": {"pol1": ANYONE}}
    return [
        _typed(
            "health_check",
            FILTERS + "http.health_check.v3.HealthCheck",
            pass_through_mode=False,
            headers=[{"name": ":path", "string_match": {"exact": "/healthy"}}],
        ),
        _typed("fault", FILTERS + "http.fault.v3.HTTPFault"),
        _typed("cors", FILTERS + "http.cors.v3.Cors"),
        _typed(
            "rbac",
            FILTERS + "http.rbac.v3.RBAC",
            rules_stat_prefix="rp.",
            rules=everyone,
            shadow_rules_stat_prefix="sp",
            shadow_rules=everyone,
        ),
        _typed("rbac2", FILTERS + "http.rbac.v3.RBAC", track_per_rule_stats=True, rules=everyone),
        _typed("limit", FILTERS + "http.local_ratelimit.v3.LocalRateLimit", stat_prefix="hlrl"),
        _typed("dotted", FILTERS + "http.local_ratelimit.v3.LocalRateLimit", stat_prefix="h.dotted"),
        _typed(
            "compressor",
            FILTERS + "http.compressor.v3.Compressor",
            compressor_library=_typed("gz", gzip + "compressor.v3.Gzip"),
            request_direction_config={"common_config": {"enabled": {"default_value": True, "runtime_key": "x"}}},
        ),
        _typed(
            "decompressor",
            FILTERS + "http.decompressor.v3.Decompressor",
            decompressor_library=_typed("gz", gzip + "decompressor.v3.Gzip"),
        ),
        _typed("router", FILTERS + "http.router.v3.Router"),
    ]


def _manager(stat_prefix: str, log: Path, **config: Any) -> dict[str, Any]:
    routes = [
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
        {"match": {"prefix": "/retry"}, "route": {"cluster": "one", "retry_policy": {"retry_on": "5xx"}}},
        {"match": {"prefix": "/named"}, "stat_prefix": "named", "route": {"cluster": "one"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "one"}},
    ]
    hosts = [{"name": "vh1", "domains": ["*"], "routes": routes}]
    return _typed(
        "http",
        FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=stat_prefix,
        route_config={"name": "routes", "virtual_hosts": hosts},
        access_log=[_typed("file", EXTENSIONS + "access_loggers.file.v3.FileAccessLog", path=str(log))],
        **config,
    )


def _listener(name: str, host: str, filters: list[dict[str, Any]], **config: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": host, "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}], **config}


def _cluster(name: str, port: int, **config: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}, **config}


def bootstrap(directory: Path, upstream: int) -> dict[str, Any]:
    """A bootstrap for Envoy whose upstream listens on port `upstream` of 127.0.0.1."""
    limit = {"max_tokens": 1000, "fill_interval": "1s"}
    network = [
        _typed("limit", FILTERS + "network.local_ratelimit.v3.LocalRateLimit", stat_prefix="nlrl", token_bucket=limit),
        _typed("rbac", FILTERS + "network.rbac.v3.RBAC", stat_prefix="nrbac", rules={"policies": {"all": ANYONE}}),
        _typed(
            "limit2", FILTERS + "network.connection_limit.v3.ConnectionLimit", stat_prefix="ncl", max_connections=1000
        ),
        _manager("ingress", directory / "log", http_filters=_http_filters(), tracing={}),
    ]
    inspectors = [
        _typed("tls", FILTERS + "listener.tls_inspector.v3.TlsInspector"),
        _typed("http", FILTERS + "listener.http_inspector.v3.HttpInspector"),
        _typed(
            "proxy",
            FILTERS + "listener.proxy_protocol.v3.ProxyProtocol",
            allow_requests_without_proxy_protocol=True,
        ),
    ]
    router = [_typed("router", FILTERS + "http.router.v3.Router")]
    loopback = {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}
    inside = _manager(
        "in.side",
        directory / "log",
        http_filters=router,
        use_remote_address=True,
        internal_address_config=loopback,
    )
    tcp = _typed("tcp", FILTERS + "network.tcp_proxy.v3.TcpProxy", stat_prefix="tcpout", cluster="two")
    discovered = directory / "listeners.json"
    discovered.write_text(json.dumps({"version_info": "1", "resources": []}))
    watched = {"path_config_source": {"path": str(discovered)}, "resource_api_version": "V3"}
    health = {
        "timeout": "1s",
        "interval": "60s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "http_health_check": {"path": "/"},
    }
    breakers = {"thresholds": [{"priority": "DEFAULT", "track_remaining": True}]}
    clusters = [
        _cluster("one", upstream, circuit_breakers=breakers, outlier_detection={}, health_checks=[health]),
        _cluster(
            "two",
            upstream,
            type="STRICT_DNS",
            track_cluster_stats={"timeout_budgets": True, "request_response_sizes": True},
        ),
        _cluster("ring.hash", upstream, lb_policy="RING_HASH"),
        _cluster("outbound|80||m", upstream, lb_policy="MAGLEV", alt_stat_name="mag:lev"),
    ]
    return {
        "node": {"id": "tests", "cluster": "tests"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "stats_flush_interval": "0.2s",
        "dynamic_resources": {"lds_config": watched},
        "static_resources": {
            "listeners": [
                _listener("main", "127.0.0.1", network, listener_filters=inspectors),
                _listener("inside", "127.0.0.1", [inside], stat_prefix="myl"),
                _listener("tcp", "127.0.0.2", [tcp]),
            ],
            "clusters": clusters,
        },
    }


class _Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(503 if self.path.startswith("/retry") else 200)
        self.send_header("content-length", "2")
        self.send_header("x-envoy-upstream-canary", "true")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@dataclass(frozen=True)
class EnvoyStats:
    """The pages of an Envoy that is running."""

    admin: tuple[str, int]

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page of its admin server."""
        return get(self.admin, path)


def get(address: tuple[str, int], path: str) -> tuple[int, str]:
    """Status and body of one GET."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


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


@contextmanager
def running_envoy(directory: Path) -> Iterator[EnvoyStats]:
    """Envoy after one request of each sort, with its histograms latched. Raises EnvoyUnavailableError."""
    binary = envoy_binary()
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    thread = threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    config, admin = directory / "envoy.json", directory / "admin"
    config.write_text(json.dumps(bootstrap(directory, upstream.server_address[1])))
    command = [binary, "-c", str(config), "--admin-address-path", str(admin), "--use-dynamic-base-id"]
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--concurrency", "1"], stdout=log, stderr=log)
    try:
        host, port = _until(lambda: admin.exists() and admin.read_text(), process).rsplit(":", 1)
        envoy = EnvoyStats((host, int(port)))
        _until(lambda: envoy.get("/ready")[0] == 200, process)
        listeners = dict(line.split("::", 1) for line in envoy.get("/listeners")[1].splitlines())
        ports = {name: int(address.rsplit(":", 1)[1]) for name, address in listeners.items()}
        for path in ("/direct", "/retry", "/named", "/x"):
            get(("127.0.0.1", ports["main"]), path)
        get(("127.0.0.1", ports["inside"]), "/x")
        with socket.create_connection(("127.0.0.2", ports["tcp"])) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while client.recv(4096):
                pass
        _until(lambda: "P100" in envoy.get("/stats?filter=cluster.two.upstream_cx_length")[1], process)
        yield envoy
    finally:
        process.terminate()
        process.wait(10)
        upstream.shutdown()
        upstream.server_close()
        thread.join()
