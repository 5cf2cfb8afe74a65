"""What an idle sidecar takes: measured from outside, on a configuration of one route, with and without requests."""

from __future__ import annotations

import asyncio
from pathlib import Path
from string import Template

import pytest

from tests.running import REPOSITORY, Process, free_ports

MEGABYTE = 1 << 20
BOUND = 45 * MEGABYTE
CONNECTIONS, REQUESTS = 16, 150
REPLY = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
SHOW_IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}
UNWANTED = {
    "brotli", "difflib", "google.protobuf.json_format", "html", "orjson", "pathlib", "re2", "shutil", "urllib.parse",
    "sidecar.config.tls", "sidecar.config.tls_secrets", "sidecar.tls_stack", "uuid", "zstandard",
}  # fmt: skip

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to read memory from")


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that says hello to every request of a connection."""
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(REPLY)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def ask(port: int) -> int:
    """Many requests on one connection; how many of them were answered by the upstream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = 0
    for number in range(REQUESTS):
        writer.write(b"GET /%d HTTP/1.1\r\nhost: service\r\nuser-agent: test/%d\r\n\r\n" % (number, number))
        head = await reader.readuntil(b"\r\n\r\n")
        answered += head.startswith(b"HTTP/1.1 200 ") and await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()
    return answered


async def load(port: int, backend_port: int) -> int:
    """Send requests through the sidecar to an upstream; how many of them were answered."""
    server = await asyncio.start_server(answer, "127.0.0.1", backend_port)
    try:
        return sum(await asyncio.gather(*(ask(port) for _ in range(CONNECTIONS))))
    finally:
        server.close()  # and wait for nobody: the sidecar keeps its connections


@pytest.fixture
def ports() -> list[int]:
    return free_ports(3)


@pytest.fixture
def config(ports: list[int], tmp_path: Path) -> str:
    """The path of a configuration with one listener, one route and one cluster, on the ports given."""
    template = (REPOSITORY / "benchmarks" / "configurations" / "route_only.yaml").read_text()
    path = tmp_path / "envoy.yaml"
    names = ("admin_port", "port", "backend_port_1")
    path.write_text(Template(template).substitute(dict(zip(names, ports, strict=True))))
    return str(path)


@needs_proc
def test_an_idle_sidecar_takes_45_megabytes_at_most_also_after_requests(config: str, ports: list[int]) -> None:
    with Process("sidecar", "--config", config) as process:
        process.wait_for("all clusters initialised")
        at_start = resident(process.child.pid)
        answered = asyncio.run(load(ports[1], ports[2]))
        after = resident(process.child.pid)
    assert answered == CONNECTIONS * REQUESTS
    assert 10 * MEGABYTE < at_start <= BOUND
    assert after <= BOUND


def test_what_only_few_configurations_need_is_not_loaded_for_the_others(config: str) -> None:
    """Library by library, so that it is easier to see why the test above fails."""
    with Process("sidecar", "--mode", "validate", "--config", config, environment=SHOW_IMPORTS) as process:
        assert process.end() == 0
    loaded = {line.rpartition("|")[2].strip() for line in process.output.splitlines() if line.startswith("import time")}
    assert {"sidecar.stack", "sidecar.admin.admin"} <= loaded
    assert not loaded & UNWANTED
    assert not {name for name in loaded if name.startswith(("sidecar.transport.", "cryptography"))}
