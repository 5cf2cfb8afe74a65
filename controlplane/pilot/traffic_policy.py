"""Which policy holds for a port of a service or of one of its subsets.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#TrafficPolicy
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from controlplane.pilot.scope import Rule


@dataclass(frozen=True, slots=True)
class Policy:
    """Istio's settings for one cluster, each of them a model or None."""

    load_balancer: Any = None
    connection_pool: Any = None
    outlier_detection: Any = None
    tls: Any = None
    proxy_protocol: Any = None
    retry_budget: Any = None


NO_POLICY = Policy()


def policy_for(rule: Rule | None, subset: str, port: int) -> Policy:
    """The settings for one port: of the subset, and what it does not say of the whole rule.

    Settings for the port stand in place of all four of load balancer, pool, outlier detection and TLS: what they leave out
    has its default, and is not inherited.
    """
    if rule is None:
        return NO_POLICY
    policy = _over(NO_POLICY, rule.traffic_policy, port)
    found = rule.subsets.get(subset)
    return _over(policy, found.traffic_policy, port) if found is not None else policy


def _over(policy: Policy, told: Any, port: int) -> Policy:
    if told is None:
        return policy
    merged = Policy(
        told.load_balancer or policy.load_balancer,
        told.connection_pool or policy.connection_pool,
        told.outlier_detection or policy.outlier_detection,
        told.tls or policy.tls,
        told.proxy_protocol or policy.proxy_protocol,
        told.retry_budget or policy.retry_budget,
    )
    for settings in told.port_level_settings or ():
        if settings.port is not None and settings.port.number == port:
            return replace(
                merged,
                load_balancer=settings.load_balancer,
                connection_pool=settings.connection_pool,
                outlier_detection=settings.outlier_detection,
                tls=settings.tls,
            )
    return merged
