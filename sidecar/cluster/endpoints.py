"""From a load assignment to host sets: priorities, localities and their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sidecar.cluster.host import Host, address_of
from sidecar.cluster.host_set import HostSet, HostSets, LocalityHosts
from sidecar.config.core_types import Locality
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from sidecar.core.address import Address


def make_host(
    endpoint: LbEndpoint, group: LocalityLbEndpoints, address: Address | None = None, hostname: str = ""
) -> Host:
    """A host for an endpoint, at `address` where that is not the configured one; `hostname` if none is configured."""
    return Host(
        address or address_of(endpoint.address),
        endpoint.hostname or hostname,
        endpoint.load_balancing_weight,
        group.locality,
        group.priority,
        endpoint.metadata,
        endpoint.health_status,
        endpoint.health_check_config,
    )


def static_host_sets(assignment: ClusterLoadAssignment, by_locality: bool) -> HostSets:
    """The host sets of an assignment whose endpoints are all addresses."""
    hosts = [[make_host(endpoint, group)] for group in assignment.endpoints for endpoint in group.lb_endpoints]
    return assemble(assignment, hosts, by_locality)


def assemble(assignment: ClusterLoadAssignment, hosts: Iterable[Sequence[Host]], by_locality: bool) -> HostSets:
    """The host sets for `hosts`: one sequence for each endpoint of the assignment, in its order.

    Localities are kept apart only where the policy goes by them (`by_locality`).
    """
    by_endpoint = iter(hosts)
    last = max((group.priority for group in assignment.endpoints), default=0)
    members: list[list[Host]] = [[] for _ in range(last + 1)]
    localities: list[dict[Locality, tuple[int, list[Host]]]] = [{} for _ in range(last + 1)]
    for group in assignment.endpoints:
        here = [host for _ in group.lb_endpoints for host in next(by_endpoint)]
        members[group.priority] += here
        if by_locality:
            localities[group.priority].setdefault(group.locality, (group.load_balancing_weight, []))[1].extend(here)
    return tuple(
        HostSet(
            priority,
            tuple(members[priority]),
            _in_order(localities[priority]),
            assignment.policy.overprovisioning_factor,
            assignment.policy.weighted_priority_health,
        )
        for priority in range(last + 1)
    )


def _in_order(localities: dict[Locality, tuple[int, list[Host]]]) -> tuple[LocalityHosts, ...]:
    ordered = sorted(localities.items(), key=lambda item: (item[0].region, item[0].zone, item[0].sub_zone))
    return tuple(LocalityHosts(locality, weight, tuple(hosts)) for locality, (weight, hosts) in ordered)
