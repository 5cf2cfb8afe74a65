"""One endpoint of a cluster: where it is, how it fares, and the integers that the hot path counts on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.config.address import Address as ConfiguredAddress
from sidecar.config.address import Pipe
from sidecar.config.core_types import NO_LOCALITY, NO_METADATA, Locality, Metadata
from sidecar.core.address import Address

if TYPE_CHECKING:
    from sidecar.cluster.outlier_rates import HostMonitor
    from sidecar.config.health_check import EndpointHealthCheck

FAILED_ACTIVE_HC = 1
FAILED_OUTLIER_CHECK = 2
FAILED_EDS_HEALTH = 4
DEGRADED_EDS_HEALTH = 8
EDS_STATUS_DRAINING = 16
DEGRADED_ACTIVE_HC = 32
PENDING_DYNAMIC_REMOVAL = 64
PENDING_ACTIVE_HC = 128
EXCLUDED_VIA_IMMEDIATE_HC_FAIL = 256
ACTIVE_HC_TIMEOUT = 512

_UNHEALTHY = FAILED_ACTIVE_HC | FAILED_OUTLIER_CHECK | FAILED_EDS_HEALTH | EDS_STATUS_DRAINING
_DEGRADED = DEGRADED_ACTIVE_HC | DEGRADED_EDS_HEALTH
_EXCLUDED = PENDING_ACTIVE_HC | EXCLUDED_VIA_IMMEDIATE_HC_FAIL
_FLAG_NAMES = (
    (FAILED_ACTIVE_HC, "/failed_active_hc"),
    (FAILED_OUTLIER_CHECK, "/failed_outlier_check"),
    (FAILED_EDS_HEALTH, "/failed_eds_health"),
    (DEGRADED_ACTIVE_HC, "/degraded_active_hc"),
    (DEGRADED_EDS_HEALTH, "/degraded_eds_health"),
    (PENDING_DYNAMIC_REMOVAL, "/pending_dynamic_removal"),
    (PENDING_ACTIVE_HC, "/pending_active_hc"),
    (EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "/excluded_via_immediate_hc_fail"),
    (ACTIVE_HC_TIMEOUT, "/active_hc_timeout"),
    (EDS_STATUS_DRAINING, "/eds_status_draining"),
)
_OF_STATUS = {
    "UNHEALTHY": FAILED_EDS_HEALTH,
    "TIMEOUT": FAILED_EDS_HEALTH,
    "DRAINING": EDS_STATUS_DRAINING,
    "DEGRADED": DEGRADED_EDS_HEALTH,
}


def flags_of_status(health_status: str) -> int:
    """The health flags that an endpoint's configured `health_status` stands for."""
    return _OF_STATUS.get(health_status, 0)


def address_of(configured: ConfiguredAddress) -> Address:
    """The address of the request path for one of the configuration; a host name stays where the IP address goes."""
    if isinstance(configured, Pipe):
        return Address(None, 0, configured.path)
    return Address(configured.address, configured.port_value)


class Host:
    """An endpoint. The pool and the router count in its slots; balancers read `rq_active`.

    `health_status` is what the configuration says.
    `usable` is false while any flag says that the host must get no traffic (outside of panic), and follows `flags`.
    `ejected_until` is in seconds of the worker's clock, 0.0 when the host is not ejected. `pool` belongs to the pool
    stage. Two hosts are equal only if they are the same object.
    """

    __slots__ = (
        "address",
        "hostname",
        "weight",
        "locality",
        "priority",
        "metadata",
        "health_check",
        "health_status",
        "flags",
        "usable",
        "pool",
        "rq_active",
        "rq_total",
        "rq_success",
        "rq_error",
        "rq_timeout",
        "cx_active",
        "cx_total",
        "cx_connect_fail",
        "consecutive_5xx",
        "consecutive_gateway",
        "consecutive_local_origin",
        "ejections",
        "ejected_until",
        "ejection_time",
        "unejected_at",
        "monitor",
        "removed",
    )

    def __init__(
        self,
        address: Address,
        hostname: str = "",
        weight: int = 1,
        locality: Locality = NO_LOCALITY,
        priority: int = 0,
        metadata: Metadata | None = None,
        health_status: str = "UNKNOWN",
        health_check: EndpointHealthCheck | None = None,
    ) -> None:
        self.address = address
        self.hostname = hostname
        self.weight = weight
        self.locality = locality
        self.priority = priority
        self.metadata = NO_METADATA if metadata is None else metadata
        self.health_check = health_check  # where to ask for its health, where that is said
        self.health_status = health_status
        self.flags = flags_of_status(health_status)
        self.usable = not self.flags & _UNHEALTHY
        self.pool: Any = None
        self.rq_active = 0
        self.rq_total = 0
        self.rq_success = 0
        self.rq_error = 0
        self.rq_timeout = 0
        self.cx_active = 0
        self.cx_total = 0
        self.cx_connect_fail = 0
        self.consecutive_5xx = 0
        self.consecutive_gateway = 0
        self.consecutive_local_origin = 0
        self.ejections = 0  # the multiplier of the base ejection time, as it grows and shrinks
        self.ejected_until = 0.0
        self.ejection_time = 0.0  # when the last ejection began
        self.unejected_at = 0.0
        self.monitor: HostMonitor | None = None  # outlier detection's
        self.removed = False

    @property
    def degraded(self) -> bool:
        """Usable, but only for what the healthy hosts cannot take."""
        return self.usable and bool(self.flags & _DEGRADED)

    @property
    def excluded(self) -> bool:
        """Left out where hosts are counted: it has not been checked yet, or has asked for it."""
        return bool(self.flags & _EXCLUDED)

    @property
    def is_checked(self) -> bool:
        """Whether it takes part in active health checks, where the cluster has them."""
        return self.health_check is None or not self.health_check.disable_active_health_check

    @property
    def status(self) -> str:
        """What it fares like by name: UNHEALTHY or DEGRADED if it was found so here, or what the configuration says."""
        if self.flags & (FAILED_ACTIVE_HC | FAILED_OUTLIER_CHECK):
            return "UNHEALTHY"
        known = self.health_status not in ("UNKNOWN", "HEALTHY")
        return "DEGRADED" if self.flags & DEGRADED_ACTIVE_HC and not known else self.health_status

    @property
    def canary(self) -> bool:
        """Whether the metadata marks it as a canary (`envoy.lb`, `canary`)."""
        return self.metadata.get("envoy.lb", NO_METADATA).get("canary") is True

    def set_flag(self, flag: int, on: bool) -> bool:
        """Set or clear a health flag; True if the host became usable or unusable by that."""
        was = self.usable
        self.flags = self.flags | flag if on else self.flags & ~flag
        self.usable = not self.flags & _UNHEALTHY
        return self.usable is not was

    def set_health_status(self, health_status: str) -> None:
        """Take over what the configuration says of the endpoint's health."""
        self.health_status = health_status
        of_configuration = FAILED_EDS_HEALTH | DEGRADED_EDS_HEALTH | EDS_STATUS_DRAINING
        self.flags = self.flags & ~of_configuration | flags_of_status(health_status)
        self.usable = not self.flags & _UNHEALTHY

    def health_flags(self) -> str:
        """The flags as Envoy's /clusters shows them: `healthy`, or `/failed_eds_health` and the like."""
        return "".join(name for flag, name in _FLAG_NAMES if self.flags & flag) or "healthy"

    def __repr__(self) -> str:
        return f"<Host {self.address.text} {self.health_flags()} weight {self.weight} active {self.rq_active}>"
