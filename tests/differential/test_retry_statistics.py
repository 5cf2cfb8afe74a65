"""After the same retries, hedged requests, redirects, mirrors and failures both proxies have counted the same."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.differential.runner import Runner
from tests.differential.test_http2_statistics import compare_counters

TRAFFIC: Mapping[str, tuple[str, ...]] = {
    "hedging": (
        "hedging/no-need",
        "hedging/second-wins",
        "hedging/first-wins",
        "hedging/third-wins",
        "hedging/all-hang",
        "hedging/never-and-answers",
        "hedging/idle",
        "hedging/second-bad-first-good",
        "hedging/second-bad-is-retried",
        "hedging/both-bad",
        "hedging/second-breaks",
        "hedging/both-break",
        "hedging/breaker",
        "hedging/off",
        "hedging/levels-first-wins",
    ),
    "priorities": (
        "retry-hosts/each",
        "retry-hosts/second",
        "retry-hosts/sick",
        "retry-hosts/priority-and-host",
    ),
    "redirects": (
        "internal-redirects/followed",
        "internal-redirects/without-body",
        "internal-redirects/location-relative",
        "internal-redirects/location-https",
        "internal-redirects/location-no-path",
        "internal-redirects/once",
        "internal-redirects/never",
        "internal-redirects/not-allowed",
        "internal-redirects/post-307",
        "internal-redirects/post-303",
        "internal-redirects/retried-out",
        "internal-redirects/h2-307",
    ),
    "mirrors": (
        "mirrors/one",
        "mirrors/two",
        "mirrors/never",
        "mirrors/changed",
        "mirrors/post",
        "mirrors/mirror-500",
        "mirrors/retried",
    ),
    "failures": (
        "failures/no-route",
        "failures/no-cluster",
        "failures/no-host",
        "failures/refused",
        "failures/refused-twice",
        "failures/closed",
        "failures/closed-twice",
        "failures/closed-and-no-room",
        "failures/bad-and-no-room",
        "failures/nonsense",
        "failures/timeout",
        "failures/per-try-timeout",
        "failures/per-try-idle-timeout",
        "failures/stream-idle",
        "failures/stream-duration",
        "failures/out-of-retries",
        "failures/retried-then-refused",
        "failures/client-resets",
        "failures/closed-within",
        "failures/timeout-within",
        "failures/client-leaves-within",
    ),
}

ONLY = (
    r"cluster\.[a-z0-9-]+\.(upstream_rq|upstream_internal_redirect|retry_or_shadow|internal|external|upstream_cx_(?!rx_|tx_))"
    r"|http\.ingress\.(downstream_rq|rq_|no_|passthrough_)"
)


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_counters(runner: Runner, traffic: str) -> None:
    """The same after the same traffic."""
    compare_counters(runner, f"retry-statistics/{traffic}", TRAFFIC[traffic], ONLY)
