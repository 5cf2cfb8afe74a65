"""Columns of `kubectl get`, and the cells of the kinds whose cells are more than a field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table answer: its heading, OpenAPI type ("string", "integer", "date"), and its cell for a document.

    Columns of a ``priority`` above 0 are shown by `-o wide` alone. The cell of a "date" is a time of RFC 3339, which kubectl
    shows as an age.
    """

    name: str
    cell: Callable[[Mapping[str, Any]], Any]
    type: str = "string"
    priority: int = 0
    description: str = ""


def column(name: str, path: str, *, type: str = "string", priority: int = 0, description: str = "") -> Column:
    """The column that shows what is at a path such as "spec.mtls.mode"; nothing where there is nothing."""
    steps = path.split(".")

    def cell(document: Mapping[str, Any]) -> Any:
        value: Any = document
        for step in steps:
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

    return Column(name, cell, type, priority, description)


AGE = column("Age", "metadata.creationTimestamp", type="date", description="Since when it is there.")


def _body(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _service_ports(document: Mapping[str, Any]) -> str:
    ports = _body(document, "spec").get("ports") or ()
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _external_ip(document: Mapping[str, Any]) -> str:
    spec = _body(document, "spec")
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName", "<none>"))
    return ",".join(spec.get("externalIPs") or ()) or "<none>"


def _selector(document: Mapping[str, Any]) -> str:
    selector = _body(document, "spec").get("selector") or {}
    return ",".join(f"{key}={value}" for key, value in selector.items()) or "<none>"


def _some(items: list[str]) -> str:
    return ",".join(items[:3]) + (f" + {len(items) - 3} more..." if len(items) > 3 else "") or "<none>"


def _endpoints(document: Mapping[str, Any]) -> str:
    return _some(
        [
            f"{address.get('ip')}:{port.get('port')}"
            for subset in document.get("subsets") or ()
            for port in subset.get("ports") or ()
            for address in subset.get("addresses") or ()
        ]
    )


def _slice_ports(document: Mapping[str, Any]) -> str:
    return _some([str(port.get("port")) for port in document.get("ports") or ()])


def _slice_endpoints(document: Mapping[str, Any]) -> str:
    return _some([address for each in document.get("endpoints") or () for address in each.get("addresses") or ()])


def _data_count(document: Mapping[str, Any]) -> int:
    names = {*_body(document, "data"), *_body(document, "stringData"), *_body(document, "binaryData")}
    return len(names)


def _pod_ready(document: Mapping[str, Any]) -> str:
    statuses = _body(document, "status").get("containerStatuses") or ()
    ready = sum(1 for each in statuses if each.get("ready"))
    return f"{ready}/{len(_body(document, 'spec').get('containers') or ())}"


def _pod_restarts(document: Mapping[str, Any]) -> int:
    return sum(each.get("restartCount", 0) for each in _body(document, "status").get("containerStatuses") or ())


SERVICE = (
    Column("Type", lambda document: _body(document, "spec").get("type", "ClusterIP")),
    Column("Cluster-IP", lambda document: _body(document, "spec").get("clusterIP") or "<none>"),
    Column("External-IP", _external_ip),
    Column("Port(s)", _service_ports),
    AGE,
    Column("Selector", _selector, priority=1),
)
ENDPOINTS = (Column("Endpoints", _endpoints), AGE)
ENDPOINT_SLICE = (
    column("AddressType", "addressType"),
    Column("Ports", _slice_ports),
    Column("Endpoints", _slice_endpoints),
    AGE,
)
NAMESPACE = (Column("Status", lambda document: _body(document, "status").get("phase", "Active")), AGE)
POD = (
    Column("Ready", _pod_ready),
    Column("Status", lambda document: _body(document, "status").get("phase", "Unknown")),
    Column("Restarts", _pod_restarts, type="integer"),
    AGE,
    column("IP", "status.podIP", priority=1),
    column("Node", "spec.nodeName", priority=1),
)
SECRET = (
    Column("Type", lambda document: document.get("type", "Opaque")),
    Column("Data", _data_count, type="integer"),
    AGE,
)
CONFIG_MAP = (Column("Data", _data_count, type="integer"), AGE)
