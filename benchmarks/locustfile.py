# mypy: disallow-subclassing-any=False, disallow-untyped-decorators=False, disable-error-code=import-not-found
"""The same traffic from Locust, for those who read its reports: our sidecar and Envoy as two kinds of user.

    pip install locust
    python -m benchmarks.serve &            # prints the two addresses
    MIZZEN_OURS=http://127.0.0.1:PORT MIZZEN_ENVOY_HOST=http://127.0.0.1:PORT locust -f benchmarks/locustfile.py \\
        --headless --users 32 --spawn-rate 32 --run-time 30s

Locust reports each proxy under its own name. Its client costs far more than a proxy does, so read latencies from it,
not rates, and CPU microseconds from `python -m benchmarks`.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from locust import FastHttpUser, constant, task

from benchmarks.constant_rate import service_calls


def _call(request: bytes) -> tuple[str, dict[str, str]]:
    start, *fields = request.decode().strip().split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    return start.split(" ")[1], headers


_CALLS = itertools.cycle([_call(request) for request in service_calls("orders.shop.svc.cluster.local:8080")])


class Caller(FastHttpUser):
    """One service that calls another without a pause, on one kept-alive connection."""

    abstract = True
    wait_time = constant(0)
    proxy = ""

    @task
    def call(self) -> None:
        """One GET, with a path, a request id and a trace of its own."""
        path, headers = next(_CALLS)
        options: dict[str, Any] = {"headers": headers, "name": self.proxy}
        with self.client.get(path, catch_response=True, **options) as response:
            if response.status_code != 200:
                response.failure(f"{self.proxy} answered {response.status_code}")


class ThroughOurs(Caller):
    """Through our sidecar, at MIZZEN_OURS."""

    proxy = "ours"
    host = os.environ.get("MIZZEN_OURS", "http://127.0.0.1:10000")


class ThroughEnvoy(Caller):
    """Through Envoy, at MIZZEN_ENVOY_HOST."""

    proxy = "envoy"
    host = os.environ.get("MIZZEN_ENVOY_HOST", "http://127.0.0.1:10001")
