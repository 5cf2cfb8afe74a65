"""WorkloadEntry: one workload that is not a pod (Istio reference: networking/workload-entry)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.selection import label_problems
from controlplane.model.resource import Model
from controlplane.model.values import (
    Port,
    Str,
    UInt,
    dns_label_complaint,
    domain_complaint,
    is_ip,
    shown,
    unix_socket_complaint,
)


class WorkloadTemplate(Model):
    """A workload's ports by name, its labels and its place, as far as a group of workloads has them in common."""

    address: Str | None = None
    ports: Mapping[Str, Port] = Field(default_factory=dict)
    labels: Mapping[Str, Str] = Field(default_factory=dict)
    network: Str | None = None
    locality: Str | None = None
    weight: UInt | None = None
    service_account: Str | None = None

    def problems(self) -> Iterable[Cause]:
        yield from self.template_problems()

    def template_problems(self) -> Iterator[Cause]:
        """What is wrong with the fields, be the address there or not."""
        yield from label_problems(self.labels, "labels")
        address = self.address or ""
        unix = address.startswith("unix://")
        if unix:
            complaint = unix_socket_complaint(address)
        else:
            complaint = domain_complaint(address) if address and not is_ip(address) else ""
        if complaint:
            yield Cause("address", complaint)
        if unix and self.ports:
            yield Cause("ports", "a unix socket has no ports: remove them")
        for name in self.ports:
            if complaint := dns_label_complaint(name.lower()):
                yield Cause(f"ports[{name}]", complaint)
        if self.service_account and (complaint := dns_label_complaint(self.service_account)):
            yield Cause("serviceAccount", complaint)
        if self.locality and len(self.locality.split("/")) > 3:
            yield Cause("locality", f"{shown(self.locality)} is not a locality: write REGION/ZONE/SUBZONE")


class WorkloadEntry(WorkloadTemplate):
    """Where a workload is, its ports by name, its labels and its place."""

    def problems(self) -> Iterable[Cause]:
        yield from self.template_problems()
        if not self.address and not self.network:
            yield Cause("address", "is required: give the workload's IP, name or unix socket", Reason.REQUIRED)
