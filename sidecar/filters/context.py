"""What filters are made with: the worker, their statistics, compiled formats, and what other stages know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sidecar.config.core_types import HeaderValueOption
from sidecar.core.client import Clients
from sidecar.core.dns_cache import DnsCaches
from sidecar.core.head import Head
from sidecar.core.http_filter import HttpFilter
from sidecar.core.waiting import Start
from sidecar.core.worker import Worker

StatsFactory = Callable[..., Any]
"""``stats(kind, *words)`` gives the group of that kind; the words complete its prefix. The kinds:

``fault`` · ``fault_downstream_cluster`` (cluster) · ``rbac`` (rules_stat_prefix) · ``rbac_shadow``
(shadow_rules_stat_prefix) · ``rbac_policy`` (either prefix, policy) ·
``local_rate_limit`` (stat_prefix) · ``cors`` · ``health_check`` · ``compressor`` and
``compressor_response`` (library name, encoding, direction prefix) · ``decompressor`` (library name, encoding,
``request`` or ``response``) · ``stateful_session`` (stat_prefix) · ``grpc`` (cluster's name in statistics, ``grpc`` or
``grpc-web``, service, method) · ``ratelimit`` (cluster's name in statistics, stat_prefix) · ``ext_authz`` (stat_prefix) ·
``ext_authz_cluster`` (cluster's name in statistics, stat_prefix) · ``adaptive_concurrency`` ·
``admission_control`` · ``jwt_authn`` (stat_prefix).
"""

MutateHead = Callable[[Head, Any], None]
CompileHeaderMutations = Callable[[Sequence[HeaderValueOption], Iterable[bytes], Any], MutateHead | None]
CompileFormat = Callable[[str], Callable[[Any], bytes]]
ClusterHealth = Callable[[str], tuple[int, int] | None]
"""How many hosts of a cluster are healthy or degraded, and how many it has; None when there is no such cluster."""

ClusterStatName = Callable[[str], str | None]
"""What a cluster is called in statistics; None when there is no such cluster."""

CountResponse = Callable[[str, int], None]
"""Count a response with a status as one of a cluster's that was asked from inside: one that was made in its stead."""

CompileRouteMatch = Callable[[Any], Callable[[Any], bool]]
"""From a ``RouteMatch`` to a condition on requests."""

WatchFiles = Callable[[Iterable[str], Callable[[], None]], Callable[[], None]]
"""``watch(paths, changed)`` calls ``changed`` when any of the files changes, until what is returned is called."""

WaitFor = Callable[[str, Start], None]
"""Have the listener wait for something; the words are what Envoy calls it."""

FindUserFilter = Callable[[str], Callable[[Mapping[str, Any]], HttpFilter]]
"""The class of a user's filter by its name; raises ValueError when there is none."""


def _no_clients() -> Clients:
    raise LookupError("these filters cannot ask a cluster")


def _no_routes(match: Any) -> Callable[[Any], bool]:
    raise LookupError("these filters cannot match as routes do")


def _watch_nothing(paths: Iterable[str], changed: Callable[[], None]) -> Callable[[], None]:
    raise LookupError("these filters cannot watch files")


def _wait_for_nothing(target: str, start: Start) -> None:
    start(lambda: None)


def _no_caches() -> DnsCaches:
    raise LookupError("these filters cannot look names up")


def _count_nothing(cluster: str, status: int) -> None:
    """There are no clusters."""


class FilterContext:
    """Made once for each connection manager. Nothing in it changes afterwards but the memo of route filters."""

    __slots__ = (
        "clients",
        "cluster_health",
        "cluster_stat_name",
        "compile_format",
        "compile_header_mutations",
        "compile_route_match",
        "count_response",
        "dns_caches",
        "entry_point_filters",
        "health_check_failed",
        "node_cluster",
        "node_metadata",
        "route_filters",
        "stats",
        "wait_for",
        "watch_files",
        "worker",
    )

    def __init__(
        self,
        worker: Worker,
        stats: StatsFactory,
        compile_header_mutations: CompileHeaderMutations,
        compile_format: CompileFormat,
        cluster_health: ClusterHealth,
        health_check_failed: Callable[[], bool],
        entry_point_filters: FindUserFilter,
        node_cluster: str = "",
        cluster_stat_name: ClusterStatName | None = None,
        clients: Callable[[], Clients] = _no_clients,
        count_response: CountResponse = _count_nothing,
        node_metadata: Mapping[str, Any] = MappingProxyType({}),
        compile_route_match: CompileRouteMatch = _no_routes,
        watch_files: WatchFiles = _watch_nothing,
        wait_for: WaitFor = _wait_for_nothing,
        dns_caches: Callable[[], DnsCaches] = _no_caches,
    ) -> None:
        self.worker = worker
        self.stats = stats
        self.compile_header_mutations = compile_header_mutations
        self.compile_format = compile_format
        self.cluster_health = cluster_health
        self.health_check_failed = health_check_failed
        self.entry_point_filters = entry_point_filters
        self.node_cluster = node_cluster
        self.cluster_stat_name: ClusterStatName = cluster_stat_name or self._name_of_known
        self.clients = clients
        self.count_response = count_response
        self.node_metadata = node_metadata
        self.compile_route_match = compile_route_match
        self.watch_files = watch_files
        self.wait_for = wait_for
        self.dns_caches = dns_caches
        self.route_filters: dict[tuple[int, ...], tuple[object, HttpFilter]] = {}

    def _name_of_known(self, cluster: str) -> str | None:
        return None if self.cluster_health(cluster) is None else cluster

    def header_mutation(self, to_add: Sequence[HeaderValueOption]) -> MutateHead | None:
        """The headers that a filter adds, compiled; None when there are none."""
        return self.compile_header_mutations(to_add, (), self.compile_format)

    def __repr__(self) -> str:
        return f"<FilterContext of {self.worker!r}>"


class NamedFilter(HttpFilter):
    """Base of the built-in filters; by itself a filter that does nothing, for a configuration that asks for nothing."""

    __slots__ = ("name",)

    keeps_streams = False

    def __init__(self, name: str) -> None:
        self.name = name
