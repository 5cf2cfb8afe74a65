"""Subsets of a cluster's endpoints by their metadata: `LbSubsetConfig` and the subset policy extension."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import Any

from sidecar.config.fields import Node


@dataclass(frozen=True, slots=True)
class LbSubsetSelector:
    """Endpoints with equal values for these metadata keys are one subset.

    `fallback_policy` is NOT_DEFINED (the configuration's own), NO_FALLBACK, ANY_ENDPOINT, DEFAULT_SUBSET or
    KEYS_SUBSET.
    """

    keys: tuple[str, ...]
    single_host_per_subset: bool = False
    fallback_policy: str = "NOT_DEFINED"
    fallback_keys_subset: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LbSubsetConfig:
    """`fallback_policy` is NO_FALLBACK, ANY_ENDPOINT or DEFAULT_SUBSET, `metadata_fallback_policy` METADATA_NO_FALLBACK
    or FALLBACK_LIST. There is one selector at least. `allow_redundant_keys`: metadata with more keys than a selector
    names matches it all the same.
    """

    subset_selectors: tuple[LbSubsetSelector, ...]
    fallback_policy: str = "NO_FALLBACK"
    default_subset: dict[str, Any] = field(default_factory=dict)
    locality_weight_aware: bool = False
    scale_locality_weight: bool = False
    panic_mode_any: bool = False
    list_as_any: bool = False
    metadata_fallback_policy: str = "METADATA_NO_FALLBACK"
    allow_redundant_keys: bool = False


def parse_lb_subset_config(node: Node) -> LbSubsetConfig | None:
    """`Cluster.LbSubsetConfig` or the extension `Subset`; None when it has no selector, which switches subsets off."""
    config = LbSubsetConfig(
        tuple(map(_parse_selector, node.children("subset_selectors"))),
        node.enum("fallback_policy"),
        node.struct("default_subset") or {},
        node.get("locality_weight_aware"),
        node.get("scale_locality_weight"),
        node.get("panic_mode_any"),
        node.get("list_as_any"),
        node.enum("metadata_fallback_policy"),
        node.get("allow_redundant_keys") if node.knows("allow_redundant_keys") else False,
    )
    return config if config.subset_selectors else None


def _parse_selector(node: Node) -> LbSubsetSelector:
    keys = tuple(intern(key) for key in sorted(set(node.get("keys"))))
    fallback_keys = tuple(intern(key) for key in sorted(set(node.get("fallback_keys_subset"))))
    policy = node.enum("fallback_policy")
    if policy == "KEYS_SUBSET":
        if not fallback_keys:
            node.refuse("is required for KEYS_SUBSET", "fallback_keys_subset", "name some of the keys")
        elif not set(fallback_keys) < set(keys):
            node.refuse("must be some of the keys, not all", "fallback_keys_subset", "name fewer, of those in keys")
    elif fallback_keys:
        node.refuse("is for KEYS_SUBSET alone", "fallback_keys_subset", "set fallback_policy to KEYS_SUBSET")
    return LbSubsetSelector(keys, node.get("single_host_per_subset"), policy, fallback_keys)
