"""What is served and where: Kubernetes' discovery documents, by which clients turn "vs" into a path.

Source: Kubernetes' API concepts, "API Discovery" (aggregated and unaggregated).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.model.kinds import Kind

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")
AGGREGATED_VERSIONS = ("v2", "v2beta1")


class Registry:
    """The kinds by their places in the API; internal ones (their names begin with an underscore) have none."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self.kinds = {name: kind for name, kind in kinds.items() if not name.startswith("_")}
        self._by_place = {
            (kind.group, version, kind.plural): kind for kind in self.kinds.values() for version in kind.versions
        }
        self.groups: dict[str, tuple[str, ...]] = {}
        for kind in self.kinds.values():
            known = self.groups.get(kind.group, ())
            self.groups[kind.group] = known + tuple(version for version in kind.versions if version not in known)

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served there."""
        return self._by_place.get((group, version, plural))

    def served(self, group: str, version: str) -> Iterable[Kind]:
        """The kinds of one version of a group."""
        return (kind for kind in self.kinds.values() if kind.group == group and version in kind.versions)

    # --- Documents

    def core_versions(self) -> dict[str, Any]:
        """`/api`."""
        return {"kind": "APIVersions", "versions": list(self.groups.get("", ("v1",))), "serverAddressByClientCIDRs": []}

    def group_list(self) -> dict[str, Any]:
        """`/apis`."""
        groups = [self._group(name) for name in self.groups if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def group(self, name: str) -> dict[str, Any] | None:
        """`/apis/GROUP`."""
        if not name or name not in self.groups:
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", **self._group(name)}

    def resource_list(self, group: str, version: str) -> dict[str, Any] | None:
        """`/api/v1` and `/apis/GROUP/VERSION`."""
        if version not in self.groups.get(group, ()):
            return None
        resources: list[dict[str, Any]] = []
        for kind in self.served(group, version):
            named: dict[str, Any] = {
                "name": kind.plural,
                "singularName": kind.singular,
                "namespaced": kind.namespaced,
                "kind": kind.name,
                "verbs": list(VERBS),
            }
            if kind.short_names:
                named["shortNames"] = list(kind.short_names)
            if _categories(kind):
                named["categories"] = _categories(kind)
            resources.append(named)
            resources.append(
                {
                    "name": f"{kind.plural}/status",
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": kind.name,
                    "verbs": list(STATUS_VERBS),
                }
            )
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": resources,
        }

    def aggregated(self, *, core: bool, version: str) -> dict[str, Any]:
        """All of `/api` or of `/apis` in one document (`APIGroupDiscoveryList`)."""
        items = []
        for group, versions in self.groups.items():
            if (group == "") is core:
                told = [
                    {"version": one, "resources": self._discovered(group, one), "freshness": "Current"}
                    for one in versions
                ]
                items.append({"metadata": {"name": group} if group else {}, "versions": told})
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }

    def _group(self, name: str) -> dict[str, Any]:
        versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in self.groups[name]]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def _discovered(self, group: str, version: str) -> list[dict[str, Any]]:
        resources = []
        for kind in self.served(group, version):
            response_kind = {"group": group, "version": version, "kind": kind.name}
            named: dict[str, Any] = {
                "resource": kind.plural,
                "responseKind": response_kind,
                "scope": "Namespaced" if kind.namespaced else "Cluster",
                "singularResource": kind.singular,
                "verbs": list(VERBS),
                "subresources": [{"subresource": "status", "responseKind": response_kind, "verbs": list(STATUS_VERBS)}],
            }
            if kind.short_names:
                named["shortNames"] = list(kind.short_names)
            if _categories(kind):
                named["categories"] = _categories(kind)
            resources.append(named)
        return resources


def _categories(kind: Kind) -> list[str]:
    if kind.group.endswith(".istio.io"):
        return ["istio-io", kind.group.replace(".", "-")]
    return ["all"] if kind.name in ("Service", "Pod") else []
