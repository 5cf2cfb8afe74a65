"""``python -m tests.soak --seconds 60 --seed 1``: the soak for as long as you like, then a drain under load."""

from __future__ import annotations

import argparse
import asyncio

import uvloop

from tests.soak.traffic import Soak


def main() -> None:
    parser = argparse.ArgumentParser("tests.soak")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(Soak(options.seed).run(options.seconds, options.clients))
        answered = runner.run(Soak(options.seed).drain_under_load(2.0, options.clients))
    print(f"outcomes: {report['outcomes']}")
    print(f"descriptors, tasks, timers, objects: {report['at_rest']} before, {report['left']} after")
    print(f"memory: {report['growth'] / 1024:.0f} KiB more at the end than half-way")
    print(f"drain: {answered} requests, none lost")


if __name__ == "__main__":
    main()
