"""EnvoyFilters change what the generators made: the last step before resources go out.

Source: Istio's reference, "Envoy Filter". Without an EnvoyFilter for a proxy nothing is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from controlplane.model.encoded import encode
from controlplane.model.resource import ResourceKey
from controlplane.pilot.envoy_filter import clusters, listeners, routes
from controlplane.pilot.envoy_filter.selection import (
    INBOUND,
    EnvoyPatch,
    Patches,
    context_of,
    outbound_context,
    patches_of,
)
from controlplane.pilot.scope import Generated, Scope

Generate = Iterable[Generated]


def patched_listeners(scope: Scope, made: Generate, *, own: bool = False) -> Generate:
    """Listeners after the patches. ``own`` are one proxy's own, to which those are added that are inbound."""
    patches = patches_of(scope, listeners.APPLY_TO)
    if not patches:
        return made
    return _each(
        scope,
        made,
        patches,
        listener_pb2.Listener,
        lambda listener: context_of(scope, listener),
        listeners.removed,
        listeners.patch_listener,
        _added(scope, patches, "LISTENER", own),
    )


def patched_clusters(scope: Scope, made: Generate, *, own: bool = False) -> Generate:
    """Clusters after the patches. ``own`` are one proxy's own, to which those are added that are inbound."""
    patches = patches_of(scope, clusters.APPLY_TO)
    if not patches:
        return made
    outbound = outbound_context(scope)
    return _each(
        scope,
        made,
        patches,
        cluster_pb2.Cluster,
        lambda cluster: clusters.context_of(cluster.name, outbound),
        clusters.removed,
        clusters.patch_cluster,
        _added(scope, patches, "CLUSTER", own),
    )


def patched_routes(scope: Scope, made: Generate) -> Generate:
    """Route configurations after the patches."""
    patches = patches_of(scope, routes.APPLY_TO)
    if not patches:
        return made
    context = outbound_context(scope)
    return _each(
        scope,
        made,
        patches,
        route_pb2.RouteConfiguration,
        lambda _: context,
        lambda *_: False,
        routes.patch_route_configuration,
        (),
    )


def extension_configs(scope: Scope) -> Iterator[Generated]:
    """Configurations of extensions that filters subscribe to (ECDS): those that EnvoyFilters add."""
    for patch in patches_of(scope, ("EXTENSION_CONFIG",)):
        if patch.operation == "ADD" and isinstance(patch.value, extension_pb2.TypedExtensionConfig):
            yield Generated(encode(patch.value.name, patch.value), (patch.owner,))


def _added(scope: Scope, patches: Patches, apply_to: str, own: bool) -> list[EnvoyPatch]:
    """Whole resources that are added: inbound ones to what is a proxy's own, all others to what a scope shares."""
    outbound = outbound_context(scope)
    return [
        patch
        for patch in patches
        if patch.apply_to == apply_to
        and patch.operation == "ADD"
        and (patch.context == INBOUND if own else patch.is_for(outbound))
    ]


def _each(
    scope: Scope,
    made: Generate,
    patches: Patches,
    message: Any,
    context: Callable[[Any], str],
    removed: Callable[[Any, EnvoyPatch], bool],
    apply: Callable[[Any, EnvoyPatch], bool],
    added: Iterable[EnvoyPatch],
) -> Iterator[Generated]:
    def change(one: Generated) -> Generated | None:
        parsed = message.FromString(one.resource.value)
        where = context(parsed)
        causes: dict[ResourceKey, None] = dict.fromkeys(one.causes)
        changed = False
        for patch in patches:
            if not patch.is_for(where):
                continue
            if removed(parsed, patch):
                return None
            if apply(parsed, patch):
                changed = True
                causes[patch.owner] = None
        return Generated(encode(one.resource.name, parsed), tuple(causes)) if changed else one

    outbound = outbound_context(scope)  # gateways and sidecars may have the very same resource
    memo = scope.memo.brief if message is route_pb2.RouteConfiguration else scope.memo
    for one in made:
        kept = memo.get(("patched", one.resource, one.causes, patches, outbound), partial(change, one))
        if kept is not None:
            yield kept
    for patch in added:
        yield scope.memo.get(("added", patch), partial(_whole, patch))


def _whole(patch: EnvoyPatch) -> Generated:
    return Generated(encode(patch.value.name, patch.value), (patch.owner,))
