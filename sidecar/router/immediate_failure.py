"""Responses that say that their host is to be taken for failed, whatever its health checks found last.

Source: Envoy's documentation of the router, `x-envoy-immediate-health-check-fail`, and "Health checking" (fast failure).
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.core.head import ResponseHead
from sidecar.router.upstream_request import UpstreamRequest

_HEADER = b"x-envoy-immediate-health-check-fail"


class Attentive(UpstreamRequest):
    """Looks for the header in responses, and tells the health checks of the cluster."""

    __slots__ = ()

    attentive = True

    def _accept(self, head: ResponseHead) -> bool:
        if _HEADER in head.index and head.status >= 200:
            checker = self.cluster.health_checker
            if checker is not None:
                checker.fail_now(self.host)
        return super()._accept(head)


_MADE: Final[dict[type[UpstreamRequest], type[UpstreamRequest]]] = {UpstreamRequest: Attentive}


def attentive(kind: type[UpstreamRequest]) -> type[UpstreamRequest]:
    """The same kind of upstream request, which also looks for the header: for where clusters check health."""
    made = _MADE.get(kind)
    if made is None:
        members: dict[str, Any] = {"__slots__": ()}
        made = _MADE[kind] = type(f"Attentive{kind.__name__}", (Attentive, kind), members)
    return made
