"""What is repeated without being asked for: requests of which no host can have processed anything.

Source: RFC 9110 section 9.2.2, RFC 9112 section 9.3.1, RFC 9113 section 8.7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.core.head import RequestHead
from sidecar.core.upstream import CONNECTION_FAILURE, CONNECTION_TERMINATION, CONNECTION_TIMEOUT, REFUSED_STREAM

if TYPE_CHECKING:
    from sidecar.router.retry_policy import RetryPolicy
    from sidecar.router.router import Router

_NEVER_ARRIVED = frozenset((CONNECTION_FAILURE, CONNECTION_TIMEOUT, CONNECTION_TERMINATION))
_MOST_ELSEWHERE = 2
_CHOICES = 64
"""How often a host is chosen anew that was not tried: a balancer that prefers hosts without load prefers those that are gone."""
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))


class Unprocessed:
    """A request's own knowledge of what has become of it; most slots are those of ``Recovery``."""

    __slots__ = ("host_selection_retry_max_attempts", "repeated", "tried")

    router: Router
    request: RequestHead
    retry: RetryPolicy | None
    body: list[bytes] | None
    cluster: Any
    host: Any
    abandoned: bool
    bodyless: bool
    repeated: bool
    reused: bool
    retries: int
    tried: Any
    host_selection_retry_max_attempts: int

    def _unprocessed(self, reason: str, sent: bool) -> bool:
        """Whether no host can have acted on the request, so that repeating it is safe whatever is configured, and good for
        something. ``sent``: something of it left for the host.
        """
        if not self.router.repeats_unprocessed or self.abandoned:
            return False
        if not self.repeated and self._refused(reason):
            return True
        return not sent and self.retry is None and self._never_arrived(reason)

    def _refused(self, reason: str) -> bool:
        """Once for a request: the host refused its stream, or its GOAWAY named an earlier one as the last; or an idempotent
        request without a body was sent on a reused connection that closed before a byte of an answer, since the host had
        closed it while it was idle.
        """
        if reason == REFUSED_STREAM:
            self.repeated = self.bodyless or self.body is not None
        else:
            self.repeated = (
                reason == CONNECTION_TERMINATION
                and self.reused
                and self.bodyless
                and self.request.method in _IDEMPOTENT
            )
        return self.repeated

    def _never_arrived(self, reason: str) -> bool:
        """Without a retry policy: there was no connection for the attempt, and there is another host to go to. At most two
        others are tried, none of them twice; where there is a single host, this is never so.
        """
        if reason not in _NEVER_ARRIVED or self.retries >= _MOST_ELSEWHERE or not self.cluster.has_several_hosts:
            return False
        self.tried = (*self.tried, self.host)
        self.host_selection_retry_max_attempts = _CHOICES
        host = self.cluster.pick(self)
        return host is not None and host not in self.tried
