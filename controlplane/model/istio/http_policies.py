"""What an HTTP route does besides routing: retries, faults, CORS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.http_match import StringMatch
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import (
    Bool,
    Duration,
    DurationOrZero,
    Int,
    PercentInt,
    PercentValue,
    Str,
    header_name_complaint,
    is_number,
    shown,
)


class Percent(Model):
    """A share, in percent."""

    value: PercentValue = 0.0


# Envoy's router filter: x-envoy-retry-on and x-envoy-retry-grpc-on; a number is a status of the response.
_RETRY_CONDITIONS = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)


class HTTPRetry(Model):
    """How often, and upon what, a request is repeated."""

    attempts: Int | None = None
    per_try_timeout: DurationOrZero | None = None
    retry_on: Str | None = None
    retry_remote_localities: Bool | None = None
    retry_ignore_previous_hosts: Bool | None = None
    backoff: Duration | None = None

    def problems(self) -> Iterable[Cause]:
        if self.attempts is not None and self.attempts < 0:
            yield Cause("attempts", f"must not be negative, it is {self.attempts}; 0 switches retries off")
        if self.attempts == 0 and (self.per_try_timeout is not None or self.retry_on):
            field = "perTryTimeout" if self.per_try_timeout is not None else "retryOn"
            yield Cause(field, "has no effect, because attempts is 0: remove it, or give attempts")
        for condition in (self.retry_on or "").split(","):
            word = condition.strip()
            if word and word not in _RETRY_CONDITIONS and not is_number(word, 100, 599):
                yield Cause(
                    "retryOn",
                    f"{shown(word)} is not a condition: use statuses such as 503 and {', '.join(sorted(_RETRY_CONDITIONS))}",
                    Reason.NOT_SUPPORTED,
                )


class Delay(Model):
    """Requests, or a part of them, go on later."""

    percent: PercentInt | None = None
    fixed_delay: Duration | None = None
    percentage: Percent | None = None

    def problems(self) -> Iterable[Cause]:
        if self.fixed_delay is None:
            yield Cause("fixedDelay", "is required: say how long requests wait", Reason.REQUIRED)
        yield from exclusive(self, "percent", "percentage")


_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class Abort(Model):
    """Requests, or a part of them, are answered with an error."""

    http_status: Int | None = None
    grpc_status: Str | None = None
    percentage: Percent | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "http_status", "grpc_status", required=True)
        if self.http_status is not None and not 200 <= self.http_status <= 599:
            yield Cause("httpStatus", f"an HTTP status must be from 200 to 599, not {self.http_status}")
        if self.grpc_status is not None and self.grpc_status not in _GRPC_CODES:
            yield Cause(
                "grpcStatus",
                f"{shown(self.grpc_status)} is not a gRPC status: use one of {', '.join(_GRPC_CODES)}",
                Reason.NOT_SUPPORTED,
            )


class HTTPFaultInjection(Model):
    """Faults that are made on purpose."""

    delay: Delay | None = None
    abort: Abort | None = None

    def problems(self) -> Iterable[Cause]:
        if self.delay is None and self.abort is None:
            yield Cause("", "says nothing: give a delay or an abort", Reason.REQUIRED)


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"))


class CorsPolicy(Model):
    """Which pages of other origins may make requests."""

    allow_origin: tuple[Str, ...] = ()
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[Str, ...] = ()
    allow_headers: tuple[Str, ...] = ()
    expose_headers: tuple[Str, ...] = ()
    max_age: DurationOrZero | None = None
    allow_credentials: Bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"

    def problems(self) -> Iterable[Cause]:
        for index, method in enumerate(self.allow_methods):
            if method not in _METHODS:
                yield Cause(
                    f"allowMethods[{index}]",
                    f"{shown(method)} is not a method of HTTP: use one of {', '.join(sorted(_METHODS))}",
                    Reason.NOT_SUPPORTED,
                )
        yield from self._header_problems("allowHeaders", self.allow_headers)
        yield from self._header_problems("exposeHeaders", self.expose_headers)
        if self.max_age is not None and self.max_age % 1:
            yield Cause("maxAge", f"must be in whole seconds, not {self.max_age:g}s")
        for index, match in enumerate(self.allow_origins):
            if match.exact is None and match.prefix is None and match.regex is None:
                yield Cause(f"allowOrigins[{index}]", "says nothing: give exact, prefix or regex", Reason.REQUIRED)

    @staticmethod
    def _header_problems(path: str, names: tuple[str, ...]) -> Iterator[Cause]:
        for index, name in enumerate(names):
            if name != "*" and (complaint := header_name_complaint(name)):
                yield Cause(f"{path}[{index}]", complaint)
