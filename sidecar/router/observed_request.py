"""Upstream requests of which more is asked than of most: for a host that a filter names, for load reports, or for what a
cluster itself takes for errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.core.head import Field, ResponseHead
from sidecar.core.override_host import OVERRIDE_HOST
from sidecar.router.upstream_request import UpstreamRequest

if TYPE_CHECKING:
    from sidecar.router.router import Router


class ObservedRequest(UpstreamRequest):
    """Takes the host that a filter asks for, and hands the load reports of responses to the cluster that wants them."""

    __slots__ = ()

    observes = True

    def __init__(self, router: Router, stream: Any, route: Any, cluster: Any) -> None:
        super().__init__(router, stream, route, cluster)
        self.reported = False
        data = stream.filter_data
        if data is not None:
            self.override_host = data.get(OVERRIDE_HOST)

    def attempt(self, host: Any) -> None:
        """The same; a retry goes wherever it is sent, and reports for itself."""
        self.override_host = None
        self.reported = False
        super().attempt(host)

    def _accept(self, head: ResponseHead) -> bool:
        cluster = self.cluster
        if head.status >= 200:
            if cluster.load_reports is not None:
                self.reported = cluster.load_reports.on_fields(self.host, head.index)
            if cluster.config.error_matcher is not None and cluster.outlier is not None:
                good = head.status < 500 and (b"grpc-status" not in head.index or self._judged(head) < 500)
                cluster.outlier.on_head(self.host, head, good)
        return super()._accept(head)

    def on_trailers(self, trailers: list[Field]) -> None:
        """Some hosts know their load only at the end."""
        reports = self.cluster.load_reports
        if reports is not None and not self.reported:
            reports.on_fields(self.host, dict(trailers))
        super().on_trailers(trailers)


_kinds: dict[type[UpstreamRequest], type[UpstreamRequest]] = {}


def observed(kind: type[UpstreamRequest]) -> type[UpstreamRequest]:
    """That kind of upstream request, observed."""
    if kind.observes:
        return kind
    if kind not in _kinds:
        _kinds[kind] = type(f"Observed{kind.__name__}", (ObservedRequest, kind), {"__slots__": ()})
    return _kinds[kind]
