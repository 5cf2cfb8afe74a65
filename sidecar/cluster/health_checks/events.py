"""The event log: one line of JSON for each change of a host's health, as Envoy renders `data.core.v3.HealthCheckEvent`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sidecar.cluster.host import Host
from sidecar.core.address import Address

Write = Callable[[bytes], None]
"""Takes a line with its line break."""

_LATE = ("degraded_healthy_host", "no_longer_degraded_host", "health_check_failure_event")
"""Events whose fields have numbers behind that of the time: lines are in the order of the fields."""


class HealthCheckEvents:
    """The event log of a cluster. ``checker`` is HTTP, TCP or GRPC, ``now`` the time in seconds since the epoch.

    Envoy's newest members, which the protobufs here do not know, are there too: `http_status_code`, 0 where there is none.
    """

    __slots__ = ("_checker", "_cluster_name", "_now", "_writers")

    def __init__(self, checker: str, cluster_name: str, writers: Sequence[Write], now: Callable[[], float]) -> None:
        self._checker = checker
        self._cluster_name = cluster_name
        self._writers = writers
        self._now = now

    def add_healthy(self, host: Host, first_check: bool) -> None:
        self._log(host, "add_healthy_event", {"first_check": first_check})

    def eject_unhealthy(self, host: Host, reason: str, status: int) -> None:
        self._log(host, "eject_unhealthy_event", {"failure_type": reason, "http_status_code": status})

    def failure(self, host: Host, reason: str, first_check: bool, status: int) -> None:
        members = {"failure_type": reason, "first_check": first_check, "http_status_code": status}
        self._log(host, "health_check_failure_event", members)

    def success(self, host: Host) -> None:
        self._log(host, "successful_health_check_event", {})

    def degraded(self, host: Host, degraded: bool) -> None:
        self._log(host, "degraded_healthy_host" if degraded else "no_longer_degraded_host", {})

    def _log(self, host: Host, event: str, members: dict[str, Any]) -> None:
        if not self._writers:
            return
        locality = host.locality
        line: dict[str, Any] = {
            "health_checker_type": self._checker,
            "host": _address(host.address),
            "cluster_name": self._cluster_name,
        }
        last = event == "successful_health_check_event"
        if event not in _LATE and not last:
            line[event] = members
        line["timestamp"] = _timestamp(self._now())
        if event in _LATE:
            line[event] = members
        line["metadata"] = {"filter_metadata": host.metadata, "typed_filter_metadata": {}}
        line["locality"] = {"region": locality.region, "zone": locality.zone, "sub_zone": locality.sub_zone}
        if last:
            line[event] = members
        data = json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        for write in self._writers:
            write(data)

    def __repr__(self) -> str:
        return f"<HealthCheckEvents of {self._cluster_name} to {len(self._writers)} files>"


def _address(address: Address) -> dict[str, Any]:
    if address.ip is None:
        return {"pipe": {"path": address.path, "mode": 0}}
    return {
        "socket_address": {
            "protocol": "TCP",
            "address": address.ip,
            "port_value": address.port,
            "resolver_name": "",
            "ipv4_compat": False,
            "network_namespace_filepath": "",
        }
    }


def _timestamp(now: float) -> str:
    """As protobuf writes a time of whole milliseconds: without a fraction where there is none."""
    milliseconds = int(now * 1000)
    text = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = milliseconds % 1000
    return f"{text}.{fraction:03d}Z" if fraction else f"{text}Z"
