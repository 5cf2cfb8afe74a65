"""The services behind the proxies: nginx for HTTP, `http2_backend.py` for gRPC, an iperf3 server for TCP."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from benchmarks.envoy import REPOSITORY
from benchmarks.ports import free_ports, wait_until_listening, wait_until_ok
from benchmarks.processes import LOAD_CORE, Child

CONFIGURATIONS = Path(__file__).parent / "configurations"
BODY = json.dumps({"order": 7919, "state": "shipped", "items": 3, "currency": "EUR", "total": "9.90"})
"""What every request but one is answered with: 83 bytes."""
LARGE_BODY_PATH = "/one-mebibyte"
LARGE_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Backend:
    """A running service; the same one listens on all its ports, and on `http2_port` for HTTP/2 with prior knowledge."""

    ports: tuple[int, ...] = ()
    http2_port: int = 0

    def substitutions(self) -> dict[str, str]:
        """What a configuration template needs to know of the backend."""
        numbered = {f"backend_port_{number}": str(port) for number, port in enumerate(self.ports, 1)}
        return {**numbered, "backend_port_http2": str(self.http2_port)}


@contextlib.contextmanager
def nginx_backend(directory: Path) -> Iterator[Backend]:
    """nginx with one worker on the load core, that answers BODY everywhere and 1 MiB at LARGE_BODY_PATH."""
    (directory / LARGE_BODY_PATH.lstrip("/")).write_bytes(b"m" * LARGE_BODY_BYTES)
    *ports, http2_port = free_ports(4)
    backend = Backend(tuple(ports), http2_port)
    text = Template((CONFIGURATIONS / "nginx_backend.conf").read_text())
    configuration = directory / "nginx_backend.conf"
    configuration.write_text(text.substitute(backend.substitutions(), directory=directory, body=BODY))
    command = ["nginx", "-p", str(directory), "-c", str(configuration), "-e", "stderr"]
    with Child(command, core=LOAD_CORE, output=directory / "nginx_backend.out") as child:
        wait_until_ok(child, backend.ports[0], "/")
        yield backend


@contextlib.contextmanager
def frames_backend(directory: Path, mode: str) -> Iterator[Backend]:
    """The HTTP/2 service of `http2_backend.py` in one of its modes, on the load core."""
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "benchmarks.http2_backend", "--port", str(port), "--mode", mode]
    with Child(command, core=LOAD_CORE, output=directory / "http2_backend.out", cwd=REPOSITORY) as child:
        wait_until_listening(child, port)
        yield Backend(http2_port=port)


@contextlib.contextmanager
def iperf3_backend(directory: Path) -> Iterator[Backend]:
    """An iperf3 server on the load core."""
    port = free_ports(1)[0]
    command = ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)]
    with Child(command, core=LOAD_CORE, output=directory / "iperf3.out") as child:
        wait_until_listening(child, port)
        yield Backend((port,))
