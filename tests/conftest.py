"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """A failure has a line, wherever it was."""
    if call.excinfo is not None:
        error = call.excinfo.value
        give_lines(error)
        call.excinfo = pytest.ExceptionInfo.from_exception(error)


def give_lines(error: BaseException) -> None:
    """Where CPython knows no line of a frame (3.11: within the cleanup of a `with`), have it be the function's first: on none
    at all pytest ends the whole run.
    """
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        frames = []
        at = error.__traceback__
        while at is not None:
            frames.append(at)
            at = at.tb_next
        if any(one.tb_lineno is None for one in frames):
            made = None
            for one in reversed(frames):
                line = one.tb_frame.f_code.co_firstlineno if one.tb_lineno is None else one.tb_lineno
                made = TracebackType(made, one.tb_frame, one.tb_lasti, line)
            error.__traceback__ = made
        following = error.__cause__ or error.__context__
        if following is None:
            return
        error = following


@pytest.fixture(scope="session", autouse=True)
def state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sidecars that tests start keep nothing where those of the user do, and find nothing there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
