"""EDS: the endpoints of one cluster. Source: Envoy's "Endpoint discovery service (EDS)"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sidecar.config.address import SocketAddress, is_ip
from sidecar.config.endpoint import ClusterLoadAssignment, parse_load_assignment
from sidecar.config.fields import Node
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.apply.judging import Judge, Refused, applying
from sidecar.xds.apply.records import Record

ASSIGNMENT: Final = "envoy.config.endpoint.v3.ClusterLoadAssignment"


class Subscriber(Protocol):
    """The cluster."""

    def assign(self, assignment: ClusterLoadAssignment) -> None: ...

    def missing(self) -> None: ...

    def unassigned(self) -> None: ...


class EndpointWatcher:
    """The ``ResourceWatcher`` of the assignment called ``name``. An assignment that is gone leaves the endpoints as they are:
    only an assignment without endpoints takes them away, as in Envoy.
    """

    __slots__ = ("_clock", "_judge", "_pace", "_subscriber", "name", "record")

    def __init__(self, name: str, judge: Judge, pace: Pace, subscriber: Subscriber, clock: Callable[[], float]) -> None:
        self.name = name
        self.record: Record | None = None
        self._judge = judge
        self._pace = pace
        self._subscriber = subscriber
        self._clock = clock

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        resource = next((one for one in resources if one.name == self.name), None)
        if resource is None:
            self._subscriber.missing()
            return ()
        try:
            assignment = await self._judge.judge(resource, ASSIGNMENT, "assignment", _parse, self._pace)
            with applying("assignment", self.name):
                self._subscriber.assign(assignment)
        except Refused as refused:
            return (Rejection(self.name, str(refused)),)
        self.record = Record(self.name, resource.version, None, self._clock())
        return ()

    def on_unavailable(self) -> None:
        self._subscriber.unassigned()

    def __repr__(self) -> str:
        return f"<EndpointWatcher {self.name!r}>"


def _parse(node: Node) -> ClusterLoadAssignment:
    assignment = parse_load_assignment(node)
    for group_position, group in enumerate(assignment.endpoints):
        for position, endpoint in enumerate(group.lb_endpoints):
            address = endpoint.address
            if isinstance(address, SocketAddress) and not is_ip(address.address):
                node.refuse(
                    f"{address.address!r} is no IP address",
                    f"endpoints[{group_position}].lb_endpoints[{position}].endpoint.address.socket_address.address",
                    "write an IP address, or make the cluster STRICT_DNS or LOGICAL_DNS",
                )
    return assignment
