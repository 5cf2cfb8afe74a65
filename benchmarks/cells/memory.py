"""Memory and start: idle, with a large configuration, and over a million requests."""

from __future__ import annotations

import time

from benchmarks import load
from benchmarks.backends import nginx_backend
from benchmarks.context import Context
from benchmarks.generated import large_configuration
from benchmarks.load import FailedRequests
from benchmarks.ports import NotReady
from benchmarks.processes import ProcessDied
from benchmarks.proxies import OURS, Running, serving
from benchmarks.results import MEMORY, Better, Figure, Rounds, Row, Target
from benchmarks.turns import all_serving

READY = Figure("ready_s", "s to ready", Better.LOWER)
GROWTH = Figure("growth_mb", "MB more", Better.LOWER)
_IDLE_S = 1.5
"""How long a proxy stands idle after /ready before it is weighed: Envoy and ours both finish things after it."""
_REQUESTS = 1_000_000


def memory_mb(running: Running) -> tuple[float, float]:
    """RSS and PSS in MB."""
    resident, proportional = running.child.memory_kb()
    return resident / 1024, proportional / 1024


def _start(context: Context, size: str, template: str | None, memory: Target, ready: Target) -> list[Row]:
    proxies = context.supporting("route_only" if template is None else "mesh_filters")
    results = {proxy.name: Rounds() for proxy in proxies}
    with nginx_backend(context.directory) as backend:
        for _ in range(context.rounds):
            for proxy in proxies:
                try:
                    with serving(
                        proxy, "route_only", context.directory, backend.substitutions(), template=template
                    ) as running:
                        time.sleep(_IDLE_S)
                        resident, proportional = memory_mb(running)
                        context.say(f"{size} {proxy.name}: {resident:.1f} MB, ready in {running.ready_s:.2f} s")
                        results[proxy.name].add(memory_mb=resident, pss_mb=proportional, ready_s=running.ready_s)
                except (ProcessDied, NotReady) as error:
                    context.problem(f"{proxy.name} does not serve the {size} configuration: {error}")
    rows = []
    for cell, figure, target in ((f"memory-{size}", MEMORY, memory), (f"ready-{size}", READY, ready)):
        for name, rounds in results.items():
            if rounds.samples:
                medians = rounds.medians()
                figures = {key: value for key, value in medians.items() if (key == "ready_s") == (figure is READY)}
                note = f"PSS {medians['pss_mb']:.1f} MB" if figure is MEMORY else ""
                wanted = target if name == OURS else None
                rows.append(Row(cell, name, figure, figures, wanted, rounds.column(figure.name), note))
    return rows


def small(context: Context) -> list[Row]:
    """Memory when idle and time to /ready, on route_only.yaml."""
    return _start(context, "small", None, Target("≤ 45 MB", limit=45.0), Target("< 0.5 s", limit=0.5))


def large(context: Context) -> list[Row]:
    """Memory when idle and time to /ready, with 1,000 clusters of 10 endpoints."""
    return _start(context, "large", large_configuration(), Target("≤ 80 MB", limit=80.0), Target("< 2.5 s", limit=2.5))


def _million(context: Context, running: Running) -> float:
    """Send a million service calls; RSS in MB after the first tenth of them."""
    done, before = 0, 0.0
    while done < _REQUESTS:
        done += load.wrk(running.url(), seconds=4, script=load.SERVICE_CALL).requests
        running.child.check()
        running.truncate_access_log()
        if not before and done >= _REQUESTS // 10:
            before = memory_mb(running)[0]
        context.say(f"growth {running.name}: {done:,} requests, {memory_mb(running)[0]:.1f} MB")
    return before


def growth(context: Context) -> list[Row]:
    """RSS after a million service calls with the mesh filters on, less RSS after the first hundred thousand."""
    rows = []
    with (
        nginx_backend(context.directory) as backend,
        all_serving(context, "mesh_filters", backend.substitutions()) as proxies,
    ):
        for running in proxies.values():
            try:
                before = _million(context, running)
            except (ProcessDied, FailedRequests) as error:
                context.problem(f"{running.name} is not measured in growth: {error}")
                continue
            after = memory_mb(running)[0]
            target = Target("≤ 1 MB", limit=1.0) if running.name == OURS else None
            rows.append(Row("growth", running.name, GROWTH, {"growth_mb": after - before, "memory_mb": after}, target))
    return rows
