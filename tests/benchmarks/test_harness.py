"""The whole harness in its quickest form, against real Envoy and nginx; and what it leaves behind when interrupted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.backends import BODY
from benchmarks.envoy import REPOSITORY, EnvoyMissing, envoy_binary
from benchmarks.generated import large_configuration

_MISSING = [tool for tool in ("wrk", "nginx") if shutil.which(tool) is None]
needs_tools = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")
HARNESS = [sys.executable, "-m", "benchmarks", "--quick"]


@pytest.fixture(scope="module")
def envoy() -> str:
    try:
        return str(envoy_binary())
    except EnvoyMissing as error:
        pytest.skip(f"no Envoy: {error}")


def _environment(envoy: str, temporary: Path) -> dict[str, str]:
    return {**os.environ, "MIZZEN_ENVOY": envoy, "TMPDIR": str(temporary)}


def _commands_naming(text: str) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command:
            yield command


def _serving(temporary: Path) -> bool:
    return any(f"{temporary}/" in line and "envoy-route_only.yaml" in line for line in _commands_naming(str(temporary)))


@needs_tools
def test_envoy_and_nginx_in_one_table(envoy: str, tmp_path: Path) -> None:
    report = tmp_path / "table.json"
    cells = "route-bare,route-calls,https-in,mesh-calls,half-route"
    command = [*HARNESS, "--proxies", "envoy,nginx", "--only", cells, "--json", str(report)]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=_environment(envoy, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {(row["cell"], row["proxy"]): row for row in json.loads(report.read_text())["rows"]}
    assert set(rows) == {
        ("route-bare", "envoy"), ("route-bare", "nginx"), ("route-calls", "envoy"), ("route-calls", "nginx"),
        ("https-in", "envoy"), ("mesh-calls", "envoy"), ("half-route", "envoy"), ("half-route", "nginx"),
        ("half-route", "direct"),
    }  # fmt: skip
    for (cell, proxy), row in rows.items():
        assert row["value"] > 0
        if proxy != "direct":
            assert 1 < row["figures"]["cpu_us"] < 2000, (cell, proxy)
    half = rows["half-route", "envoy"]["figures"]["rate"] / rows["route-bare", "envoy"]["figures"]["rate"]
    assert 0.4 < half < 0.6
    assert list(_commands_naming(str(tmp_path))) == []
    assert sorted(tmp_path.iterdir()) == [report]


@needs_tools
@pytest.mark.timeout(240)
def test_http2_tls_and_grpc_in_one_table(envoy: str, tmp_path: Path) -> None:
    missing = [tool for tool in ("h2load", "openssl") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    report = tmp_path / "table.json"
    cells = (
        "h2-32x1,h2-8x16-varied,bridge-2-1,mtls,handshakes-resumed,grpc-unary-100,grpc-stream,h2-idle-streams,tls-idle"
    )
    done = subprocess.run(
        [*HARNESS, "--proxies", "envoy", "--only", cells, "--json", str(report)],
        cwd=REPOSITORY,
        env=_environment(envoy, tmp_path),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {(row["cell"], row["proxy"]): row for row in json.loads(report.read_text())["rows"]}
    direct = [
        "h2-32x1",
        "h2-8x16-varied-indexed",
        "h2-8x16-varied-literal",
        "bridge-2-1",
        "grpc-unary-100",
        "grpc-stream",
    ]
    measured = [*direct, "mtls-1", "mtls-2", "handshakes-resumed", "h2-idle-streams", "tls-idle"]
    assert set(rows) == {(cell, "envoy") for cell in measured} | {(cell, "direct") for cell in direct}
    assert all(rows[cell, "envoy"]["value"] > 0 for cell in measured)
    for cell in direct:
        assert rows[cell, "direct"]["figures"]["rate"] > 0.5 * rows[cell, "envoy"]["figures"]["rate"]
    assert rows["h2-idle-streams", "envoy"]["figures"]["streams"] == 5000
    assert list(_commands_naming(str(tmp_path))) == []
    assert sorted(tmp_path.iterdir()) == [report]


@needs_tools
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file(envoy: str, tmp_path: Path, number: signal.Signals) -> None:
    command = [*HARNESS, "--proxies", "envoy", "--only", "route-bare", "--seconds", "60"]
    harness = subprocess.Popen(
        command, cwd=REPOSITORY, env=_environment(envoy, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not (
            _serving(tmp_path) and any(line.startswith("wrk ") for line in _commands_naming("http://127.0.0.1:"))
        ):
            assert harness.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        harness.send_signal(number)
        harness.wait(20)
    finally:
        harness.kill()
        harness.wait()
    assert list(_commands_naming(str(tmp_path))) == []
    assert list(tmp_path.iterdir()) == []


def test_a_proxy_that_is_not_installed_is_named(tmp_path: Path) -> None:
    if _MISSING:
        pytest.skip(f"not installed: {', '.join(_MISSING)}")
    environment = _environment("/nonexistent/envoy", tmp_path)
    command = [*HARNESS, "--proxies", "envoy", "--only", "route-bare"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "envoy is not measured: MIZZEN_ENVOY names /nonexistent/envoy" in done.stdout


def test_the_large_configuration_is_large_and_the_body_is_83_bytes() -> None:
    text = large_configuration()
    assert 1.5e6 < len(text) < 1.7e6
    assert text.count("- endpoint:") == 10_001
    assert len(BODY) == 83
