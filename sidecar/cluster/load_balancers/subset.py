"""Subsets of a cluster's hosts by metadata, each balanced on its own, and what happens when a request matches none.

Source: Envoy's documentation, "Load balancer subsets", and `Cluster.LbSubsetConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from functools import lru_cache
from itertools import product
from typing import Any

from sidecar.cluster.context import LoadBalancerContext, Pick, SubsetKey
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, HostSets, LocalityHosts
from sidecar.cluster.load_balancers.layered import Balancer, Build, CommonOptions
from sidecar.cluster.load_balancers.refining import override_finder
from sidecar.config.core_types import NO_METADATA
from sidecar.config.subset import LbSubsetConfig, LbSubsetSelector
from sidecar.core.matching import canonical

_FALLBACK_LIST = "fallback_list"
_MANY = 256


class _Narrowed:
    """A context with another subset to match, for the fallbacks that change what is asked for."""

    __slots__ = ("context", "subset")

    def __init__(self, context: LoadBalancerContext, subset: SubsetKey) -> None:
        self.context = context
        self.subset = subset

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


class _Lookup:
    """The compiled subsets of one state of the cluster, and Envoy's order of looking among them."""

    __slots__ = (
        "subsets",
        "selectors",
        "any_endpoint",
        "default",
        "fallback",
        "panic",
        "stats",
        "fallback_list",
        "find",
        "redundant",
        "_necessary",
    )

    def __init__(
        self,
        balancer: SubsetBalancer,
        subsets: dict[SubsetKey, Pick],
        any_endpoint: Pick | None,
        default: Pick | None,
        find: Callable[[str], Host | None],
    ) -> None:
        config = balancer.config
        self.subsets = subsets
        self.selectors = balancer.selectors
        self.any_endpoint = any_endpoint
        self.default = default
        self.fallback = {"ANY_ENDPOINT": any_endpoint, "DEFAULT_SUBSET": default}.get(config.fallback_policy)
        self.panic = any_endpoint if config.panic_mode_any else None
        self.stats = balancer.options.stats
        self.fallback_list = config.metadata_fallback_policy == "FALLBACK_LIST"
        self.find = find
        self.redundant = config.allow_redundant_keys
        self._necessary: dict[SubsetKey, SubsetKey] = {}

    def pick(self, context: LoadBalancerContext) -> Host | None:
        """The host for a context, by its subset or by what is to be done without it."""
        wanted = context.override_host
        if wanted is not None:  # whatever subset it is in
            host = self.find(wanted.address)
            if host is not None or wanted.strict:
                return host
        key = context.subset
        if key is not None and self.fallback_list:
            alternatives = _alternatives(key)
            if alternatives is not None:
                for alternative in alternatives:
                    host = self._pick(_Narrowed(context, alternative))
                    if host is not None:
                        return host
                return None
        return self._pick(context)

    def _pick(self, context: LoadBalancerContext) -> Host | None:
        key = context.subset
        if key is not None:
            if self.redundant:
                key = self._without_redundant(key)
            subset = self.subsets.get(key)
            if subset is not None:
                self.stats.lb_subsets_selected += 1
                return subset(context)
            selector = self.selectors.get(tuple([name for name, _ in key]))
            if selector is not None and selector.fallback_policy != "NOT_DEFINED":
                return self._fall_back(selector, context, key)
        if self.fallback is not None:
            host = self.fallback(context)
            if host is not None:
                self.stats.lb_subsets_fallback += 1
                return host
        if self.panic is not None and self.fallback is not None:
            host = self.panic(context)
            if host is not None:
                self.stats.lb_subsets_fallback_panic += 1
                return host
        return None

    def _without_redundant(self, key: SubsetKey) -> SubsetKey:
        """What is left of the metadata by the selector with the most keys, of which none is missing."""
        kept = self._necessary.get(key)
        if kept is None:
            names = {name for name, _ in key}
            longest = sorted(self.selectors, key=len, reverse=True)
            keys = next((one for one in longest if names.issuperset(one)), names)
            kept = tuple([pair for pair in key if pair[0] in keys])
            if len(self._necessary) >= _MANY:
                self._necessary.clear()
            self._necessary[key] = kept
        return kept

    def _fall_back(self, selector: LbSubsetSelector, context: LoadBalancerContext, key: SubsetKey) -> Host | None:
        match selector.fallback_policy:
            case "ANY_ENDPOINT":
                return None if self.any_endpoint is None else self.any_endpoint(context)
            case "DEFAULT_SUBSET":
                return None if self.default is None else self.default(context)
            case "KEYS_SUBSET":
                kept = tuple(pair for pair in key if pair[0] in selector.fallback_keys_subset)
                return self._pick(_Narrowed(context, kept))
            case _:
                return None


class SubsetBalancer:
    """Splits the hosts and lets `inner` balance each part."""

    __slots__ = ("config", "inner", "options", "selectors", "_known")

    def __init__(self, config: LbSubsetConfig, inner: Balancer, options: CommonOptions) -> None:
        self.config = config
        self.inner = inner
        self.options = options
        self.selectors: dict[tuple[str, ...], LbSubsetSelector] = {}
        for selector in config.subset_selectors:
            self.selectors.setdefault(selector.keys, selector)
        self._known: frozenset[SubsetKey] = frozenset()

    def build(self, host_sets: HostSets) -> Build:
        subsets: dict[SubsetKey, Pick] = {}
        for key, members in self._members(host_sets).items():
            subsets[key] = yield from self._part(host_sets, members)
        wanted = {self.config.fallback_policy, *(selector.fallback_policy for selector in self.config.subset_selectors)}
        any_endpoint = default = None
        if "ANY_ENDPOINT" in wanted or self.config.panic_mode_any:
            any_endpoint = yield from self.inner.build(
                tuple(self._narrowed(host_set, host_set) for host_set in host_sets)
            )
        if "DEFAULT_SUBSET" in wanted:
            default = yield from self._part(host_sets, self._default_members(host_sets))
        self._count(frozenset(subsets))
        find = override_finder(host_sets, self.options.accepts_override)
        return _Lookup(self, subsets, any_endpoint, default, find).pick

    def _part(self, host_sets: HostSets, members: set[Host]) -> Generator[None, None, Pick]:
        yield
        parts = tuple(self._narrowed(host_set, host_set.filtered(members.__contains__)) for host_set in host_sets)
        return (yield from self.inner.build(parts))

    def _narrowed(self, whole: HostSet, part: HostSet) -> HostSet:
        """The part with the locality weights that it is to be balanced by."""
        if not part.localities:
            return part
        localities: tuple[LocalityHosts, ...] = ()
        if self.options.zone_aware is not None:
            localities = tuple(LocalityHosts(each.locality, 0, each.hosts) for each in part.localities)
        if self.config.locality_weight_aware:
            localities = part.localities
            if self.config.scale_locality_weight:
                localities = tuple(map(_scaled, whole.localities, part.localities))
        return HostSet(
            part.priority, part.hosts, localities, part.overprovisioning_factor, part.weighted_priority_health
        )

    def _members(self, host_sets: HostSets) -> dict[SubsetKey, set[Host]]:
        members: dict[SubsetKey, set[Host]] = {}
        duplicates = 0
        for selector in self.config.subset_selectors:
            for host_set in host_sets:
                for host in host_set.hosts:
                    for key in self._keys(selector, host):
                        hosts = members.setdefault(key, set())
                        if selector.single_host_per_subset and hosts:
                            duplicates += 1
                        else:
                            hosts.add(host)
        self.options.stats.lb_subsets_single_host_per_subset_duplicate = duplicates
        return members

    def _keys(self, selector: LbSubsetSelector, host: Host) -> list[SubsetKey]:
        metadata = host.metadata.get("envoy.lb", NO_METADATA)
        choices: list[list[tuple[str, str]]] = []
        for key in selector.keys:
            if key not in metadata:
                return []
            choices.append([(key, canonical(value)) for value in self._values(metadata[key])])
        return list(product(*choices))

    def _values(self, value: Any) -> list[Any]:
        return value if self.config.list_as_any and isinstance(value, list) else [value]

    def _default_members(self, host_sets: HostSets) -> set[Host]:
        wanted = [(key, canonical(value)) for key, value in self.config.default_subset.items()]
        members = set()
        for host_set in host_sets:
            for host in host_set.hosts:
                metadata = host.metadata.get("envoy.lb", NO_METADATA)
                if all(
                    key in metadata and any(canonical(own) == value for own in self._values(metadata[key]))
                    for key, value in wanted
                ):
                    members.add(host)
        return members

    def _count(self, known: frozenset[SubsetKey]) -> None:
        stats = self.options.stats
        stats.lb_subsets_created += len(known - self._known)
        stats.lb_subsets_removed += len(self._known - known)
        stats.lb_subsets_active += len(known) - len(self._known)
        self._known = known


def _scaled(whole: LocalityHosts, part: LocalityHosts) -> LocalityHosts:
    share = len(part.hosts) / len(whole.hosts) if whole.hosts else 0.0
    return LocalityHosts(part.locality, round(part.weight * share), part.hosts)


@lru_cache(maxsize=1024)
def _alternatives(key: SubsetKey) -> tuple[SubsetKey, ...] | None:
    """What to ask for, one after the other, by the `fallback_list` among the metadata to match; None without one."""
    own = dict(key)
    listed = own.pop(_FALLBACK_LIST, None)
    if listed is None:
        return None
    fallbacks = json.loads(listed)
    if not fallbacks or not isinstance(fallbacks, list):
        return (tuple(sorted(own.items())),)
    return tuple(
        tuple(sorted({**own, **{name: canonical(value) for name, value in fallback.items()}}.items()))
        for fallback in fallbacks
        if isinstance(fallback, dict)
    )
