"""`mizzen run`: a command and its sidecar start and end together, in plaintext here and over TLS with a certificate."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from controlplane.model.kinds import KINDS
from tests.controlplane.whole import Whole, whole
from tests.running import REPOSITORY, Process, free_ports, get, until

SERVER = """
import http.server, os, sys, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/ask":
            body = urllib.request.urlopen("http://echo.shop:%s/" % sys.argv[2], timeout=5).read()
        else:
            body = ("pid %d" % os.getpid()).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with whole(tmp_path_factory.mktemp("mesh")) as running:
        yield running


class Ports:
    """The service has one port; all others are each workload's own."""

    inbound = free_ports(1)[0]

    def __init__(self) -> None:
        self.app, self.proxy, self.admin = free_ports(3)


def run(
    mesh: Whole,
    ports: Ports,
    *command: str,
    address: str = "127.0.3.1",
    options: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Process:
    return Process(
        "controlplane.cli", "run", "--data-dir", str(mesh.directory), "--namespace", "shop", "--service", "echo",
        "--address", address, "--port", str(ports.inbound), "--app", f"127.0.0.1:{ports.app}", "--proxy-port",
        str(ports.proxy), "--admin-port", str(ports.admin), "--drain-time", "2", *options, "--", *command,
        environment=environment,
    )  # fmt: skip


def inbound(ports: Ports, path: str = "/", address: str = "127.0.3.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, ports.inbound, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def children(process: Process) -> list[int]:
    text = Path(f"/proc/{process.child.pid}/task/{process.child.pid}/children").read_text()
    return [int(one) for one in text.split()]


def open_files(process: Process, name: str) -> int:
    return sum(
        os.readlink(one).partition(" ")[0].endswith(name) for one in Path(f"/proc/{process.child.pid}/fd").iterdir()
    )


def answers(ports: Ports, address: str = "127.0.3.1") -> bool:
    try:
        return inbound(ports, address=address)[0] == 200
    except OSError:
        return False


def test_a_service_is_in_the_mesh_while_it_runs(mesh: Whole) -> None:
    ports = Ports()
    with run(mesh, ports, sys.executable, "-c", SERVER, str(ports.app), str(ports.inbound)) as service:
        until(lambda: answers(ports), f"it answers through its sidecar: {service.output}", timeout=30)
        assert re.fullmatch(r"pid \d+", inbound(ports)[1])
        status, body = inbound(ports, "/ask")
        assert (status, body[:4]) == (200, "pid "), "HTTP_PROXY leads it to services by their names"
        mesh.settle(1)
        started = children(service)
        assert len(started) == 2
        service.send(signal.SIGTERM)
        assert service.end() == 128 + signal.SIGTERM
        assert all(gone(pid) for pid in started)


def test_the_status_is_the_commands(mesh: Whole) -> None:
    with run(mesh, Ports(), "sh", "-c", "exit 7") as service:
        assert service.end(40) == 7


def test_signals_are_passed_on(mesh: Whole) -> None:
    with run(
        mesh, Ports(), "sh", "-c", "trap 'echo told; exit 3' HUP; echo waiting; while :; do sleep 0.05; done"
    ) as service:
        service.wait_for("waiting", timeout=40)
        service.send(signal.SIGHUP)
        assert service.end() == 3
        assert "told" in service.output


def test_a_command_that_there_is_not(mesh: Whole) -> None:
    with run(mesh, Ports(), "/no/such/command") as service:
        assert service.end(40) == 127
    assert "/no/such/command: No such file or directory" in service.output


def test_a_sidecar_that_dies_is_started_again(mesh: Whole) -> None:
    ports = Ports()
    with run(mesh, ports, sys.executable, "-c", SERVER, str(ports.app), str(ports.inbound)) as service:
        until(lambda: answers(ports), "it answers", timeout=30)
        sidecar = next(pid for pid in children(service) if b"sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(sidecar, signal.SIGKILL)
        service.wait_for("it is started again")
        until(lambda: answers(ports), "it answers again", timeout=30)
        service.send(signal.SIGTERM)
        service.end()


def test_a_sidecar_is_started_again_though_its_directory_is_gone(mesh: Whole, tmp_path: Path) -> None:
    """What cleans /tmp takes what is ten days old."""
    ports = Ports()
    with run(
        mesh, ports, sys.executable, "-c", SERVER, str(ports.app), str(ports.inbound),
        environment={"TMPDIR": str(tmp_path)},
    ) as service:  # fmt: skip
        until(lambda: answers(ports), "it answers", timeout=30)
        (directory,) = tmp_path.iterdir()
        logs = open_files(service, "sidecar.log")
        for _ in range(2):
            sidecar = next(pid for pid in children(service) if b"sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes())
            shutil.rmtree(directory)
            os.kill(sidecar, signal.SIGKILL)
            until(lambda pid=sidecar: gone(pid) and answers(ports), "it answers again", timeout=30)
            (directory,) = tmp_path.iterdir()
            assert open_files(service, "sidecar.log") == logs == 1
        service.send(signal.SIGTERM)
        assert service.end() == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_is_started_again_when_it_can_be(mesh: Whole, tmp_path: Path) -> None:
    ports, tmp = Ports(), tmp_path / "tmp"
    tmp.mkdir()
    with run(
        mesh, ports, sys.executable, "-c", SERVER, str(ports.app), str(ports.inbound), environment={"TMPDIR": str(tmp)},
    ) as service:  # fmt: skip
        until(lambda: answers(ports), "it answers", timeout=30)
        sidecar = next(pid for pid in children(service) if b"sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes())
        shutil.rmtree(tmp)
        os.kill(sidecar, signal.SIGKILL)
        service.wait_for("the sidecar cannot be started")
        tmp.mkdir()
        until(lambda: answers(ports), "it answers again", timeout=30)
        service.send(signal.SIGTERM)
        service.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_when_it_is_ended_before_the_sidecar_is_ready(
    number: signal.Signals, mesh: Whole, tmp_path: Path
) -> None:
    with run(mesh, Ports(), "echo", "it runs", environment={"TMPDIR": str(tmp_path)}) as service:
        until(lambda: bool(children(service)), "the sidecar starts")
        service.send(number)
        assert service.end() == 128 + number, service.output
    assert "it runs" not in service.output
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_it_is_killed(mesh: Whole) -> None:
    ports = Ports()
    with run(mesh, ports, sys.executable, "-c", SERVER, str(ports.app), str(ports.inbound)) as service:
        until(lambda: answers(ports), "it answers", timeout=30)
        sidecar = next(pid for pid in children(service) if b"sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(service.child.pid, signal.SIGKILL)
        until(lambda: gone(sidecar), "the sidecar ends with it")


def test_over_tls_with_a_token_then_with_the_certificate(mesh: Whole, tmp_path: Path) -> None:
    made = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "echo"})
    token = made["token"]
    identity = tmp_path / "identity"
    for options in (("--token", token, "--identity-dir", str(identity)), ("--identity-dir", str(identity))):
        ports = Ports()
        with run(
            mesh, ports, sys.executable, "-c", SERVER, str(ports.app), str(ports.inbound), options=options
        ) as service:
            until(lambda p=ports, s=service: answers(p) or not s.running, "it answers", timeout=30)
            assert service.running, service.output
            until(lambda: any(one["name"].startswith("echo") for one in mesh.proxies()), "it is connected")
            service.send(signal.SIGTERM)
            service.end()
    assert (identity / "key.pem").stat().st_mode & 0o777 == 0o600
    with run(mesh, Ports(), "true", options=("--token", token, "--identity-dir", str(identity))) as again:
        assert again.end(40) == 1
    assert "used" in again.output


def test_a_token_is_for_one_service_account(mesh: Whole, tmp_path: Path) -> None:
    made = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "other"})
    options = ("--token", made["token"], "--identity-dir", str(tmp_path), "--ready-timeout", "4")
    with run(mesh, Ports(), "true", options=options) as service:
        assert service.end(40) == 1
    assert "other" in service.output and "echo" in service.output, service.output


def test_a_machine_that_has_only_joined(mesh: Whole, tmp_path: Path) -> None:
    """No kubeconfig there: a token for `mizzen join`, then its identity, again and again; mutual TLS with the others."""
    made = mesh.api.request("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "echo"})
    identity = tmp_path / "identity"
    server = mesh.api.access.server
    command = [sys.executable, "-m", "controlplane.cli", "join", "--server", server, "--token", made["token"]]
    joined = subprocess.run([*command, "--identity-dir", str(identity)], cwd=REPOSITORY, capture_output=True, text=True)
    assert joined.returncode == 0, joined.stderr
    environment = {"XDG_STATE_HOME": str(tmp_path / "nothing")}
    for _ in range(2):
        ports = Ports()
        with Process(
            "controlplane.cli", "run", "--namespace", "shop", "--service", "echo", "--address", "127.0.3.7", "--port",
            str(ports.inbound), "--app", f"127.0.0.1:{ports.app}", "--proxy-port", str(ports.proxy), "--admin-port",
            str(ports.admin), "--drain-time", "2", "--identity-dir", str(identity), "--", sys.executable, "-c", SERVER,
            str(ports.app), str(ports.inbound), environment=environment,
        ) as service:  # fmt: skip
            until(lambda p=ports, s=service: answers(p, "127.0.3.7") or not s.running, "it answers", timeout=30)
            assert service.running, service.output
            assert inbound(ports, "/ask", "127.0.3.7")[0] == 200  # through both sidecars, or one of them twice
            handshakes = get(ports.admin, "/stats?filter=ssl.handshake")[2]
            assert re.search(r"cluster\.outbound.*ssl.handshake: [1-9]", handshakes), handshakes
            entries = [one for one in mesh.api.list(KINDS["WorkloadEntry"]) if one["spec"]["address"] == "127.0.3.7"]
            assert [one["metadata"]["labels"]["security.istio.io/tlsMode"] for one in entries] == ["istio"]
            service.send(signal.SIGTERM)
            service.end()


def test_the_applications_port_is_not_the_sidecars(mesh: Whole) -> None:
    done = mesh.mizzen(
        "run", "--service", "echo", "--address", "127.0.0.1", "--port", "80", "--app", "127.0.0.1:80", "--", "true", status=2
    )  # fmt: skip
    assert "is where the sidecar listens" in done
