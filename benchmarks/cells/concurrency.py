"""Two workers beside one: what a request costs, and how evenly the load is spread."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.backends import nginx_backend
from benchmarks.cells import saturation
from benchmarks.cells.http import wrk
from benchmarks.context import Context
from benchmarks.ports import get
from benchmarks.proxies import ENVOY, OURS, Proxy, Running, serving
from benchmarks.results import CPU, Figure, Rounds, Row, Target
from benchmarks.turns import take_turns

WORKERS = 2
SHARE = Target("≤ 1.1 × one worker", limit=1.1)
SPREAD = Target("within 10 %", limit=10.0)
RATIO = Figure("times_one", "× CPU/request of one worker", CPU.better)
UNEVEN = Figure("spread_percent", "% between most and least loaded", CPU.better)


def _with_workers(proxy: Proxy) -> Proxy:
    def command(file: str) -> Sequence[str]:
        given = list(proxy.command(file))
        if "--concurrency" in given:
            place = given.index("--concurrency")
            del given[place : place + 2]
        return [*given, "--concurrency", str(WORKERS)]

    return replace(proxy, name=f"{proxy.name}-{WORKERS}", command=command)


def _connections(running: Running) -> list[int]:
    """How many connections each worker has taken so far."""
    lines = get(running.admin_port, "/stats").decode().splitlines()
    mine = re.compile(rf"listener\.\S*_{running.port}\.worker_\d+\.downstream_cx_total: (\d+)")
    return [int(found[1]) for line in sorted(lines) if (found := mine.fullmatch(line))]


def _once(running: Running, seconds: float) -> dict[str, float]:
    """One run: what it cost, and how many percent fewer connections the worker with the fewest got than that with the most."""
    before = _connections(running)
    spent = saturation.spend([running], wrk(), seconds)
    each = [now - then for now, then in zip(_connections(running), before, strict=True)]
    return {**spent, "spread_percent": 100.0 * (max(each) - min(each)) / max(each)}


def _in_turns(context: Context, running: Mapping[str, Running]) -> dict[str, Rounds]:
    return take_turns(context, "concurrency", running, lambda name, seconds: _once(running[name], seconds))


def concurrency(context: Context) -> list[Row]:
    """One worker and two of ours, and of Envoy's, on one core, in turns; connections are kept, so their spread is the load's."""
    rows: list[Row] = []
    with nginx_backend(context.directory) as backend:
        for proxy in context.supporting("route_only"):
            if proxy.name not in (OURS, ENVOY):
                continue
            several = _with_workers(proxy)
            given = backend.substitutions()
            with (
                serving(proxy, "route_only", context.directory, given) as one,
                serving(several, "route_only", context.directory, given) as two,
            ):
                results = _in_turns(context, {proxy.name: one, several.name: two})
            if len(results) < 2:
                continue
            medians = {name: rounds.medians() for name, rounds in results.items()}
            figures = medians[several.name]
            figures["times_one"] = figures["cpu_us"] / medians[proxy.name]["cpu_us"]
            ours = proxy.name == OURS
            rows.append(Row("concurrency", proxy.name, RATIO, figures, SHARE if ours else None))
            rows.append(Row("concurrency-spread", proxy.name, UNEVEN, figures, SPREAD if ours else None))
    return rows
