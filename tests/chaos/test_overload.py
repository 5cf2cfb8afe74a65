"""More load than can be carried: what is carried stays what it was, memory stays flat, and it is over when the load is.

Figures are of the processor time that the sidecar got, so that they hold beside other work on the same machine: what takes a
second of a core that is its own takes two of one that is shared by two.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.open_loop import OpenLoop, Outcome
from tests.running import Process, free_ports
from tests.sidecar.bootstraps import bootstrap, cluster, http_listener, to_cluster

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed"),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc to read memory and time from"),
]

MEGABYTE = 1 << 20
ATTEMPTS = 3
CLIENTS = 32
TYPES = "type.googleapis.com/envoy.extensions."


@dataclass(frozen=True, slots=True)
class Used:
    """What a process has used: processor seconds at a time, and resident bytes."""

    at: float
    processor: float
    resident: int

    def share_since(self, before: Used) -> float:
        """The share of a core that it got."""
        return (self.processor - before.processor) / (self.at - before.at)


class Loaded:
    """A sidecar whose responses cost about half a millisecond, or next to nothing."""

    def __init__(self, process: Process, port: int, admin: int) -> None:
        self.pid = process.child.pid
        self.port = port
        self.admin = admin

    def used(self) -> Used:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        resident = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        return Used(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), resident)

    def get(self, port: int, path: str = "/", timeout: float = 2.0) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as response:
            return str(response.read().decode())

    def stats(self, pattern: str) -> dict[str, int]:
        lines = self.get(self.admin, f"/stats?filter={pattern}").splitlines()
        return {name: int(value) for name, _, value in (line.rpartition(": ") for line in lines)}

    def closed_loop(self, clients: int, seconds: float, *headers: str) -> tuple[float, float]:
        """Requests a second that were answered with 200, and for each second of processor time that the sidecar got."""
        arguments = [part for header in ("accept-encoding: gzip", *headers) for part in ("-H", header)]
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", *arguments, f"http://127.0.0.1:{self.port}/"]
        before = self.used()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        share = self.used().share_since(before)
        all_of_them = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
        assert all_of_them is not None, done.stdout
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
        answered = int(all_of_them[1]) - (0 if refused is None else int(refused[1]))
        rate = answered / float(all_of_them[2])
        return rate, rate / share

    def recovers_within(self) -> float:
        """Seconds until a new client is answered, nothing is done about load any more, and nobody is left."""
        start = time.monotonic()
        while time.monotonic() < start + 20:
            try:
                self.get(self.port)
                if not any(self.stats("scale_percent|http.in.downstream_cx_active").values()):
                    break
            except OSError:
                pass
            time.sleep(0.02)
        return time.monotonic() - start


@contextmanager
def loaded(directory: Path, costly: bool) -> Iterator[Loaded]:
    port, admin = free_ports(2)
    dice = random.Random(1)
    text = " ".join(str(dice.randrange(10**6)) for _ in range(2000)) if costly else "hello"
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}
    gzip = {"name": "gzip", "typed_config": {"@type": f"{TYPES}compression.gzip.compressor.v3.Gzip"}}
    compressor = {"@type": f"{TYPES}filters.http.compressor.v3.Compressor", "compressor_library": gzip}
    router = {"name": "router", "typed_config": {"@type": f"{TYPES}filters.http.router.v3.Router"}}
    listener: dict[str, Any] = http_listener(
        "in", port, [route], http_filters=[{"name": "compressor", "typed_config": compressor}, router]
    )
    typed = listener["filter_chains"][0]["filters"][0]["typed_config"]
    typed["route_config"]["max_direct_response_body_size_bytes"] = 1 << 20
    file = directory / "envoy.json"
    file.write_text(json.dumps(bootstrap(listener, admin=admin)))
    with Process("sidecar", "--config", str(file), "--drain-time-s", "1") as process:
        process.wait_for("all clusters initialised")
        yield Loaded(process, port, admin)


def repeatedly(attempt: Callable[[], list[str]]) -> None:
    """Other work on the machine may spoil a run, and not three in a row: each gives what was wrong with it."""
    failures = []
    for _ in range(ATTEMPTS):
        wrong = attempt()
        if not wrong:
            return
        failures.append("; ".join(wrong))
    pytest.fail("\n".join(failures), pytrace=False)


@pytest.mark.parametrize("costly", [False, True], ids=["cheap", "costly"])
def test_ten_times_the_clients_that_saturate_it(costly: bool, tmp_path: Path) -> None:
    with loaded(tmp_path, costly) as sidecar:
        sidecar.closed_loop(10 * CLIENTS, 1)

        def attempt() -> list[str]:
            most, most_for_time = sidecar.closed_loop(CLIENTS, 2)
            before = sidecar.used()
            goodput, for_time = sidecar.closed_loop(10 * CLIENTS, 3)
            grown = sidecar.used().resident - before.resident
            print(f"{CLIENTS} clients: {most:.0f}/s, {most_for_time:.0f} a CPU second; ten times as many: "
                  f"{goodput:.0f}/s, {for_time:.0f} a CPU second; {grown / MEGABYTE:+.1f} MB")  # fmt: skip
            wrong = []
            if for_time < 0.9 * most_for_time:
                wrong.append(f"goodput fell from {most_for_time:.0f} to {for_time:.0f} requests a CPU second")
            if grown > 2 * MEGABYTE:
                wrong.append(f"memory grew by {grown / MEGABYTE:.1f} MB")
            return wrong

        repeatedly(attempt)


HOGS = 150
PIECE = 65536


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream that answers with eight megabytes, or with a word."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /big"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (128 * PIECE))
                for _ in range(128):
                    writer.write(os.urandom(PIECE))
                    await writer.drain()
            else:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def test_clients_that_do_not_read_do_not_take_all_memory(tmp_path: Path) -> None:
    port, admin = free_ports(2)

    async def main(limit: int, sidecar: Loaded, upstream: asyncio.Server) -> None:
        watch = Watch(sidecar)
        watch.start()
        hogs = []
        try:
            for _ in range(HOGS):
                hog = socket.create_connection(("127.0.0.1", port))
                hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                hog.sendall(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n")
                hogs.append(hog)
                await asyncio.sleep(0.01)
            count = "envoy.overload_actions.reset_high_memory_stream.count"
            async with asyncio.timeout(30):
                while not (await asyncio.to_thread(sidecar.stats, count))[count]:
                    await asyncio.sleep(0.05)
                while await asyncio.to_thread(sidecar.get, port) != "hello":
                    await asyncio.sleep(0.05)
        finally:
            watch.over.set()
            for hog in hogs:
                hog.close()
        await asyncio.to_thread(watch.join)
        upstream.close()
        print(f"{watch.most / MEGABYTE:.0f} MB at most, of {limit / MEGABYTE:.0f} MB")
        assert watch.most < 1.15 * limit

    async def run() -> None:
        upstream = await asyncio.start_server(pour, "127.0.0.1", 0)
        listener = http_listener("in", port, [to_cluster("up")])
        config = bootstrap(listener, clusters=(cluster("up", upstream.sockets[0].getsockname()[1]),), admin=admin)
        limit = 100 * MEGABYTE
        heap = "envoy.resource_monitors.fixed_heap"
        typed = {"@type": f"{TYPES}resource_monitors.fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes": limit}
        scaled = {"name": heap, "scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}}
        config["overload_manager"] = {
            "refresh_interval": "0.05s",
            "resource_monitors": [{"name": heap, "typed_config": typed}],
            "actions": [
                {"name": f"envoy.overload_actions.{name}", "triggers": [scaled]}
                for name in ("reset_high_memory_stream", "shrink_heap")
            ],
            "buffer_factory_config": {"minimum_account_to_track_power_of_two": 14},
        }
        file = tmp_path / "envoy.json"
        file.write_text(json.dumps(config))
        process = await asyncio.to_thread(Process, "sidecar", "--config", str(file), "--drain-time-s", "1")
        with process:
            await asyncio.to_thread(process.wait_for, "all clusters initialised")
            await main(limit, Loaded(process, port, admin), upstream)

    asyncio.run(run())


class Watch(threading.Thread):
    """Looks at the memory of a sidecar while others are busy with it."""

    def __init__(self, sidecar: Loaded) -> None:
        super().__init__(daemon=True)
        self.sidecar = sidecar
        self.over = threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.most = max(self.most, self.sidecar.used().resident)


def overwhelmed(sidecar: Loaded, request: bytes, rate: float, reuse: bool) -> tuple[Outcome, int, float]:
    """What came of it, the most memory meanwhile, and the share of a core that the sidecar got."""
    watch = Watch(sidecar)
    watch.start()
    before = sidecar.used()
    try:
        outcome = OpenLoop(sidecar.port, request, rate, reuse=reuse).run(6.0)
    finally:
        watch.over.set()
    share = min(1.0, sidecar.used().share_since(before))
    watch.join()
    return outcome, watch.most, share


@pytest.mark.parametrize("reuse", [True, False], ids=["kept-connections", "a-connection-each"])
def test_three_times_what_it_can_carry(reuse: bool, tmp_path: Path) -> None:
    headers = () if reuse else ("connection: close",)
    lines = ["GET / HTTP/1.1", "host: a", "accept-encoding: gzip", *headers]
    request = "\r\n".join([*lines, "", ""]).encode()
    with loaded(tmp_path, True) as sidecar:
        sidecar.closed_loop(10 * CLIENTS, 1, *headers)

        def attempt() -> list[str]:
            most, most_for_time = sidecar.closed_loop(CLIENTS, 2, *headers)
            before = sidecar.used().resident
            outcome, resident, share = overwhelmed(sidecar, request, 3 * most, reuse)
            recovery = sidecar.recovers_within()
            goodput = outcome.answered / 6.0 / share
            print(f"{most:.0f}/s at most, {most_for_time:.0f} a CPU second; at three times that, with {share:.0%} of a "
                  f"core: {outcome}; {goodput:.0f} a CPU second; {(resident - before) / MEGABYTE:+.1f} MB; recovered in "
                  f"{recovery:.2f} s")  # fmt: skip
            wrong = []
            if outcome.percentile(0.99) > 1.0 / share:
                wrong.append(f"p99 is {outcome.percentile(0.99):.2f} s with {share:.0%} of a core")
            if goodput < 0.6 * most_for_time:
                wrong.append(f"goodput fell from {most_for_time:.0f} to {goodput:.0f} a CPU second")
            if resident > before + 16 * MEGABYTE:
                wrong.append(f"memory grew by {(resident - before) / MEGABYTE:.1f} MB")
            if recovery > 1.0 / share:
                wrong.append(f"it took {recovery:.2f} s to recover with {share:.0%} of a core")
            return wrong

        repeatedly(attempt)
