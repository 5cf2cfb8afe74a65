"""All proxies of a cell up, one loaded at a time, in alternating turns."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping

from benchmarks.context import Context
from benchmarks.load import FailedRequests, UnreadableOutput
from benchmarks.ports import NotReady
from benchmarks.processes import ProcessDied
from benchmarks.proxies import Running, serving
from benchmarks.results import Rounds

_WARM_UP_S = 2.0


@contextlib.contextmanager
def all_serving(
    context: Context, shape: str, substitutions: Mapping[str, str], template: str | None = None
) -> Iterator[dict[str, Running]]:
    """Every proxy that knows `shape`, by name, started and idle; `template` replaces the text of the shape's own file.

    One that does not start is named among the problems, and the others are measured.
    """
    with contextlib.ExitStack() as stack:
        started = {}
        for proxy in context.supporting(shape):
            try:
                running = serving(proxy, shape, context.directory, substitutions, template=template)
                started[proxy.name] = stack.enter_context(running)
            except (ProcessDied, NotReady) as error:
                context.problem(f"{proxy.name} does not serve {shape}: {error}")
        yield started


def take_turns(
    context: Context, cell: str, names: Iterable[str], once: Callable[[str, float], dict[str, float]]
) -> dict[str, Rounds]:
    """Call `once(name, seconds)` for every name in turn: a warm-up that is thrown away, then `context.rounds` rounds.

    A proxy whose run fails is out, named among the problems: half a median would not compare.
    """
    results = {name: Rounds() for name in names}
    for turn in range(context.rounds + 1):
        seconds = context.seconds if turn else min(context.seconds, _WARM_UP_S)
        for name in list(results):
            try:
                figures = once(name, seconds)
            except (ProcessDied, FailedRequests, UnreadableOutput, subprocess.TimeoutExpired) as error:
                context.problem(f"{name} is not measured in {cell}: {error}")
                del results[name]
                continue
            if turn:
                results[name].add(**figures)
                shown = ", ".join(f"{key} {value:,.2f}" for key, value in figures.items())
                context.say(f"{cell} {turn}/{context.rounds} {name}: {shown}")
    return results
