"""After the same requests and connections the rbac filters of both proxies have counted the same, policy by policy."""

from __future__ import annotations

from tests.differential.cases.rbac_statistics import CASES
from tests.differential.runner import Runner
from tests.differential.test_http2_statistics import compare_counters


def test_counters(runner: Runner) -> None:
    compare_counters(runner, "rbac-statistics/all", [case.name for case in CASES], r".*rbac\.")
