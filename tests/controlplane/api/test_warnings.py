"""Who writes what nothing acts upon is told, as Kubernetes tells it: in `Warning` headers, which kubectl shows."""

from __future__ import annotations

from typing import Any

from tests.controlplane.api.serving import Client

PATH = "/apis/telemetry.istio.io/v1/namespaces/{}/telemetries"
TRACED: dict[str, Any] = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "default"},
    "spec": {"tracing": [{}]},
}
WARNING = '299 - "Telemetry default: spec.tracing: has no effect yet: give proxies tracing in their bootstrap"'


def test_whoever_writes_is_told(client: Client, namespace: str) -> None:
    path = PATH.format(namespace)
    assert client("POST", path, TRACED).headers["Warning"] == WARNING
    assert client("PUT", f"{path}/default", TRACED).headers["Warning"] == WARNING
    patch = {"spec": {"tracing": [{"disableSpanReporting": True}]}}
    answer = client("PATCH", f"{path}/default", patch, Content_Type="application/merge-patch+json")
    assert answer.headers["Warning"] == WARNING
    assert client("GET", f"{path}/default").headers["Warning"] is None


def test_several_things_are_told_one_by_one(client: Client, namespace: str) -> None:
    document = {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "all"},
        "spec": {"tracing": [{}], "metrics": [{}]},
        "status": {"a": 1},
    }
    told = client("POST", f"/apis/telemetry.istio.io/v1/namespaces/{namespace}/telemetries", document).headers[
        "Warning"
    ]
    assert told is not None and told.count("299 - ") == 3
    assert "spec.tracing" in told and "spec.metrics" in told and "status is not taken here" in told


def test_what_is_in_effect_brings_no_warning(client: Client, namespace: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 80}], "sessionAffinity": "None"},
    }
    answer = client("POST", f"/api/v1/namespaces/{namespace}/services", service)
    assert answer.status == 201 and answer.headers["Warning"] is None
