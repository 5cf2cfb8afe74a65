"""Levels of loggers over /logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sidecar.admin.logging_levels import logging_page


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Two loggers of stages; all levels are as before afterwards."""
    names = ["sidecar", *(name for name in logging.root.manager.loggerDict if name.startswith("sidecar."))]
    names += ["sidecar.one", "sidecar.two"]
    before = {name: logging.getLogger(name).level for name in names}
    logging.getLogger("sidecar").setLevel(logging.INFO)
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def _levels() -> dict[str, str]:
    body = logging_page([]).body
    assert isinstance(body, bytes)
    first, *lines = body.decode().splitlines()
    assert first == "active loggers:"
    return dict(line.strip().split(": ") for line in lines if line)


def test_loggers_inherit_from_main() -> None:
    assert _levels()["main"] == _levels()["one"] == "info"


def test_one_level() -> None:
    assert logging_page([("one", "debug")]).status == 200
    assert (_levels()["one"], _levels()["two"]) == ("debug", "info")
    assert logging.getLogger("sidecar.one").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize("level", ["trace", "debug", "info", "warning", "error", "critical", "off"])
def test_all_levels(level: str) -> None:
    assert logging_page([("level", level)]).status == 200
    assert set(_levels().values()) == {level}


def test_off_silences_even_critical() -> None:
    logging_page([("level", "off")])
    assert not logging.getLogger("sidecar.one").isEnabledFor(logging.CRITICAL)


def test_several_levels() -> None:
    logging_page([("paths", "one:error,two:trace")])
    assert (_levels()["one"], _levels()["two"]) == ("error", "trace")


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ([("paths", "one:error,nobody:info")], "unknown logger name"),
        ([("paths", "one:error,two:loud")], "unknown logger level"),
        ([("one", "error"), ("two", "error")], "invalid number of parameters"),
        ([("paths", "one:error,two")], "empty logger name or empty logger level"),
        ([("asyncio", "error")], "unknown logger name"),
    ],
)
def test_a_wrong_request_changes_nothing(parameters: list[tuple[str, str]], problem: str) -> None:
    before = _levels()
    page = logging_page(parameters)
    assert page.status == 400
    assert isinstance(page.body, bytes)
    assert page.body.startswith(f"error: {problem}\n\nusage: /logging?".encode())
    assert _levels() == before
