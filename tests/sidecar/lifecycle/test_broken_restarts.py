"""Hot restarts in which something goes wrong: who serves then, who ends, and with which status."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.lifecycle import children
from sidecar.lifecycle.children import children_of
from tests.running import Process, free_ports, get, is_free, until
from tests.sidecar.bootstraps import address, bootstrap, cluster, direct, http_listener, to_cluster

STARTED = "all clusters initialised"

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(config: Any) -> str:
        path = tmp_path / "envoy.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return str(path)

    return to_file


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run")}


def at(port: int, admin: int, text: str = "hello") -> dict[str, Any]:
    made = bootstrap(http_listener("one", port, [direct(text)]), admin=0)
    made["admin"]["address"] = address(admin)
    return made


def starts(process: Process, count: int) -> None:
    until(lambda: process.output.count(STARTED) >= count or not process.running, f"{count} processes to start")
    assert process.output.count(STARTED) >= count, process.output


def descendants(pid: int) -> list[int]:
    below = children_of(pid)
    return [*below, *(other for child in below for other in descendants(child))]


class Held:
    """A connection whose first process drains because a request is under way there: it has said less than it announced."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.sock.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf")

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def slow(port: int, admin: int, behind: int) -> dict[str, Any]:
    """Requests stay under way as long as their bodies are not complete."""
    made = bootstrap(http_listener("one", port, [to_cluster("up")]), clusters=(cluster("up", behind),), admin=0)
    made["admin"]["address"] = address(admin)
    return made


@pytest.mark.parametrize("generations", [2, 3])
def test_when_the_process_that_has_taken_over_dies_the_first_one_ends_soon_and_says_so(
    write: Write, generations: int
) -> None:
    """The old ones drain, for 900 seconds if need be; meanwhile nothing listens, and a supervisor would not know."""
    port, admin = free_ports(2)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        config = write(slow(port, admin, upstream.getsockname()[1]))
        with Process("sidecar", "-c", config, "--drain-strategy", "immediate") as process:
            starts(process, 1)
            with Held(port):
                for generation in range(2, generations + 1):
                    process.send(signal.SIGHUP)
                    starts(process, generation)
                    if generation == 3:  # the one in the middle has nothing to drain: the first one inherits its child
                        process.wait_for("stopped")
                *_, newest = descendants(process.child.pid)
                began = time.monotonic()
                os.kill(newest, signal.SIGKILL)
                assert process.end() == 128 + signal.SIGKILL
                assert time.monotonic() - began < 5.0
    assert is_free(port)


def test_a_stand_in_ends_when_the_youngest_dies_though_older_ones_drain(write: Write) -> None:
    port, admin = free_ports(2)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        config = write(slow(port, admin, upstream.getsockname()[1]))
        with Process("sidecar", "-c", config, "--drain-strategy", "immediate") as process:
            starts(process, 1)
            process.send(signal.SIGHUP)
            name = Path(f"/proc/{process.child.pid}/cmdline")
            until(lambda: b"stand_in" in name.read_bytes(), "the first process to stand in")
            starts(process, 2)
            with Held(port):  # served by the second process
                process.send(signal.SIGHUP)
                starts(process, 3)
                process.send(signal.SIGHUP)
                starts(process, 4)
                until(lambda: process.output.count("stopped") == 2, "the third to have ended")
                until(lambda: len(children_of(process.child.pid)) == 2, "the fourth to be adopted")
                os.kill(children_of(process.child.pid)[-1], signal.SIGKILL)
                assert process.end() == 128 + signal.SIGKILL
    assert is_free(port)


def test_what_the_old_process_still_serves_is_not_cut_off_when_the_new_one_has_ended(write: Write) -> None:
    """SIGTERM ends both; the new one, which has nothing to do, is the first to be gone."""
    port, admin = free_ports(2)
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        config = write(slow(port, admin, upstream.getsockname()[1]))
        with Process("sidecar", "-c", config) as process:
            starts(process, 1)
            with Held(port) as held:
                process.send(signal.SIGHUP)
                starts(process, 2)
                process.wait_for("another process serves")
                process.send(signal.SIGTERM)
                process.wait_for("and nothing listens any more")
                host, _ = upstream.accept()
                with host:
                    held.sock.sendall(b"whole!")
                    received = b""
                    while not received.endswith(b"halfwhole!"):
                        data = host.recv(65536)
                        assert data, received
                        received += data
                    host.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    assert held.sock.recv(65536).endswith(b"ok")
            assert process.end() == 0


def test_when_the_first_process_is_killed_the_one_that_serves_does_not_stay(write: Write) -> None:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin))) as process:
        starts(process, 1)
        process.send(signal.SIGHUP)
        process.wait_for("stopped")
        serving = children_of(process.child.pid)
        assert len(serving) == 1
        assert get(port)[2] == "hello"
        process.send(signal.SIGKILL)
        until(lambda: not Path(f"/proc/{serving[0]}").exists() or _is_zombie(serving[0]), "the one that serves to end")
        assert is_free(port)
        assert "the process that was started first is gone" in process.output


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_next_process_that_hangs_is_ended(write: Write) -> None:
    port, admin = free_ports(2)
    config = write(at(port, admin))
    with Process("sidecar", "-c", config, "--restart-timeout-s", "5") as process:
        starts(process, 1)
        os.unlink(config)
        os.mkfifo(config)  # nobody ever writes to it
        process.send(signal.SIGHUP)
        process.wait_for("the next process does not serve after 5 s")
        process.wait_for("this one goes on")
        assert children_of(process.child.pid) == []
        assert get(port)[2] == "hello"
        os.unlink(config)
        write(at(port, admin, "mended"))
        process.send(signal.SIGHUP)
        starts(process, 2)
        until(lambda: get(port)[2] == "mended", "the new process")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_base_id_that_cannot_be_had_is_noticed_before_the_old_process_drains(
    write: Write, runtime: dict[str, str], workers: str
) -> None:
    port, admin = free_ports(2)
    config = write(at(port, admin))
    with Process("sidecar", "-c", config, "--base-id", "7", environment=runtime) as old:
        starts(old, 1)
        until((Path(runtime["XDG_RUNTIME_DIR"]) / "mizzen" / "7.sock").is_socket, "the socket")
        in_the_way = 'mkdir "$XDG_RUNTIME_DIR/mizzen/7.sock.$$" && exec "$@"'
        arguments = ("-c", config, "--base-id", "7", "--restart-epoch", "1", "--concurrency", workers)
        with Process("sidecar", *arguments, environment=runtime, prefix=("sh", "-c", in_the_way, "sh")) as new:
            assert new.end() == 1
        assert "--base-id 7: cannot listen on" in new.output
        assert "Traceback" not in new.output
        assert get(port)[2] == "hello"
        assert "draining" not in old.output


def test_a_dynamic_base_id_stays_the_same(write: Write, runtime: dict[str, str], tmp_path: Path) -> None:
    port, admin = free_ports(2)
    file = tmp_path / "id"
    arguments = ("-c", write(at(port, admin)), "--use-dynamic-base-id", "--base-id-path", str(file))
    with Process("sidecar", *arguments, environment=runtime) as process:
        starts(process, 1)
        until(lambda: file.exists() and (tmp_path / "run" / "mizzen" / f"{file.read_text()}.sock").is_socket(), "it")
        before = file.read_text()
        process.send(signal.SIGHUP)
        process.wait_for("stopped")
        assert file.read_text() == before
        found = tmp_path / "run" / "mizzen"
        until(lambda: [one.name for one in found.iterdir()] == [f"{before}.sock"], "the new process to have it")


def test_counters_never_fall_in_a_restart(write: Write) -> None:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin))) as process:
        starts(process, 1)
        for _ in range(50):
            get(port)
        seen = []
        process.send(signal.SIGHUP)
        while "stopped" not in process.output:
            page = get(admin, "/stats?filter=^http.one.downstream_rq_total$")[2]
            seen.append(int(page.rpartition(": ")[2]))
        assert seen == [50] * len(seen)
        assert get(admin, "/stats?filter=^server.hot_restart_epoch$")[2] == "server.hot_restart_epoch: 1\n"


def test_what_is_queued_on_one_of_two_addresses_that_is_not_configured_any_more_is_served(write: Write) -> None:
    port, other, admin = free_ports(3)
    config = at(port, admin)
    config["static_resources"]["listeners"][0]["additional_addresses"] = [{"address": address(other)}]
    with Process("sidecar", "-c", write(config), "--drain-strategy", "immediate") as process:
        starts(process, 1)
        write(at(port, admin))
        until(lambda: get(other)[2] == "hello", "the second address")
        process.send(signal.SIGHUP)
        time.sleep(0.2)  # the next process is on its way, and the old one still serves
        clients = []
        while process.output.count("draining:") < 1:
            try:
                clients.append(socket.create_connection(("127.0.0.1", other), 10))
            except ConnectionRefusedError:
                break
            clients[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            if len(clients) > 20:
                with clients.pop(0) as client:
                    assert client.recv(65536).endswith(b"hello")
        for client in clients:
            with client:
                assert client.recv(65536).endswith(b"hello")
        until(lambda: is_free(other), "the address to be free")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_answer_of_the_administration_interface_is_not_cut_off_by_the_end(write: Write, workers: str) -> None:
    port, admin = free_ports(2)
    clusters = tuple(cluster(f"cluster-{number}", 1) for number in range(300))
    config = bootstrap(http_listener("one", port, [direct("hello")]), clusters=clusters, admin=0)
    config["admin"]["address"] = address(admin)
    with Process("sidecar", "-c", write(config), "--drain-time-s", "1", "--concurrency", workers) as process:
        starts(process, int(workers))
        until(lambda: not is_free(admin), "the administration interface")
        with socket.create_connection(("127.0.0.1", admin), 10) as client:
            client.sendall(b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            received = client.recv(65536)
            process.send(signal.SIGTERM)
            process.wait_for("ended:")
            while data := client.recv(1 << 20):
                received += data
        assert received.endswith(b"0\r\n\r\n")
        assert process.end() == 0


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), OSError(24, "Too many open files"), None])
def test_a_child_is_watched_without_a_descriptor_for_it(monkeypatch: pytest.MonkeyPatch, error: OSError | None) -> None:
    def fails(pid: int) -> int:
        raise error if error is not None else AssertionError

    if error is None:
        monkeypatch.delattr(os, "pidfd_open")  # as on systems that are not Linux
    else:
        monkeypatch.setattr(os, "pidfd_open", fails)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", "raise SystemExit(3)"])

    async def run() -> int:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        children.Child(loop, {}, (), ended.set_result)
        return await asyncio.wait_for(ended, 20)

    assert asyncio.run(run()) == 3
