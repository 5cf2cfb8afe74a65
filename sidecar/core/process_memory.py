"""The memory of this process, as the system accounts for it: for /memory and the gauges of the server."""

from __future__ import annotations

import resource
import sys
from typing import NamedTuple


class ProcessMemory(NamedTuple):
    """Bytes: anonymous memory that is resident, size of the data segment, all that is resident."""

    anonymous: int
    data: int
    resident: int


def process_memory() -> ProcessMemory:
    """What it is now; where there is no /proc, the most that was ever resident, for all three."""
    try:
        with open("/proc/self/status") as file:
            status = file.read()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return ProcessMemory(peak, peak, peak)
    lines = (line.partition(":") for line in status.splitlines())
    kilobytes = {name: value.split()[0] for name, _, value in lines if name in ("RssAnon", "VmData", "VmRSS")}
    return ProcessMemory(*(int(kilobytes.get(name, "0")) * 1024 for name in ("RssAnon", "VmData", "VmRSS")))
