"""What the administration interface is handed of the rest of the process, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.admin.compressed_bootstrap import CompressedBootstrap
from sidecar.config.bootstrap import NodeIdentity
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.core_types import Locality, Metadata
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.config.matcher import StringMatcher
from sidecar.core.address import Address

if TYPE_CHECKING:
    from sidecar.admin.dynamic_dumps import DiscoveredView
    from sidecar.config.health_check import EndpointHealthCheck
    from sidecar.core.explanation import Step
    from sidecar.core.question import Question


class HostView(Protocol):
    """An endpoint, as far as the pages look."""

    @property
    def address(self) -> Address: ...
    @property
    def hostname(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def locality(self) -> Locality: ...
    @property
    def priority(self) -> int: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def health_check(self) -> EndpointHealthCheck | None: ...
    @property
    def canary(self) -> bool: ...
    @property
    def cx_active(self) -> int: ...
    @property
    def cx_connect_fail(self) -> int: ...
    @property
    def cx_total(self) -> int: ...
    @property
    def rq_active(self) -> int: ...
    @property
    def rq_error(self) -> int: ...
    @property
    def rq_success(self) -> int: ...
    @property
    def rq_timeout(self) -> int: ...
    @property
    def rq_total(self) -> int: ...
    @property
    def pool(self) -> Any:
        """None before the first request, then an object whose `pending` are the requests that wait for a connection."""
        ...

    @property
    def monitor(self) -> Any:
        """Outlier detection's: `success_rate` and `local_origin_success_rate` in percent, -1 if unknown; None without."""
        ...

    def health_flags(self) -> str: ...


class RatesView(Protocol):
    """The success rates of a cluster's hosts: their average and the least that is good enough; -1 if unknown."""

    @property
    def average(self) -> float: ...
    @property
    def ejection_threshold(self) -> float: ...


class OutlierView(Protocol):
    """What outlier detection has found out."""

    @property
    def rates(self) -> RatesView: ...
    @property
    def local_origin_rates(self) -> RatesView: ...


class BreakerView(Protocol):
    """The limits of one routing priority."""

    @property
    def max_connections(self) -> int: ...
    @property
    def max_pending_requests(self) -> int: ...
    @property
    def max_requests(self) -> int: ...
    @property
    def retries_limit(self) -> int: ...


class ClusterView(Protocol):
    """A cluster; `breakers` are those of the priorities default and high."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> ClusterConfig: ...
    @property
    def hosts(self) -> Sequence[HostView]: ...
    @property
    def breakers(self) -> tuple[BreakerView, BreakerView]: ...
    @property
    def outlier(self) -> OutlierView | None: ...


class ClustersView(Protocol):
    """All clusters by name, in the order of the configuration; and those that have not found their first hosts."""

    @property
    def clusters(self) -> Mapping[str, ClusterView]: ...
    @property
    def warming(self) -> Mapping[str, ClusterView]: ...


class ListenerView(Protocol):
    """A listener that is bound; `local_addresses` has the address of the configuration first, then the others."""

    @property
    def config(self) -> ListenerConfig: ...
    @property
    def local_addresses(self) -> Sequence[Address]: ...


class StatsPage(Protocol):
    """What the telemetry stage answers to a query of /stats."""

    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> Iterator[bytes]: ...


class DrainListeners(Protocol):
    """Begins to drain. `graceful`: for the drain time first. `skip_exit`: connections only, listeners stay.

    `inboundonly`: only the listeners whose traffic direction is INBOUND.
    """

    def __call__(self, *, graceful: bool, skip_exit: bool, inboundonly: bool) -> None: ...


@dataclass(slots=True, kw_only=True)
class AdminContext:
    """Everything that the endpoints show or change; times are wall-clock seconds since the epoch.

    `stats` answers a query (its parameters, and whether it is /stats/prometheus). `server_state` is `LIVE`, `DRAINING`
    (also while the health check is made to fail), `PRE_INITIALIZING` or `INITIALIZING`. `options` are those of the
    command line under Envoy's names (`config_path`, `concurrency`, ...); what is missing is shown as Envoy's default.
    `version` is shown as it is. `explain` tells what would become of a request; ValueError for a question that
    does not say enough. `discovered` is None where nothing is. `certificates` are the `admin.v3.Certificate`s in use.
    """

    stats: Callable[[Mapping[str, str], bool], StatsPage]
    reset_counters: Callable[[], None]
    clusters: ClustersView
    listeners: Callable[[], Sequence[ListenerView]]
    bootstrap: CompressedBootstrap
    version: str
    started_at: float
    wall_clock: Callable[[], float]
    server_state: Callable[[], str]
    health_check_fail: Callable[[], None]
    health_check_ok: Callable[[], None]
    drain_listeners: DrainListeners
    quit: Callable[[], None]
    reopen_logs: Callable[[], None]
    explain: Callable[[Question], Sequence[Step]]
    node: NodeIdentity
    options: Mapping[str, Any]
    allow_paths: tuple[StringMatcher, ...] = ()
    certificates: Callable[[], list[Any]] = list
    discovered: Callable[[], DiscoveredView | None] = lambda: None
