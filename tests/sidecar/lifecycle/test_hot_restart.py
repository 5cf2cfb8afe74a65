"""Hot restarts, with real processes: nothing is lost, counters go on, and a process that cannot start changes nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import Process, free_ports, get, is_free, until
from tests.sidecar.bootstraps import address, bootstrap, cluster, direct, http_listener, to_cluster
from tests.sidecar.lifecycle.load import Load

STARTED = "all clusters initialised"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(config: Any, name: str = "envoy.yaml") -> str:
        path = tmp_path / name
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return str(path)

    return to_file


def at(port: int, admin: int, text: str = "hello") -> dict[str, Any]:
    made = bootstrap(http_listener("one", port, [direct(text)]), admin=0)
    made["admin"]["address"] = address(admin)
    return made


def starts(process: Process, count: int) -> None:
    until(lambda: process.output.count(STARTED) >= count or not process.running, f"{count} processes to start")
    assert process.output.count(STARTED) >= count, process.output


def stat(admin: int, name: str) -> int:
    lines = get(admin, f"/stats?filter=^{name.replace('.', '[.]')}$")[2].splitlines()
    return int(lines[0].rpartition(" ")[2])


def test_sighup_replaces_the_process_under_load_and_loses_nothing(write: Write) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_length = b"content-length: "
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head[head.index(with_length) + len(with_length) :].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            await asyncio.sleep(0.001)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        async def serve() -> None:
            try:
                await echo(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        return serve()

    async def run() -> None:
        upstream = await asyncio.start_server(quietly, "127.0.0.1", 0)
        port, admin = free_ports(2)
        behind = (cluster("up", upstream.sockets[0].getsockname()[1]),)
        config = bootstrap(http_listener("one", port, [to_cluster("up")]), clusters=behind, admin=0)
        config["admin"]["address"] = address(admin)
        async with upstream:
            with Process("sidecar", "-c", write(config), "--drain-time-s", "0.5") as process:
                await asyncio.to_thread(starts, process, 1)
                load = Load(port, 10)
                for generation in (2, 3):
                    await load.reach(200)
                    process.send(signal.SIGHUP)
                    await asyncio.to_thread(starts, process, generation)
                    async with asyncio.timeout(20):
                        while process.output.count("stopped") < generation - 1:
                            await asyncio.sleep(0.01)
                await load.reach(200)
                await load.end()
                assert load.lost == []
                assert load.asked_to_close >= 20  # each connection moved to each new process
                assert stat(admin, "server.hot_restart_epoch") == 2
                assert stat(admin, "server.parent_connections") == 0
                assert stat(admin, "http.one.downstream_rq_total") == load.answered
                assert stat(admin, "http.one.downstream_rq_2xx") == load.answered
                assert stat(admin, "cluster.up.upstream_rq_total") == load.answered
                until(lambda: stat(admin, "http.one.downstream_cx_active") == 0, "no connection to be counted")
                assert process.running
                process.send(signal.SIGTERM)
                assert await asyncio.to_thread(process.end) == 0
                assert is_free(port)

    asyncio.run(run())


def test_the_new_process_has_the_configuration_of_now(write: Write) -> None:
    port, admin, other = free_ports(3)
    with Process("sidecar", "-c", write(at(port, admin, "before"))) as process:
        starts(process, 1)
        assert get(port)[2] == "before"
        changed = at(port, admin, "after")
        changed["static_resources"]["listeners"].append(http_listener("two", other, [direct("new")]))
        write(changed)
        process.send(signal.SIGHUP)
        starts(process, 2)
        assert (get(port)[2], get(other)[2]) == ("after", "new")
        write(at(port, admin, "after"))
        process.send(signal.SIGHUP)
        starts(process, 3)
        until(lambda: is_free(other), "the address that is not configured any more to be free")
        process.send(signal.SIGTERM)
        assert process.end() == 0
        assert is_free(port)


def test_a_bad_configuration_leaves_the_old_process_as_it_is(write: Write) -> None:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin))) as process:
        starts(process, 1)
        for wrong in ("static_resources: {listeners: [{no_such_field: 1}]}", "["):
            write(wrong)
            said = process.output.count("this one goes on")
            process.send(signal.SIGHUP)
            until(lambda said=said: process.output.count("this one goes on") > said, "the attempt to fail")  # type: ignore[misc]
            assert get(port)[2] == "hello"
            assert get(admin, "/ready")[2] == "LIVE\n"
        write(at(port, admin, "mended"))
        process.send(signal.SIGHUP)
        starts(process, 2)
        until(lambda: get(port)[2] == "mended", "the new process")
        process.send(signal.SIGTERM)
        assert process.end() == 0


def test_an_address_that_is_taken_leaves_the_old_process_as_it_is(write: Write) -> None:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin))) as process, socket.create_server(("127.0.0.1", 0)) as taken:
        starts(process, 1)
        changed = at(port, admin)
        changed["static_resources"]["listeners"].append(http_listener("two", taken.getsockname()[1], [direct("")]))
        write(changed)
        process.send(signal.SIGHUP)
        process.wait_for("this one goes on")
        assert "listener 'two' cannot listen on" in process.output
        for _ in range(20):
            assert get(port)[2] == "hello"


def test_a_unix_socket_is_handed_over_and_stays_where_it_is(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "listener.sock"
    listener = http_listener("one", 0, [direct("hello")])
    listener["address"] = {"pipe": {"path": str(path)}}

    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            received = b""
            while data := client.recv(65536):
                received += data
            return received

    with Process("sidecar", "-c", write(bootstrap(listener))) as process:
        starts(process, 1)
        inode = path.stat().st_ino
        process.send(signal.SIGHUP)
        process.wait_for("stopped")
        assert ask().endswith(b"hello")
        assert path.stat().st_ino == inode
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert not path.exists()


def test_a_port_that_the_system_chose_stays(write: Write) -> None:
    (admin,) = free_ports(1)
    with Process("sidecar", "-c", write(at(0, admin))) as process:
        starts(process, 1)
        before = get(admin, "/listeners")[2]
        process.send(signal.SIGHUP)
        process.wait_for("stopped")
        assert get(admin, "/listeners")[2] == before
        assert get(int(before.rstrip().rpartition(":")[2]))[2] == "hello"


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_another_process_takes_over_by_the_base_id(write: Write, runtime: dict[str, str]) -> None:
    port, admin = free_ports(2)
    config = write(at(port, admin))
    with Process("sidecar", "-c", config, "--base-id", "7", environment=runtime) as old:
        starts(old, 1)
        get(port)
        until((Path(runtime["XDG_RUNTIME_DIR"]) / "mizzen" / "7.sock").is_socket, "the socket")
        arguments = ("-c", config, "--base-id", "7", "--restart-epoch", "1")
        with Process("sidecar", *arguments, environment=runtime) as new:
            starts(new, 1)
            assert old.end() == 0
            until(lambda: stat(admin, "http.one.downstream_rq_total") == 1, "the old counters")
            info = json.loads(get(admin, "/server_info")[2])
            assert info["command_line_options"]["restart_epoch"] == 1
            again = Process("sidecar", "-c", config, "--base-id", "7", "--restart-epoch", "1", environment=runtime)
            with again:
                assert again.end() == 1
            assert "it has --restart-epoch 1; the next one is 2" in again.output
            assert get(port)[2] == "hello"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--base-id", "7"), "another process has it; take over from it with --restart-epoch, or take another"),
        (("--base-id", "8", "--restart-epoch", "1"), "--restart-epoch 1: no process has --base-id 8; "),
        (("--restart-epoch", "1"), "--restart-epoch 1 needs the --base-id"),
        (("--use-dynamic-base-id", "--restart-epoch", "1"), "--use-dynamic-base-id: not with --restart-epoch"),
    ],
)
def test_what_cannot_be_taken_over(
    write: Write, runtime: dict[str, str], options: tuple[str, ...], message: str
) -> None:
    port, admin, elsewhere, elsewhere_admin = free_ports(4)
    with Process("sidecar", "-c", write(at(port, admin)), "--base-id", "7", environment=runtime) as running:
        starts(running, 1)
        until((Path(runtime["XDG_RUNTIME_DIR"]) / "mizzen" / "7.sock").is_socket, "the socket")
        config = write(at(elsewhere, elsewhere_admin), "other.yaml")
        with Process("sidecar", "-c", config, *options, environment=runtime) as refused:
            assert refused.end() == 1
        assert message in refused.output
        assert "Traceback" not in refused.output
        assert get(port)[2] == "hello"


def test_a_dynamic_base_id_is_written_down(write: Write, runtime: dict[str, str], tmp_path: Path) -> None:
    port, admin = free_ports(2)
    file = tmp_path / "id"
    config = write(at(port, admin))
    arguments = ("-c", config, "--use-dynamic-base-id", "--base-id-path", str(file))
    with Process("sidecar", *arguments, environment=runtime) as process:
        starts(process, 1)
        until((tmp_path / "run" / "mizzen" / f"{int(file.read_text())}.sock").is_socket, "the socket")
        assert (tmp_path / "run" / "mizzen").stat().st_mode & 0o777 == 0o700
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert list((tmp_path / "run" / "mizzen").iterdir()) == []


def test_a_directory_that_others_may_write_to_is_refused(write: Write, runtime: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run" / "mizzen").mkdir()
    (tmp_path / "run" / "mizzen").chmod(0o770)
    with Process("sidecar", "-c", write(bootstrap()), "--base-id", "7", environment=runtime) as process:
        assert process.end() == 1
    assert "must be a directory of user" in process.output


def test_the_first_process_stays_for_its_supervisor(write: Write, tmp_path: Path) -> None:
    """It is told of the restart, passes signals on, and ends with the process that serves, with its status."""
    port, admin = free_ports(2)
    log = tmp_path / "access.log"
    config = at(port, admin)
    config["static_resources"]["listeners"] = [http_listener("one", port, [direct("hello")], log=str(log))]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with Process("sidecar", "-c", write(config), environment=environment) as process:
            assert supervisor.recv(100) == b"READY=1"
            process.send(signal.SIGHUP)
            assert supervisor.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert supervisor.recv(100) == b"READY=1"
            process.wait_for("stopped")
            name = Path(f"/proc/{process.child.pid}/cmdline")
            until(lambda: b"stand_in" in name.read_bytes(), "the first process to stand in")
            until(log.exists, "the log")
            log.rename(tmp_path / "access.log.1")
            process.send(signal.SIGUSR1)
            until(log.exists, "the log to be opened anew by the process that serves")
            process.send(signal.SIGTERM)
            assert process.end() == 0
    assert is_free(port)
