"""Patches of route configurations, their virtual hosts and routes."""

from __future__ import annotations

from typing import Any

from controlplane.pilot.envoy_filter.filters import patch_list
from controlplane.pilot.envoy_filter.merging import merge
from controlplane.pilot.envoy_filter.selection import EnvoyPatch

APPLY_TO = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")


def patch_route_configuration(configuration: Any, patch: EnvoyPatch) -> bool:
    """Apply a patch to a `RouteConfiguration`; whether it changed anything."""
    match = patch.match.route_configuration if patch.match is not None else None
    if match is not None and not _matches(configuration.name, match):
        return False
    if patch.apply_to == "ROUTE_CONFIGURATION":
        if patch.operation != "MERGE":
            return False
        merge(configuration, patch.value)
        return True
    host = match.vhost if match is not None else None
    if patch.apply_to == "VIRTUAL_HOST":
        name = (host.name or host.domain_name or "") if host is not None else ""
        return patch_list(
            configuration.virtual_hosts, patch, name, lambda each: _host_matches(each, host), last_stays=False
        )
    changed = False
    for each in configuration.virtual_hosts:
        if _host_matches(each, host):
            changed |= _patch_routes(each, patch, host.route if host is not None else None)
    return changed


def _patch_routes(host: Any, patch: EnvoyPatch, match: Any) -> bool:
    name = (match.name or "") if match is not None else ""
    return patch_list(host.routes, patch, name, lambda route: _route_matches(route, match), last_stays=False)


def _matches(name: str, match: Any) -> bool:
    """What a name says: `9080`, `inbound|9080||`, `http.8080`, `https.443.PORTNAME.GATEWAY.NAMESPACE`."""
    if match.name and match.name != name:
        return False
    if match.port_number and match.port_number != _port(name):
        return False
    parts = name.split(".")
    secure = parts[0] == "https" and len(parts) >= 5
    if match.port_name and not (secure and match.port_name == parts[2]):
        return False
    if match.gateway:
        namespace, _, gateway = match.gateway.rpartition("/")
        return secure and parts[-2] == gateway and namespace in ("", parts[-1])
    return True


def _port(name: str) -> int | None:
    if name.startswith("inbound|"):
        return int(name.split("|")[1])
    if name.startswith(("http.", "https.")):
        return int(name.split(".")[1])
    last = name.rpartition(":")[2]
    return int(last) if last.isdecimal() else None


def _host_matches(host: Any, match: Any) -> bool:
    if match is None:
        return True
    if match.name and match.name != host.name:
        return False
    return not match.domain_name or match.domain_name in host.domains


def _route_matches(route: Any, match: Any) -> bool:
    if match is None:
        return True
    if match.name and match.name != route.name:
        return False
    return bool(match.action == "ANY" or route.WhichOneof("action") == match.action.lower())
