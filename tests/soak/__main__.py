"""``python -m tests.soak --seconds 60 --seed 1``: the soak for as long as you like, then a drain under load."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from tests.soak.traffic import Soak


def main() -> None:
    parser = argparse.ArgumentParser("tests.soak")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=20)
    options = parser.parse_args()
    with TemporaryDirectory() as name, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(Soak(options.seed).run(options.seconds, Path(name), options.clients))
        answered = runner.run(Soak(options.seed).drain_under_load(2.0, Path(name), options.clients))
    print(f"outcomes: {report['outcomes']}")
    print(
        f"sockets: {report['at_rest']} before, {report['sockets']} after; in flight: {report['in_flight'] or 'nothing'}"
    )
    print(f"memory: {report['growth'] / 1024:.0f} KiB more at the end than half-way")
    print(f"drain: {answered} requests, none lost")


if __name__ == "__main__":
    main()
