"""The clock of the cluster tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sidecar.cluster.surroundings import Clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    yield clock
    clock.close()
