"""Redirects that are followed here: the request goes on as if the client had sent it again, to where it was told.

Source: Envoy's ``InternalRedirectPolicy`` and "Internal redirects".
"""

from __future__ import annotations

import re
from typing import Any

from sidecar.config.internal_redirect import AllowListedRoutes, PreviousRoutes, RedirectPredicate, SafeCrossScheme
from sidecar.config.internal_redirect import InternalRedirectPolicy as PolicyConfig
from sidecar.core.head import RequestHead, ResponseHead
from sidecar.router.hedging import HedgedRequest
from sidecar.router.upstream_request import UpstreamRequest

_URL = re.compile(
    rb"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^\s/?#@]*@)?((?:[^\s/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)((?:[/?][^\s#]*)?)(?:#\S*)?"
)
_STATE = "num_internal_redirects"


class Followed:
    """The redirects of one request: how many, and from which route to which others."""

    __slots__ = ("count", "ways")

    def __init__(self) -> None:
        self.count = 0
        self.ways: set[tuple[str, str]] = set()

    def __str__(self) -> str:
        return str(self.count)


class InternalRedirects:
    """A policy, compiled. ``codes`` are the statuses that are redirects to follow."""

    __slots__ = ("_allowed", "_copied", "_cross_scheme", "_most", "_previous", "_safe", "codes")

    def __init__(self, config: PolicyConfig) -> None:
        def having(kind: type[RedirectPredicate]) -> list[Any]:
            return [one for one in config.predicates if isinstance(one, kind)]

        self.codes = config.redirect_response_codes
        self._most = config.max_internal_redirects
        self._cross_scheme = config.allow_cross_scheme_redirect
        self._copied = config.response_headers_to_copy
        self._allowed: list[frozenset[str]] = [one.allowed_route_names for one in having(AllowListedRoutes)]
        self._previous = bool(having(PreviousRoutes))
        self._safe = bool(having(SafeCrossScheme))

    def follow(self, stream: Any, request: RequestHead, response: ResponseHead, stats: Any) -> RequestHead | None:
        """The request that the response asks for, or None where that is not to be: ``stats`` tells why."""
        url = _URL.fullmatch(response.index.get(b"location", b""))
        if url is None:
            stats.passthrough_internal_redirect_bad_location += 1
            return None
        scheme, authority, path = url.groups()
        from_http = request.scheme.lower() == b"http" or stream.connection.tls is None
        to_http = scheme.lower() == b"http"
        if from_http != to_http and not self._cross_scheme:
            stats.passthrough_internal_redirect_unsafe_scheme += 1
            return None
        state = stream.filter_state or {}
        followed = state.get(_STATE) or Followed()
        if followed.count >= self._most:
            stats.passthrough_internal_redirect_too_many_redirects += 1
            return None
        target = request.copy()
        for name in self._copied:
            target.remove(name)
            for value in response.get_all(name):
                target.add(name, value)
        target.scheme = scheme
        target.authority = authority
        target.path = path if path.startswith(b"/") else b"/" + path
        name = stream.route.name
        route = stream.manager.routes.match(target, stream)
        stream.route = route  # as Envoy, whose logs show this one whatever comes of it
        stream.cluster_name = "" if route is None else route.cluster_name
        if route is None:
            stats.passthrough_internal_redirect_no_route += 1
            return None
        if not self._agree(name, route.name, followed, from_http, to_http):
            stats.passthrough_internal_redirect_predicate += 1
            return None
        followed.count += 1
        stream.filter_state = {**state, _STATE: followed}
        original = b"http" if from_http else b"https"
        target.set(b"x-envoy-original-url", b"%b://%b%b" % (original, request.authority, request.path))
        return target

    def _agree(self, name: str, target: str, followed: Followed, from_http: bool, to_http: bool) -> bool:
        """Whether all predicates let the request go from the route ``name`` to the route ``target``."""
        if any(target not in allowed for allowed in self._allowed) or (self._safe and from_http and not to_http):
            return False
        if self._previous:
            if (name, target) in followed.ways:
                return False
            followed.ways.add((name, target))
        return True

    def __repr__(self) -> str:
        return f"<InternalRedirects at most {self._most} of {sorted(self.codes)}>"


class RedirectedRequest(UpstreamRequest):
    """An upstream request whose answer may be a redirect that is followed here."""

    __slots__ = ()

    def _accept(self, head: ResponseHead) -> bool:
        redirects: InternalRedirects = self.route.internal_redirects
        if head.status in redirects.codes:
            retry = self.retry
            bad = retry is not None and retry.would_retry(head)
            if (not bad or self.retries_left <= 0) and self._followed(redirects, head, bad):
                return False
        return super()._accept(head)

    def _followed(self, redirects: InternalRedirects, head: ResponseHead, bad: bool) -> bool:
        """Go where the response says, if that may be. ``bad``: it would have been retried, had there been retries left."""
        stream = self.stream
        stats = self.cluster.stats
        body = self.body or ()
        kept = self.bodyless or (self.body is not None and self.body_size <= self.router.retry_budget_bytes)
        whole = self.body_end and kept
        target = None
        if whole and b"location" in head.index:
            target = redirects.follow(stream, self.request, head, self.router.stats)
        if target is None:
            stats.upstream_internal_redirect_failed_total += 1
            return False
        if bad:
            self._has_retries_left()  # counts, and tells the log, that there are none
        stats.upstream_internal_redirect_succeeded_total += 1
        trailers = self.trailers
        if head.status == 303 and target.method not in (b"GET", b"HEAD"):  # RFC 9110 section 15.4.4
            target.method = b"GET"
            target.remove(b"content-length")
            body, trailers = (), None
        outlier = self.cluster.outlier
        if outlier is not None:
            outlier.on_status(self.host, head.status, False)
        worker = self.router.worker
        stream.now = worker.clock()
        self._give_up()
        stream.upstream = None
        stream.request = target
        stream.response_code = head.status
        stream.again(b"".join(body), trailers)
        return True


class RedirectedHedgedRequest(RedirectedRequest, HedgedRequest):
    """Both."""

    __slots__ = ()

    def _followed(self, redirects: InternalRedirects, head: ResponseHead, bad: bool) -> bool:
        if not super()._followed(redirects, head, bad):
            return False
        self._drop_late()
        return True
