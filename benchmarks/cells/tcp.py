"""One TCP stream through tcp_proxy."""

from __future__ import annotations

from benchmarks import load
from benchmarks.backends import iperf3_backend
from benchmarks.context import Context
from benchmarks.proxies import OURS
from benchmarks.results import Better, Figure, Row, Target
from benchmarks.turns import all_serving, take_turns

GBIT = Figure("gbit_per_s", "Gbit/s", Better.HIGHER)
_AT_LEAST = Target("≥ Envoy", times_envoy=1.0)


def tcp(context: Context) -> list[Row]:
    """Throughput of one iperf3 stream, and the proxy's CPU milliseconds for one gigabyte."""
    with (
        iperf3_backend(context.directory) as backend,
        all_serving(context, "tcp_proxy", backend.substitutions()) as proxies,
    ):

        def once(name: str, seconds: float) -> dict[str, float]:
            child = proxies[name].child
            before = child.cpu_us()
            bits, received = load.iperf3(proxies[name].port, seconds=seconds)
            used = child.cpu_us() - before
            child.check()
            return {"gbit_per_s": bits / 1e9, "cpu_ms_per_gb": used / 1e3 / (received / 1e9)}

        results = take_turns(context, "tcp", proxies, once)
    rows = []
    for name, rounds in results.items():
        medians = rounds.medians()
        note = f"{medians['cpu_ms_per_gb']:.0f} ms CPU for one GB"
        rows.append(
            Row("tcp", name, GBIT, medians, _AT_LEAST if name == OURS else None, rounds.column("gbit_per_s"), note)
        )
    return rows
