"""ORIGINAL_DST: the host is where the downstream connection was going; hosts are made on the fly, and forgotten."""

from __future__ import annotations

from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING

from sidecar.cluster.context import ClusterStats, LoadBalancerContext, Pick
from sidecar.cluster.host import Host
from sidecar.cluster.host_set import HostSet, HostSets
from sidecar.cluster.load_balancers.layered import Build
from sidecar.config.lb_policies import OriginalDstLbConfig
from sidecar.core.address import Address
from sidecar.core.timer_wheel import Timed, TimerWheel

if TYPE_CHECKING:
    from sidecar.cluster.cluster import Cluster


class OriginalDst(Timed):
    """Balancer and discovery of such a cluster in one. Every `cleanup_interval` seconds those hosts leave that were not
    picked since the last time and have neither requests nor connections; the sweep runs only while there are hosts.
    """

    __slots__ = ("config", "cleanup_interval", "stats", "cluster", "_wheel", "_hosts", "_picked")

    def __init__(
        self, config: OriginalDstLbConfig, cleanup_interval: float, stats: ClusterStats, wheel: TimerWheel
    ) -> None:
        self.due = inf
        self.config = config
        self.cleanup_interval = cleanup_interval
        self.stats = stats
        self.cluster: Cluster | None = None
        self._wheel = wheel
        self._hosts: dict[str, Host] = {}
        self._picked: set[Host] = set()

    def start(self) -> None:
        """There is nothing to look for."""
        if self.cluster is not None:
            self._publish()
            self.cluster.hosts_known()

    def close(self) -> None:
        """Stop sweeping, and forget the hosts."""
        self._wheel.cancel(self)
        self._hosts.clear()
        self._picked.clear()
        self.cluster = None

    def build(self, host_sets: HostSets) -> Build:
        """The same function, whatever hosts there are."""
        pick: Pick = self.pick
        return pick
        yield

    def pick(self, context: LoadBalancerContext) -> Host | None:
        """The host at the original destination, a new one if need be; None if the connection was not redirected."""
        address = self._override(context) if self.config.use_http_header else None
        if address is None:
            connection = context.connection
            address = connection.local_address
            if address is connection.direct_local_address or address.ip is None:
                return None
        port = self.config.upstream_port_override
        if port is not None and address.port != port:
            address = Address(address.ip, port)
        host = self._hosts.get(address.text)
        if host is None:
            host = self._add(address)
        if host is not None:
            self._picked.add(host)
        return host

    def on_timer(self, now: float) -> None:
        """The sweep."""
        stay = {
            text: host for text, host in self._hosts.items() if host in self._picked or host.rq_active or host.cx_active
        }
        self._picked.clear()
        if len(stay) != len(self._hosts):
            self._hosts = stay
            self._publish()
        if stay:
            self._wheel.arm(self, now + self.cleanup_interval)

    def _override(self, context: LoadBalancerContext) -> Address | None:
        """What the header names, None without the header; one that is no address and port counts as invalid."""
        request = context.request
        value = None if request is None else request.lookup(self.config.http_header_name)
        if value is None:
            return None
        address = _parse(value.decode("latin-1"))
        if address is None:
            self.stats.original_dst_host_invalid += 1
        return address

    def _add(self, address: Address) -> Host | None:
        cluster = self.cluster
        if cluster is None:
            return None
        host = Host(address, cluster.name + address.text)
        self._hosts[address.text] = host
        if self.due == inf:
            self._wheel.arm(self, self._wheel.clock() + self.cleanup_interval)
        self._publish()
        return host

    def _publish(self) -> None:
        if self.cluster is not None:
            self.cluster.update((HostSet(0, tuple(self._hosts.values())),))

    def __repr__(self) -> str:
        return f"<OriginalDst {len(self._hosts)} hosts>"


def _parse(text: str) -> Address | None:
    """`1.2.3.4:80` or `[::1]:80` as an address; None for anything else."""
    ip, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    bracketed = ip.startswith("[") and ip.endswith("]")
    try:
        parsed = ip_address(ip[1:-1] if bracketed else ip)
    except ValueError:
        return None
    return Address(parsed.compressed, int(port)) if bracketed == (parsed.version == 6) else None
