"""The readiness probe of a workload, as a cluster of its sidecar: its health checks ask the application, and the sidecar tells
the control plane on its stream what they find.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

import click

CLUSTER: Final = "workload-probe"
_METADATA: Final = {"filter_metadata": {"mizzen.workload": {"health": True}}}  # by this the sidecar knows the cluster


def probe_cluster(probe: Mapping[str, Any]) -> dict[str, Any]:
    """The cluster for a WorkloadGroup's `probe`. Raises click.ClickException for one that a sidecar cannot make."""
    how = next((one for one in ("httpGet", "tcpSocket", "grpc") if probe.get(one)), None)
    if how is None:
        raise click.ClickException(
            "probe: a sidecar runs no commands: use httpGet, tcpSocket or grpc in the WorkloadGroup"
        )
    told = probe[how]
    host, port = told.get("host") or "127.0.0.1", int(told.get("port") or 0)
    period = f"{int(probe.get('periodSeconds') or 10)}s"
    check: dict[str, Any] = {
        "timeout": f"{int(probe.get('timeoutSeconds') or 1)}s",
        **dict.fromkeys(("interval", "no_traffic_interval", "no_traffic_healthy_interval"), period),
        "unhealthy_threshold": int(probe.get("failureThreshold") or 3),
        "healthy_threshold": int(probe.get("successThreshold") or 1),
    }
    address = {"socket_address": {"address": host, "port_value": port}}
    cluster: dict[str, Any] = {
        "name": CLUSTER,
        "type": "STATIC" if _is_address(host) else "STRICT_DNS",
        "connect_timeout": check["timeout"],
        "metadata": _METADATA,
        "health_checks": [check],
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if how == "httpGet":
        check["http_health_check"] = _http(told, host)
        if str(told.get("scheme", "")).upper() == "HTTPS":
            cluster["transport_socket"] = _any_certificate()
    elif how == "grpc":
        check["grpc_health_check"] = {"service_name": told["service"]} if told.get("service") else {}
        cluster["typed_extension_protocol_options"] = _http2()
    else:
        check["tcp_health_check"] = {}
    return cluster


def _http(told: Mapping[str, Any], host: str) -> dict[str, Any]:
    headers = {one["name"]: one.get("value", "") for one in told.get("httpHeaders") or ()}
    name = next((value for key, value in headers.items() if key.lower() == "host"), host)
    check: dict[str, Any] = {
        "host": name,
        "path": told.get("path") or "/",
        "expected_statuses": [{"start": 200, "end": 400}],
    }
    others = {key: value for key, value in headers.items() if key.lower() != "host"}
    if others:
        check["request_headers_to_add"] = [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in others.items()
        ]
    return check


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _any_certificate() -> dict[str, Any]:
    """A probe asks whether the application answers, not who it is, as Kubernetes' probes."""
    kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": f"type.googleapis.com/{kind}"}}


def _http2() -> dict[str, Any]:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {kind: options}
