"""The event log of outlier detection: a line of JSON for each host that is ejected, would be, or comes back.

Source: `envoy.data.cluster.v3.OutlierDetectionEvent`, as Envoy writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from sidecar.cluster.host import Host
from sidecar.cluster.outlier_rates import ClusterRates, HostMonitor


class OutlierEventLog:
    """Writes the events of all clusters. `clock` is the worker's, `epoch` tells what makes it the time of day."""

    __slots__ = ("_clock", "_epoch", "_write")

    def __init__(self, write: Callable[[bytes], None], clock: Callable[[], float], epoch: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._epoch = epoch

    def ejected(
        self, cluster: str, host: Host, monitor: HostMonitor, type: str, enforced: bool, rates: ClusterRates
    ) -> None:
        """A host failed by the criterion `type` (an `OutlierEjectionType`), and is ejected unless it is not enforced."""
        local_origin = type.endswith("LOCAL_ORIGIN")
        rate = int(monitor.local_origin_success_rate if local_origin else monitor.success_rate)
        details: dict[str, Any]
        if type.startswith("SUCCESS_RATE"):
            details = {
                "eject_success_rate_event": {
                    "host_success_rate": rate,
                    "cluster_average_success_rate": int(rates.average),
                    "cluster_success_rate_ejection_threshold": int(rates.ejection_threshold),
                }
            }
        elif type.startswith("FAILURE_PERCENTAGE"):
            details = {"eject_failure_percentage_event": {"host_success_rate": rate}}
        else:
            details = {"eject_consecutive_event": {}}
        self._log(cluster, host, monitor, type, "EJECT", enforced, host.unejected_at, details)

    def unejected(self, cluster: str, host: Host, monitor: HostMonitor) -> None:
        """A host is back."""
        self._log(cluster, host, monitor, "CONSECUTIVE_5XX", "UNEJECT", False, host.ejection_time, {})

    def _log(
        self,
        cluster: str,
        host: Host,
        monitor: HostMonitor,
        type: str,
        action: str,
        enforced: bool,
        last_action: float,
        details: dict[str, Any],
    ) -> None:
        now = self._clock()
        event = {
            "type": type,
            "timestamp": timestamp(now + self._epoch()),
            **({"secs_since_last_action": str(int(now - last_action))} if last_action else {}),
            "cluster_name": cluster,
            "upstream_url": host.address.text,
            "action": action,
            "num_ejections": monitor.ejections,
            "enforced": enforced,
            **details,
        }
        self._write(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))

    def __repr__(self) -> str:
        return "<OutlierEventLog>"


def timestamp(seconds: float) -> str:
    """A time since the epoch as JSON writes a protobuf Timestamp of whole milliseconds."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds:03}Z" if milliseconds else f"{text}Z"
