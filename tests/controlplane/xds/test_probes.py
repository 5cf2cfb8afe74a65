"""What a sidecar is told to check, by the probe of a WorkloadGroup."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from controlplane.model.causes import Invalid
from controlplane.model.parsing import parse
from controlplane.xds.health import specifier


def told(probe: dict[str, Any]) -> dict[str, Any]:
    """The one `ClusterHealthCheck`."""
    group = parse(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadGroup",
            "metadata": {"name": "g", "namespace": "shop"},
            "spec": {"template": {"serviceAccount": "a"}, "probe": probe},
        }
    )
    found = MessageToDict(specifier(group.spec.probe), preserving_proto_field_name=True)
    assert found["interval"] == "1s"
    (check,) = found["cluster_health_checks"]
    return dict(check)


def test_kubernetes_defaults() -> None:
    check = told({"httpGet": {"port": 80}})
    assert check["health_checks"] == [
        {
            "timeout": "1s",
            "interval": "10s",
            "no_traffic_interval": "10s",
            "unhealthy_threshold": 3,
            "healthy_threshold": 1,
            "http_health_check": {
                "host": "localhost",
                "path": "/",
                "expected_statuses": [{"start": "200", "end": "400"}],
            },
        }
    ]
    (locality,) = check["locality_endpoints"]
    assert locality["endpoints"] == [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}}}]


def test_all_of_a_request() -> None:
    check = told(
        {
            "httpGet": {
                "port": 80,
                "scheme": "HTTPS",
                "host": "10.0.0.1",
                "path": "/x",
                "httpHeaders": [{"name": "Host", "value": "h"}, {"name": "a", "value": "b"}],
            },
            "timeoutSeconds": 2,
            "periodSeconds": 3,
            "failureThreshold": 4,
            "successThreshold": 5,
        }
    )
    (health,) = check["health_checks"]
    assert health["http_health_check"]["host"] == "h"
    assert health["http_health_check"]["request_headers_to_add"] == [{"header": {"key": "a", "value": "b"}}]
    assert (health["timeout"], health["interval"], health["unhealthy_threshold"], health["healthy_threshold"]) == (
        "2s",
        "3s",
        4,
        5,
    )
    assert check["transport_socket_matches"][0]["transport_socket"]["name"] == "envoy.transport_sockets.tls"


@pytest.mark.parametrize(
    ("probe", "kind"),
    [({"tcpSocket": {"port": 80}}, "tcp_health_check"), ({"grpc": {"port": 80, "service": "s"}}, "grpc_health_check")],
)
def test_other_probes(probe: dict[str, Any], kind: str) -> None:
    assert kind in told(probe)["health_checks"][0]


def test_a_command_is_no_probe_for_a_sidecar() -> None:
    with pytest.raises(Invalid, match="use httpGet, tcpSocket or grpc"):
        told({"exec": {"command": ["true"]}})


def test_no_probe_is_nothing_to_check() -> None:
    assert not specifier(None).cluster_health_checks
