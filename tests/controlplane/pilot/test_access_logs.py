"""Access logs: the mesh's own, and what Telemetry resources make of them, in both data planes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from controlplane.model.causes import Invalid
from tests.controlplane.pilot.behaviour import send, services
from tests.controlplane.pilot.planes import PLANES, running
from tests.controlplane.pilot.scene import Scene, resources_of, sidecar
from tests.running import until

OWN = """
apiVersion: v1
kind: Service
metadata: {name: own, namespace: shop}
spec: {selector: {app: own}, ports: [{name: http, port: 8080}]}
"""
NODE = sidecar("own-1", LABELS={"app": "own"})
OUT, IN = "127.0.0.1_15002", "127.0.0.1_8080"
PROVIDERS = {
    "extensionProviders": [
        {"name": "one", "envoyFileAccessLog": {"path": "/tmp/one"}},
        {"name": "two", "envoyFileAccessLog": {"path": "/tmp/two", "logFormat": {"text": "%RESPONSE_CODE%"}}},
    ]
}


def telemetry(*logging: dict[str, Any], name: str = "logs", namespace: str = "shop", **spec: Any) -> str:
    """The YAML of a Telemetry resource."""
    return yaml.safe_dump(
        {
            "apiVersion": "telemetry.istio.io/v1",
            "kind": "Telemetry",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"accessLogging": list(logging), **spec},
        }
    )


def paths(scene: Scene, listener: str, node: Any = NODE) -> list[str]:
    """The files that a listener's requests are logged in."""
    chain = scene.listeners(node)[listener].filter_chains[0]
    manager = hcm_pb2.HttpConnectionManager.FromString(chain.filters[-1].typed_config.value)
    return [file_pb2.FileAccessLog.FromString(each.typed_config.value).path for each in manager.access_log]


def provider(*names: str, **fields: Any) -> dict[str, Any]:
    """An entry of `accessLogging`."""
    return {"providers": [{"name": name} for name in names], **fields}


def test_nothing_is_logged_unless_somebody_says_so() -> None:
    assert paths(Scene(OWN), OUT) == []


def test_the_meshs_file_is_for_both_sides() -> None:
    scene = Scene(OWN, mesh={"accessLogFile": "/dev/stdout"})
    assert (paths(scene, OUT), paths(scene, IN)) == (["/dev/stdout"], ["/dev/stdout"])


@pytest.mark.parametrize(
    ("texts", "out", "into"),
    [
        ([telemetry(provider("one"))], ["/tmp/one"], ["/tmp/one"]),
        ([telemetry(provider("one", match={"mode": "CLIENT"}))], ["/tmp/one"], ["/dev/null"]),
        (
            [telemetry(provider("one"), provider("two", match={"mode": "SERVER"}))],
            ["/tmp/one"],
            ["/tmp/one", "/tmp/two"],
        ),
        ([telemetry({"disabled": True})], [], []),
        ([telemetry(provider("envoy"))], ["/dev/null"], ["/dev/null"]),
        ([telemetry(provider("one"), namespace="istio-system")], ["/tmp/one"], ["/tmp/one"]),
        (
            [telemetry(provider("one"), namespace="istio-system"), telemetry(provider("two"))],
            ["/tmp/two"],
            ["/tmp/two"],
        ),
        (
            [
                telemetry(provider("one")),
                telemetry({"disabled": True}, name="b", selector={"matchLabels": {"app": "own"}}),
            ],
            [],
            [],
        ),
        ([telemetry(provider("one"), selector={"matchLabels": {"app": "else"}})], ["/dev/null"], ["/dev/null"]),
        ([telemetry(provider("one"), namespace="away")], ["/dev/null"], ["/dev/null"]),
    ],
)
def test_the_most_specific_telemetry_decides(texts: list[str], out: list[str], into: list[str]) -> None:
    scene = Scene(OWN, *texts, mesh={"accessLogFile": "/dev/null", **PROVIDERS})
    assert (paths(scene, OUT), paths(scene, IN)) == (out, into)


def test_a_provider_that_takes_no_logs_here_is_told(caplog: pytest.LogCaptureFixture) -> None:
    remote = {"name": "remote", "envoyHttpAls": {"service": "logs.shop.svc.cluster.local", "port": 9000}}
    scene = Scene(OWN, telemetry(provider("remote", "nowhere")), mesh={"extensionProviders": [remote]})
    assert paths(scene, OUT) == []
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "remote is no file" in told and "no provider nowhere" in told


def test_a_change_of_telemetry_is_followed() -> None:
    scene = Scene(OWN, mesh=PROVIDERS)
    assert paths(scene, OUT) == []
    scene.apply(telemetry(provider("one")))
    assert paths(scene, OUT) == ["/tmp/one"]


@pytest.mark.parametrize("kind", PLANES)
def test_both_data_planes_log_what_the_filter_admits(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "requests.log"
    settings = {
        "name": "json",
        "envoyFileAccessLog": {
            "path": str(file),
            "logFormat": {"labels": {"status": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%", "route": "%ROUTE_NAME%"}},
        },
    }
    condition = {"expression": "(response.code >= 500 && response.code != 503) || response.code < 300"}
    scene = Scene(services(), telemetry(provider("json", filter=condition)), mesh={"extensionProviders": [settings]})
    client = sidecar()
    with running(kind, scene, client, tmp_path / kind) as plane:
        for status in (200, 404, 500, 503, 201):
            send(plane.ports[OUT], "a", {"path": f"/{status}", "headers": {"x-answers": str(status)}})
        until(lambda: file.exists() and "/201" in file.read_text(), "the last request is logged")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["path"] for line in lines] == ["/200", "/500", "/201"]
    assert lines[0] == {"status": 200, "path": "/200", "route": "default"}


@pytest.mark.parametrize(
    "expression", ["request.method == 'GET'", "response.code >= 400 &&", "(response.code == 1", "", "response.code = 1"]
)
def test_expressions_that_are_not_understood_are_refused(expression: str) -> None:
    with pytest.raises(Invalid, match="response"):
        resources_of(telemetry(provider("one", filter={"expression": expression})))


@pytest.mark.parametrize("kind", PLANES)
def test_the_default_formats_are_taken(kind: str, tmp_path: Path) -> None:
    for encoding in ("TEXT", "JSON"):
        file = tmp_path / encoding
        scene = Scene(services(), mesh={"accessLogFile": str(file), "accessLogEncoding": encoding})
        with running(kind, scene, sidecar(), tmp_path / f"{kind}-{encoding}") as plane:
            send(plane.ports[OUT], "a", {"path": "/found"})
            until(lambda file=file: file.exists() and "/found" in file.read_text(), "it is logged")  # type: ignore[misc]
        line = file.read_text()
        assert "outbound|80||a.shop.svc.cluster.local" in line
