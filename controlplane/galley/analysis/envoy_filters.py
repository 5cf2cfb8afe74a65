"""EnvoyFilters: patches that depend on others, or that have no effect."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import (
    ADD_PATCH,
    RELATIVE_PATCH,
    RELATIVE_PATCH_OF_VERSION,
    REMOVE_PATCH,
    REPLACE_PATCH,
    Message,
)

_RELATIVE = ("INSERT_BEFORE", "INSERT_AFTER", "REPLACE", "MERGE", "REMOVE")


def analyze_envoy_filters(mesh: Mesh) -> Iterator[Message]:
    """IST0151 to IST0155."""
    for resource in mesh.of_kind("EnvoyFilter"):
        for index, each in enumerate(resource.spec.config_patches):
            at = f"spec.configPatches[{index}].patch.operation"
            operation, what = each.patch.operation, each.apply_to
            if operation == "REPLACE" and what not in ("HTTP_FILTER", "NETWORK_FILTER"):
                text = f"REPLACE is for HTTP_FILTER and NETWORK_FILTER, not for {what}: use REMOVE and ADD"
                yield Message(REPLACE_PATCH, resource.key, text, at)
            elif operation == "ADD" and what in ("ROUTE_CONFIGURATION", "HTTP_ROUTE"):
                text = f"ADD has no effect for {what}: use INSERT_FIRST for routes, MERGE for their configuration"
                yield Message(ADD_PATCH, resource.key, text, at)
            elif operation == "REMOVE" and what in ("ROUTE_CONFIGURATION", "HTTP_ROUTE"):
                yield Message(REMOVE_PATCH, resource.key, f"REMOVE has no effect for {what}: use a VirtualService", at)
            elif operation in _RELATIVE and resource.spec.priority is None and what.endswith("FILTER"):
                version = bool(each.match and each.match.proxy and each.match.proxy.proxy_version)
                text = (
                    f"{operation} depends on what other EnvoyFilters have done before{', in this version' if version else ''}: "
                    "give a priority, or use INSERT_FIRST or ADD"
                )
                yield Message(RELATIVE_PATCH_OF_VERSION if version else RELATIVE_PATCH, resource.key, text, at)
