"""The Locust file, run as its docstring says, against a sidecar: it finds its proxy, and its figures can be read."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.backends import BODY
from tests.hostile.surroundings import bootstrap
from tests.running import REPOSITORY, Process, free_ports

needs_locust = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None, reason="locust is not installed (pip install 'mizzen[locust]')"
)


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers every GET with what the benchmark's backend answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY.encode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[str]:
    """The address of a sidecar in front of a backend."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) as backend:
        serving = threading.Thread(target=backend.serve_forever)
        serving.start()
        try:
            (port,) = free_ports(1)
            listener = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
            file = tmp_path / "bootstrap.json"
            file.write_text(json.dumps(bootstrap({"up": backend.server_address[1]}, listener=listener)))
            with Process("sidecar", "-c", str(file)) as process:
                process.wait_for("listening on")
                yield f"http://127.0.0.1:{port}"
        finally:
            backend.shutdown()
            serving.join()


def locust(address: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--headless", "--users", "4", "--spawn-rate", "4",
        "--run-time", "2s", "--json", "ThroughOurs",
    ]  # fmt: skip
    environment = {**os.environ, "MIZZEN_OURS": address}
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@needs_locust
def test_its_figures_can_be_read(sidecar: str) -> None:
    done = locust(sidecar)
    assert done.returncode == 0, done.stderr
    (ours,) = json.loads(done.stdout)
    assert (ours["name"], ours["method"]) == ("ours", "GET")
    assert ours["num_requests"] > 50
    assert ours["num_failures"] == 0
    times = {float(milliseconds): count for milliseconds, count in ours["response_times"].items()}
    assert sum(times.values()) == ours["num_requests"]
    assert (
        0
        <= ours["min_response_time"]
        <= ours["total_response_time"] / ours["num_requests"]
        <= ours["max_response_time"]
    )


@needs_locust
def test_a_proxy_that_is_not_there_is_a_failure() -> None:
    (port,) = free_ports(1)
    done = locust(f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    (ours,) = json.loads(done.stdout)
    assert ours["name"] == "ours"
    assert ours["num_failures"] == ours["num_requests"] > 0
