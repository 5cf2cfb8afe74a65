"""How pytest-xdist shares the tests out: those of a file stay together, and so do those of a pair of proxies.

The groups go by the names of the tests alone: markers do not reach the scheduler with every pytest.
"""

from __future__ import annotations

from functools import cache

from xdist.scheduler import LoadScopeScheduling

CASES_FILE = "tests/differential/test_cases.py"


class Groups(LoadScopeScheduling):
    """The largest groups begin; each is one process's."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """The file of a test, but for a differential case its bootstrap."""
    file, _, test = nodeid.partition("::")
    if file == CASES_FILE:
        return _bootstraps().get(test.partition("[")[2].removesuffix("]"), file)
    return file


@cache
def _bootstraps() -> dict[str, str]:
    from tests.differential.cases import CASES  # takes seconds: only if they are among the tests

    return {case.name: case.bootstrap for case in CASES}
