"""p99 at a fixed rate: half of what Envoy takes at saturation, the same rate for every proxy.

At saturation a latency says only how long the queue was. Here the requests arrive at a constant rate, whatever the proxy does.
"""

from __future__ import annotations

from benchmarks import load
from benchmarks.backends import nginx_backend
from benchmarks.cells.http import saturation_rate
from benchmarks.context import Context
from benchmarks.proxies import OURS
from benchmarks.results import P99, Row, Target
from benchmarks.turns import all_serving, take_turns

DIRECT = "direct"
"""The row without a proxy: what of the latency is the client and the backend."""
_NO_WORSE = Target("≤ Envoy's", times_envoy=1.0)


def _measure(context: Context, cell: str, shape: str) -> list[Row]:
    rate = saturation_rate(context, shape) / 2
    context.say(f"{cell}: {rate:,.0f} requests/s")
    with nginx_backend(context.directory) as backend, all_serving(context, shape, backend.substitutions()) as proxies:
        ports = {name: running.port for name, running in proxies.items()} | {DIRECT: backend.ports[0]}

        def once(name: str, seconds: float) -> dict[str, float]:
            running = proxies.get(name)
            before = running.child.cpu_us() if running else 0.0
            result = load.constant_rate(ports[name], rate=rate, seconds=seconds)
            figures = {"rate": result.rate, "p50_ms": result.p50_ms, "p99_ms": result.p99_ms}
            if running:
                figures["cpu_us"] = (running.child.cpu_us() - before) / result.requests
                running.child.check()
                running.truncate_access_log()
            return figures

        results = take_turns(context, cell, ports, once)
    return [
        Row(cell, name, P99, rounds.medians(), _NO_WORSE if name == OURS else None, rounds.column("p99_ms"))
        for name, rounds in results.items()
    ]


def half_route(context: Context) -> list[Row]:
    """p99 at half of Envoy's rate, route only."""
    return _measure(context, "half-route", "route_only")


def half_mesh(context: Context) -> list[Row]:
    """p99 at half of Envoy's rate, mesh filters on."""
    return _measure(context, "half-mesh", "mesh_filters")
