"""The memory of this process, as the system accounts for it: for /memory and the gauges of the server."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
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


def anonymous_memory() -> int:
    """The anonymous bytes that are resident, quickly: for whoever asks again and again.

    Pages of files (code, libraries) are left out: the kernel takes them back where it is short of memory.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            _, resident, shared, *_ = file.read().split()
            return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return process_memory().anonymous


def memory_limit(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """The bytes that this process may use: the least that its control groups allow, and at most what the machine has.

    ``groups`` is the file that names the control groups, ``root`` where their file systems are mounted. A group counts with all
    around it; in a container, which often sees its own group as the root, that is one.
    """
    try:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    except (ValueError, OSError):
        limit = sys.maxsize
    for file_name in _limits(groups, root):
        try:
            with open(file_name, encoding="ascii") as file:
                limit = min(limit, int(file.read()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return limit


def _limits(groups: str, root: str) -> Iterator[str]:
    """The files that may hold a limit: `hierarchy:controllers:/path` lines name the groups (man 7 cgroups)."""
    try:
        with open(groups, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        lines = []
    yield f"{root}/memory.max"
    yield f"{root}/memory/memory.limit_in_bytes"
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            mounted, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            mounted, name = f"{root}/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = ""
        for part in path.split("/"):
            if part and part != "..":
                inner = f"{inner}/{part}"
                yield f"{mounted}{inner}/{name}"
