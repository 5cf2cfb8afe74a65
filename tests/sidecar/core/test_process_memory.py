"""How much memory this process may use, from files as the kernel has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.core.process_memory import memory_limit

WHOLE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
MIB = 1 << 20


def limit(tmp_path: Path, groups: str, **files: str) -> int:
    for name, content in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (tmp_path / "self").write_text(groups)
    return memory_limit(str(tmp_path / "self"), str(tmp_path / "cgroup"))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"memory.max": str(50 * MIB)}, 50 * MIB),  # a container's view
        ("0::/system.slice/one.service\n", {"system.slice__one.service__memory.max": str(40 * MIB)}, 40 * MIB),
        (
            "0::/a/b\n",
            {"a__b__memory.max": "max", "a__memory.max": str(30 * MIB), "memory.max": str(90 * MIB)},
            30 * MIB,  # what is around it holds for it, too
        ),
        ("0::/elsewhere\n", {"a__memory.max": str(MIB)}, WHOLE),
        (
            "5:cpu,cpuacct:/x\n4:memory:/x/y\n0::/\n",
            {"memory__x__y__memory.limit_in_bytes": str(20 * MIB), "cpu__x__memory.limit_in_bytes": "1"},
            20 * MIB,
        ),
        ("0::/../..\n", {"memory.max": str(60 * MIB)}, 60 * MIB),
        ("", {}, WHOLE),
        ("broken", {"memory.max": "9223372036854771712"}, WHOLE),
    ],
)
def test_the_least_that_the_control_groups_allow(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert limit(tmp_path, groups, **files) == expected


def test_without_the_file_that_names_the_groups(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(str(70 * MIB))
    assert memory_limit(str(tmp_path / "none"), str(tmp_path)) == 70 * MIB
