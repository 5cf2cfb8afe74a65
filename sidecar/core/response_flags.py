"""Response flags: why a request ended as it did, as bits, with Envoy's short and long names.

Source: Envoy's access-log documentation, operators ``%RESPONSE_FLAGS%`` and ``%RESPONSE_FLAGS_LONG%``.
"""

from __future__ import annotations

_NAMES = (
    ("LH", "FailedLocalHealthCheck"),
    ("UH", "NoHealthyUpstream"),
    ("UT", "UpstreamRequestTimeout"),
    ("LR", "LocalReset"),
    ("UR", "UpstreamRemoteReset"),
    ("UF", "UpstreamConnectionFailure"),
    ("UC", "UpstreamConnectionTermination"),
    ("UO", "UpstreamOverflow"),
    ("NR", "NoRouteFound"),
    ("DI", "DelayInjected"),
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
BY_SHORT_NAME: dict[str, int] = {short: 1 << bit for bit, short in enumerate(SHORT_NAMES)}

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
DOWNSTREAM_CONNECTION_TERMINATION = BY_SHORT_NAME["DC"]
UPSTREAM_RETRY_LIMIT_EXCEEDED = BY_SHORT_NAME["URX"]
STREAM_IDLE_TIMEOUT = BY_SHORT_NAME["SI"]
INVALID_ENVOY_REQUEST_HEADERS = BY_SHORT_NAME["IH"]
DOWNSTREAM_PROTOCOL_ERROR = BY_SHORT_NAME["DPE"]
UPSTREAM_MAX_STREAM_DURATION_REACHED = BY_SHORT_NAME["UMSDR"]
DURATION_TIMEOUT = BY_SHORT_NAME["DT"]
UPSTREAM_PROTOCOL_ERROR = BY_SHORT_NAME["UPE"]
NO_CLUSTER_FOUND = BY_SHORT_NAME["NC"]
DOWNSTREAM_REMOTE_RESET = BY_SHORT_NAME["DR"]

_short_memo: dict[int, bytes] = {0: b"-"}


def short_names(flags: int) -> bytes:
    """The set flags as Envoy writes them for ``%RESPONSE_FLAGS%``: ``UF,URX``, or ``-`` for none."""
    text = _short_memo.get(flags)
    if text is None:
        text = ",".join(name for bit, name in enumerate(SHORT_NAMES) if flags >> bit & 1).encode()
        _short_memo[flags] = text
    return text


def long_names(flags: int) -> bytes:
    """The set flags as Envoy writes them for ``%RESPONSE_FLAGS_LONG%``, or ``-`` for none."""
    return ",".join(name for bit, name in enumerate(LONG_NAMES) if flags >> bit & 1).encode() or b"-"
