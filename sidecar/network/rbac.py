"""The network filter `rbac`: closes connections that the rules do not allow."""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.config.network_filters import NetworkRbac
from sidecar.config.rbac import Rbac as Rules
from sidecar.core.address import Address
from sidecar.core.rbac import FindPolicy, allows, compile_rbac
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker

_METADATA = "envoy.filters.network.rbac"
_LOG_METADATA = "envoy.common"


class RbacStats(Protocol):
    """`<stat_prefix>.rbac.`"""

    allowed: int
    denied: int


class RbacShadowStats(Protocol):
    """`<stat_prefix>.rbac.[<shadow_rules_stat_prefix>.]`"""

    shadow_allowed: int
    shadow_denied: int


class _Subject:
    """A connection as the rules look at it."""

    __slots__ = (
        "bytes_received",
        "connection",
        "dynamic_metadata",
        "filter_state",
        "remote_address",
        "request",
        "route",
        "start_time",
    )

    def __init__(self, info: ConnectionInfo, epoch: float) -> None:
        self.start_time = epoch + info.start
        self.connection = info
        self.request = None
        self.route = None
        self.remote_address: Address = info.remote_address
        self.dynamic_metadata = info.metadata
        self.filter_state = None
        self.bytes_received = 0


def subject_of(info: ConnectionInfo, epoch: float) -> Any:
    """A connection as the rules look at it: an ``RbacSubject``. ``epoch`` is the wall-clock time of its clock at 0."""
    return _Subject(info, epoch)


class Rbac:
    """Asks once, when the connection comes, or when its TLS handshake is done: nothing that rules may ask of a
    connection changes later. Envoy waits for the first byte, by when the upstream connection is open already.
    """

    __slots__ = ("_enforced", "_shadow", "config", "shadow_stats", "stats", "worker")

    def __init__(self, config: NetworkRbac, stats: RbacStats, shadow_stats: RbacShadowStats, worker: Worker) -> None:
        self.worker = worker
        self.config = config
        self.stats = stats
        self.shadow_stats = shadow_stats
        self._enforced = _compile(config.rules)
        self._shadow = _compile(config.shadow_rules)

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        subject = _Subject(info, self.worker.epoch)
        stats = self.stats
        if self._shadow is not None:
            action, find = self._shadow
            policy = find(subject)
            allowed = allows(action, policy)
            if allowed:
                self.shadow_stats.shadow_allowed += 1
            else:
                self.shadow_stats.shadow_denied += 1
            if action == "LOG":
                _hint(info, policy)
            self._publish(info, allowed, policy)
        if self._enforced is None:
            return None
        action, find = self._enforced
        policy = find(subject)
        if action == "LOG":
            _hint(info, policy)
        if allows(action, policy):
            stats.allowed += 1
            return None
        stats.denied += 1
        info.termination_details = f"rbac_access_denied_matched_policy[{policy or 'none'}]"
        return self.config.delay_deny

    def on_close(self, info: ConnectionInfo) -> None:
        """Nothing is kept."""

    def _publish(self, info: ConnectionInfo, allowed: bool, policy: str | None) -> None:
        """What the shadow rules say goes into the dynamic metadata, for the access log."""
        prefix = self.config.shadow_rules_stat_prefix
        metadata: dict[str, Any] = {f"{prefix}shadow_engine_result": "allowed" if allowed else "denied"}
        if policy is not None:
            metadata[f"{prefix}shadow_effective_policy_id"] = policy
        _put(info, _METADATA, metadata)

    def __repr__(self) -> str:
        return f"<Rbac {self.config.stat_prefix}>"


def _hint(info: ConnectionInfo, policy: str | None) -> None:
    """What rules with the action LOG say to access logs."""
    _put(info, _LOG_METADATA, {"access_log_hint": policy is not None})


def _put(info: ConnectionInfo, namespace: str, fields: dict[str, Any]) -> None:
    """Merge ``fields`` into the connection's metadata: several filters of a chain may leave theirs."""
    metadata = info.metadata or {}
    info.metadata = {**metadata, namespace: {**metadata.get(namespace, {}), **fields}}


def _compile(rules: Rules | None) -> tuple[str, FindPolicy] | None:
    return None if rules is None else (rules.action, compile_rbac(rules, http=False))
