"""The proxies that these tests run against: the sidecar, and real Envoy as the control that says that a test is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start

KINDS = (SIDECAR, ENVOY)
_PORTS = FreePorts()


def skip_unless_available(kind: str) -> None:
    """Skips a test on Envoy where there is none."""
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))


@contextmanager
def proxy_of(
    kind: str, names: tuple[str, ...], make: Callable[[Mapping[str, int]], Any], directory: Path
) -> Iterator[Proxy]:
    """A proxy on the bootstrap that ``make`` gives for the ports of these names and of ``admin``.

    In the end it has to stop when it is told to, if it has not been told before.
    """
    ports = {name: _PORTS.take() for name in (*names, "admin")}
    proxy = start(kind, make(ports), ports, directory)
    try:
        yield proxy
    finally:
        proxy.stop()
    assert proxy.process.returncode in (0, -15), proxy.log()
    if kind == SIDECAR:
        assert "Traceback" not in proxy.log(20000), proxy.log(20000)


def stats(proxy: Proxy, part: str = "") -> dict[str, int]:
    """The counters and gauges whose names contain ``part``."""
    status, _, text = proxy.admin(f"/stats?filter={part}")
    assert status == 200, text
    pairs = (line.rpartition(": ") for line in text.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdecimal()}


def eventually(condition: Callable[[], object], what: str, seconds: float = 5.0) -> None:
    """Wait until it holds; AssertionError with ``what`` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
