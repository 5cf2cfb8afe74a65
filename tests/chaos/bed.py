"""The test bed: services and a sidecar as processes of their own, clients, and what must hold whatever happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.lifecycle.children import children_of
from tests.chaos.clients import Clients
from tests.running import Process, free_ports, get
from tests.sidecar.bootstraps import address, bootstrap, cluster, http_listener, to_cluster

_PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
RETRIED = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 2,
    "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts",
                              "typed_config": {"@type": _PREVIOUS_HOSTS}}],
    "host_selection_retry_max_attempts": 5,
}  # fmt: skip
"""What our control plane configures: only what provably was not processed is sent again."""

MOST_GROWTH = 24 << 20


@dataclass
class Report:
    """Of one run."""

    sent: int = 0
    failed: int = 0
    retried: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    twice: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.sent} sent, {self.failed} failed, {self.retried} retried, {self.twice} GETs delivered twice"
        return f"{counts}: {self.outcomes}"


class ServiceProcess:
    """One service that can be told how to behave, and be started again on its port."""

    def __init__(
        self, folder: Path, port: int, name: str, prefix: Sequence[str] = (), listen: str = "127.0.0.1"
    ) -> None:
        self.port = port
        self.address = listen
        self.ledger = folder / f"{name}.ledger"
        self.mode = folder / f"{name}.mode"
        self._prefix = prefix
        self.behave("well")
        self.process = self._start()

    def _start(self) -> Process:
        arguments = ("--address", self.address, "--port", str(self.port), "--ledger", str(self.ledger))
        process = Process("tests.chaos.service", *arguments, "--mode", str(self.mode), prefix=self._prefix)
        process.wait_for("serving")
        return process

    def behave(self, mode: str) -> None:
        new = self.mode.with_suffix(".new")
        new.write_text(mode)
        new.rename(self.mode)

    def send(self, number: signal.Signals) -> None:
        self.process.send(number)

    def start(self) -> None:
        self.process = self._start()

    def leave(self) -> None:
        """End it whatever state it is in."""
        self.process.__exit__()

    def delivered(self) -> Counter[tuple[str, int]]:
        """How often each request came, by its method and number."""
        if not self.ledger.exists():
            return Counter()
        return Counter((method, int(number)) for method, number in map(str.split, self.ledger.read_text().splitlines()))


class Bed:
    """Three services behind one sidecar. ``clients`` ask from the beginning of ``running`` to its end."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        clients: int = 8,
        pause: float = 0.002,
        retry: dict[str, Any] | None = None,
        options: Sequence[str] = (),
        log: str = "",
        environment: dict[str, str] | None = None,
        module: str = "sidecar",
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.count = clients
        self.pause = pause
        self.retry = retry
        self.options = tuple(options)
        self.log = log
        self.environment = environment
        self.module = module
        self.port, self.admin = free_ports(2)
        self.services: list[ServiceProcess] = []
        self.clients: Clients
        self.sidecar: Process
        self.retried = 0

    def configuration(self) -> dict[str, Any]:
        route = to_cluster("up")
        route["route"] |= {"timeout": "3s", **({"retry_policy": self.retry} if self.retry else {})}
        behind = cluster("up", 0)
        behind["connect_timeout"] = "0.5s"
        if self.retry:
            behind["circuit_breakers"] = {"thresholds": [{"max_retries": 100}]}
        endpoints = [{"endpoint": {"address": {"socket_address": {"address": each.address, "port_value": each.port}}}}
                     for each in self.services]  # fmt: skip
        behind["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
        made = bootstrap(http_listener("one", self.port, [route], log=self.log), clusters=(behind,), admin=0)
        made["admin"]["address"] = address(self.admin)
        return made

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Report]:
        """Everything runs; at the end, what is to hold is checked, and the report is complete."""
        report = Report()
        ports = free_ports(3)
        try:
            for index, port in enumerate(ports):
                self.services.append(await asyncio.to_thread(ServiceProcess, self.folder, port, f"service-{index}"))
            path = self.folder / "envoy.json"
            path.write_text(json.dumps(self.configuration()))
            arguments = ("-c", str(path), "--drain-time-s", "1", *self.options)
            with Process(self.module, *arguments, environment=self.environment) as self.sidecar:
                await asyncio.to_thread(self.sidecar.wait_for, "all clusters initialised")
                await self.reaches("2 workers serve" if "--concurrency" in self.options else "listening on")
                self.clients = Clients(self.port, self.count, self.seed, self.pause)
                await self.clients.recover()
                yield report
                await self.clients.recover()
                await self.clients.end()
                await self._check_rest()
                await self._fill(report)
                assert "Traceback" not in self.sidecar.output, self.sidecar.output[-3000:]
        finally:
            for service in self.services:
                service.leave()
        self._check_ledgers(report)

    async def reaches(self, text: str, count: int = 1) -> None:
        """Wait until the sidecar has said something so often."""
        async with asyncio.timeout(30):
            while self.sidecar.output.count(text) < count:
                assert self.sidecar.running, self.sidecar.output
                await asyncio.sleep(0.02)

    async def stats(self) -> dict[str, int]:
        _, _, page = await asyncio.to_thread(
            get, self.admin, "/stats?filter=^(cluster.up|http.one|server|listener.1)[.]"
        )
        pairs = (line.rsplit(": ", 1) for line in page.splitlines())
        return {name: int(value) for name, value in pairs if value.isdigit()}

    async def _fill(self, report: Report) -> None:
        stats = await self.stats()
        clients = self.clients
        report.sent, report.failed, report.outcomes = clients.sent, clients.failed, dict(clients.outcomes)
        report.retried = stats["cluster.up.upstream_rq_retry"]
        report.failures = list(clients.failures)

    async def _check_rest(self) -> None:
        """Nothing is under way any more, and no connection of a client is left."""
        async with asyncio.timeout(15):
            while left := {name: value for name, value in (await self.stats()).items()
                           if value and name in _AT_REST}:  # fmt: skip
                await asyncio.sleep(0.05)
        assert not left

    def _check_ledgers(self, report: Report) -> None:
        """Nothing that was acknowledged was lost; nothing that may not be repeated was delivered twice."""
        delivered: Counter[tuple[str, int]] = Counter()
        for service in self.services:
            delivered.update(service.delivered())
        came = {number for _, number in delivered}
        lost = self.clients.acknowledged - came
        assert not lost, f"acknowledged, and never delivered: {sorted(lost)[:10]}"
        repeated = [number for (method, number), times in delivered.items() if method == "POST" and times > 1]
        assert not repeated, f"delivered more than once: {repeated[:10]}"
        assert not self.clients.violations, self.clients.violations[:10]
        report.twice = sum(times > 1 for times in delivered.values())

    def pids(self) -> list[int]:
        """The sidecar's processes."""
        first = self.sidecar.child.pid
        return [first, *children_of(first)]


_AT_REST = {
    "http.one.downstream_cx_active",
    "http.one.downstream_rq_active",
    "cluster.up.upstream_rq_active",
    "cluster.up.upstream_rq_pending_active",
}


def descriptors(pid: int) -> int:
    """How many sockets a process has open."""
    count = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(descriptor).startswith("socket:")
    return count


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
