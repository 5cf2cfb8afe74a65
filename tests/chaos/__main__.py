"""``python -m tests.chaos --minutes 10 --seed N``: disturbances at random for as long as you like."""

from __future__ import annotations

import argparse
import secrets
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from tests.chaos.at_random import at_random


def main() -> None:
    parser = argparse.ArgumentParser("tests.chaos")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="a printed one, to repeat what happened")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # leaving nothing behind
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    with TemporaryDirectory() as name:
        uvloop.run(at_random(Path(name), seed, options.minutes * 60))


if __name__ == "__main__":
    main()
