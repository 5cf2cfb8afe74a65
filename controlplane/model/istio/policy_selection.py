"""What the policies of security and telemetry have in common: which workloads they are of."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.model.causes import Cause
from controlplane.model.istio.selection import MatchLabels, PolicyTargetReference
from controlplane.model.resource import Model

MAX_TARGETS = 16


class TargetedPolicy(Model):
    """A policy of the workloads with the labels of ``selector``, or of the resources that are referred to, or, with neither,
    of all workloads of its namespace (of the mesh, if that is the root namespace).
    """

    selector: MatchLabels | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()

    @property
    def targets(self) -> tuple[PolicyTargetReference, ...]:
        """The resources that the policy is attached to, whichever field names them."""
        return (self.target_ref,) if self.target_ref is not None else self.target_refs

    def target_problems(self) -> Iterator[Cause]:
        """What is wrong with selector and references together."""
        given = [
            name
            for name, value in (
                ("selector", self.selector),
                ("targetRef", self.target_ref),
                ("targetRefs", self.target_refs),
            )
            if value
        ]
        for name in given[1:]:
            yield Cause(name, f"{' and '.join(given)} exclude each other: keep one of them")
        if len(self.target_refs) > MAX_TARGETS:
            yield Cause(
                "targetRefs", f"may name {MAX_TARGETS} resources, not {len(self.target_refs)}: make two policies"
            )
