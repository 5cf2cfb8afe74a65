"""``python -m tests.chaos.shifted_clock``: the sidecar, with a wall clock that is as many seconds off as ``OFFSET_FILE`` says."""

from __future__ import annotations

import os
import sys
import time

_real = time.time
_real_ns = time.time_ns


def _offset() -> float:
    with open(os.environ["OFFSET_FILE"]) as file:
        return float(file.read() or 0)


time.time = lambda: _real() + _offset()
time.time_ns = lambda: _real_ns() + int(_offset() * 1e9)

from sidecar.__main__ import main  # noqa: E402 - after the clock was replaced

if __name__ == "__main__":
    sys.exit(main())
