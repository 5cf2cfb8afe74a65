"""Somebody sets the wall clock while a sidecar runs: what it logs from then on has the new time."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from tests.running import Process, free_ports, get, until
from tests.sidecar.bootstraps import bootstrap, cluster, direct, http_listener, to_cluster
from tests.sidecar.wall_clock import WallClock, needs_compiler

DAY = 86400


@needs_compiler
def test_requests_have_the_time_that_the_clock_tells_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner, admin = free_ports(3)
    log, config = tmp_path / "log", tmp_path / "sidecar.yaml"
    first = http_listener("outer", outer, [to_cluster("inner")], log=str(log))
    logger = first["filter_chains"][0]["filters"][0]["typed_config"]["access_log"][0]["typed_config"]
    logger["log_format"] = {"text_format_source": {"inline_string": "%START_TIME(%s)%\n"}}
    listeners = (first, http_listener("inner", inner, [direct("hello")]))
    config.write_bytes(orjson.dumps(bootstrap(*listeners, clusters=(cluster("inner", inner),), admin=admin)))
    clock = WallClock(tmp_path, monkeypatch)
    with Process("sidecar", "-c", str(config)) as sidecar:
        sidecar.wait_for("all clusters initialised")

        def ahead() -> float:
            """By how much the newest line is ahead of the test's own clock, after requests that pass by the lane, too."""
            for _ in range(4):
                assert get(outer)[0] == 200
            lines = log.read_text().splitlines() if log.exists() else []
            return float(lines[-1]) - time.time() if lines else 0.5 * DAY

        for days in (1, -1, 0):
            clock.set(days * DAY)
            until(lambda: abs(ahead() - days * DAY) < 5, f"requests have a time {days} days ahead")  # noqa: B023
