"""When a request is sent a second time beside the first: `route.v3.HedgePolicy`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class HedgePolicy:
    """`hedge_on_per_try_timeout`: an attempt that reaches its per-try timeout goes on beside the retry."""

    hedge_on_per_try_timeout: bool = False


def parse_hedge_policy(node: Node) -> HedgePolicy:
    """`route.v3.HedgePolicy`. What Envoy reads without effect has none here, and is warned of."""
    node.ignore("initial_requests", "one request is sent at first, as in Envoy")
    node.ignore("additional_request_chance", "one request is sent at first, as in Envoy")
    return HedgePolicy(node.get("hedge_on_per_try_timeout"))
