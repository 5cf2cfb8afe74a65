"""HDS: a server has hosts checked by us, and hears how they are. Source: Envoy's ``Upstream::HdsDelegate``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from envoy.service.health.v3.hds_pb2 import Capability, HealthCheckRequestOrEndpointHealthResponse

from sidecar.core.timer_wheel import Callback
from sidecar.core.worker import Worker
from sidecar.xds.stream import DiscoveryStream

log = logging.getLogger("sidecar.xds")

PATH: Final = b"/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
BASE_INTERVAL: Final = 1.0
"""The first wait before the server is tried again, in seconds."""
_INTERVAL: Final = 1.0


class HealthDiscoveryCounters(Protocol):
    """`hds_delegate.`"""

    errors: int
    requests: int
    responses: int
    updates: int


class CheckedHosts(Protocol):
    """The hosts of one `ClusterHealthCheck`, under check until ``close``."""

    def statuses(self) -> Sequence[int]:
        """The `HealthStatus` of each endpoint, in the order of the message."""
        ...

    def close(self) -> None: ...


class HealthDiscovery:
    """Checks what the server says, and reports in its interval. ``check`` begins to check the hosts of a
    `ClusterHealthCheck`; it raises ValueError for one that is not to be done. What stays the same goes on as it was.
    """

    def __init__(
        self,
        worker: Worker,
        make_stream: Callable[[HealthDiscovery], DiscoveryStream],
        node: Any,
        check: Callable[[Any], CheckedHosts],
        stats: HealthDiscoveryCounters,
    ) -> None:
        self.worker = worker
        self.node = node
        self.check = check
        self.stats = stats
        self.checked: dict[bytes, tuple[Any, CheckedHosts]] = {}
        self.stream = make_stream(self)
        self._interval = _INTERVAL
        self._timer: Callback | None = None

    def start(self) -> None:
        """Ask the server what to check."""
        self.stream.start()

    # the stream's side

    def on_open(self) -> None:
        request = HealthCheckRequestOrEndpointHealthResponse()
        request.health_check_request.node.CopyFrom(self.node)
        request.health_check_request.capability.health_check_protocols.extend((Capability.HTTP, Capability.TCP))
        self.stream.send(request)

    def on_response(self, response: Any) -> None:
        """What to check from now on: all of it."""
        self.stats.requests += 1
        before, self.checked = self.checked, {}
        for message in response.cluster_health_checks:
            key = message.SerializeToString(deterministic=True)
            found = before.pop(key, None)
            if found is None:
                try:
                    found = message, self.check(message)
                except (ValueError, OSError) as error:
                    self.stats.errors += 1
                    log.warning("the hosts of %r are not checked: %s", message.cluster_name, error)
                    continue
            self.checked[key] = found
        for _, hosts in before.values():
            hosts.close()
        interval = response.interval
        self._interval = interval.seconds + interval.nanos / 1e9 if response.HasField("interval") else _INTERVAL
        self.stats.updates += 1
        self._report_later()

    def on_closed(self) -> None:
        """The checks go on; who is told of them comes back."""
        self.stats.errors += 1
        self._cancel()

    def on_ready(self) -> None:
        """Reports do not wait: the next one comes anyhow."""

    # reports

    def report(self) -> None:
        """Say how all hosts are."""
        message = HealthCheckRequestOrEndpointHealthResponse()
        answer = message.endpoint_health_response
        answer.SetInParent()
        for asked, hosts in self.checked.values():
            statuses = iter(hosts.statuses())
            cluster = answer.cluster_endpoints_health.add(cluster_name=asked.cluster_name)
            for group in asked.locality_endpoints:
                locality = cluster.locality_endpoints_health.add()
                if group.HasField("locality"):
                    locality.locality.CopyFrom(group.locality)
                for endpoint, status in zip(group.endpoints, statuses, strict=False):
                    one = locality.endpoints_health.add(health_status=status)
                    one.endpoint.address.CopyFrom(endpoint.address)
                    answer.endpoints_health.append(one)
        self.stats.responses += 1
        self.stream.send(message)
        self._report_later()

    def _report_later(self) -> None:
        self._cancel()
        self._timer = self.worker.wheel.call_in(self._interval, self.report)

    def _cancel(self) -> None:
        if self._timer is not None:
            self.worker.wheel.cancel(self._timer)
            self._timer = None

    def close(self) -> None:
        """Check nothing any more, and tell nobody."""
        self._cancel()
        self.stream.close()
        for _, hosts in self.checked.values():
            hosts.close()
        self.checked.clear()

    def __repr__(self) -> str:
        return f"<HealthDiscovery of {len(self.checked)} clusters over {self.stream!r}>"
