"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

# gRPC wakes its threads in a process that was only forked to run another program, and now and then they abort it before it
# does. It reads this when it is first imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where pytest-xdist shares the tests out by groups, the groups are ours."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from tests.sharing import Groups  # only here is pytest-xdist sure to be there

    return Groups(config, log)


@pytest.fixture(scope="session", autouse=True)
def state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sidecars that tests start keep nothing where those of the user do, and find nothing there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
