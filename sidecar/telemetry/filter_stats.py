"""The statistics of HTTP filters by kind: what a connection manager's filters are handed to find theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import tags
from .groups import http_filters as groups
from .store import StatsStore
from .tags import Naming


def filter_stats(store: StatsStore, stat_prefix: str) -> Callable[..., Any]:
    """``stats(kind, *words)`` for the filters of the connection manager with this ``stat_prefix``.

    The words complete the prefix as the kind needs it; a group is shared by all who ask for the same.
    """
    manager = tags.http_connection_manager(stat_prefix)

    def stats(kind: str, *words: str) -> Any:
        match kind:
            case "fault":
                return store.shared(groups.FaultStats, *manager.below("fault."))
            case "fault_downstream_cluster":
                return store.shared(groups.FaultClusterStats, *manager.below(f"fault.{tags.sanitized(words[0])}."))
            case "rbac":
                return store.shared(groups.RbacStats, *tags.http_rbac(stat_prefix, *words))
            case "rbac_shadow":
                return store.shared(groups.RbacShadowStats, *tags.http_rbac(stat_prefix, *words))
            case "rbac_policy":
                return store.shared(groups.RbacPolicyStats, *tags.http_rbac_policy(stat_prefix, *words))
            case "jwt_authn":
                return store.shared(
                    groups.JwtAuthnStats, *manager.below("jwt_authn." + "".join(f"{word}." for word in words if word))
                )
            case "local_rate_limit":
                return store.shared(groups.LocalRateLimitStats, *tags.http_local_rate_limit(words[0]))
            case "cors":
                return store.shared(groups.CorsStats, *manager.below("cors."))
            case "health_check":
                return store.shared(groups.HealthCheckFilterStats, *manager.below("health_check."))
            case "compressor":
                return store.shared(groups.CompressorStats, *_compression(manager, "compressor", words))
            case "compressor_response":
                return store.shared(groups.CompressorResponseStats, *_compression(manager, "compressor", words))
            case "decompressor":
                return store.shared(groups.DecompressorStats, *_compression(manager, "decompressor", words))
            case "adaptive_concurrency":
                return store.shared(
                    groups.AdaptiveConcurrencyStats, *manager.below("adaptive_concurrency.gradient_controller.")
                )
            case "admission_control":
                return store.shared(groups.AdmissionControlStats, *manager.below("admission_control."))
            case "stateful_session":
                return store.shared(groups.StatefulSessionStats, *manager.below(f"stateful_session.{words[0]}."))
            case "grpc":
                return store.shared(groups.GrpcStats, *tags.grpc(*words))
            case "ratelimit":
                return store.shared(groups.RateLimitStats, *tags.cluster_ratelimit(*words))
            case "ext_authz":
                return store.shared(groups.ExtAuthzStats, *tags.http_ext_authz(stat_prefix, words[0]))
            case "ext_authz_cluster":
                return store.shared(groups.ExtAuthzClusterStats, *tags.cluster_ext_authz(*words))
        raise ValueError(f"no statistics of the kind {kind!r}")

    return stats


def _compression(manager: Naming, filter_name: str, words: tuple[str, ...]) -> Naming:
    return manager.below(f"{filter_name}.{''.join(f'{word}.' for word in words if word)}")
