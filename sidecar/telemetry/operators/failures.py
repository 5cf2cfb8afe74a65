"""``%MIZZEN(...)%``: what Envoy's operators leave open about a request that failed.

Everything is found out when a line is written: of what the stream holds anyway, and of what was noted where an attempt
ended before its time. Formats that do not ask cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sidecar.core import response_flags as flag

from ..format_code import Value, any_value
from ..format_syntax import Command
from .base import FormatContext, Operator

CLIENT, SIDECAR, UPSTREAM = "client", "sidecar", "upstream"

_BY_CLIENT = flag.DOWNSTREAM_CONNECTION_TERMINATION | flag.DOWNSTREAM_REMOTE_RESET
_RESET = re.compile(r"upstream_reset_(?:before|after)_response_started\{([^|}]*)")
_HERE = frozenset(("local_connection_failure", "connection_timeout", "overflow", "protocol_error", "local_reset"))
"""Why attempts end that the sidecar ends; all other reasons are the host's doing."""
_UNCONNECTED = frozenset(("remote_connection_failure", "local_connection_failure", "connection_timeout", "overflow"))
_OF_SESSIONS = (
    (flag.UPSTREAM_CONNECTION_FAILURE, "remote_connection_failure"),
    (flag.NO_HEALTHY_UPSTREAM, "no_healthy_upstream"),
    (flag.UPSTREAM_OVERFLOW, "overflow"),
    (flag.NO_CLUSTER_FOUND, "cluster_not_found"),
    (flag.DURATION_TIMEOUT, "max_duration_timeout"),
    (flag.UPSTREAM_REMOTE_RESET, "remote_reset"),
)
"""What the flags of TCP sessions stand for, which have no details."""
_WHOLE = frozenset(("", "via_upstream", "direct_response", "internal_redirect"))


def reason(stream: Any) -> str | None:
    """Why the exchange came to no proper end, in one word; None if it came to one, or if a filter answered."""
    if stream.request is None:
        return _of_session(stream)
    details: str = stream.response_code_details
    reset = _RESET.match(details)
    if reset is not None:
        return reset[1]
    return None if details in _WHOLE else "_".join(details.split())


def _of_session(stream: Any) -> str | None:
    flags = stream.response_flags
    for bit, words in _OF_SESSIONS:
        if flags & bit:
            if bit == flag.UPSTREAM_CONNECTION_FAILURE and not stream.upstream_failure_reason:
                return "connection_timeout"
            return words
    return None


def closed_by(stream: Any) -> str | None:
    """Who ended the exchange before its proper end: client, sidecar or upstream; None if nobody did."""
    if stream.response_flags & _BY_CLIENT:
        return CLIENT
    why = reason(stream)
    if why is None:
        return None
    if stream.request is None:
        return UPSTREAM if why in ("remote_connection_failure", "remote_reset") else SIDECAR
    if stream.response_code_details.startswith("upstream_reset_"):
        broken = getattr(stream, "broken_connection", None)
        cut_off = why == "protocol_error" and broken is not None and broken[2]  # a message that ends in its midst
        return SIDECAR if why in _HERE and not cut_off else UPSTREAM
    return SIDECAR


def phase(stream: Any) -> str | None:
    """How far it had come: ``request`` (the client had not sent all of it), ``filters`` (no host was asked yet),
    ``connection`` (waiting for one), ``response`` (waiting for its beginning), ``body`` (waiting for its end).
    """
    why = reason(stream)
    if why is None:
        return None
    if stream.upstream_first_rx or (why == "remote_reset" and stream.request is None):
        return "body"
    if why in _UNCONNECTED or why == "no_healthy_upstream":
        return "connection"
    if stream.request is None:
        return "filters" if stream.host is None else "body"
    if not stream.request_complete:
        return "request"
    if stream.upstream_first_tx:
        return "response"
    return "filters" if stream.host is None else "connection"


def attempt(stream: Any) -> int | None:
    """On which attempt it failed, 1 for the first; None if no host was asked, or none failed."""
    return None if reason(stream) is None else stream.attempt_count or None


def connection_age(stream: Any) -> int | None:
    """How old the connection to the host was by then, in milliseconds."""
    broken = getattr(stream, "broken_connection", None)
    return None if broken is None or reason(stream) is None else int(broken[0] * 1000)


def connection_requests(stream: Any) -> int | None:
    """How many requests the connection to the host had carried before this one."""
    broken = getattr(stream, "broken_connection", None)
    return None if broken is None or reason(stream) is None else broken[1]


_ASPECTS: dict[str, Callable[[Any], Any]] = {
    "closed_by": closed_by,
    "phase": phase,
    "reason": reason,
    "attempt": attempt,
    "connection_age": connection_age,
    "connection_requests": connection_requests,
}


def _make(command: Command, context: FormatContext) -> Value:
    function = _ASPECTS.get(command.arguments)
    if function is None:
        raise command.error(f"{command.arguments!r} is not one of {', '.join(_ASPECTS)}")
    return any_value("$0(stream)", function)


FAILURES = {"MIZZEN": Operator(_make, "required", True)}
