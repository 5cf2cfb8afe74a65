"""WorkloadGroup: what the workloads that register themselves have in common (Istio reference: networking/workload-group)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.selection import label_problems
from controlplane.model.istio.traffic_policy import not_negative
from controlplane.model.istio.workload_entry import WorkloadTemplate
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import Int, Port, Str, header_name_complaint


class ObjectMeta(Model):
    """Labels and annotations of the WorkloadEntries that are made."""

    labels: Mapping[Str, Str] = Field(default_factory=dict)
    annotations: Mapping[Str, Str] = Field(default_factory=dict)

    def problems(self) -> Iterable[Cause]:
        return label_problems(self.labels, "labels")


class HTTPHeader(Model):
    """A header of a probe's request."""

    name: Str
    value: Str = ""

    def problems(self) -> Iterable[Cause]:
        if complaint := header_name_complaint(self.name):
            yield Cause("name", complaint)


class HTTPHealthCheckConfig(Model):
    """A request whose answer, from 200 to 399, says that the workload is well."""

    port: Port
    path: Str | None = None
    host: Str | None = None
    scheme: Str | None = None
    http_headers: tuple[HTTPHeader, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if self.scheme is not None and self.scheme.upper() not in ("HTTP", "HTTPS"):
            yield Cause("scheme", f"must be HTTP or HTTPS, not {self.scheme}", Reason.NOT_SUPPORTED)
        if self.path and not self.path.startswith("/"):
            yield Cause("path", f'"{self.path}" must begin with a slash')


class TCPHealthCheckConfig(Model):
    """A connection that must be accepted."""

    port: Port
    host: Str | None = None


class ExecHealthCheckConfig(Model):
    """A command whose status must be 0."""

    command: tuple[Str, ...]

    def problems(self) -> Iterable[Cause]:
        if not self.command:
            yield Cause("command", "is required: give the program and its arguments", Reason.REQUIRED)


class GrpcHealthCheckConfig(Model):
    """A call of grpc.health.v1.Health."""

    port: Port
    service: Str | None = None


class ReadinessProbe(Model):
    """How a sidecar finds out that its workload is well; times are in seconds."""

    initial_delay_seconds: Int | None = None
    timeout_seconds: Int | None = None
    period_seconds: Int | None = None
    success_threshold: Int | None = None
    failure_threshold: Int | None = None
    http_get: HTTPHealthCheckConfig | None = None
    tcp_socket: TCPHealthCheckConfig | None = None
    exec: ExecHealthCheckConfig | None = None
    grpc: GrpcHealthCheckConfig | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "http_get", "tcp_socket", "exec", "grpc", required=True)
        yield from not_negative(
            self,
            "initial_delay_seconds",
            "timeout_seconds",
            "period_seconds",
            "success_threshold",
            "failure_threshold",
        )


class WorkloadGroup(Model):
    """The template of WorkloadEntries, and the probe of their health."""

    metadata: ObjectMeta | None = None
    template: WorkloadTemplate
    probe: ReadinessProbe | None = None

    def problems(self) -> Iterable[Cause]:
        if self.template.address:
            yield Cause("template.address", "each workload has its own, which it brings when it registers: remove it")
