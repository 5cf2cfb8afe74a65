"""Picking for a request that names hosts to avoid (a retry) or the one that it wants (an override host)."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.cluster.context import Choose, LoadBalancerContext
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSets

AcceptsOverride = Callable[[Host], bool]


def usable(host: Host) -> bool:
    """Envoy's default `override_host_status`: any host that is not unhealthy may be asked for by address."""
    return host.usable


def accepts_statuses(statuses: frozenset[str] | None) -> AcceptsOverride:
    """What `override_host_status` accepts; None is the default."""
    if statuses is None:
        return usable
    return lambda host: host.status in statuses


def override_finder(host_sets: HostSets, accepts: AcceptsOverride) -> Callable[[str], Host | None]:
    """A function from an address as text to the host there, None if there is none or `accepts` says no.

    The table is made when first asked: most clusters are never asked.
    """
    table: dict[str, Host] = {}

    def find(address: str) -> Host | None:
        if not table:
            table.update((host.address.text, host) for host_set in host_sets for host in host_set.hosts)
        host = table.get(address)
        return host if host is not None and accepts(host) else None

    return find


def refiner(host_sets: HostSets, accepts: AcceptsOverride) -> Callable[[LoadBalancerContext, Choose], Host | None]:
    """The slow path of all policies that choose without a hash.

    Hosts that were tried are avoided for as many attempts as the retry policy allows; then the last choice stands.
    """
    find = override_finder(host_sets, accepts)

    def refine(context: LoadBalancerContext, choose: Choose) -> Host | None:
        wanted = context.override_host
        if wanted is not None:
            host = find(wanted.address)
            if host is not None or wanted.strict:
                return host
        host = choose()
        tried = context.tried
        if tried:
            attempts = context.host_selection_retry_max_attempts
            while attempts > 0 and host is not None and host in tried:
                attempts -= 1
                host = choose()
        return host

    return refine
