"""Telemetry: what proxies report (Istio reference: telemetry)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.log_filter import parse_log_filter
from controlplane.model.istio.policy_selection import TargetedPolicy
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import Bool, Duration, PercentValue, Str

WorkloadMode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class ProviderRef(Model):
    """An extension provider of the mesh's configuration, by its name."""

    name: Str

    def problems(self) -> Iterable[Cause]:
        if not self.name:
            yield Cause("name", "is required: name an extension provider of the mesh's configuration", Reason.REQUIRED)


class TracingSelector(Model):
    """Which side of the traffic is meant."""

    mode: WorkloadMode = "CLIENT_AND_SERVER"


class LiteralTag(Model):
    """A tag that always has the same value."""

    value: Str


class EnvironmentTag(Model):
    """A tag with the value of a variable of the proxy's environment."""

    name: Str
    default_value: Str | None = None


class HeaderTag(Model):
    """A tag with the value of a request's header."""

    name: Str
    default_value: Str | None = None


class FormatterTag(Model):
    """A tag in the words of Envoy's access-log formats."""

    value: Str


class CustomTag(Model):
    """Where a tag's value comes from."""

    literal: LiteralTag | None = None
    environment: EnvironmentTag | None = None
    header: HeaderTag | None = None
    formatter: FormatterTag | None = None

    def problems(self) -> Iterable[Cause]:
        return exclusive(self, "literal", "environment", "header", "formatter", required=True)


class Tracing(Model):
    """How requests are traced."""

    match: TracingSelector | None = None
    providers: tuple[ProviderRef, ...] = ()
    random_sampling_percentage: PercentValue | None = None
    disable_span_reporting: Bool | None = None
    custom_tags: Mapping[Str, CustomTag] = Field(default_factory=dict)
    use_request_id_for_trace_sampling: Bool | None = None
    enable_istio_tags: Bool | None = None


class MetricSelector(Model):
    """Which metric, on which side."""

    metric: (
        Literal[
            "ALL_METRICS",
            "REQUEST_COUNT",
            "REQUEST_DURATION",
            "REQUEST_SIZE",
            "RESPONSE_SIZE",
            "TCP_OPENED_CONNECTIONS",
            "TCP_CLOSED_CONNECTIONS",
            "TCP_SENT_BYTES",
            "TCP_RECEIVED_BYTES",
            "GRPC_REQUEST_MESSAGES",
            "GRPC_RESPONSE_MESSAGES",
        ]
        | None
    ) = None
    custom_metric: Str | None = None
    mode: WorkloadMode = "CLIENT_AND_SERVER"

    def problems(self) -> Iterable[Cause]:
        return exclusive(self, "metric", "custom_metric")


class TagOverride(Model):
    """A label of a metric, set (by a CEL expression) or taken away."""

    operation: Literal["UPSERT", "REMOVE"] = "UPSERT"
    value: Str | None = None

    def problems(self) -> Iterable[Cause]:
        if self.operation == "REMOVE" and self.value:
            yield Cause("value", "has no effect with operation REMOVE: remove one of them")
        if self.operation == "UPSERT" and not self.value:
            yield Cause("value", "is required for operation UPSERT: give an expression", Reason.REQUIRED)


class MetricsOverrides(Model):
    """What is different for some metrics."""

    match: MetricSelector | None = None
    disabled: Bool | None = None
    tag_overrides: Mapping[Str, TagOverride] = Field(default_factory=dict)


class Metrics(Model):
    """Which metrics there are, and their labels."""

    providers: tuple[ProviderRef, ...] = ()
    overrides: tuple[MetricsOverrides, ...] = ()
    reporting_interval: Duration | None = None


class LogSelector(Model):
    """Which side of the traffic is meant."""

    mode: WorkloadMode = "CLIENT_AND_SERVER"


class Filter(Model):
    """A CEL expression: what is logged."""

    expression: Str

    def problems(self) -> Iterable[Cause]:
        try:
            parse_log_filter(self.expression)
        except ValueError as error:
            yield Cause(
                "expression",
                f"{error}: compare response.code with numbers (==, !=, >, >=, <, <=), joined by && and ||",
                Reason.NOT_SUPPORTED,
            )


class AccessLogging(Model):
    """Which requests are logged, and where."""

    match: LogSelector | None = None
    providers: tuple[ProviderRef, ...] = ()
    disabled: Bool | None = None
    filter: Filter | None = None


class Telemetry(TargetedPolicy):
    """Tracing, metrics and access logs of the selected workloads."""

    tracing: tuple[Tracing, ...] = ()
    metrics: tuple[Metrics, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()

    def problems(self) -> Iterable[Cause]:
        yield from self.target_problems()
