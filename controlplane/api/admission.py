"""What becomes of a document between a client and the store: what the server says itself, what is kept, what is refused."""

from __future__ import annotations

import base64
import datetime
import secrets
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api.status import ApiError, conflict, invalid
from controlplane.model.causes import Cause, Reason
from controlplane.model.kinds import Kind

_OWN_METADATA = frozenset(
    (
        "clusterName",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    )
)
_LONGEST_GENERATED = 58
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # as Kubernetes: no vowels, so that no words come out


def check_type(document: Mapping[str, Any], kind: Kind, version: str) -> None:
    """The body's `apiVersion` and `kind` must be those of its place. Raises ApiError 400."""
    wanted = f"{kind.group}/{version}" if kind.group else version
    for field, value in (("apiVersion", wanted), ("kind", kind.name)):
        found = document.get(field, value)
        if found != value:
            raise ApiError(
                400, f"the {field} in the data ({found}) does not match the expected {field} ({value}) of this path"
            )


def metadata_of(document: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """A body's metadata. Raises ApiError 400, 422."""
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ApiError(400, "metadata must be an object")
    for field in ("name", "generateName", "namespace", "uid", "resourceVersion"):
        if not isinstance(metadata.get(field) or "", str):
            raise ApiError(400, f"metadata.{field} must be a string")
    if metadata.get("finalizers"):
        cause = Cause("metadata.finalizers", "nothing waits for finalizers here: remove them")
        raise invalid(kind, metadata.get("name") or "", [cause])
    return metadata


def place(metadata: Mapping[str, Any], kind: Kind, namespace: str, name: str) -> tuple[str, str]:
    """The namespace and the name of a body's resource; what the path says, the body cannot say otherwise. Raises ApiError
    400, 422.
    """
    own_namespace, own_name = metadata.get("namespace") or "", metadata.get("name") or ""
    if kind.namespaced and own_namespace and own_namespace != namespace:
        raise ApiError(
            400,
            f"the namespace of the provided object ({own_namespace}) does not match the namespace sent on the request "
            f"({namespace})",
        )
    if not kind.namespaced and own_namespace:
        raise invalid(kind, own_name, [Cause("metadata.namespace", f"{kind.name} has no namespace: remove it")])
    if name:
        if own_name and own_name != name:
            raise ApiError(400, f"the name of the object ({own_name}) does not match the name on the URL ({name})")
        return namespace, name
    if not own_name:
        stem = metadata.get("generateName") or ""
        if not stem:
            raise invalid(kind, "", [Cause("metadata.name", "name or generateName is required", Reason.REQUIRED)])
        own_name = stem[:_LONGEST_GENERATED] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
    return namespace, own_name


def created(document: Mapping[str, Any], kind: Kind, namespace: str, name: str) -> dict[str, Any]:
    """A new resource as it is stored."""
    given = metadata_of(document, kind)
    metadata: dict[str, Any] = {"name": name}
    if kind.namespaced:
        metadata["namespace"] = namespace
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["generation"] = 1
    return _assembled(document, kind, metadata, given, _first_status(kind))


def replaced(document: Mapping[str, Any], kind: Kind, current: Mapping[str, Any]) -> dict[str, Any]:
    """A changed resource as it is stored: `status` and what the server says are as they were, `generation` counts changes of
    everything but metadata. Raises ApiError 409 if the writer saw another version.
    """
    given = metadata_of(document, kind)
    had = current["metadata"]
    check_preconditions(kind, current, given.get("uid"), given.get("resourceVersion"))
    metadata = {
        name: had[name] for name in ("name", "namespace", "uid", "creationTimestamp", "generation") if name in had
    }
    result = _assembled(document, kind, metadata, given, current.get("status"))
    if _content(result) != _content(current):
        result["metadata"]["generation"] = int(had.get("generation", 0)) + 1
    return result


def with_status(document: Mapping[str, Any], kind: Kind, current: Mapping[str, Any]) -> dict[str, Any]:
    """A resource whose `status` alone is taken from ``document``. Raises ApiError 400, 409."""
    given = metadata_of(document, kind)
    check_preconditions(kind, current, given.get("uid"), given.get("resourceVersion"))
    status = document.get("status")
    if status is not None and not isinstance(status, dict):
        raise ApiError(400, "status must be an object")
    conditions = (status or {}).get("conditions", [])
    if not isinstance(conditions, list) or not all(isinstance(one, dict) for one in conditions):
        raise ApiError(400, "status.conditions must be a list of objects")
    result = {name: value for name, value in current.items() if name != "status"}
    result["metadata"] = {name: value for name, value in current["metadata"].items() if name != "resourceVersion"}
    if status is not None:
        result["status"] = status
    return result


def check_preconditions(kind: Kind, current: Mapping[str, Any], uid: str | None, revision: str | None) -> None:
    """409 if the resource is not the one, or not at the version, that the writer means."""
    metadata = current["metadata"]
    name = metadata["name"]
    if uid and uid != metadata.get("uid"):
        raise conflict(
            kind, name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata.get('uid')}"
        )
    if revision and revision != metadata["resourceVersion"]:
        raise conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )


def _assembled(
    document: Mapping[str, Any],
    kind: Kind,
    metadata: dict[str, Any],
    given: Mapping[str, Any],
    status: Any,
) -> dict[str, Any]:
    metadata.update(
        {field: value for field, value in given.items() if field not in _OWN_METADATA and value not in (None, {}, [])}
    )
    result = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
    result.update({name: value for name, value in document.items() if name not in result and name != "status"})
    if kind.name in _DEFAULTS:
        _DEFAULTS[kind.name](result)
    if status is not None:
        result["status"] = status
    return result


def _default_service(service: dict[str, Any]) -> None:
    """What Kubernetes fills in, and its clients expect to find (Kubernetes' API reference, ServiceSpec)."""
    spec = service.get("spec")
    if not isinstance(spec, dict):
        return  # the model will say so
    spec = service["spec"] = {**spec, "type": spec.get("type") or "ClusterIP"}
    if isinstance(spec.get("ports"), list):
        spec["ports"] = [
            {
                **port,
                "protocol": port.get("protocol") or "TCP",
                "targetPort": port.get("targetPort") or port.get("port"),
            }
            if isinstance(port, dict)
            else port
            for port in spec["ports"]
        ]
    spec.setdefault("sessionAffinity", "None")


def _default_secret(secret: dict[str, Any]) -> None:
    secret.setdefault("type", "Opaque")
    _encode_texts(secret)


def _encode_texts(secret: dict[str, Any]) -> None:
    """A Secret's `stringData` is for writing alone: it is stored as `data` (Kubernetes' API reference, Secret)."""
    texts = secret.get("stringData")
    if isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values()):
        told = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        secret["data"] = {**(secret.get("data") or {}), **told}
        del secret["stringData"]


def _first_status(kind: Kind) -> Any:
    return {"phase": "Active"} if kind.name == "Namespace" else None


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("apiVersion", "metadata", "status")}


_DEFAULTS: dict[str, Callable[[dict[str, Any]], None]] = {"Service": _default_service, "Secret": _default_secret}
