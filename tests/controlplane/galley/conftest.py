from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controlplane.galley import etcds


@pytest.fixture(scope="session", autouse=True)
def _no_etcd_is_left() -> Iterator[None]:
    yield
    etcds.stop_shared()
