"""Under a seed the same requests meet the same decisions: faults, splits, mirrors, hosts, logged shares, request ids."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.running import Process, free_ports, until
from tests.sidecar.bootstraps import address, bootstrap, cluster, http_listener

REQUESTS = 120
HOSTS = 6
_TYPE = "type.googleapis.com/envoy.extensions."


class _Host(BaseHTTPRequestHandler):
    """Says which host it is; the last one only takes down what is mirrored."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together

    def do_GET(self) -> None:
        hosts: Hosts = self.server.hosts  # type: ignore[attr-defined]
        number = hosts.ports.index(self.server.server_address[1])
        if number == HOSTS:
            hosts.mirrored.append(self.path)
        body = str(number).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-id", self.headers["x-request-id"])
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is written."""


@dataclass
class Hosts:
    ports: list[int] = field(default_factory=list)
    mirrored: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    with ExitStack() as stack:
        for _ in range(HOSTS + 1):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), _Host))
            server.hosts = made  # type: ignore[attr-defined]
            server.daemon_threads = True
            made.ports.append(server.server_address[1])
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
        yield made


def configuration(hosts: Hosts, port: int, admin: int, log: Path) -> Any:
    def several(name: str, ports: list[int], policy: str) -> dict[str, Any]:
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in ports]}]
        assignment = {"cluster_name": name, "endpoints": endpoints}
        return {**cluster(name, 0), "lb_policy": policy, "load_assignment": assignment}

    def share(percent: int) -> dict[str, Any]:
        return {"numerator": percent}

    fault = {
        "name": "envoy.filters.http.fault",
        "typed_config": {
            "@type": _TYPE + "filters.http.fault.v3.HTTPFault",
            "delay": {"fixed_delay": "0.001s", "percentage": share(20)},
            "abort": {"http_status": 503, "percentage": share(25)},
        },
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": _TYPE + "filters.http.router.v3.Router"},
    }
    weighted = {"clusters": [{"name": "a", "weight": 3}, {"name": "b", "weight": 2}]}
    mirror = {"cluster": "mirror", "runtime_fraction": {"default_value": share(30)}}
    logged = {
        "name": "log",
        "filter": {"runtime_filter": {"runtime_key": "k", "percent_sampled": share(40),
                                      "use_independent_randomness": True}},
        "typed_config": {
            "@type": _TYPE + "access_loggers.file.v3.FileAccessLog",
            "path": str(log),
            "log_format": {"text_format_source": {"inline_string": "%REQ(:PATH)% %RESPONSE_FLAGS%\n"}},
        },
    }  # fmt: skip
    routes = [
        {
            "match": {"prefix": "/", "runtime_fraction": {"default_value": share(90)}},
            "route": {"weighted_clusters": weighted, "request_mirror_policies": [mirror]},
        },
        {"match": {"prefix": "/"}, "direct_response": {"status": 404}},
    ]
    return bootstrap(
        http_listener("one", port, routes, http_filters=[fault, router], access_log=[logged]),
        clusters=(
            several("a", hosts.ports[:3], "LEAST_REQUEST"),
            several("b", hosts.ports[3:HOSTS], "RANDOM"),
            cluster("mirror", hosts.ports[HOSTS]),
        ),
        admin=admin,
    )


def mirror_requests(admin: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    try:
        connection.request("GET", "/stats?filter=cluster.mirror.upstream_rq_total&usedonly")
        return int(connection.getresponse().read().decode().rpartition(" ")[2] or 0)
    finally:
        connection.close()


def decisions(
    hosts: Hosts, directory: Path, hash_seed: str, *arguments: str
) -> tuple[list[Any], list[str], list[str], str]:
    """What the client got for each request, the paths that were mirrored, the lines that were logged; and the log."""
    directory.mkdir()
    port, admin = free_ports(2)
    log = directory / "access.log"
    config = directory / "envoy.json"
    config.write_text(json.dumps(configuration(hosts, port, admin, log)))
    hosts.mirrored.clear()
    environment = {"PYTHONHASHSEED": hash_seed}
    with Process("sidecar", "--config", str(config), *arguments, environment=environment) as process:
        process.wait_for("all clusters initialised")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        got = []
        for number in range(REQUESTS):
            connection.request("GET", f"/{number}")
            response = connection.getresponse()
            got.append((response.status, response.getheader("x-id"), response.read()))
        connection.close()
        until(lambda: len(hosts.mirrored) == mirror_requests(admin), "every mirrored request has arrived")
        process.child.terminate()
        assert process.end() == 0
    return got, sorted(hosts.mirrored), log.read_text().splitlines(), process.output


def test_the_same_seed_the_same_decisions_and_another_one_others(hosts: Hosts, tmp_path: Path) -> None:
    first = decisions(hosts, tmp_path / "first", "1", "--seed", "7")
    again = decisions(hosts, tmp_path / "again", "2", "--seed", "7")
    other = decisions(hosts, tmp_path / "other", "1", "--seed", "8")
    assert first[:3] == again[:3]
    for ours, others in zip(first[:3], other[:3], strict=True):
        assert ours != others
    statuses = {status for status, _, _ in first[0]}
    assert statuses == {200, 404, 503}, "every kind of decision was made"
    assert {body for status, _, body in first[0] if status == 200} == {str(number).encode() for number in range(HOSTS)}
    assert 0 < len(first[1]) < REQUESTS and 0 < len(first[2]) < REQUESTS
    assert any("DI" in line for line in first[2])


def test_the_seed_is_in_the_log_where_one_is_given(hosts: Hosts, tmp_path: Path) -> None:
    with_seed = decisions(hosts, tmp_path / "with", "1", "--seed", "-12")
    without = decisions(hosts, tmp_path / "without", "1")
    assert "seed -12" in with_seed[3]
    assert "seed" not in without[3]
    assert with_seed[0] != without[0]
