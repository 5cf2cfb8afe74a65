"""A real control plane with a large mesh in it, and many proxies that ask: who hears of a change, when, and for how much."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.control_plane import mesh, translation
from benchmarks.control_plane.client import Client
from benchmarks.control_plane.mesh import Size
from controlplane.cli.api import Api
from controlplane.cli.beside import free_port
from controlplane.cli.kubeconfig import FILE, find_access
from controlplane.model.kinds import KINDS

PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Line:
    """One figure beside what is asked of it; ``met`` is None where nothing is."""

    what: str
    figure: str
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Report:
    """All lines so far."""

    lines: list[Line] = field(default_factory=list)

    def add(self, what: str, figure: str, target: str = "", met: bool | None = None) -> None:
        self.lines.append(Line(what, figure, target, met))
        print(f"{what}: {figure}" + (f" ({target}: {'met' if met else 'missed'})" if target else ""), flush=True)


@dataclass(slots=True)
class Running:
    """The control plane's process."""

    process: asyncio.subprocess.Process
    xds: str
    api: Api

    def memory(self) -> float:
        """Resident, in MB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

    def cpu(self) -> float:
        """Seconds of CPU since its start."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    async def apply(self, document: dict[str, Any]) -> float:
        """Write a resource; the moment at which the request was sent."""
        began = time.monotonic()
        await asyncio.to_thread(self.api.apply, KINDS[document["kind"]], document)
        return began


@asynccontextmanager
async def control_plane(directory: Path) -> Any:
    """`python -m controlplane` on a core of its own."""
    xds = f"127.0.0.1:{free_port()}"
    log = (directory / "control-plane.log").open("wb")
    cores = sorted(os.sched_getaffinity(0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controlplane", "--data-dir", str(directory / "data"), "--log-level", "warning",
        "--api-address", f"127.0.0.1:{free_port()}", "--xds-address", xds, "--secure-xds-address", "",
        stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    if len(cores) > 1:
        os.sched_setaffinity(process.pid, {cores[0]})
    try:
        until = time.monotonic() + 30
        while not (directory / "data" / FILE).exists():
            if process.returncode is not None or time.monotonic() > until:
                raise RuntimeError((directory / "control-plane.log").read_text()[-3000:])
            await asyncio.sleep(0.05)
        yield Running(process, xds, Api(find_access(str(directory / "data")), timeout=60))
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        log.close()


def load(running: Running, documents: Iterable[dict[str, Any]]) -> int:
    """Write many resources, one after the other; how many."""
    count = 0
    for document in documents:
        kind = KINDS[document["kind"]]
        metadata = document["metadata"]
        start = f"/apis/{kind.group}/{kind.versions[0]}" if kind.group else f"/api/{kind.versions[0]}"
        where = f"/namespaces/{metadata['namespace']}" if kind.namespaced else ""
        running.api.request("POST", f"{start}{where}/{kind.plural}", document)
        count += 1
    return count


async def wait_for(condition: Any, what: str) -> None:
    """Until a condition holds; RuntimeError when patience is over."""
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"not in {PATIENCE:.0f} s: {what}")
        await asyncio.sleep(0.01)


async def quiet(clients: Sequence[Client], seconds: float = 1.0) -> None:
    """Until nothing has come for a while."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        last = max((client.arrivals[-1][0] for client in clients if client.arrivals), default=0.0)
        if time.monotonic() - last > seconds:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the control plane does not come to rest")


async def full_start(running: Running, size: Size, report: Report, *, delta: bool, scoped: bool) -> Any:
    """All proxies connect at once."""
    clients = [Client(running.xds, one, one % size.namespaces, delta=delta) for one in range(size.proxies)]
    began, cpu = time.monotonic(), running.cpu()
    tasks = [asyncio.create_task(client.run()) for client in clients]
    await wait_for(lambda: all(client.ready.is_set() for client in clients), "every proxy has everything")
    took = time.monotonic() - began
    await quiet(clients)
    dialect = "delta" if delta else "state of the world"
    view = f"{size.scope} services each" if scoped else "the whole mesh each"
    sent = sum(client.bytes for client in clients) / 1e6
    report.add(f"full start of {size.proxies} proxies, {view}, {dialect}", f"{took:.1f} s, CPU {running.cpu() - cpu:.1f} s, "
               f"{sent:.0f} MB on the wire", "60 s", took < 60)  # fmt: skip
    report.add("  memory of the control plane", f"{running.memory():.0f} MB", "1024 MB", running.memory() < 1024)
    return clients, tasks


async def change(
    running: Running, clients: Sequence[Client], report: Report, what: str, document: dict[str, Any], kinds: set[str],
    concerned: set[str] | None,
) -> None:  # fmt: skip
    """Change one resource; when do those hear of it whom it concerns, and does anybody else hear anything?

    ``concerned`` are namespaces, None for all; ``kinds`` are the only types that may be pushed.
    """
    await quiet(clients)
    marks = [len(client.arrivals) for client in clients]
    before = sum(client.bytes for client in clients)
    cpu = running.cpu()
    hearing = [client for client in clients if concerned is None or client.namespace in concerned]
    began = await running.apply(document)
    await wait_for(
        lambda: all(
            any(short in kinds for _, short, _ in client.arrivals[mark:])
            for client, mark in zip(clients, marks, strict=True)
            if concerned is None or client.namespace in concerned
        ),
        f"{what} has reached everybody",
    )
    await quiet(clients)
    times: list[float] = []
    others: Counter[str] = Counter()
    for client, mark in zip(clients, marks, strict=True):
        new = client.arrivals[mark:]
        expected = concerned is None or client.namespace in concerned
        arrived = [moment for moment, short, _ in new if short in kinds]
        if expected:
            times.append(arrived[0] - began)
        others.update(short for _, short, _ in new if not expected or short not in kinds)
    p50, p99 = (quantiles(times, n=100)[index] for index in (49, 98)) if len(times) > 1 else (times[0], times[0])
    weight = sum(client.bytes for client in clients) - before
    report.add(
        f"{what}: {len(hearing)} of {len(clients)} proxies concerned",
        f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, CPU {running.cpu() - cpu:.2f} s, {weight / 1e3:.1f} KB on the wire",
        "1 s at p99",
        p99 < 1,
    )
    report.add(
        "  pushes that concern nobody",
        str(sum(others.values())) + (f" {dict(others)}" if others else ""),
        "0",
        not others,
    )


async def measure(size: Size, report: Report) -> None:
    """Everything."""
    translation.measure(size, report)
    with tempfile.TemporaryDirectory(prefix="mizzen-benchmarks-") as name:
        async with control_plane(Path(name)) as running:
            began = time.monotonic()
            count = await asyncio.to_thread(
                load, running, [*mesh.namespaces(size), *mesh.services(size), mesh.virtual_service(size, 0, 5)]
            )
            took = time.monotonic() - began
            report.add(
                "resources written over REST, one after the other", f"{count} in {took:.1f} s, {count / took:.0f}/s"
            )
            number = 0
            for scoped in (False, True):
                if scoped:
                    await asyncio.to_thread(load, running, mesh.sidecars(size))
                for delta in (False, True):
                    clients, tasks = await full_start(running, size, report, delta=delta, scoped=scoped)
                    number += 1
                    concerned = (
                        {f"team-{one}" for one in range(size.namespaces) if 0 in size.seen_from(one)}
                        if scoped
                        else None
                    )
                    await change(running, clients, report, "an endpoint changes",
                                 mesh.endpoint_slice(size, 0, generation=number), {"EDS"}, concerned)  # fmt: skip
                    await change(running, clients, report, "a VirtualService changes",
                                 mesh.virtual_service(size, 0, 5 + number), {"RDS"}, concerned)  # fmt: skip
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks control-plane", description=__doc__)
    default = Size()
    for name in ("services", "endpoints", "namespaces", "proxies", "scope"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    options = parser.parse_args(arguments)
    size = Size(options.services, options.endpoints, options.namespaces, options.proxies, options.scope)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))  # the first one is the control plane's
    report = Report()
    asyncio.run(measure(size, report))
    missed = [line for line in report.lines if line.met is False]
    print(f"{len(missed)} missed" if missed else "all met")
    return 1 if missed else 0
