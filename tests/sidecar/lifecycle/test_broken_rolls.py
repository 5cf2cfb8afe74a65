"""Several workers when something goes wrong: in a start, in a roll, in a take-over, and with one that hangs."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.lifecycle.children import children_of
from tests.running import Process, free_ports, get, is_free, until
from tests.sidecar.bootstraps import address, bootstrap, cluster, direct, http_listener
from tests.sidecar.lifecycle.load import Load

Write = Callable[..., str]
Change = Callable[[dict[str, Any]], dict[str, Any]]
COUNT = "http.one.downstream_rq_total"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(config: Any) -> str:
        path = tmp_path / "envoy.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return str(path)

    return to_file


def at(port: int, admin: int, text: str = "hello") -> dict[str, Any]:
    made = bootstrap(http_listener("one", port, [direct(text)]), admin=0)
    made["admin"]["address"] = address(admin)
    return made


@pytest.fixture
def hanging() -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Makes the same configuration with a cluster that never is initialised: the first health check waits for an answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def with_it(config: dict[str, Any]) -> dict[str, Any]:
            checked = cluster("silent", silent.getsockname()[1])
            once = {"timeout": "600s", "interval": "600s", "unhealthy_threshold": 1, "healthy_threshold": 1}
            checked["health_checks"] = [{**once, "http_health_check": {"path": "/"}}]
            config["static_resources"]["clusters"] = [checked]
            return config

        yield with_it


def stat(admin: int, name: str) -> int:
    return int(get(admin, f"/stats?filter=^{name}$")[2].rpartition(": ")[2])


def starts(process: Process, count: int) -> None:
    until(lambda: process.output.count("all clusters initialised") >= count, f"{count} workers to have started")


def number_of(pid: int) -> int:
    found = re.search(rb"MIZZEN_WORKER=(\d+):", Path(f"/proc/{pid}/environ").read_bytes())
    assert found is not None
    return int(found[1])


@pytest.fixture
def two(write: Write) -> Iterator[tuple[Process, int, int]]:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin)), "--concurrency", "2", "--drain-time-s", "1") as process:
        starts(process, 2)
        process.wait_for("2 workers serve")
        yield process, port, admin


def test_a_replacement_has_the_configuration_that_is_served_not_what_is_in_the_file_by_now(
    two: tuple[Process, int, int], write: Write
) -> None:
    process, port, _ = two
    write("static_resources: {no_such_field: 1}")
    for victim in children_of(process.child.pid):
        os.kill(victim, signal.SIGKILL)
    starts(process, 4)
    for _ in range(10):
        assert get(port)[2] == "hello"


def test_a_worker_that_dies_during_a_roll_is_replaced_by_one_of_its_own_generation(
    write: Write, hanging: Change
) -> None:
    port, admin = free_ports(2)
    common = ("--concurrency", "2", "--drain-time-s", "1", "--restart-timeout-s", "6")
    with Process("sidecar", "-c", write(at(port, admin)), *common) as process:
        starts(process, 2)
        before = children_of(process.child.pid)
        write(hanging(at(port, admin, "next")))
        process.send(signal.SIGHUP)
        until(lambda: len(children_of(process.child.pid)) == 3, "a worker of the next generation")
        for victim in before:
            os.kill(victim, signal.SIGKILL)
        starts(process, 4)
        for _ in range(10):
            assert get(port)[2] == "hello"
        process.wait_for("worker 0 (process")
        process.wait_for("does not serve after 6 s: ending it")
        process.wait_for("these go on")
        until(lambda: len(children_of(process.child.pid)) == 2, "the next generation to be gone")
        clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(40)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(65536).endswith(b"hello")
        each = [stat(admin, f"listener.127.0.0.1_{port}.worker_{number}.downstream_cx_active") for number in (0, 1)]
        assert sum(each) == 40
        assert max(each) - min(each) <= 2, "they do not share a board"
        for client in clients:
            client.close()
        write(at(port, admin, "mended"))
        process.send(signal.SIGHUP)
        until(lambda: get(port)[2] == "mended", "the next roll")


def test_sigterm_during_a_roll_ends_the_workers_of_both_generations(write: Write, hanging: Change) -> None:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin)), "--concurrency", "2", "--drain-time-s", "1") as process:
        starts(process, 2)
        write(hanging(at(port, admin)))
        process.send(signal.SIGHUP)
        until(lambda: len(children_of(process.child.pid)) == 3, "a worker of the next generation")
        workers = children_of(process.child.pid)
        began = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.end() == 0
        assert time.monotonic() - began < 4.0  # nobody had to be killed at the end of the time
        assert "Traceback" not in process.output
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert is_free(port)


def test_sigterm_during_a_start_is_no_failure(write: Write, hanging: Change) -> None:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(hanging(at(port, admin))), "--concurrency", "2") as process:
        until(lambda: len(children_of(process.child.pid)) == 1, "a worker")
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert "Traceback" not in process.output
    assert is_free(port)


def test_a_worker_that_hangs_in_its_start_is_ended(write: Write, hanging: Change) -> None:
    port, admin = free_ports(2)
    config = write(hanging(at(port, admin)))
    with Process("sidecar", "-c", config, "--concurrency", "2", "--restart-timeout-s", "1") as process:
        assert process.end() == 1
    assert "does not serve after 1 s: ending it" in process.output


def test_failing_the_health_check_is_over_with_a_roll(two: tuple[Process, int, int]) -> None:
    process, port, admin = two
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    connection.request("POST", "/healthcheck/fail")
    assert connection.getresponse().status == 200
    connection.close()
    assert get(admin, "/ready")[0] == 503
    process.send(signal.SIGHUP)
    until(lambda: process.output.count("ended: no connection is left") == 2, "the old workers to end")
    assert get(admin, "/ready")[::2] == (200, "LIVE\n")
    assert get(port)[1].get("connection") is None


def test_counters_never_fall_in_a_roll(write: Write) -> None:
    async def run() -> None:
        port, admin = free_ports(2)
        arguments = ("--concurrency", "2", "--drain-time-s", "0.5")
        with Process("sidecar", "-c", write(at(port, admin)), *arguments) as process:
            await asyncio.to_thread(process.wait_for, "2 workers serve")
            load = Load(port, 4, pause=0.005)
            await load.reach(200)
            seen = []
            process.send(signal.SIGHUP)
            while process.output.count("ended: no connection is left") < 2:
                answered = load.answered
                seen.append((answered, await asyncio.to_thread(stat, admin, COUNT)))
            await load.end()
            assert load.lost == []
            counts = [count for _, count in seen]
            # what was counted after the last telling of one that drains, which is once in a second, comes later
            assert all(count >= 200 for count in counts), counts
            assert len(seen) > 5

    asyncio.run(run())


def test_the_answers_without_a_worker_that_hangs_name_it(two: tuple[Process, int, int]) -> None:
    process, port, admin = two
    for _ in range(20):
        get(port)
    hung = next(pid for pid in children_of(process.child.pid) if number_of(pid) == 1)
    os.kill(hung, signal.SIGSTOP)
    try:
        _, headers, page = get(admin, "/stats/prometheus")
        assert headers["x-mizzen-missing"] == "worker 1"
        assert 'envoy_server_worker_missing{envoy_worker_id="1"} 1' in page
        assert 'envoy_server_worker_missing{envoy_worker_id="0"} 0' in page
        began = time.monotonic()
        _, headers, page = get(admin, "/clusters")
        assert headers["x-mizzen-missing"] == "worker 1"
        assert (
            get(admin, "/stats?filter=worker_..missing")[2]
            == "server.worker_0.missing: 0\nserver.worker_1.missing: 1\n"
        )
        assert time.monotonic() - began < 2.0  # that it hangs is known
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
        connection.request("POST", "/healthcheck/fail")
        response = connection.getresponse()
        assert (response.status, response.read()) == (
            503, b"not answered yet, and done when it answers again: worker 1\n"
        )  # fmt: skip
        connection.close()
    finally:
        os.kill(hung, signal.SIGCONT)
    until(lambda: "x-mizzen-missing" not in get(admin, "/stats")[1], "the worker to answer again")
    assert stat(admin, COUNT) == 20
    assert f"worker 1 (process {hung}) does not answer" in process.output


def test_a_take_over_that_fails_leaves_the_unix_socket_of_the_running_process(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "listener.sock"
    (admin,) = free_ports(1)
    config = at(0, admin)
    config["static_resources"]["listeners"][0]["address"] = {"pipe": {"path": str(path)}}
    (tmp_path / "run").mkdir(mode=0o700)
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    common = ("--base-id", "3", "--concurrency", "2")
    with Process("sidecar", "-c", write(config), *common, environment=environment) as old:
        old.wait_for("2 workers serve")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            config["static_resources"]["listeners"].append(
                http_listener("two", taken.getsockname()[1], [direct("never")])
            )
            again = ("-c", write(config), *common, "--restart-epoch", "1")
            with Process("sidecar", *again, environment=environment) as new:
                assert new.end() == 1
            assert "listener 'two' cannot listen on" in new.output
        assert path.is_socket()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert client.recv(65536).endswith(b"hello")
        old.send(signal.SIGTERM)
        assert old.end() == 0
    assert not path.exists()


def test_reuse_of_the_port_comes_with_a_roll(write: Write) -> None:
    port, admin = free_ports(2)
    config = at(port, admin)
    config["static_resources"]["listeners"][0]["enable_reuse_port"] = False
    with Process("sidecar", "-c", write(config), "--concurrency", "2", "--drain-time-s", "1") as process:
        starts(process, 2)
        write(at(port, admin, "after"))
        process.send(signal.SIGHUP)
        until(lambda: get(port)[2] == "after" or "do not serve" in process.output, "the roll")
        for _ in range(30):
            assert get(port)[2] == "after"
        each = [stat(admin, f"listener.127.0.0.1_{port}.worker_{number}.downstream_cx_total") for number in (0, 1)]
        assert min(each) > 0
