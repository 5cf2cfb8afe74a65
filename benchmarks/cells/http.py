"""HTTP/1.1 at saturation: CPU microseconds for one request, with a bare GET and with real service calls."""

from __future__ import annotations

from pathlib import Path

from benchmarks import load
from benchmarks.backends import LARGE_BODY_BYTES, LARGE_BODY_PATH, nginx_backend
from benchmarks.context import Context
from benchmarks.profiles import profiled
from benchmarks.proxies import ENVOY, OURS, Running, serving
from benchmarks.results import CPU, Better, Figure, Row, Target
from benchmarks.turns import all_serving, take_turns

SPEED = Target("≥ 1.5 × Envoy", times_envoy=1.5)
_WHOLE_CORE = 0.9
"""Below this share of the proxy core something else was the bottleneck: the load core, or another program."""
BODIES = Figure("mb_per_s", "MB/s", Better.HIGHER)


def saturate(
    running: Running, *, seconds: float, script: Path | None, path: str = "/", scheme: str = "http"
) -> dict[str, float]:
    """One run of wrk, and the CPU time that the proxy used in it by the requests that wrk counted."""
    before = running.child.cpu_us()
    result = load.wrk(running.url(path, scheme), seconds=seconds, script=script)
    used = running.child.cpu_us() - before
    running.child.check()
    running.truncate_access_log()
    figures = {
        "cpu_us": used / result.requests,
        "rate": result.rate,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "core_share": used / result.seconds / 1e6,
    }
    if path == LARGE_BODY_PATH:
        figures["mb_per_s"] = result.rate * LARGE_BODY_BYTES / 1e6
    return figures


def measure(
    context: Context,
    cell: str,
    shape: str,
    script: Path | None,
    path: str,
    figure: Figure,
    target: Target,
    scheme: str = "http",
) -> list[Row]:
    """Saturate every proxy that knows `shape` in turns: a row for each, ours with its target."""
    with nginx_backend(context.directory) as backend, all_serving(context, shape, backend.substitutions()) as proxies:

        def once(name: str, seconds: float) -> dict[str, float]:
            return saturate(proxies[name], seconds=seconds, script=script, path=path, scheme=scheme)

        results = take_turns(context, cell, proxies, once)
        memory = {name: proxies[name].child.memory_kb() for name in results}
        if context.profile is not None and OURS in results:
            with profiled(context, proxies[OURS], cell):
                once(OURS, max(context.seconds, 5.0))
    rows = []
    for name, rounds in results.items():
        medians = rounds.medians()
        if script is None and path == "/":
            context.saturation[shape, name] = medians["rate"]
        resident, proportional = memory[name]
        figures = {**medians, "memory_mb": resident / 1024, "pss_mb": proportional / 1024}
        share = medians["core_share"]
        note = (
            f"had {share:.0%} of its core; its req/s and latencies are not what it can do"
            if share < _WHOLE_CORE
            else ""
        )
        rows.append(Row(cell, name, figure, figures, target if name == OURS else None, rounds.column(figure.name), note))
    return rows


def route_bare(context: Context) -> list[Row]:
    """Route only, the same bare GET again and again."""
    return measure(context, "route-bare", "route_only", None, "/", CPU, SPEED)


def route_calls(context: Context) -> list[Row]:
    """Route only, 512 paths, a new request id on every request, and the headers of a service call."""
    return measure(context, "route-calls", "route_only", load.SERVICE_CALL, "/", CPU, SPEED)


def mesh_bare(context: Context) -> list[Row]:
    """Mesh filters on, bare GET."""
    return measure(context, "mesh-bare", "mesh_filters", None, "/", CPU, SPEED)


def mesh_calls(context: Context) -> list[Row]:
    """Mesh filters on, service calls."""
    return measure(context, "mesh-calls", "mesh_filters", load.SERVICE_CALL, "/", CPU, SPEED)


def bodies(context: Context) -> list[Row]:
    """1 MiB response bodies over 32 connections."""
    return measure(context, "bodies", "route_only", None, LARGE_BODY_PATH, BODIES, Target("≥ Envoy", times_envoy=1.0))


def saturation_rate(context: Context, shape: str) -> float:
    """Envoy's requests per second with a bare GET on `shape`: from the cell that ran before, or measured now."""
    known = context.saturation.get((shape, ENVOY))
    if known is not None:
        return known
    envoy = [proxy for proxy in context.supporting(shape) if proxy.name == ENVOY]
    if not envoy:
        raise LookupError("half of Envoy's rate needs Envoy among the proxies")
    with (
        nginx_backend(context.directory) as backend,
        serving(envoy[0], shape, context.directory, backend.substitutions()) as running,
    ):

        def once(_: str, seconds: float) -> dict[str, float]:
            return saturate(running, seconds=seconds, script=None)

        results = take_turns(context, "saturation", [ENVOY], once)
    if ENVOY not in results:
        raise LookupError("Envoy's saturation rate could not be measured")
    context.saturation[shape, ENVOY] = results[ENVOY].medians()["rate"]
    return context.saturation[shape, ENVOY]
