"""Patches of listeners: of themselves, their listener filters, filter chains, network filters and HTTP filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from controlplane.pilot.envoy_filter import routes
from controlplane.pilot.envoy_filter.filters import patch_list
from controlplane.pilot.envoy_filter.merging import merge
from controlplane.pilot.envoy_filter.selection import EnvoyPatch

APPLY_TO = ("LISTENER", "LISTENER_FILTER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", *routes.APPLY_TO)
_MANAGER = "envoy.filters.network.http_connection_manager"


def removed(listener: Any, patch: EnvoyPatch) -> bool:
    """Whether a patch takes a whole listener away."""
    return patch.apply_to == "LISTENER" and patch.operation == "REMOVE" and _matches(listener, _listener_match(patch))


def patch_listener(listener: Any, patch: EnvoyPatch) -> bool:
    """Apply a patch to a `Listener`; whether it changed anything. Patches of routes are for those that are within it."""
    if patch.apply_to in routes.APPLY_TO:
        return _patch_routes(listener, patch)
    match = _listener_match(patch)
    if not _matches(listener, match):
        return False
    if patch.apply_to == "LISTENER":
        if patch.operation != "MERGE":
            return False
        merge(listener, patch.value)
        return True
    if patch.apply_to == "LISTENER_FILTER":
        name = (match.listener_filter or "") if match is not None else ""
        return patch_list(
            listener.listener_filters, patch, name, lambda each: not name or each.name == name, last_stays=False
        )
    chain = match.filter_chain if match is not None else None
    if patch.apply_to == "FILTER_CHAIN":
        return _patch_chains(listener, patch, chain)
    changed = False
    for each in _chains(listener):
        if _chain_matches(each, chain):
            changed |= _patch_filters(each, patch, chain)
    return changed


def _patch_chains(listener: Any, patch: EnvoyPatch, match: Any) -> bool:
    name = (match.name or "") if match is not None else ""
    changed = patch_list(
        listener.filter_chains, patch, name, lambda each: _chain_matches(each, match), last_stays=False
    )
    if listener.HasField("default_filter_chain") and _chain_matches(listener.default_filter_chain, match):
        if patch.operation == "MERGE":
            merge(listener.default_filter_chain, patch.value)
            return True
        if patch.operation == "REMOVE":
            listener.ClearField("default_filter_chain")
            return True
    return changed


def _patch_filters(chain: Any, patch: EnvoyPatch, match: Any) -> bool:
    wanted = match.filter if match is not None else None
    name = (wanted.name or "") if wanted is not None else ""
    if patch.apply_to == "NETWORK_FILTER":
        return patch_list(chain.filters, patch, name, lambda each: not name or each.name == name, last_stays=True)
    sub = (wanted.sub_filter.name or "") if wanted is not None and wanted.sub_filter is not None else ""
    changed = False
    for each in chain.filters:
        if each.name != _MANAGER or name not in ("", _MANAGER):
            continue
        manager = hcm_pb2.HttpConnectionManager.FromString(each.typed_config.value)
        if patch_list(manager.http_filters, patch, sub, lambda one: not sub or one.name == sub, last_stays=True):
            each.typed_config.value = manager.SerializeToString(deterministic=True)
            changed = True
    return changed


def _patch_routes(listener: Any, patch: EnvoyPatch) -> bool:
    changed = False
    for chain in _chains(listener):
        for each in chain.filters:
            if each.name != _MANAGER:
                continue
            manager = hcm_pb2.HttpConnectionManager.FromString(each.typed_config.value)
            if manager.HasField("route_config") and routes.patch_route_configuration(manager.route_config, patch):
                each.typed_config.value = manager.SerializeToString(deterministic=True)
                changed = True
    return changed


def _listener_match(patch: EnvoyPatch) -> Any:
    return patch.match.listener if patch.match is not None else None


def _chains(listener: Any) -> Iterator[Any]:
    yield from listener.filter_chains
    if listener.HasField("default_filter_chain"):
        yield listener.default_filter_chain


def _matches(listener: Any, match: Any) -> bool:
    if match is None:
        return True
    if match.name and match.name != listener.name:
        return False
    if not match.port_number:
        return True
    # The chains of `virtualInbound` stand for ports of their own.
    numbers = {chain.filter_chain_match.destination_port.value for chain in listener.filter_chains}
    return match.port_number in (listener.address.socket_address.port_value, *numbers)


def _chain_matches(chain: Any, match: Any) -> bool:
    if match is None:
        return True
    found = chain.filter_chain_match
    if match.name and match.name != chain.name:
        return False
    if match.sni and match.sni not in found.server_names:
        return False
    if match.transport_protocol and match.transport_protocol != found.transport_protocol:
        return False
    if match.application_protocols:
        wanted = {each.strip() for each in match.application_protocols.split(",")}
        if not wanted <= set(found.application_protocols):
            return False
    if match.destination_port and match.destination_port != found.destination_port.value:
        return False
    name = match.filter.name if match.filter is not None else None
    return not name or any(each.name == name for each in chain.filters)
