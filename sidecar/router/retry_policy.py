"""Whether and when a request is tried again, as tables that the hot path looks into.

Source: Envoy's router filter reference on ``x-envoy-retry-on`` and its ``RetryPolicy`` reference.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from sidecar.config.matcher import HeaderMatcher
from sidecar.config.retry_policy import GRPC_RETRY_CONDITIONS, RETRY_CONDITIONS
from sidecar.config.retry_policy import RetryPolicy as RetryPolicyConfig
from sidecar.core.grpc import parse_grpc_status
from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.matching import compile_header, parse_unsigned
from sidecar.router.host_predicates import HostPredicates

RETRY_ON = b"x-envoy-retry-on"
RETRY_GRPC_ON = b"x-envoy-retry-grpc-on"
MAX_RETRIES = b"x-envoy-max-retries"
RETRIABLE_STATUS_CODES = b"x-envoy-retriable-status-codes"
RETRIABLE_HEADER_NAMES = b"x-envoy-retriable-header-names"
HEDGE_ON_PER_TRY_TIMEOUT = b"x-envoy-hedge-on-per-try-timeout"

_RETRY_HEADERS = (
    RETRY_ON,
    RETRY_GRPC_ON,
    MAX_RETRIES,
    RETRIABLE_STATUS_CODES,
    RETRIABLE_HEADER_NAMES,
    HEDGE_ON_PER_TRY_TIMEOUT,
)
_GRPC_STATUS = {
    "cancelled": 1,
    "deadline-exceeded": 4,
    "resource-exhausted": 8,
    "internal": 13,
    "unavailable": 14,
}
_STATUSES = 600
_MEMO_SIZE = 256
_MEMO_KEY_SIZE = 1024


class RetryPolicy:
    """The retry policy of a route or, with what its headers say merged in, of a request. Times are in seconds.

    ``retriable_status`` has a flag for each status below 600; ``header_matchers`` says whether responses are to be
    looked at for other reasons (``would_retry`` does both). Of the flags for failed attempts, ``on_reset`` counts for
    every kind of failure, ``on_reset_before_request`` when nothing of the request had been sent, the others for their
    own kind; each includes the wider ones.

    ``hedges``: an attempt that reaches its per-try timeout goes on beside the next one, for which there is one if
    ``retries``: something at all is said about retries, as it is when the request's headers do (``asked``).
    ``always``: requests that are not to be tried again have a policy, too, since their bodies are to be kept.
    """

    __slots__ = (
        "config",
        "retries",
        "hedges",
        "always",
        "num_retries",
        "per_try_timeout",
        "per_try_idle_timeout",
        "retriable_status",
        "on_reset",
        "on_reset_before_request",
        "on_connect_failure",
        "on_refused_stream",
        "on_rate_limited",
        "grpc_statuses",
        "retriable_headers",
        "header_matchers",
        "base_interval",
        "max_interval",
        "reset_headers",
        "reset_max_interval",
        "priority_update_frequency",
        "host_predicates",
        "host_selection_retry_max_attempts",
        "retriable_request_headers",
        "_memo",
    )

    def __init__(
        self, config: RetryPolicyConfig, hedges: bool = False, asked: bool = False, always: bool = False
    ) -> None:
        on = config.retry_on
        self.config = config
        self.retries = asked or bool(on)
        self.hedges = hedges
        self.always = always or hedges
        self.num_retries = config.num_retries
        self.per_try_timeout = config.per_try_timeout
        self.per_try_idle_timeout = config.per_try_idle_timeout or 0.0
        self.retriable_status = _retriable_status(config)
        self.on_reset = not on.isdisjoint(("reset", "5xx", "gateway-error"))
        self.on_reset_before_request = self.on_reset or "reset-before-request" in on
        self.on_connect_failure = self.on_reset_before_request or "connect-failure" in on
        self.on_refused_stream = self.on_reset or "refused-stream" in on
        self.on_rate_limited = "envoy-ratelimited" in on
        self.grpc_statuses = frozenset(_GRPC_STATUS[name] for name in on & GRPC_RETRY_CONDITIONS)
        self.retriable_headers = (
            tuple(map(compile_header, config.retriable_headers)) if "retriable-headers" in on else ()
        )
        self.header_matchers = bool(self.retriable_headers or self.grpc_statuses or self.on_rate_limited)
        self.base_interval = config.retry_back_off.base_interval
        self.max_interval = config.retry_back_off.max_interval
        rate_limited = config.rate_limited_retry_back_off
        self.reset_headers = () if rate_limited is None else rate_limited.reset_headers
        self.reset_max_interval = 0.0 if rate_limited is None else rate_limited.max_interval
        self.priority_update_frequency = 0 if config.retry_priority is None else config.retry_priority.update_frequency
        predicates = config.retry_host_predicate
        self.host_predicates = HostPredicates(predicates) if predicates else None
        self.host_selection_retry_max_attempts = config.host_selection_retry_max_attempts
        self.retriable_request_headers = tuple(map(compile_header, config.retriable_request_headers))
        self._memo: dict[tuple[bytes, ...], RetryPolicy] = {}

    def for_request(self, request: RequestHead, trusted: bool = True) -> RetryPolicy | None:
        """The policy for this request, None when it is never tried again.

        The request's own headers about retries are merged in if ``trusted``, and taken out of the request in any case.
        """
        index = request.index
        policy = self
        if (
            RETRY_ON in index
            or RETRY_GRPC_ON in index
            or MAX_RETRIES in index
            or RETRIABLE_STATUS_CODES in index
            or RETRIABLE_HEADER_NAMES in index
            or HEDGE_ON_PER_TRY_TIMEOUT in index
        ):
            if trusted:
                policy = self._merged_with(index)
            request.remove_all(_RETRY_HEADERS)
        if not policy.config.retry_on:
            return policy if policy.always else None
        if policy.retriable_request_headers:
            for matches in policy.retriable_request_headers:
                if matches(request):
                    return policy
            return policy._without_conditions() if policy.always else None
        return policy

    def _without_conditions(self) -> RetryPolicy:
        """As Envoy, late attempts of requests that are not to be tried again after a failure are hedged."""
        only = self._memo.get(())
        if only is None:
            config = replace(self.config, retry_on=frozenset())
            only = self._memo[()] = RetryPolicy(config, self.hedges, asked=True, always=True)
        return only

    def _merged_with(self, index: dict[bytes, bytes]) -> RetryPolicy:
        key = tuple(index.get(name, b"") for name in _RETRY_HEADERS)
        policy = self._memo.get(key)
        if policy is None:
            policy = self._merge(*key)
            if sum(map(len, key)) <= _MEMO_KEY_SIZE:
                if len(self._memo) >= _MEMO_SIZE:
                    self._memo.clear()
                self._memo[key] = policy
        return policy

    def _merge(self, on: bytes, grpc_on: bytes, most: bytes, codes: bytes, names: bytes, hedge: bytes) -> RetryPolicy:
        config = self.config
        retry_on = config.retry_on | (_tokens(on) & RETRY_CONDITIONS) | (_tokens(grpc_on) & GRPC_RETRY_CONDITIONS)
        told = parse_unsigned(most) if most else None
        statuses = {status for code in codes.split(b",") if (status := parse_unsigned(code)) is not None}
        headers = tuple(HeaderMatcher(name.lower(), True) for part in names.split(b",") if (name := part.strip()))
        return RetryPolicy(
            replace(
                config,
                retry_on=retry_on,
                num_retries=config.num_retries if told is None else told,
                retriable_status_codes=config.retriable_status_codes | statuses,
                retriable_headers=config.retriable_headers + headers,
            ),
            hedge == b"true" or (self.hedges and hedge != b"false"),
            bool(on or grpc_on),
            self.always,
        )

    def would_retry(self, response: ResponseHead) -> bool:
        """Whether this response from an upstream is worth another try."""
        index = response.index
        if b"x-envoy-ratelimited" in index:
            return self.on_rate_limited
        status = response.status
        if status < _STATUSES and self.retriable_status[status]:
            return True
        for matches in self.retriable_headers:
            if matches(response):
                return True
        told = index.get(b"grpc-status") if self.grpc_statuses else None
        return told is not None and parse_grpc_status(told) in self.grpc_statuses

    def back_off(self, retry: int, random: Random) -> float:
        """How long to wait before this retry (0 is the first): exponential, with full jitter."""
        interval = min(self.base_interval * (1 << min(retry, 40)), self.max_interval)
        return random.random() * interval

    def rate_limited_back_off(self, response: ResponseHead, now: float, random: Random) -> float | None:
        """How long the response asks to wait, and up to half as long again; None when it does not say so usefully.

        ``now`` is wall-clock time, in seconds since the epoch.
        """
        for header in self.reset_headers:
            value = response.index.get(header.name)
            number = None if value is None else parse_unsigned(value)
            if number is None:
                continue
            interval = float(number) if header.format == "SECONDS" else number - now
            if 0.001 < interval <= self.reset_max_interval:
                return interval * (1.0 + random.random() / 2)
        return None

    def __repr__(self) -> str:
        return f"<RetryPolicy {','.join(sorted(self.config.retry_on)) or 'never'}, at most {self.num_retries}>"


def _tokens(value: bytes) -> frozenset[str]:
    return frozenset(token.strip().decode("latin-1") for token in value.split(b","))


def _retriable_status(config: RetryPolicyConfig) -> bytes:
    flags = bytearray(_STATUSES)
    on = config.retry_on
    if "5xx" in on:
        flags[500:600] = b"\x01" * 100
    if "gateway-error" in on:
        flags[502:505] = b"\x01" * 3
    if "retriable-4xx" in on:
        flags[409] = 1
    if "retriable-status-codes" in on:
        for status in config.retriable_status_codes:
            if status < _STATUSES:
                flags[status] = 1
    return bytes(flags)


NO_RETRIES = RetryPolicy(RetryPolicyConfig(frozenset()))
"""The policy of routes that have none: only what a request's headers ask for counts."""


def for_request(policy: RetryPolicy | None, request: RequestHead, trusted: bool = True) -> RetryPolicy | None:
    """As ``RetryPolicy.for_request``, for a route that may have no policy."""
    return (NO_RETRIES if policy is None else policy).for_request(request, trusted)
