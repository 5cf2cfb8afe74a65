"""Which priorities a retry avoids: those that were tried, looked at anew as often as the policy says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.router.retry_priority import TriedPriorities


class Cluster:
    """Priorities 0, 1, 2 ... of which ``sick`` ones serve nobody; picks the first that may be."""

    def __init__(self, count: int, sick: frozenset[int] = frozenset()) -> None:
        self.hosts = [SimpleNamespace(priority=priority) for priority in range(count) if priority not in sick]

    def pick(self, context: Any) -> Any:
        return self.hosts[0]

    def serves_without(self, priorities: frozenset[int]) -> bool:
        return any(host.priority not in priorities for host in self.hosts)

    def pick_without(self, context: Any, priorities: frozenset[int]) -> Any:
        return next(host for host in self.hosts if host.priority not in priorities)


@pytest.mark.parametrize(
    ("frequency", "cluster", "expected"),
    [
        (1, Cluster(3), [0, 1, 2, 0, 1, 2, 0]),
        (2, Cluster(3), [0, 0, 1, 1, 2, 2, 0]),
        (3, Cluster(2), [0, 0, 0, 1, 1, 1, 0]),
        (1, Cluster(3, frozenset({1})), [0, 2, 0, 2, 0, 2, 0]),
        (1, Cluster(1), [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_where_the_attempts_go(frequency: int, cluster: Cluster, expected: list[int]) -> None:
    tried = TriedPriorities(frequency)
    host = cluster.pick(None)
    went = [host.priority]
    while len(went) < len(expected):
        tried.attempted(host)
        host = tried.pick(cluster, None)
        went.append(host.priority)
    assert went == expected
