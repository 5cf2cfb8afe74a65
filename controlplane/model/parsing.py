"""From a document to a resource: all of it is judged, and everything that is wrong is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controlplane.model.causes import Cause, Invalid, Reason
from controlplane.model.effect import not_implemented, without_effect
from controlplane.model.istio.selection import label_problems
from controlplane.model.kinds import KINDS, Kind
from controlplane.model.kubernetes.config_map import ConfigMap
from controlplane.model.mesh_config import MESH_CONFIG_MAP, read_mesh_config
from controlplane.model.model_parsing import parse_model, suggestion
from controlplane.model.regex_sizes import large_regexes
from controlplane.model.resource import FROM_API, Metadata, Model, Origin, Resource, ResourceKey
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint, label_key_complaint, shown

DEFAULT_NAMESPACE = "default"
"""The namespace of documents that name none."""

_MESH = "mesh"
_MESH_PATH = "data[mesh]"
# Kinds whose names are DNS labels: no dots.
_LABEL_NAMED = ("Service", "Namespace", "Gateway")
_ENVELOPE = ("apiVersion", "kind", "metadata", "status")
# Fields of ObjectMeta that are not read here: servers and other tools write them.
_METADATA_FIELDS = frozenset(
    (
        "annotations", "clusterName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers",
        "generateName", "generation", "initializers", "labels", "managedFields", "name", "namespace", "ownerReferences",
        "resourceVersion", "selfLink", "uid",
    )
)  # fmt: skip


def parse(document: Any, origin: Origin = FROM_API) -> Resource:
    """The resource that a document (JSON, as Python has it) describes.

    Raises Invalid with everything that is wrong.
    """
    kind = kind_of(document)
    metadata, causes = _metadata(document.get("metadata"), kind)
    body, path = _body(document, kind)
    spec: Model | None = None
    if body is None:
        causes.append(Cause("spec", "is required: say what the resource is", Reason.REQUIRED))
    else:
        try:
            spec = parse_model(kind.model, body, path)
        except Invalid as invalid:
            causes.extend(invalid.causes)
    key = ResourceKey(kind.name, metadata.namespace, metadata.name)
    if spec is not None:
        causes.extend(not_implemented(spec, path))
    if key == MESH_CONFIG_MAP and isinstance(spec, ConfigMap) and _MESH in spec.data:
        try:
            causes.extend(not_implemented(read_mesh_config(spec.data[_MESH], _MESH_PATH), _MESH_PATH))
        except Invalid as invalid:
            causes.extend(invalid.causes)
    if causes or spec is None:
        raise Invalid(causes)
    return Resource(key, metadata, spec, document, origin)


def warnings(resource: Resource) -> list[Cause]:
    """What a resource says that nothing acts upon, or that some proxies refuse: whoever writes it must be told."""
    path = "spec" if KINDS[resource.key.kind].has_spec else ""
    found = [*without_effect(resource.spec, path), *large_regexes(resource.spec, path)]
    if resource.key == MESH_CONFIG_MAP and _MESH in resource.spec.data:
        found.extend(without_effect(read_mesh_config(resource.spec.data[_MESH]), _MESH_PATH))
    return found


def kind_of(document: Any) -> Kind:
    """The kind of a document. Raises Invalid if it has none, or one that is not known in that version."""
    if not isinstance(document, Mapping):
        raise Invalid([Cause("", f"a resource is an object with apiVersion, kind and metadata, not {shown(document)}")])
    name, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(name, str) or not name:
        raise Invalid([Cause("kind", "is required: name the kind of the resource", Reason.REQUIRED)])
    kind = KINDS.get(name)
    if kind is None:
        message = f"{shown(name)} is not a kind that is known here{suggestion(name, KINDS)}"
        raise Invalid([Cause("kind", message, Reason.NOT_SUPPORTED)])
    if not isinstance(version, str) or not version:
        raise Invalid([Cause("apiVersion", f"is required: write {kind.api_version}", Reason.REQUIRED)])
    if version not in kind.api_versions:
        message = f"{name} is not in {shown(version)}: use {' or '.join(kind.api_versions)}"
        raise Invalid([Cause("apiVersion", message, Reason.NOT_SUPPORTED)])
    return kind


def _body(document: Mapping[str, Any], kind: Kind) -> tuple[Any, str]:
    if kind.has_spec:
        required = any(field.is_required() for field in kind.model.model_fields.values())
        causes = [
            Cause(name, f"is not a field of {kind.name}{suggestion(name, ('spec', *_ENVELOPE))}", unknown=True)
            for name in document
            if name not in _ENVELOPE and name != "spec"
        ]
        if causes:
            raise Invalid(causes)
        return document.get("spec", None if required else {}), "spec"
    return {name: value for name, value in document.items() if name not in _ENVELOPE}, ""


def _metadata(document: Any, kind: Kind) -> tuple[Metadata, list[Cause]]:
    if not isinstance(document, Mapping):
        return Metadata(""), [Cause("metadata.name", "is required: name the resource", Reason.REQUIRED)]
    causes = [
        Cause(f"metadata.{name}", f"is not a field of metadata{suggestion(str(name), _METADATA_FIELDS)}", unknown=True)
        for name in document
        if name not in _METADATA_FIELDS
    ]
    name, namespace = document.get("name"), document.get("namespace")
    if not isinstance(name, str) or not name:
        causes.append(Cause("metadata.name", "is required: name the resource", Reason.REQUIRED))
        name = ""
    elif complaint := (dns_label_complaint if kind.name in _LABEL_NAMED else dns_subdomain_complaint)(name):
        causes.append(Cause("metadata.name", complaint))
    if not kind.namespaced:
        if namespace:
            causes.append(Cause("metadata.namespace", f"a {kind.name} is in no namespace: remove it"))
        namespace = ""
    elif namespace is None or namespace == "":
        namespace = DEFAULT_NAMESPACE
    elif complaint := "must be a text" if not isinstance(namespace, str) else dns_label_complaint(namespace):
        causes.append(Cause("metadata.namespace", complaint))
    labels = _texts(document.get("labels"), "metadata.labels", causes)
    causes.extend(label_problems(labels, "metadata.labels"))
    annotations = _texts(document.get("annotations"), "metadata.annotations", causes)
    causes.extend(
        Cause(f"metadata.annotations[{key}]", complaint.replace("a label", "an annotation"))
        for key in annotations
        if (complaint := label_key_complaint(key.lower()))
    )
    generation = document.get("generation")
    return Metadata(
        name=name,
        namespace=namespace,
        labels=labels,
        annotations=annotations,
        uid=str(document.get("uid") or ""),
        resource_version=str(document.get("resourceVersion") or ""),
        generation=generation if isinstance(generation, int) else 0,
        created=_seconds(document.get("creationTimestamp"), causes),
    ), causes


def _texts(document: Any, path: str, causes: list[Cause]) -> Mapping[str, str]:
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        causes.append(Cause(path, f"must be an object of texts by names, not {shown(document)}"))
        return {}
    for key, value in document.items():
        if not isinstance(key, str) or not isinstance(value, str):
            causes.append(Cause(f"{path}[{key}]", f"must be a text, not {shown(value)}: put it in quotes"))
    return {key: value for key, value in document.items() if isinstance(key, str) and isinstance(value, str)}


def _seconds(time: Any, causes: list[Cause]) -> float:
    if time is None:
        return 0.0
    if isinstance(time, datetime):
        return time.timestamp()
    try:
        return datetime.fromisoformat(time).timestamp()
    except (TypeError, ValueError):
        causes.append(Cause("metadata.creationTimestamp", f"{shown(time)} is not a time of RFC 3339"))
        return 0.0
