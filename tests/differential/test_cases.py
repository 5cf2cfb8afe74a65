"""Every case: the replies and what the upstreams saw, and then the access-log lines, are those of Envoy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.differential.case import Case
from tests.differential.cases import CASES
from tests.differential.known_differences import stale, unaccounted
from tests.differential.outcome import Difference
from tests.differential.proxies import ENVOY, ProxyFailedError
from tests.differential.runner import Runner

LOGGED = [case for case in CASES if case.access_log]


def judge(case: Case, found: list[Difference], subject: str, *, log: bool) -> None:
    """Fail on a difference that is not listed and on a listed one that is not there."""
    if subject == ENVOY:
        assert not found, "\n   ".join(["Envoy differs from itself:", *map(str, found)])
        return
    silent = unaccounted(case.name, found)
    assert not silent, "\n   ".join([f"{case.name} ({case.bootstrap})", *map(str, silent)])
    gone = stale(case.name, found, log=log)
    assert not gone, f"{case.name} no longer differs from Envoy: {', '.join(gone)}"


@contextmanager
def fresh_if_wrong(runner: Runner, case: Case) -> Iterator[None]:
    """Whoever tries again after a failure carries the case out again."""
    try:
        yield
    except AssertionError:
        runner.exchanges.pop(case.name, None)
        raise


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exchange(runner: Runner, case: Case) -> None:
    """The client gets the same bytes, and the upstreams see the same requests."""
    try:
        found = runner.exchange(case).differences()
    except ProxyFailedError as error:
        pytest.fail(str(error), pytrace=False)
    with fresh_if_wrong(runner, case):
        judge(case, found, runner.subject, log=False)


@pytest.mark.parametrize("case", LOGGED, ids=lambda case: case.name)
def test_access_log(runner: Runner, case: Case) -> None:
    """The same lines are logged."""
    try:
        found = runner.access_log(case)
    except ProxyFailedError as error:
        pytest.fail(str(error), pytrace=False)
    with fresh_if_wrong(runner, case):
        judge(case, found, runner.subject, log=True)
