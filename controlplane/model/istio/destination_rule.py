"""DestinationRule: policies for traffic to a service after routing (Istio reference: networking/destination-rule)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.selection import MatchLabels, export_to_problems, selector_problems
from controlplane.model.istio.traffic_policy import TrafficPolicy
from controlplane.model.resource import Model
from controlplane.model.values import Str, dns_label_complaint, is_ip, shown, wildcard_domain_complaint


class Subset(Model):
    """Some of a service's endpoints, by their labels, under a name that routes use."""

    name: Str
    labels: Mapping[Str, Str] = Field(default_factory=dict)
    traffic_policy: TrafficPolicy | None = None

    def problems(self) -> Iterable[Cause]:
        if complaint := dns_label_complaint(self.name.lower()):
            yield Cause("name", complaint)
        yield from selector_problems(self.labels, "labels")


class DestinationRule(Model):
    """What clients do with ``host``, and its subsets."""

    host: Str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[Str, ...] = ()
    workload_selector: MatchLabels | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.host:
            yield Cause("host", "is required: name the service", Reason.REQUIRED)
        elif not is_ip(self.host) and (complaint := wildcard_domain_complaint(self.host)):
            yield Cause("host", complaint)
        names = [subset.name for subset in self.subsets]
        for index, name in enumerate(names):
            if name in names[:index]:
                at = f"subsets[{index}].name"
                yield Cause(at, f"{shown(name)} is a subset already: rename one", Reason.DUPLICATE)
        yield from export_to_problems(self.export_to)
        if self.workload_selector is not None and "*" in self.export_to:
            yield Cause("exportTo", 'a rule of selected workloads stays in its namespace: write "."')
        if self.workload_selector is not None and not self.workload_selector.match_labels:
            yield Cause(
                "workloadSelector.matchLabels", "is empty: give labels, or remove the selector", Reason.REQUIRED
            )
