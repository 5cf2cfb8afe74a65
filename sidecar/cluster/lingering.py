"""Hosts that are no longer to be found but answer their checks: they stay until they fail, as in Envoy.

Discovery that is wrong for a while then takes nobody out who serves. Source: Envoy's documentation, "Service discovery"
(eventually consistent service discovery), and `Cluster.ignore_health_on_host_removal`.
"""

from __future__ import annotations

from sidecar.cluster.host import FAILED_ACTIVE_HC, FAILED_EDS_HEALTH, PENDING_DYNAMIC_REMOVAL, Host
from sidecar.cluster.host_set import HostSet, HostSets


def keep_healthy(before: HostSets, after: HostSets) -> HostSets:
    """``after``, with the hosts of ``before`` that it lacks and that are healthy; they are marked."""
    found = {host for host_set in after for host in host_set.hosts}
    for host in found:
        host.set_flag(PENDING_DYNAMIC_REMOVAL, False)
    kept = list(after)
    for host_set in before:
        staying = tuple(host for host in host_set.hosts if host not in found and _stays(host))
        if staying:
            for host in staying:
                host.set_flag(PENDING_DYNAMIC_REMOVAL, True)
            while len(kept) <= host_set.priority:
                kept.append(HostSet(len(kept), (), (), host_set.overprovisioning_factor))
            kept[host_set.priority] = kept[host_set.priority].joined(staying)
    return tuple(kept)


def without_failed(host_sets: HostSets) -> HostSets | None:
    """Without those that stayed and have failed by now; None if there are none."""
    if not any(_is_gone(host) for host_set in host_sets for host in host_set.hosts):
        return None
    return tuple(host_set.filtered(lambda host: not _is_gone(host)) for host_set in host_sets)


def _stays(host: Host) -> bool:
    return host.is_checked and not host.flags & (FAILED_ACTIVE_HC | FAILED_EDS_HEALTH)


def _is_gone(host: Host) -> bool:
    return bool(host.flags & PENDING_DYNAMIC_REMOVAL and host.flags & FAILED_ACTIVE_HC)
