"""The quickstart as a user runs it: split, header route, retry, access log, Ctrl-C, and a port that is taken."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from examples.quickstart.__main__ import BOOTSTRAP, FIRST_PORT, ROLES
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.running import Process, free_range, get, is_free, until


@pytest.fixture(scope="module")
def first() -> int:
    return free_range(len(ROLES))


@pytest.fixture(scope="module")
def quickstart(first: int) -> Iterator[Process]:
    with Process("examples.quickstart", "--first-port", str(first)) as process:
        process.wait_for("Ctrl-C drains and stops everything")
        yield process


def test_the_split_and_no_error_though_v2_fails(quickstart: Process, first: int) -> None:
    answers = Counter((status, body) for status, _, body in (get(first) for _ in range(200)))
    assert set(answers) == {(200, "hello from v1\n"), (200, "hello from v2\n")}
    assert 5 <= answers[200, "hello from v2\n"] <= 45  # 20 expected; outside once in a million runs


def test_the_header_takes_v2_and_the_retry_shows(quickstart: Process, first: int) -> None:
    answers = [get(first, "/path", x_version="v2") for _ in range(6)]
    assert {(status, body) for status, _, body in answers} == {(200, "hello from v2\n")}
    assert {headers["x-envoy-attempt-count"] for _, headers, _ in answers} == {"1", "2"}
    until(lambda: quickstart.output.count("GET /path -> v2 200 attempts=") == 6, "six lines of the access log")
    assert re.search(r"^GET /path -> v2 200 attempts=2 \d+ms$", quickstart.output, re.MULTILINE)


def test_the_statistics_show_what_the_retry_hid(quickstart: Process, first: int) -> None:
    for _ in range(3):
        get(first, x_version="v2")
    printed = re.search(rf"127\.0\.0\.1:{first + 1}(/stats\?.*)'", quickstart.output)
    assert printed
    status, _, body = get(first + 1, printed[1])
    counters = {name: int(value) for name, value in (line.split(": ") for line in body.splitlines())}
    assert status == 200
    assert counters["cluster.v2.retry.upstream_rq_5xx"] >= 1
    assert counters["cluster.v2.upstream_rq_retry_success"] == counters["cluster.v2.retry.upstream_rq_5xx"]


def test_every_command_that_it_prints_names_its_ports(quickstart: Process, first: int) -> None:
    named = [int(port) for port in re.findall(r"^  .*127\.0\.0\.1:(\d+)", quickstart.output, re.MULTILINE)]
    assert len(named) == 4
    assert set(named) == {first, first + 1}


def test_a_port_that_is_taken_is_named_with_what_to_do(first: int, quickstart: Process) -> None:
    with Process("examples.quickstart", "--first-port", str(first)) as second:
        assert second.end() == 1
    assert second.output.startswith(
        f"port {first} on 127.0.0.1, for the sidecar, cannot be used: Address already in use\n"
    )
    assert f"ss -ltnp 'sport = :{first}'" in second.output
    assert re.search(r"python -m examples\.quickstart --first-port [23]0000$", second.output, re.MULTILINE)
    assert get(first)[0] == 200


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_each_port_is_checked_before_anything_runs(number: int) -> None:
    first = free_range(len(ROLES))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + number))
        taken.listen()
        with Process("examples.quickstart", "--first-port", str(first)) as process:
            assert process.end() == 1
    assert f"port {first + number} on 127.0.0.1, for {ROLES[number]}, cannot be used" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_drains_and_gives_every_port_back(number: signal.Signals) -> None:
    first = free_range(len(ROLES))
    with Process("examples.quickstart", "--first-port", str(first)) as process:
        process.wait_for("Ctrl-C drains and stops everything")
        assert get(first)[0] == 200
        process.send(number)
        assert process.end() == 0
    assert "draining ...\n" in process.output
    assert process.output.endswith("stopped\n")
    assert "Traceback" not in process.output
    assert [port for port in range(first, first + len(ROLES)) if not is_free(port)] == []


def test_real_envoy_takes_the_same_file() -> None:
    try:
        envoy = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    command = [envoy, "--mode", "validate", "--use-dynamic-base-id", "-c", str(BOOTSTRAP)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"port_value: {FIRST_PORT}" in BOOTSTRAP.read_text()
