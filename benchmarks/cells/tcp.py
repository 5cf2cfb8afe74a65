"""One TCP stream through tcp_proxy."""

from __future__ import annotations

from benchmarks import load
from benchmarks.backends import iperf3_backend
from benchmarks.cells.http import all_serving
from benchmarks.context import Context
from benchmarks.proxies import OURS
from benchmarks.results import Better, Figure, Rounds, Row, Target

GBIT = Figure("gbit_per_s", "Gbit/s", Better.HIGHER)
_AT_LEAST = Target("≥ Envoy", times_envoy=1.0)


def tcp(context: Context) -> list[Row]:
    """Throughput of one iperf3 stream, and the proxy's CPU milliseconds for one gigabyte."""
    with (
        iperf3_backend(context.directory) as backend,
        all_serving(context, "tcp_proxy", backend.substitutions()) as proxies,
    ):
        results = {running.name: Rounds() for running in proxies}
        for turn in range(context.rounds + 1):
            for running in proxies:
                before = running.child.cpu_us()
                bits, received = load.iperf3(running.port, seconds=context.seconds if turn else 1.0)
                used = running.child.cpu_us() - before
                running.child.check()
                if turn:
                    context.say(f"tcp {turn}/{context.rounds} {running.name}: {bits / 1e9:.1f} Gbit/s")
                    results[running.name].add(gbit_per_s=bits / 1e9, cpu_ms_per_gb=used / 1e3 / (received / 1e9))
    rows = []
    for name, rounds in results.items():
        medians = rounds.medians()
        note = f"{medians['cpu_ms_per_gb']:.0f} ms CPU for one GB"
        rows.append(
            Row("tcp", name, GBIT, medians, _AT_LEAST if name == OURS else None, rounds.column("gbit_per_s"), note)
        )
    return rows
