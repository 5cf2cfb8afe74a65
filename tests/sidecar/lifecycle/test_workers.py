"""``--concurrency``: several workers are one sidecar, to clients and to whoever looks at the administration interface."""

from __future__ import annotations

import asyncio
import http.client
import json
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
from tests.sidecar.bootstraps import address, bootstrap, cluster, direct, http_listener, to_cluster
from tests.sidecar.lifecycle.load import Load

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(config: Any, name: str = "envoy.yaml") -> str:
        path = tmp_path / name
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return str(path)

    return to_file


def at(port: int, admin: int, *routes: Any, clusters: tuple[Any, ...] = (), log: str = "") -> dict[str, Any]:
    listener = http_listener("one", port, list(routes) or [direct("hello")], log=log)
    made = bootstrap(listener, clusters=clusters, admin=0)
    made["admin"]["address"] = address(admin)
    return made


def post(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def stats(admin: int, query: str = "") -> dict[str, int]:
    lines = (
        get(admin, "/stats?type=Counters" + query)[2].splitlines() + get(admin, "/stats?type=Gauges")[2].splitlines()
    )
    return {name: int(value) for name, _, value in (line.rpartition(": ") for line in lines)}


def ready(admin: int) -> bool:
    try:
        return get(admin, "/ready")[0] == 200
    except OSError:
        return False


@pytest.fixture
def two(write: Write) -> Iterator[tuple[Process, int, int]]:
    port, admin = free_ports(2)
    with Process("sidecar", "-c", write(at(port, admin)), "--concurrency", "2", "--drain-time-s", "1") as process:
        process.wait_for("2 workers serve")
        yield process, port, admin


def ask(port: int, times: int) -> None:
    for _ in range(times):
        assert get(port)[2] == "hello"


def test_statistics_are_those_of_all_workers(two: tuple[Process, int, int]) -> None:
    _, port, admin = two
    ask(port, 40)
    found = stats(admin)
    assert found["http.one.downstream_rq_total"] == found["http.one.downstream_rq_2xx"] == 40
    each = [found[f"listener.127.0.0.1_{port}.worker_{number}.downstream_cx_total"] for number in (0, 1)]
    assert sum(each) == 40
    assert min(each) > 0
    assert (found["server.concurrency"], found["server.live"]) == (2, 1)
    assert found["http.admin.downstream_rq_total"] >= 1
    text = get(admin, "/stats/prometheus")[2]
    assert re.search(r'^envoy_http_downstream_rq_xx\{envoy_response_code_class="2",envoy_http_conn_manager_prefix="one"\} 40$',
                     text, re.MULTILINE)  # fmt: skip
    assert re.search(
        r'^envoy_http_downstream_rq_time_count\{envoy_http_conn_manager_prefix="one"\} 40$', text, re.MULTILINE
    )
    histograms = json.loads(
        get(admin, "/stats?format=json&histogram_buckets=cumulative&filter=one.downstream_rq_time")[2]
    )
    assert histograms["stats"][-1]["histograms"][0]["buckets"][-1]["cumulative"] == 40
    assert post(admin, "/reset_counters") == (200, "OK\n")
    assert stats(admin)["http.one.downstream_rq_total"] == 0


def test_the_pages_of_the_administration_interface(two: tuple[Process, int, int]) -> None:
    _, port, admin = two
    assert get(admin, "/ready")[::2] == (200, "LIVE\n")
    assert get(admin, "/listeners")[2] == f"one::127.0.0.1:{port}\n"
    info = json.loads(get(admin, "/server_info")[2])
    assert (info["state"], info["command_line_options"]["concurrency"]) == ("LIVE", 2)
    assert json.loads(get(admin, "/config_dump")[2])["configs"][0]["@type"].endswith("BootstrapConfigDump")
    assert get(admin, "/nowhere")[0] == 404
    assert get(admin, "/quitquitquit")[0] == 405
    physical = int(json.loads(get(admin, "/memory")[2])["total_physical_bytes"])
    assert physical > 2 * 20 << 20
    assert post(admin, "/logging?level=warning")[0] == 200
    assert "main: warning" in get(admin, "/logging")[2]


def test_failing_the_health_check_holds_for_all(two: tuple[Process, int, int]) -> None:
    _, port, admin = two
    assert post(admin, "/healthcheck/fail") == (200, "OK\n")
    assert get(admin, "/ready")[::2] == (503, "DRAINING\n")
    assert {get(port)[1].get("connection") for _ in range(20)} == {"close"}
    assert post(admin, "/healthcheck/ok") == (200, "OK\n")
    assert get(admin, "/ready")[::2] == (200, "LIVE\n")
    assert {get(port)[1].get("connection") for _ in range(20)} == {None}


@pytest.mark.parametrize("query", ["", "?inboundonly"])
def test_draining_the_listeners_leaves_no_queue_that_nobody_serves(two: tuple[Process, int, int], query: str) -> None:
    _, port, admin = two
    assert post(admin, "/drain_listeners" + query) == (200, "OK\n")
    if query:  # no listener has that direction
        ask(port, 10)
    else:
        until(lambda: is_free(port), "the address to be free")


def test_quitting(two: tuple[Process, int, int]) -> None:
    process, port, admin = two
    assert post(admin, "/quitquitquit") == (200, "OK\n")
    assert process.end() == 0
    assert is_free(port)


def test_hosts_are_added_up(write: Write) -> None:
    async def run() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
            writer.close()

        upstream = await asyncio.start_server(answer, "127.0.0.1", 0)
        behind = upstream.sockets[0].getsockname()[1]
        port, admin = free_ports(2)
        config = at(port, admin, to_cluster("up"), clusters=(cluster("up", behind),))
        async with upstream:
            with Process("sidecar", "-c", write(config), "--concurrency", "2") as process:
                await asyncio.to_thread(process.wait_for, "2 workers serve")
                await asyncio.to_thread(ask, port, 30)
                _, _, page = await asyncio.to_thread(get, admin, "/clusters")
                assert f"up::127.0.0.1:{behind}::rq_total::30\n" in page
                assert f"up::127.0.0.1:{behind}::cx_active::2\n" in page
                assert page.count(f"up::127.0.0.1:{behind}::weight::1\n") == 1
                _, _, page = await asyncio.to_thread(get, admin, "/clusters?format=json")
                metrics = json.loads(page)["cluster_statuses"][0]["host_statuses"][0]["stats"]
                assert {metric["name"]: metric.get("value") for metric in metrics}["rq_success"] == "30"

    asyncio.run(run())


def test_a_worker_that_dies_is_replaced_and_what_was_queued_for_it_is_served(two: tuple[Process, int, int]) -> None:
    process, port, admin = two
    victims = children_of(process.child.pid)
    for victim in victims:  # so that it answers nothing, and connections queue up
        os.kill(victim, signal.SIGSTOP)
    waiting = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(20)]
    for client in waiting:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    for client in waiting:
        with client:
            received = b""
            while data := client.recv(65536):
                received += data
            assert received.endswith(b"hello"), received
    assert process.output.count("has ended with status -9; starting another in 0.1 s") == 2
    until(lambda: ready(admin) and len(children_of(process.child.pid)) == 2, "two workers")
    assert not set(children_of(process.child.pid)) & set(victims)


def test_a_worker_that_dies_again_and_again_is_given_time(two: tuple[Process, int, int]) -> None:
    process, _, admin = two
    for death, wait in enumerate(("0.1", "0.2", "0.4")):
        until(lambda: len(children_of(process.child.pid)) == 2 and ready(admin), "two workers")
        found = children_of(process.child.pid)
        victim = next(pid for pid in found if b"MIZZEN_WORKER=0:" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(victim, signal.SIGKILL)
        process.wait_for(f"starting another in {wait} s")
        until(lambda: process.output.count("all clusters initialised") >= 3 + death, "the replacement")  # noqa: B023


def test_a_roll_under_load_loses_nothing(write: Write) -> None:
    async def run() -> None:
        port, admin = free_ports(2)
        path = write(at(port, admin))
        with Process("sidecar", "-c", path, "--concurrency", "2", "--drain-time-s", "0.5") as process:
            await asyncio.to_thread(process.wait_for, "2 workers serve")
            load = Load(port, 10, pause=0.001)
            await load.reach(200)
            write("static_resources: {no_such_field: 1}")
            process.send(signal.SIGHUP)
            await asyncio.to_thread(process.wait_for, "the next workers do not serve")
            assert "no_such_field" in process.output
            await load.reach(100)
            write(at(port, admin))
            process.send(signal.SIGHUP)
            async with asyncio.timeout(30):
                while process.output.count("ended: no connection is left") < 2:
                    await asyncio.sleep(0.01)
            await load.reach(200)
            await load.end()
            assert load.lost == []
            assert load.asked_to_close >= 10
            found = await asyncio.to_thread(stats, admin)
            assert found["http.one.downstream_rq_total"] == load.answered
            assert found["server.hot_restart_epoch"] == 1
            listener = f"listener.127.0.0.1_{port}"
            each = [found[f"{listener}.worker_{number}.downstream_cx_total"] for number in (0, 1)]
            assert sum(each) == found[f"{listener}.downstream_cx_total"]
            process.send(signal.SIGTERM)
            assert await asyncio.to_thread(process.end) == 0
            assert is_free(port)

    asyncio.run(run())


@pytest.mark.parametrize(("before", "after"), [("2", "1"), ("1", "3")])
def test_taking_over_with_another_number_of_workers(write: Write, tmp_path: Path, before: str, after: str) -> None:
    async def run() -> None:
        port, admin = free_ports(2)
        config = write(at(port, admin))
        (tmp_path / "run").mkdir(mode=0o700)
        environment = {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
        common = ("-c", config, "--base-id", "3", "--drain-strategy", "immediate")
        with Process("sidecar", *common, "--concurrency", before, environment=environment) as old:
            await asyncio.to_thread(until, (tmp_path / "run" / "mizzen" / "3.sock").is_socket, "the first")
            load = Load(port, 10, pause=0.001)
            await load.reach(200)
            more = ("--concurrency", after, "--restart-epoch", "1")
            with Process("sidecar", *common, *more, environment=environment) as new:
                assert await asyncio.to_thread(old.end) == 0
                await load.reach(200)
                await load.end()
                assert load.lost == []
                async with asyncio.timeout(10):
                    while (await asyncio.to_thread(stats, admin))["http.one.downstream_rq_total"] != load.answered:
                        await asyncio.sleep(0.05)
                assert new.running

    asyncio.run(run())


def test_a_configuration_that_cannot_be_served_is_said_once(write: Write) -> None:
    _, admin = free_ports(2)
    with Process("sidecar", "-c", write("static_resources: {no_such_field: 1}"), "--concurrency", "2") as process:
        assert process.end() == 1
    assert process.output.count("no_such_field") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = write(at(taken.getsockname()[1], admin))
        with Process("sidecar", "-c", config, "--concurrency", "2") as process:
            assert process.end() == 1
    assert process.output.count("listener 'one' cannot listen on") == 1
    assert "Traceback" not in process.output


def test_a_drain_waits_for_requests_in_every_worker_and_has_an_end(write: Write) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port, admin = free_ports(2)
        config = at(port, admin, to_cluster("silent"), clusters=(cluster("silent", silent.getsockname()[1]),))
        arguments = ("-c", write(config), "--concurrency", "2", "--drain-time-s", "1")
        with Process("sidecar", *arguments) as process:
            process.wait_for("2 workers serve")
            clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(8)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            until(lambda: stats(admin)["http.one.downstream_rq_active"] == 8, "the requests")
            began = time.monotonic()
            process.send(signal.SIGTERM)
            assert process.end() == 0
            assert 1.0 <= time.monotonic() - began < 6.0
            assert "connections are cut off" in process.output
            for client in clients:
                client.close()


def test_workers_drain_when_their_parent_is_gone(two: tuple[Process, int, int]) -> None:
    process, port, _ = two
    workers = children_of(process.child.pid)
    process.send(signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "the workers to end")
    until(lambda: is_free(port), "the address to be free")


def test_sigusr1_reopens_the_logs_of_all_workers(write: Write, tmp_path: Path) -> None:
    port, admin = free_ports(2)
    log = tmp_path / "access.log"
    with Process("sidecar", "-c", write(at(port, admin, log=str(log))), "--concurrency", "2") as process:
        process.wait_for("2 workers serve")
        log.rename(tmp_path / "access.log.1")
        process.send(signal.SIGUSR1)
        until(log.exists, "the log")
        time.sleep(0.1)  # the other worker may not have had it yet, which nothing tells
        ask(port, 20)
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert log.read_text() == "/\n" * 20


def test_connections_are_spread_evenly(two: tuple[Process, int, int]) -> None:
    """The kernel throws dice for each: of forty, sixteen or fewer would go to one of two in every sixth run."""
    _, port, admin = two
    for count in (40, 20, 33, 4):  # what was closed is forgotten at once
        clients = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(count)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(65536).endswith(b"hello")
        found = stats(admin)
        each = [found[f"listener.127.0.0.1_{port}.worker_{number}.downstream_cx_active"] for number in (0, 1)]
        assert sum(each) == count
        assert max(each) - min(each) <= 2, (count, each)
        for client in clients:
            client.close()
        until(lambda: stats(admin)["http.one.downstream_cx_active"] == 0, "all to be closed")
    assert stats(admin)["http.one.downstream_rq_total"] == 97
