"""What the runtime says of faults, under Envoy's names or others, and for one downstream cluster."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from sidecar.config.filters import fault
from sidecar.config.filters.fault import FaultAbort, FaultDelay, FaultRateLimit, FaultsOfCluster, HTTPFault
from sidecar.config.runtime import Runtime
from sidecar.config.source import Source

HALF = {"numerator": 50}
DOCUMENT: dict[str, Any] = {
    "delay": {"fixed_delay": "1s", "percentage": HALF},
    "abort": {"http_status": 503, "percentage": HALF},
    "response_rate_limit": {"fixed_limit": {"limit_kbps": 8}, "percentage": HALF},
    "max_active_faults": 5,
}


def read(runtime: dict[str, Any], document: dict[str, Any]) -> HTTPFault:
    context = Context("test.yaml")
    context.runtime = Runtime(runtime)
    message = Source(document, "test.yaml").read(message_class(fault.TYPE)(), context.problems)
    with context:
        return fault.parse_fault(Node(message, "", context))


def test_without_values_nothing_changes() -> None:
    found = read({"fault.http.other": 3}, DOCUMENT)
    assert found == HTTPFault(
        FaultDelay(1.0, (50, 100)), FaultAbort(503, None, (50, 100)), FaultRateLimit(8, (50, 100)), max_active_faults=5
    )


def test_every_key() -> None:
    values = {
        "fault.http.delay.fixed_delay_percent": {"numerator": 1, "denominator": "MILLION"},
        "fault.http.delay.fixed_duration_ms": 1500,
        "fault.http.abort.abort_percent": 20,
        "fault.http.abort.http_status": 429,
        "fault.http.rate_limit.response_percent": 0,
        "fault.http.max_active_faults": 1,
    }
    found = read(values, DOCUMENT)
    assert found.delay == FaultDelay(1.5, (1, 1_000_000))
    assert found.abort == FaultAbort(429, None, (20, 100))
    assert found.response_rate_limit == FaultRateLimit(8, (0, 100))
    assert found.max_active_faults == 1
    assert found.by_downstream_cluster == {
        b"": FaultsOfCluster(FaultDelay(1.5, (50, 100)), FaultAbort(503, None, (50, 100)))
    }, "who names a cluster is asked for by that name only, but for how long a delay is"


def test_keys_of_other_names() -> None:
    document = {**DOCUMENT, "abort_percent_runtime": "mine", "delay_duration_runtime": "long"}
    found = read({"mine": 1, "long": 2000, "fault.http.abort.abort_percent": 99}, document)
    assert (found.abort, found.delay) == (FaultAbort(503, None, (1, 100)), FaultDelay(2.0, (50, 100)))


def test_calls() -> None:
    document = {"abort": {"grpc_status": 3, "percentage": HALF}}
    found = read({"fault.http.abort.grpc_status": 0, "fault.http.abort.http_status": 404}, document)
    assert found.abort == FaultAbort(None, 0, (50, 100))


def test_faults_that_headers_control() -> None:
    document = {
        "delay": {"header_delay": {}, "percentage": HALF},
        "abort": {"header_abort": {}, "percentage": HALF},
        "response_rate_limit": {"header_limit": {}, "percentage": HALF},
    }
    values = {"fault.http.delay.fixed_duration_ms": 5, "fault.http.abort.http_status": 418,
              "fault.http.abort.abort_percent": 10, "fault.http.rate_limit.response_percent": 3}  # fmt: skip
    found = read(values, document)
    assert found.delay == FaultDelay(None, (50, 100), 0.005)
    assert found.abort == FaultAbort(None, None, (10, 100), 418, None, True)
    assert found.response_rate_limit == FaultRateLimit(None, (3, 100), True)


def test_one_downstream_cluster() -> None:
    values = {"fault.http.a.b.abort.abort_percent": 100, "fault.http.a.b.delay.fixed_duration_ms": 0,
              "fault.http.delay.fixed_duration_ms": 7}  # fmt: skip
    found = read(values, DOCUMENT)
    others = FaultsOfCluster(FaultDelay(0.007, (50, 100)), FaultAbort(503, None, (50, 100)))
    of_cluster = FaultsOfCluster(FaultDelay(0.0, (50, 100)), FaultAbort(503, None, (100, 100)))
    assert found.by_downstream_cluster == {b"": others, b"a.b": of_cluster}


@pytest.mark.parametrize("status", [199, 600, "x", -1, True])
def test_what_is_no_status_counts_as_not_there(status: object) -> None:
    assert read({"fault.http.abort.http_status": status}, DOCUMENT).abort == FaultAbort(503, None, (50, 100))
