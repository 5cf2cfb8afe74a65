"""Strategic merge patches, by which kubectl changes core kinds: lists of things that have a key are merged by it.

Source: Kubernetes' community documents, "Strategic Merge Patch"; the keys are those of its API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.api.status import ApiError
from controlplane.model.kinds import Kind

PRIMITIVE = ""
"""The merge key of lists of strings and numbers, which are merged as sets."""

MERGE_KEYS: dict[str, dict[str, str]] = {
    "*": {
        "metadata.finalizers": PRIMITIVE,
        "metadata.ownerReferences": "uid",
        "status.conditions": "type",
    },
    "Service": {"spec.ports": "port"},
    "Pod": {
        "spec.containers": "name",
        "spec.initContainers": "name",
        "spec.ephemeralContainers": "name",
        "spec.volumes": "name",
        "spec.imagePullSecrets": "name",
        "spec.hostAliases": "ip",
        "spec.topologySpreadConstraints": "topologyKey",
        "spec.containers.ports": "containerPort",
        "spec.containers.env": "name",
        "spec.containers.volumeMounts": "mountPath",
        "spec.initContainers.ports": "containerPort",
        "spec.initContainers.env": "name",
        "spec.initContainers.volumeMounts": "mountPath",
        "status.podIPs": "ip",
    },
    "ServiceAccount": {"secrets": "name", "imagePullSecrets": "name"},
}
"""By kind, then by the path of a list: what its items are told apart by. Lists that are not here are replaced."""

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_REMOVE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def is_built_in(kind: Kind) -> bool:
    """Whether Kubernetes itself has the kind: only those take strategic merge patches, as clients know."""
    return not kind.group or kind.group.endswith(".k8s.io")


def merge_key(kind: str, path: str) -> str | None:
    """What the items of the list at ``path`` ("spec.ports") are merged by; None if the list is replaced as a whole."""
    return MERGE_KEYS.get(kind, {}).get(path, MERGE_KEYS["*"].get(path))


def strategic_merge(document: Mapping[str, Any], patch: Any, kind: str) -> Any:
    """``document``, of a core kind, with a strategic merge patch on it. Raises ApiError 400 for what is no such patch."""
    if not isinstance(patch, dict):
        raise ApiError(400, "a strategic merge patch must be an object")
    return _Merge(kind).objects(document, patch, "")


class _Merge:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def objects(self, target: Any, patch: dict[str, Any], path: str) -> dict[str, Any]:
        directive = patch.get(_PATCH, "merge")
        if directive == "replace":
            replaced: dict[str, Any] = _without_directives(patch)
            return replaced
        if directive == "delete":
            return {}
        if directive != "merge":
            raise _bad(path, f'"$patch" must be merge, replace or delete, not {directive!r}')
        merged = dict(target) if isinstance(target, Mapping) else {}
        if _RETAIN in patch:
            kept = _strings(patch[_RETAIN], path, _RETAIN)
            merged = {name: value for name, value in merged.items() if name in kept}
        for name, value in patch.items():
            if name.startswith(_REMOVE):
                name = name.removeprefix(_REMOVE)
                gone = _strings(value, path, _REMOVE)
                merged[name] = [item for item in merged.get(name) or [] if item not in gone]
            elif name.startswith("$"):
                continue
            elif value is None:
                merged.pop(name, None)
            else:
                merged[name] = self._value(merged.get(name), value, f"{path}.{name}" if path else name)
        for name, order in patch.items():
            if name.startswith(_ORDER):
                name = name.removeprefix(_ORDER)
                if isinstance(merged.get(name), list):
                    place = f"{path}.{name}" if path else name
                    merged[name] = self._ordered(merged[name], order, patch.get(name), place)
        return merged

    def _value(self, target: Any, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return self.objects(target, value, path)
        if isinstance(value, list):
            key = merge_key(self._kind, path)
            if key is not None:
                return self._lists(target if isinstance(target, list) else [], value, key, path)
        return value

    def _lists(self, target: list[Any], patch: list[Any], key: str, path: str) -> list[Any]:
        if key == PRIMITIVE:
            return target + [item for item in patch if item not in target]
        if any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in patch):
            return [_without_directives(item) for item in patch if set(item) != {_PATCH}]
        merged = list(target)
        for item in patch:
            if not isinstance(item, dict) or key not in item:
                raise _bad(path, f'each item must be an object with the merge key "{key}"')
            place = next((at for at, one in enumerate(merged) if one.get(key) == item[key]), None)
            if item.get(_PATCH) == "delete":
                if place is not None:
                    del merged[place]
            elif place is None:
                merged.append(self.objects({}, item, path))
            else:
                merged[place] = self.objects(merged[place], item, path)
        return merged

    def _ordered(self, items: list[Any], order: Any, patch: Any, path: str) -> list[Any]:
        """The items that are listed come in the order of the list; others stay behind those that they stood behind."""
        key = merge_key(self._kind, path)
        if key is None or not isinstance(order, list):
            raise _bad(path, "its order cannot be set: it is no list that is merged")
        wanted = [one.get(key) if isinstance(one, dict) else one for one in order]

        def identity(item: Any) -> Any:
            return item.get(key) if isinstance(item, dict) else item

        listed = sorted(
            (item for item in items if identity(item) in wanted), key=lambda item: wanted.index(identity(item))
        )
        places = iter(listed)
        return [next(places) if identity(item) in wanted else item for item in items]


def _without_directives(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_directives(one) for name, one in value.items() if not name.startswith("$")}
    if isinstance(value, list):
        return [_without_directives(one) for one in value]
    return value


def _strings(value: Any, path: str, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(path, f'"{name}" must be an array')
    return value


def _bad(path: str, message: str) -> ApiError:
    return ApiError(400, f"the strategic merge patch is wrong at {path or 'its top'}: {message}")
