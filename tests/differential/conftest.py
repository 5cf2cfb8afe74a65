"""One runner for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import subject_kind
from tests.differential.runner import Runner


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """Both proxies; skips where there is no Envoy."""
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    running = Runner(subject_kind())
    yield running
    running.close()
