"""Response flags: why a request ended as it did, as bits, with Envoy's short and long names.

Source: Envoy's access-log documentation, operators ``%RESPONSE_FLAGS%`` and ``%RESPONSE_FLAGS_LONG%``.
"""

from __future__ import annotations

_NAMES = (
    ("DI", "DelayInjected"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("UO", "UpstreamOverflow"),
    ("LH", "FailedLocalHealthCheck"),
    ("UH", "NoHealthyUpstream"),
    ("UT", "UpstreamRequestTimeout"),
    ("LR", "LocalReset"),
    ("UR", "UpstreamRemoteReset"),
    ("UF", "UpstreamConnectionFailure"),
    ("UC", "UpstreamConnectionTermination"),
    ("NR", "NoRouteFound"),
    ("FI", "FaultInjected"),
    ("RL", "RateLimited"),
    ("UAEX", "UnauthorizedExternalService"),
    ("RLSE", "RateLimitServiceError"),
    ("DC", "DownstreamConnectionTermination"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("SI", "StreamIdleTimeout"),
    ("IH", "InvalidEnvoyRequestHeaders"),
    ("DPE", "DownstreamProtocolError"),
    ("UMSDR", "UpstreamMaxStreamDurationReached"),
    ("RFCF", "ResponseFromCacheFilter"),
    ("NFCF", "NoFilterConfigFound"),
    ("DT", "DurationTimeout"),
    ("UPE", "UpstreamProtocolError"),
    ("NC", "NoClusterFound"),
    ("OM", "OverloadManagerTerminated"),
    ("DF", "DnsResolutionFailed"),
    ("DO", "DropOverload"),
    ("DR", "DownstreamRemoteReset"),
    ("UDO", "UnconditionalDropOverload"),
)

SHORT_NAMES: tuple[str, ...] = tuple(short for short, _ in _NAMES)
LONG_NAMES: tuple[str, ...] = tuple(long for _, long in _NAMES)
BY_SHORT_NAME: dict[str, int] = {}
"""The bits of each flag. Envoy writes flags in the order in which they were set, and so do we for those that come together:
a request is delayed before it fails, and finds no room for a retry before the failure stands. URX has two bits: a request
runs out of retries before it fails, a TCP session fails before it runs out of attempts."""
for _bit, _short in enumerate(SHORT_NAMES):
    BY_SHORT_NAME[_short] = BY_SHORT_NAME.get(_short, 0) | 1 << _bit

FAILED_LOCAL_HEALTH_CHECK = BY_SHORT_NAME["LH"]
NO_HEALTHY_UPSTREAM = BY_SHORT_NAME["UH"]
UPSTREAM_REQUEST_TIMEOUT = BY_SHORT_NAME["UT"]
LOCAL_RESET = BY_SHORT_NAME["LR"]
UPSTREAM_REMOTE_RESET = BY_SHORT_NAME["UR"]
UPSTREAM_CONNECTION_FAILURE = BY_SHORT_NAME["UF"]
UPSTREAM_CONNECTION_TERMINATION = BY_SHORT_NAME["UC"]
UPSTREAM_OVERFLOW = BY_SHORT_NAME["UO"]
NO_ROUTE_FOUND = BY_SHORT_NAME["NR"]
DELAY_INJECTED = BY_SHORT_NAME["DI"]
FAULT_INJECTED = BY_SHORT_NAME["FI"]
RATE_LIMITED = BY_SHORT_NAME["RL"]
UNAUTHORIZED_EXTERNAL_SERVICE = BY_SHORT_NAME["UAEX"]
RATE_LIMIT_SERVICE_ERROR = BY_SHORT_NAME["RLSE"]
DOWNSTREAM_CONNECTION_TERMINATION = BY_SHORT_NAME["DC"]
UPSTREAM_RETRY_LIMIT_EXCEEDED = BY_SHORT_NAME["URX"] & -BY_SHORT_NAME["URX"]
CONNECT_ATTEMPTS_EXCEEDED = BY_SHORT_NAME["URX"] & ~UPSTREAM_RETRY_LIMIT_EXCEEDED
STREAM_IDLE_TIMEOUT = BY_SHORT_NAME["SI"]
OVERLOAD_MANAGER = BY_SHORT_NAME["OM"]
INVALID_ENVOY_REQUEST_HEADERS = BY_SHORT_NAME["IH"]
DOWNSTREAM_PROTOCOL_ERROR = BY_SHORT_NAME["DPE"]
UPSTREAM_MAX_STREAM_DURATION_REACHED = BY_SHORT_NAME["UMSDR"]
DURATION_TIMEOUT = BY_SHORT_NAME["DT"]
UPSTREAM_PROTOCOL_ERROR = BY_SHORT_NAME["UPE"]
NO_CLUSTER_FOUND = BY_SHORT_NAME["NC"]
DNS_RESOLUTION_FAILED = BY_SHORT_NAME["DF"]
DOWNSTREAM_REMOTE_RESET = BY_SHORT_NAME["DR"]

_short_memo: dict[int, bytes] = {0: b"-"}


def short_names(flags: int) -> bytes:
    """The set flags as Envoy writes them for ``%RESPONSE_FLAGS%``: ``URX,UF``, or ``-`` for none."""
    text = _short_memo.get(flags)
    if text is None:
        text = _names(flags, SHORT_NAMES)
        _short_memo[flags] = text
    return text


def long_names(flags: int) -> bytes:
    """The set flags as Envoy writes them for ``%RESPONSE_FLAGS_LONG%``, or ``-`` for none."""
    return _names(flags, LONG_NAMES) or b"-"


def _names(flags: int, names: tuple[str, ...]) -> bytes:
    return ",".join(name for bit, name in enumerate(names) if flags >> bit & 1).encode()
