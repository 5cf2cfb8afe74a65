"""Every kind of upstream request can look for responses that take their host out."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.head import ResponseHead
from sidecar.router.hedging import HedgedRequest
from sidecar.router.immediate_failure import attentive
from sidecar.router.internal_redirect import RedirectedHedgedRequest, RedirectedRequest
from sidecar.router.upstream_request import UpstreamRequest

KINDS = (UpstreamRequest, HedgedRequest, RedirectedRequest, RedirectedHedgedRequest)


class Checker:
    """Remembers who is to be taken for failed."""

    def __init__(self) -> None:
        self.failed: list[Any] = []

    def fail_now(self, host: Any) -> None:
        self.failed.append(host)


class Cluster:
    """As much of one as is looked at."""

    def __init__(self, checker: Checker | None) -> None:
        self.health_checker = checker


def accepted(
    kind: type[UpstreamRequest], cluster: Cluster, head: ResponseHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let a request of this kind see a response's head, and nothing happen but what is looked for."""
    monkeypatch.setattr(UpstreamRequest, "_accept", lambda self, head: True)
    for other in KINDS[1:]:
        if "_accept" in vars(other):
            monkeypatch.delattr(other, "_accept")
    request = attentive(kind).__new__(attentive(kind))
    request.cluster, request.host = cluster, "host"
    assert request._accept(head)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can(kind: type[UpstreamRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    made = attentive(kind)
    assert made.attentive and issubclass(made, kind) and not kind.attentive
    assert attentive(kind) is made
    checker = Checker()
    told = (b"x-envoy-immediate-health-check-fail", b"")
    accepted(kind, Cluster(checker), ResponseHead(200, []), monkeypatch)
    accepted(kind, Cluster(checker), ResponseHead(103, [told]), monkeypatch)
    assert checker.failed == []
    accepted(kind, Cluster(checker), ResponseHead(200, [told]), monkeypatch)
    assert checker.failed == ["host"]
    accepted(kind, Cluster(None), ResponseHead(200, [told]), monkeypatch)
