"""A route chosen anew in the middle of the filters, because one of them has changed the request."""

from __future__ import annotations

from typing import Any

from sidecar.http.filter_chain import FilterChain


def reroute(stream: Any, at: int) -> None:
    """Match the request again, behind the filter at position ``at`` of its chain.

    Which filters it meets was settled by its first route, as in Envoy, whatever the new one has enabled or disabled: those that
    are behind are as the new one has configured them, each at its place. The chain of an upgrade is the same for all routes.
    """
    manager = stream.manager
    route = manager.routes.match(stream.request, stream)
    stream.cluster_name = ""
    if route is not None and route.pick_cluster is not None:
        stream.cluster_name, entry = route.pick_cluster(stream.request, stream.worker.random, stream)
        route = entry or route
    stream.route = route
    if route is not None and route.limit is not None:
        route.limit(stream)
    before: FilterChain = stream.chain
    if before not in manager.upgrade_chains.values():
        passed = max(at + 1, before.places.count(-1))  # in front there may be filters that no configuration has
        later = manager.filters_at(route, before.places[passed:])
        stream.chain = FilterChain([*before.filters[:passed], *later], before.places)
