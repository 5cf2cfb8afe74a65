"""What a proxy, or a chain of them, spends while something loads it: CPU time by what got done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.context import Context
from benchmarks.profiles import profiled
from benchmarks.proxies import OURS, Running
from benchmarks.results import Figure, Row, Target
from benchmarks.turns import take_turns

_WHOLE_CORE = 0.9
"""Below this share of the proxy core something else was the bottleneck: the load core, or another program."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one run got done: requests, handshakes or messages, in how many seconds, and what else it measured."""

    done: float
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)


Loading = Callable[[Running, float], Work]
"""`load(running, seconds)` loads one proxy. Raises FailedRequests when anything went wrong."""


def spend(chain: Sequence[Running], load: Loading, seconds: float) -> dict[str, float]:
    """One run against the first of `chain`, and the CPU time that all of them used in it."""
    before = sum(running.child.cpu_us() for running in chain)
    work = load(chain[0], seconds)
    used = sum(running.child.cpu_us() for running in chain) - before
    for running in chain:
        running.child.check()
        running.truncate_access_log()
    return {
        "cpu_us": used / work.done,
        "rate": work.done / work.seconds,
        **work.figures,
        "core_share": used / work.seconds / 1e6,
    }


def measure(
    context: Context,
    cell: str,
    chains: Mapping[str, Sequence[Running]],
    load: Loading,
    figure: Figure,
    target: Target,
) -> list[Row]:
    """Load every chain, by the name of its proxy, in turns: a row for each, ours with its target."""

    def once(name: str, seconds: float) -> dict[str, float]:
        return spend(chains[name], load, seconds)

    results = take_turns(context, cell, chains, once)
    memory = {name: [running.child.memory_kb() for running in chains[name]] for name in results}
    if context.profile is not None and OURS in results:
        with profiled(context, chains[OURS][0], cell):
            once(OURS, max(context.seconds, 5.0))
    rows = []
    for name, rounds in results.items():
        medians = rounds.medians()
        figures = {
            **medians,
            "memory_mb": sum(resident for resident, _ in memory[name]) / 1024,
            "pss_mb": sum(proportional for _, proportional in memory[name]) / 1024,
        }
        share = medians["core_share"]
        note = (
            f"had {share:.0%} of its core; its req/s and latencies are not what it can do"
            if share < _WHOLE_CORE
            else ""
        )
        rows.append(
            Row(cell, name, figure, figures, target if name == OURS else None, rounds.column(figure.name), note)
        )
    return rows


def alone(proxies: Mapping[str, Running]) -> dict[str, list[Running]]:
    """Chains of one proxy each."""
    return {name: [running] for name, running in proxies.items()}
