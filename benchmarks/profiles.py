"""`--profile`: where our sidecar spends its time while a cell loads it, by py-spy or else by perf."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.context import Context
from benchmarks.processes import LOAD_CORE, Child
from benchmarks.proxies import Running


def _py_spy() -> str | None:
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


@contextlib.contextmanager
def profiled(context: Context, running: Running, cell: str) -> Iterator[None]:
    """Profile `running` during the block; write the stacks into `context.profile` and the busiest functions to stderr."""
    if context.profile is None:
        raise ValueError("profiled() without a directory for profiles")
    context.profile.mkdir(parents=True, exist_ok=True)
    stacks = context.profile / f"{cell}.stacks"
    recording = context.profile / f"{cell}.perf"
    if py_spy := _py_spy():
        command = [py_spy, "record", "--pid", str(running.child.pid), "--format", "raw", "--rate", "500"]
        command += ["--duration", "3600", "--nonblocking", "--output", str(stacks)]
    elif perf := shutil.which("perf"):
        command = [perf, "record", "-g", "-p", str(running.child.pid), "-o", str(recording)]
    else:
        context.say("no profile: neither py-spy nor perf is installed")
        yield
        return
    with Child(command, core=LOAD_CORE, output=context.directory / "profile.out") as recorder:
        yield
        recorder.interrupt()
    if stacks.exists():
        context.say(f"profile of {cell} in {stacks}; share of samples on top of the stack:")
        for function, share in busiest(stacks.read_text())[:25]:
            context.say(f"  {share:6.1%}  {function}")
    elif recording.exists():
        context.say(f"profile of {cell} in {recording}; read it with `perf report -i`")
    else:
        context.say(f"no profile: {recorder.output.read_text(errors='replace')[-500:]}")


def busiest(stacks: str) -> list[tuple[str, float]]:
    """Functions by their share of samples at the top of the stack, from collapsed stacks (`a;b;c 12` a line)."""
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, samples = line.rpartition(" ")
        counts[frames.rpartition(";")[2]] += int(samples)
    total = counts.total()
    return [(function, count / total) for function, count in counts.most_common()]
