"""When and how a request is tried again: `route.v3.RetryPolicy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.core_types import Metadata, parse_metadata, seconds
from sidecar.config.fields import Node
from sidecar.config.matcher import HeaderMatcher, header_name, parse_header_matchers

RETRY_CONDITIONS = frozenset(
    {
        "5xx",
        "gateway-error",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "reset",
        "reset-before-request",
    }
)
"""What `retry_on` and `x-envoy-retry-on` may say about any request."""

GRPC_RETRY_CONDITIONS = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})
"""What `retry_on` and `x-envoy-retry-grpc-on` may say about gRPC requests."""

_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_OMIT_CANARY_HOSTS = "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
_OMIT_HOST_METADATA = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
_PREVIOUS_PRIORITIES = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"

_SHORTEST_BASE_INTERVAL = 0.001


@dataclass(frozen=True, slots=True)
class RetryBackOff:
    """Seconds: the waits grow from `base_interval`, with full jitter, up to `max_interval`."""

    base_interval: float = 0.025
    max_interval: float = 0.25


@dataclass(frozen=True, slots=True)
class ResetHeader:
    """A response header that tells when to come back. `format` is SECONDS or UNIX_TIMESTAMP."""

    name: bytes
    format: str


@dataclass(frozen=True, slots=True)
class RateLimitedRetryBackOff:
    """Take the wait from the first of these response headers that is usable and says at most `max_interval` seconds."""

    reset_headers: tuple[ResetHeader, ...]
    max_interval: float


@dataclass(frozen=True, slots=True)
class PreviousHosts:
    """Choose again when the host has been tried already."""


@dataclass(frozen=True, slots=True)
class OmitCanaryHosts:
    """Choose again when the host's metadata calls it a canary."""


@dataclass(frozen=True, slots=True)
class OmitHostMetadata:
    """Choose again when the host's metadata for `envoy.lb` has all that this has there; without labels never."""

    metadata_match: Metadata


@dataclass(frozen=True, slots=True)
class PreviousPriorities:
    """Choose among the priorities that were not tried; looked at anew with every `update_frequency` attempts."""

    update_frequency: int


RetryHostPredicate: TypeAlias = PreviousHosts | OmitCanaryHosts | OmitHostMetadata


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`retry_on` has only known conditions. `per_try_timeout` is in seconds, None for no limit but the route's.

    So is `per_try_idle_timeout`, which counts from what last happened in the attempt.
    """

    retry_on: frozenset[str]
    num_retries: int = 1
    per_try_timeout: float | None = None
    per_try_idle_timeout: float | None = None
    retry_priority: PreviousPriorities | None = None
    retry_host_predicate: tuple[RetryHostPredicate, ...] = ()
    host_selection_retry_max_attempts: int = 1
    retriable_status_codes: frozenset[int] = frozenset()
    retry_back_off: RetryBackOff = RetryBackOff()
    rate_limited_retry_back_off: RateLimitedRetryBackOff | None = None
    retriable_headers: tuple[HeaderMatcher, ...] = ()
    retriable_request_headers: tuple[HeaderMatcher, ...] = ()


def parse_retry_policy(node: Node) -> RetryPolicy:
    """`route.v3.RetryPolicy`. A condition that is not known counts for nothing, as in Envoy, and is warned of."""
    back_off = node.child("retry_back_off")
    rate_limited = node.child("rate_limited_retry_back_off")
    priority = node.child("retry_priority")
    predicates = map(_parse_host_predicate, node.children("retry_host_predicate"))
    return RetryPolicy(
        retry_on=_parse_retry_on(node),
        num_retries=node.wrapped("num_retries", 1),
        per_try_timeout=node.duration("per_try_timeout") or None,
        per_try_idle_timeout=node.duration("per_try_idle_timeout") or None,
        retry_priority=None if priority is None else _parse_priority(priority),
        retry_host_predicate=tuple(predicate for predicate in predicates if predicate is not None),
        host_selection_retry_max_attempts=node.get("host_selection_retry_max_attempts") or 1,
        retriable_status_codes=frozenset(node.get("retriable_status_codes")),
        retry_back_off=RetryBackOff() if back_off is None else parse_back_off(back_off),
        rate_limited_retry_back_off=None if rate_limited is None else _parse_rate_limited_back_off(rate_limited),
        retriable_headers=parse_header_matchers(node.children("retriable_headers")),
        retriable_request_headers=parse_header_matchers(node.children("retriable_request_headers")),
    )


def parse_core_retry_policy(node: Node) -> RetryPolicy:
    """`core.v3.RetryPolicy`, that of our own calls. Without intervals, the first is a second."""
    back_off = node.child("retry_back_off")
    return RetryPolicy(
        retry_on=_parse_retry_on(node),
        num_retries=node.wrapped("num_retries", 1),
        retry_back_off=RetryBackOff(1.0, 10.0) if back_off is None else parse_back_off(back_off),
    )


def _parse_retry_on(node: Node) -> frozenset[str]:
    known = RETRY_CONDITIONS | GRPC_RETRY_CONDITIONS
    conditions = {condition for part in node.get("retry_on").split(",") if (condition := part.strip(" "))}
    for condition in sorted(conditions - known):
        node.context.warn(node.path_of("retry_on"), f"{condition!r} is no retry condition here and counts for nothing")
    return frozenset(conditions & known)


def parse_back_off(node: Node) -> RetryBackOff:
    """`core.v3.BackoffStrategy`, and the message of that name in a route."""
    base = max(seconds(node, "base_interval", 0.025), _SHORTEST_BASE_INTERVAL)
    longest = node.duration("max_interval")
    if longest is None:
        return RetryBackOff(base, 10 * base)
    longest = max(longest, _SHORTEST_BASE_INTERVAL)
    if longest < base:
        node.refuse("is shorter than base_interval", "max_interval", "make it at least as long")
    return RetryBackOff(base, longest)


def _parse_rate_limited_back_off(node: Node) -> RateLimitedRetryBackOff:
    headers = tuple(
        ResetHeader(header_name(header.get("name")), header.enum("format")) for header in node.children("reset_headers")
    )
    return RateLimitedRetryBackOff(headers, seconds(node, "max_interval", 300.0))


def _parse_priority(node: Node) -> PreviousPriorities | None:
    extension = node.extension(known=(_PREVIOUS_PRIORITIES,))
    return None if extension is None else PreviousPriorities(extension.get("update_frequency"))


def _parse_host_predicate(node: Node) -> RetryHostPredicate | None:
    extension = node.extension(known=(_PREVIOUS_HOSTS, _OMIT_CANARY_HOSTS, _OMIT_HOST_METADATA))
    if extension is None:
        return None
    match extension.type_name:
        case name if name == _OMIT_CANARY_HOSTS:
            return OmitCanaryHosts()
        case name if name == _OMIT_HOST_METADATA:
            return OmitHostMetadata(parse_metadata(extension.child("metadata_match")))
    return PreviousHosts()
