"""What a resource is about: workloads by their labels, other resources by reference, namespaces that see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.resource import Model
from controlplane.model.values import (
    Str,
    dns_label_complaint,
    label_key_complaint,
    label_value_complaint,
    shown,
)


def label_problems(labels: Mapping[str, str], path: str) -> Iterator[Cause]:
    """What is wrong with labels that select or that are put on something."""
    for key, value in labels.items():
        if complaint := label_key_complaint(key):
            yield Cause(f"{path}[{key}]", complaint)
        if complaint := label_value_complaint(value):
            yield Cause(f"{path}[{key}]", complaint)


def selector_problems(labels: Mapping[str, str], path: str) -> Iterator[Cause]:
    """What is wrong with labels that select workloads: they match whole values, never patterns."""
    for key, value in labels.items():
        if "*" in key or "*" in value:
            yield Cause(f"{path}[{key}]", "a selector matches whole labels, it has no wildcards: write the label out")
        elif complaint := label_key_complaint(key) or label_value_complaint(value):
            yield Cause(f"{path}[{key}]", complaint)


class LabelSelector(Model):
    """Istio's `WorkloadSelector` of the networking kinds: workloads of the resource's namespace with all these labels."""

    labels: Mapping[Str, Str] = Field(default_factory=dict)

    def problems(self) -> Iterable[Cause]:
        return selector_problems(self.labels, "labels")


class MatchLabels(Model):
    """Istio's `type.WorkloadSelector`: workloads with all these labels."""

    match_labels: Mapping[Str, Str] = Field(default_factory=dict)

    def problems(self) -> Iterable[Cause]:
        return selector_problems(self.match_labels, "matchLabels")


class PolicyTargetReference(Model):
    """A resource that a policy is attached to, instead of workloads by their labels."""

    group: Str = ""
    kind: Str
    name: Str
    namespace: Str | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.kind:
            yield Cause("kind", "is required: name the kind of the resource", Reason.REQUIRED)
        if not self.name:
            yield Cause("name", "is required: name the resource", Reason.REQUIRED)
        if self.namespace:
            yield Cause("namespace", "a policy is attached to a resource of its own namespace: remove the field")


def export_to_problems(export_to: tuple[str, ...], path: str = "exportTo", nobody: bool = False) -> Iterator[Cause]:
    """What is wrong with the namespaces that a resource is exported to: `.`, `*` or names; `~`, where ``nobody`` admits it."""
    for index, namespace in enumerate(export_to):
        at = f"{path}[{index}]"
        if namespace in export_to[:index]:
            yield Cause(at, f"{shown(namespace)} is there twice: remove one", Reason.DUPLICATE)
        elif namespace == "~" and not nobody:
            yield Cause(at, '"~" is for service entries alone: write "." for this namespace')
        elif namespace not in (".", "*", "~") and (complaint := dns_label_complaint(namespace)):
            yield Cause(at, f'{complaint}; or write "." for this namespace, "*" for all')
        elif namespace in ("*", "~") and len(export_to) > 1:
            yield Cause(at, f"{shown(namespace)} stands alone: remove the other entries")
