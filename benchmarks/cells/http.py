"""HTTP/1.1 at saturation: CPU microseconds for one request, with a bare GET and with real service calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import load
from benchmarks.backends import LARGE_BODY_BYTES, LARGE_BODY_PATH, nginx_backend
from benchmarks.context import Context
from benchmarks.ports import NotReady
from benchmarks.processes import ProcessDied
from benchmarks.profiles import profiled
from benchmarks.proxies import ENVOY, OURS, Running, serving
from benchmarks.results import CPU, Better, Figure, Rounds, Row, Target

SPEED = Target("≥ 1.5 × Envoy", times_envoy=1.5)
BODIES = Figure("mb_per_s", "MB/s", Better.HIGHER)


@contextlib.contextmanager
def all_serving(context: Context, shape: str, substitutions: Mapping[str, str]) -> Iterator[list[Running]]:
    """Every proxy that knows `shape`, started and idle; the cell loads one at a time.

    One that does not start is named among the problems, and the others are measured.
    """
    with contextlib.ExitStack() as stack:
        started = []
        for proxy in context.supporting(shape):
            try:
                started.append(stack.enter_context(serving(proxy, shape, context.directory, substitutions)))
            except (ProcessDied, NotReady) as error:
                context.problem(f"{proxy.name} does not serve {shape}: {error}")
        yield started


def saturate(running: Running, *, seconds: float, script: Path | None, path: str = "/") -> dict[str, float]:
    """One run of wrk, and the CPU time that the proxy used in it by the requests that wrk counted."""
    before = running.child.cpu_us()
    result = load.wrk(running.url(path), seconds=seconds, script=script)
    used = running.child.cpu_us() - before
    running.child.check()
    running.truncate_access_log()
    return {
        "cpu_us": used / result.requests,
        "rate": result.rate,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "mb_per_s": result.requests * LARGE_BODY_BYTES / result.seconds / 1e6 if path == LARGE_BODY_PATH else 0.0,
        "core_share": used / result.seconds / 1e6,
    }


def _measure(context: Context, cell: str, shape: str, script: Path | None, path: str, figure: Figure) -> list[Row]:
    with nginx_backend(context.directory) as backend, all_serving(context, shape, backend.substitutions()) as proxies:
        results = {running.name: Rounds() for running in proxies}
        for running in proxies:
            saturate(running, seconds=min(context.seconds, 2.0), script=script, path=path)
        for turn in range(context.rounds):
            for running in proxies:
                sample = saturate(running, seconds=context.seconds, script=script, path=path)
                results[running.name].add(**sample)
                context.say(f"{cell} {turn + 1}/{context.rounds} {running.name}: {sample['cpu_us']:.1f} us CPU/request")
        memory = {running.name: running.child.memory_kb() for running in proxies}
        for running in proxies:
            if running.name == OURS and context.profile is not None:
                with profiled(context, running, cell):
                    saturate(running, seconds=max(context.seconds, 5.0), script=script, path=path)
    rows = []
    for name, rounds in results.items():
        medians = rounds.medians()
        if script is None and path == "/":
            context.saturation[shape, name] = medians["rate"]
        if path != LARGE_BODY_PATH:
            del medians["mb_per_s"]
        resident, proportional = memory[name]
        figures = {**medians, "memory_mb": resident / 1024, "pss_mb": proportional / 1024}
        target = (SPEED if figure is CPU else Target("≥ Envoy", times_envoy=1.0)) if name == OURS else None
        rows.append(Row(cell, name, figure, figures, target, rounds.column(figure.name)))
    return rows


def route_bare(context: Context) -> list[Row]:
    """Route only, the same bare GET again and again."""
    return _measure(context, "route-bare", "route_only", None, "/", CPU)


def route_calls(context: Context) -> list[Row]:
    """Route only, 512 paths, a new request id on every request, and the headers of a service call."""
    return _measure(context, "route-calls", "route_only", load.SERVICE_CALL, "/", CPU)


def mesh_bare(context: Context) -> list[Row]:
    """Mesh filters on, bare GET."""
    return _measure(context, "mesh-bare", "mesh_filters", None, "/", CPU)


def mesh_calls(context: Context) -> list[Row]:
    """Mesh filters on, service calls."""
    return _measure(context, "mesh-calls", "mesh_filters", load.SERVICE_CALL, "/", CPU)


def bodies(context: Context) -> list[Row]:
    """1 MiB response bodies over 32 connections."""
    return _measure(context, "bodies", "route_only", None, LARGE_BODY_PATH, BODIES)


def saturation_rate(context: Context, shape: str) -> float:
    """Envoy's requests per second with a bare GET on `shape`: from the cell that ran before, or measured now."""
    known = context.saturation.get((shape, ENVOY))
    if known is not None:
        return known
    envoy = [proxy for proxy in context.supporting(shape) if proxy.name == ENVOY]
    if not envoy:
        raise LookupError("half of Envoy's rate needs Envoy among the proxies")
    rounds = Rounds()
    with (
        nginx_backend(context.directory) as backend,
        serving(envoy[0], shape, context.directory, backend.substitutions()) as running,
    ):
        for _ in range(min(3, context.rounds) + 1):
            rounds.add(**saturate(running, seconds=context.seconds, script=None))
    context.saturation[shape, ENVOY] = rounds.medians()["rate"]
    return context.saturation[shape, ENVOY]
