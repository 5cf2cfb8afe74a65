"""The command line and the life of the process: real processes, real signals, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import __version__
from tests.running import REPOSITORY, Process, free_ports, get, is_free, until
from tests.sidecar.bootstraps import address, bootstrap, cluster, direct, http_listener, to_cluster

STARTED = "all clusters initialised"


def run(*arguments: str) -> Process:
    """Run the command line to its end."""
    with Process("sidecar", *arguments) as process:
        process.end()
    return process


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    def to_file(config: Any) -> str:
        path = tmp_path / "envoy.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return str(path)

    return to_file


class Slow:
    """An upstream that answers one request when it is told to."""

    def __init__(self) -> None:
        self.answer = threading.Event()
        self.asked = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while b"\r\n\r\n" not in connection.recv(65536):
                pass
            self.asked.set()
            self.answer.wait(30)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")

    def close(self) -> None:
        self.answer.set()
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def slow() -> Iterator[Slow]:
    upstream = Slow()
    yield upstream
    upstream.close()


class Asking(threading.Thread):
    """One request, under way in a thread."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.result: tuple[int, dict[str, str], str] | Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = get(self.port)
        except Exception as error:
            self.result = error


# what is refused, and what is accepted


def test_the_version() -> None:
    process = run("--version")
    assert (process.end(), process.output) == (0, f"mizzen sidecar {__version__}\n")


def test_help_names_the_documented_options() -> None:
    process = run("--help")
    assert process.end() == 0
    for option in ("--config-path", "--config-yaml", "--mode", "--log-level", "--log-format", "--drain-time-s",
                   "--service-node", "--service-cluster", "--version"):  # fmt: skip
        assert option in process.output


def test_without_a_configuration() -> None:
    process = run()
    assert process.end() == 1
    assert process.output.startswith("no configuration: pass --config FILE")


def test_an_option_that_does_not_exist() -> None:
    process = run("--confiig", "x")
    assert process.end() == 2
    assert "unrecognized arguments: --confiig" in process.output


@pytest.mark.parametrize("option", ["-c", "--config", "--config-path"])
def test_a_file_that_is_good(write: Callable[[Any], str], option: str) -> None:
    path = write(bootstrap(http_listener("one", 0, [direct("hello")])))
    process = run("--mode", "validate", option, path)
    assert (process.end(), process.output) == (0, f"configuration '{path}' OK\n")


def test_validating_binds_nothing(write: Callable[[Any], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("--mode", "validate", "-c", write(bootstrap(http_listener("one", port, [direct("")])))).end() == 0


@pytest.mark.parametrize("mode", ["serve", "validate"])
def test_all_problems_are_listed_with_file_and_line(write: Callable[[Any], str], mode: str) -> None:
    (port,) = free_ports(1)
    config = bootstrap(http_listener("one", port, [to_cluster("nowhere")]))
    text = yaml.safe_dump(config, sort_keys=False)
    text = text.replace("stat_prefix: one", "stat_prefix: one\n          no_such_field: 1")
    text += "flags_path: /not/yet\n"
    path = write(text)
    process = run("--mode", mode, "--config", path)
    assert process.end() == 1
    lines = process.output.splitlines()
    numbered = {f"{path}:{number}": line for number, line in enumerate(text.splitlines(), 1)}
    assert len(lines) == 3, process.output
    for line, what in zip(lines, ("no_such_field", "nowhere", "flags_path"), strict=True):
        place, _, told = line.partition(": ")
        place = place.split(" ")[0]
        assert what in line
        assert what in numbered[place.rstrip(":")], (line, numbered)
        assert told
    assert is_free(port)


def test_a_format_that_cannot_be_compiled_is_refused(write: Callable[[Any], str], tmp_path: Path) -> None:
    config = bootstrap(http_listener("one", 0, [direct("")], log=str(tmp_path / "access.log")))
    path = write(yaml.safe_dump(config).replace("%REQ(:PATH)%", "%NO_SUCH%"))
    for mode in ("serve", "validate"):
        process = run("--mode", mode, "--config", path)
        assert process.end() == 1
        assert process.output.startswith(f"{path}:")
        assert "NO_SUCH" in process.output
        assert "Traceback" not in process.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("static_resources: [", "envoy.yaml:1: "),
        ("- a\n- b\n", "envoy.yaml"),
        ("no_such: 1\n", "envoy.yaml:1: no_such: "),
    ],
)
def test_a_file_that_is_no_bootstrap(write: Callable[[Any], str], text: str, said: str) -> None:
    process = run("--config", write(text))
    assert process.end() == 1
    assert said in process.output
    assert "Traceback" not in process.output


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    process = run("--config", str(tmp_path / "none.yaml"))
    assert process.end() == 1
    assert process.output == f"{tmp_path}/none.yaml: there is no such file; check the path given with --config\n"


def test_envoys_options_that_make_no_difference(write: Callable[[Any], str]) -> None:
    inert = ["--service-zone", "a", "--cpuset-threads", "--concurrency", "1", "--restart-epoch", "0",
             "--disable-hot-restart", "--component-log-level", "http:debug", "--parent-shutdown-time-s", "9",
             "--drain-strategy", "immediate", "--file-flush-interval-msec", "100"]  # fmt: skip
    with Process("sidecar", "-c", write(bootstrap()), "-l", "debug", *inert) as process:
        process.wait_for(STARTED)
        assert (
            "accepted, and without effect here: --file-flush-interval-msec, --component-log-level, --cpuset"
            in process.output
        )
        process.send(signal.SIGTERM)
        assert process.end() == 0


def test_a_log_that_cannot_be_opened(write: Callable[[Any], str], tmp_path: Path) -> None:
    process = run("--config", write(bootstrap()), "--log-path", str(tmp_path / "no" / "log"))
    assert process.end() == 1
    assert process.output.startswith("--log-path: ")
    assert "Traceback" not in process.output


def test_yaml_on_the_command_line_is_merged_over_the_file(write: Callable[[Any], str]) -> None:
    one, two = free_ports(2)
    path = write(bootstrap(http_listener("one", one, [direct("from the file")])))
    more = yaml.safe_dump(bootstrap(http_listener("two", two, [direct("from the command line")])))
    with Process("sidecar", "-c", path, "--config-yaml", more) as process:
        process.wait_for(STARTED)
        assert (get(one)[2], get(two)[2]) == ("from the file", "from the command line")


def test_json(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bootstrap(http_listener("one", port, [direct("json")]))))
    with Process("sidecar", "-c", str(path)) as process:
        process.wait_for(STARTED)
        assert get(port)[2] == "json"


def test_the_node_of_the_command_line(write: Callable[[Any], str]) -> None:
    (port,) = free_ports(1)
    config = bootstrap(http_listener("one", port, [direct("")]), admin=0)
    config["node"] = {"id": "of the file", "cluster": "of the file"}
    (admin,) = free_ports(1)
    config["admin"]["address"] = address(admin)
    arguments = ["-c", write(config), "--service-node", "node-1", "--service-cluster", "fleet"]
    with Process("sidecar", *arguments) as process:
        process.wait_for(STARTED)
        info = json.loads(get(admin, "/server_info")[2])
    assert (info["node"]["id"], info["node"]["cluster"]) == ("node-1", "fleet")
    assert info["command_line_options"]["service_node"] == "node-1"


def test_the_log_as_json(write: Callable[[Any], str]) -> None:
    with Process("sidecar", "-c", write(bootstrap()), "--log-format", "json") as process:
        process.wait_for(STARTED)
        process.send(signal.SIGTERM)
        assert process.end() == 0
    entries = [json.loads(line) for line in process.output.splitlines()]
    assert entries[0]["level"] == "info"
    assert entries[0]["logger"] == "sidecar.server"
    assert entries[0]["message"].startswith(STARTED)
    assert [entry["message"] for entry in entries][-1] == "stopped"
    assert {tuple(sorted(entry)) for entry in entries} == {("level", "logger", "message", "time")}


def test_the_log_level(write: Callable[[Any], str]) -> None:
    (port,) = free_ports(1)
    with Process("sidecar", "-c", write(bootstrap(http_listener("one", port, [direct("")]))), "-l", "error") as process:
        until(lambda: not is_free(port), "listening")
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert process.output == ""


# ports


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_port_in_use_stops_the_start_and_nothing_else_is_bound(
    write: Callable[[Any], str], order: tuple[int, int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = (taken.getsockname()[1], free_ports(1)[0])
        listeners = [http_listener(f"number-{index}", ports[index], [direct("")]) for index in order]
        process = run("--config", write(bootstrap(*listeners)))
    assert process.end() == 1
    assert f"listener 'number-0' cannot listen on 127.0.0.1:{ports[0]}: Address already in use" in process.output
    assert "Traceback" not in process.output
    assert STARTED not in process.output
    assert is_free(ports[1])


def test_the_port_of_the_administration_interface_in_use(write: Callable[[Any], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = run("--config", write(bootstrap(admin=port)))
    assert process.end() == 1
    assert f"127.0.0.1:{port}" in process.output
    assert "Address already in use" in process.output
    assert "Traceback" not in process.output


# the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_request_under_way_finish(
    write: Callable[[Any], str], slow: Slow, number: signal.Signals
) -> None:
    (port,) = free_ports(1)
    config = bootstrap(http_listener("one", port, [to_cluster("slow")]), clusters=(cluster("slow", slow.port),))
    with Process("sidecar", "-c", write(config)) as process:
        process.wait_for(STARTED)
        request = Asking(port)
        assert slow.asked.wait(10)
        process.send(number)
        process.wait_for(f"{number.name}: draining")
        until(lambda: is_free(port), "the listener to be closed")
        assert process.running
        slow.answer.set()
        assert process.end() == 0
        request.join(5)
    assert isinstance(request.result, tuple), request.result
    status, headers, body = request.result
    assert (status, body) == (200, "late")
    assert headers["connection"] == "close"
    assert process.output.rstrip().endswith("stopped")


def test_a_second_signal_stops_at_once(write: Callable[[Any], str], slow: Slow) -> None:
    (port,) = free_ports(1)
    config = bootstrap(http_listener("one", port, [to_cluster("slow")]), clusters=(cluster("slow", slow.port),))
    with Process("sidecar", "-c", write(config)) as process:
        process.wait_for(STARTED)
        request = Asking(port)
        assert slow.asked.wait(10)
        process.send(signal.SIGTERM)
        process.wait_for("SIGTERM: draining")
        assert process.running
        process.send(signal.SIGTERM)
        assert process.end(5) == 0
        request.join(5)
    assert "SIGTERM again: stopping at once" in process.output
    assert isinstance(request.result, Exception)


def test_the_drain_time_bounds_the_drain(write: Callable[[Any], str], slow: Slow) -> None:
    (port,) = free_ports(1)
    config = bootstrap(http_listener("one", port, [to_cluster("slow")]), clusters=(cluster("slow", slow.port),))
    with Process("sidecar", "-c", write(config), "--drain-time-s", "0.5") as process:
        process.wait_for(STARTED)
        request = Asking(port)
        assert slow.asked.wait(10)
        began = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.end(10) == 0
        assert time.monotonic() - began >= 0.5
        request.join(5)
    assert isinstance(request.result, Exception)


def test_idle_connections_do_not_hold_up_the_end(write: Callable[[Any], str]) -> None:
    (port,) = free_ports(1)
    with Process("sidecar", "-c", write(bootstrap(http_listener("one", port, [direct("hello")])))) as process:
        process.wait_for(STARTED)
        with socket.create_connection(("127.0.0.1", port), 10) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert idle.recv(65536).endswith(b"hello")
            process.send(signal.SIGTERM)
            assert idle.recv(1) == b""
            assert process.end(10) == 0


def test_a_signal_while_the_names_of_clusters_are_looked_up(write: Callable[[Any], str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:  # a DNS server that never answers
        silent.bind(("127.0.0.1", 0))
        waiting = cluster("waiting", 80)
        waiting["type"] = "STRICT_DNS"
        endpoint = waiting["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        endpoint["address"]["socket_address"]["address"] = "service.test"
        waiting["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [address(silent.getsockname()[1])],
            },
        }
        config = bootstrap(http_listener("one", free_ports(1)[0], [to_cluster("waiting")]), clusters=(waiting,))
        with Process("sidecar", "-c", write(config), "-l", "debug") as process:
            silent.settimeout(20)
            silent.recv(512)
            assert STARTED not in process.output
            process.send(signal.SIGTERM)
            assert process.end(5) == 0
        assert "SIGTERM: stopping before the start was complete" in process.output
        assert "Traceback" not in process.output


# what a supervisor sees


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(write: Callable[[Any], str], tmp_path: Path, abstract: bool) -> None:
    name = f"mizzen-{tmp_path.name}-{time.monotonic_ns()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind("\0" + name if abstract else name)
        supervisor.settimeout(20)
        (port,) = free_ports(1)
        config = write(bootstrap(http_listener("one", port, [direct("hello")])))
        environment = {"NOTIFY_SOCKET": "@" + name if abstract else name}
        with Process("sidecar", "-c", config, environment=environment) as process:
            assert supervisor.recv(100) == b"READY=1"
            assert get(port)[2] == "hello"  # ready means ready
            process.send(signal.SIGTERM)
            assert supervisor.recv(100) == b"STOPPING=1"
            assert process.end() == 0


def test_sigusr1_reopens_the_log_files(write: Callable[[Any], str], tmp_path: Path) -> None:
    log, own = tmp_path / "access.log", tmp_path / "sidecar.log"
    (port,) = free_ports(1)
    config = write(bootstrap(http_listener("one", port, [direct("hello")], log=str(log))))
    with Process("sidecar", "-c", config, "--log-path", str(own)) as process:
        until(lambda: own.exists() and STARTED in own.read_text(), "the start")
        get(port, "/before")
        until(lambda: log.read_text() == "/before\n", "the first line")
        log.rename(tmp_path / "access.log.1")
        own.rename(tmp_path / "sidecar.log.1")
        process.send(signal.SIGUSR1)
        until(log.exists, "the new file")
        get(port, "/after")
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert (tmp_path / "access.log.1").read_text() == "/before\n"
    assert log.read_text() == "/after\n"
    assert own.read_text().rstrip().endswith("stopped")


def test_the_installed_command_is_the_same() -> None:
    text = (REPOSITORY / "setup.cfg").read_text()
    assert "mizzen-sidecar = sidecar.__main__:main" in text


# a drain under load


class Load:
    """Connections that ask again and again, on keep-alive, until they are told to close or cannot connect."""

    def __init__(self, port: int, connections: int) -> None:
        self.port = port
        self.answered = 0
        self.lost: list[str] = []
        self.under_way = asyncio.Event()  # set after 500 answers
        self._tasks = [asyncio.create_task(self._ask_on_and_on(number)) for number in range(connections)]

    async def _ask_on_and_on(self, number: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionRefusedError:
                return  # it takes no more connections: nothing is lost
            try:
                while await self._ask(reader, writer, number):
                    pass
            except (OSError, asyncio.IncompleteReadError) as error:
                self.lost.append(f"connection {number}: {error!r}")
                return
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        body = b"x" * (number * 100)
        head = f"POST /{number} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        length = int(re.search(rb"content-length: (\d+)", answer)[1])  # type: ignore[index]
        await reader.readexactly(length)
        self.answered += 1
        if self.answered == 500:
            self.under_way.set()
        return b"connection: close" not in answer

    async def end(self) -> None:
        """Wait until every connection has come to its end."""
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30)


async def _upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
            await asyncio.sleep(0.002)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    writer.close()


def test_a_drain_under_load_loses_no_request(write: Callable[[Any], str]) -> None:
    async def drain_under_load() -> Load:
        upstream = await asyncio.start_server(_upstream, "127.0.0.1", 0)
        port, behind = free_ports(1)[0], upstream.sockets[0].getsockname()[1]
        config = bootstrap(http_listener("one", port, [to_cluster("busy")]), clusters=(cluster("busy", behind),))
        async with upstream:
            with Process("sidecar", "-c", write(config)) as process:
                await asyncio.to_thread(process.wait_for, STARTED)
                load = Load(port, 20)
                await asyncio.wait_for(load.under_way.wait(), 30)
                process.send(signal.SIGTERM)
                await load.end()
                assert await asyncio.to_thread(process.end) == 0
                return load

    for _ in range(3):
        load = asyncio.run(drain_under_load())
        assert load.lost == []
        assert load.answered >= 500
