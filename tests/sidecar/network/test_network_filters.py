from __future__ import annotations

import asyncio
from collections import defaultdict
from ipaddress import ip_network
from typing import Literal

from sidecar.config.core_types import TokenBucket
from sidecar.config.listener import FilterChain
from sidecar.config.matcher import StringMatcher
from sidecar.config.network_filters import (
    ConnectionLimit,
    DirectResponse,
    LocalRateLimit,
    NetworkFilter,
    NetworkFilterConfig,
    NetworkRbac,
    SniCluster,
)
from sidecar.config.rbac import AnyRule, PeerIp, Policy, Rbac, RequestedServerName
from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.listener.terminal import ConnectionFilter
from sidecar.network.direct_response import DirectResponse as DirectResponseTerminal
from sidecar.network.filters import NetworkFilterStats, build_network_filters, by_sni
from sidecar.telemetry.groups.network_filters import (
    ConnectionLimitStats,
    NetworkLocalRateLimitStats,
    NetworkRbacShadowStats,
    NetworkRbacStats,
)
from tests.sidecar.listener.serving import Served, config, ended, exchange, in_thread, run, until
from tests.sidecar.network.proxying import FakeCluster, Proxied, Upstream, receive


class Counted:
    """The statistics of network filters by their prefix."""

    def __init__(self) -> None:
        self.rbac: defaultdict[str, NetworkRbacStats] = defaultdict(NetworkRbacStats)
        self.rbac_shadow: defaultdict[tuple[str, str], NetworkRbacShadowStats] = defaultdict(NetworkRbacShadowStats)
        self.rate: defaultdict[str, NetworkLocalRateLimitStats] = defaultdict(NetworkLocalRateLimitStats)
        self.limit: defaultdict[str, ConnectionLimitStats] = defaultdict(ConnectionLimitStats)

    def build(self, worker: Worker, *configs: NetworkFilterConfig) -> tuple[ConnectionFilter, ...]:
        source = NetworkFilterStats(
            self.rbac.__getitem__,
            lambda *words: self.rbac_shadow[words],
            self.rate.__getitem__,
            self.limit.__getitem__,
        )
        return build_network_filters([NetworkFilter("f", each) for each in configs], worker, source)


def worker() -> Worker:
    return Worker(asyncio.get_running_loop())


def info(remote: str = "10.0.0.1", server_name: str = "") -> ConnectionInfo:
    made = ConnectionInfo(1, Address("10.0.0.9", 80), Address(remote, 5000), 0.0)
    made.requested_server_name = server_name
    return made


def rules(action: Literal["ALLOW", "DENY"], *principals: str) -> Rbac:
    return Rbac(action, (Policy("p", (AnyRule(),), tuple(PeerIp("source_ip", ip_network(one)) for one in principals)),))


def test_rbac_allows_denies_and_says_why() -> None:
    async def main() -> None:
        counted = Counted()
        allow = NetworkRbac("allow", rules("ALLOW", "10.0.0.0/8"), delay_deny=1.5)
        deny = NetworkRbac("deny", rules("DENY", "10.0.0.0/8"))
        allowing, denying = counted.build(worker(), allow, deny)
        inside, outside = info("10.0.0.1"), info("192.0.2.1")
        assert allowing.on_new_connection(inside) is None
        assert allowing.on_new_connection(outside) == 1.5
        assert outside.termination_details == "rbac_access_denied_matched_policy[none]"
        assert denying.on_new_connection(inside) == 0.0
        assert inside.termination_details == "rbac_access_denied_matched_policy[p]"
        assert denying.on_new_connection(info("192.0.2.1")) is None
        for name in ("allow", "deny"):
            assert (counted.rbac[name].allowed, counted.rbac[name].denied) == (1, 1)

    run(main)


def test_rbac_shadow_rules_only_count_and_publish() -> None:
    async def main() -> None:
        counted = Counted()
        name = RequestedServerName(StringMatcher("exact", b"a.example"))
        shadow = Rbac("ALLOW", (Policy("by name", (name,), (AnyRule(),)),))
        (both,) = counted.build(worker(), NetworkRbac("s", rules("ALLOW", "0.0.0.0/0"), shadow, "dry_"))
        right, wrong = info(server_name="a.example"), info()
        wrong.metadata = {"other": {"kept": 1}}
        assert both.on_new_connection(right) is None
        assert both.on_new_connection(wrong) is None
        stats, shadow_stats = counted.rbac["s"], counted.rbac_shadow["s", "dry_"]
        assert (stats.allowed, stats.denied) == (2, 0)
        assert (shadow_stats.shadow_allowed, shadow_stats.shadow_denied) == (1, 1)
        key = "envoy.filters.network.rbac"
        assert right.metadata == {
            key: {"dry_shadow_engine_result": "allowed", "dry_shadow_effective_policy_id": "by name"}
        }
        assert wrong.metadata == {"other": {"kept": 1}, key: {"dry_shadow_engine_result": "denied"}}

    run(main)


def test_rules_that_log_tell_the_access_log() -> None:
    async def main() -> None:
        logging = Rbac("LOG", (Policy("p", (AnyRule(),), (PeerIp("source_ip", ip_network("10.0.0.0/8")),)),))
        (both,) = Counted().build(worker(), NetworkRbac("s", logging))
        for address, expected in (("10.1.1.1", True), ("192.0.2.1", False)):
            one = info(address)
            assert both.on_new_connection(one) is None
            assert one.metadata == {"envoy.common": {"access_log_hint": expected}}

    run(main)


def test_the_rate_limit_gives_tokens_back_with_time() -> None:
    async def main() -> None:
        now = [100.0]
        timed = Worker(asyncio.get_running_loop(), clock=lambda: now[0])
        counted = Counted()
        bucket = TokenBucket(2, 1, 1.0)
        limited, off = counted.build(timed, LocalRateLimit("r", bucket), LocalRateLimit("off", bucket, False))
        assert [limited.on_new_connection(info()) for _ in range(3)] == [None, None, 0.0]
        now[0] += 1.0
        assert [limited.on_new_connection(info()) for _ in range(2)] == [None, 0.0]
        assert counted.rate["r"].rate_limited == 2
        assert [off.on_new_connection(info()) for _ in range(5)] == [None] * 5

    run(main)


def test_filters_stand_in_front_of_the_proxy_and_refused_connections_never_reach_the_upstream() -> None:
    async def main() -> None:
        counted, same = Counted(), worker()
        upstream = Upstream()
        cluster = FakeCluster("c", [upstream.address])
        filters = counted.build(same, ConnectionLimit("l", 1, delay=0.1), SniCluster())
        proxied = Proxied(same, cluster, build_filters=lambda chain, context: filters)
        first = proxied.connect()
        server = await in_thread(upstream.accept)
        second = proxied.connect()
        await until(lambda: counted.limit["l"].limited_connections == 1)
        assert proxied.served.stats.downstream_cx_active == 2
        start = asyncio.get_running_loop().time()
        assert await in_thread(ended, second)
        assert asyncio.get_running_loop().time() - start > 0.05
        first.sendall(b"x")
        assert await in_thread(receive, server, 1) == b"x"
        assert counted.limit["l"].active_connections == 1
        first.close()
        server.close()
        await until(lambda: not counted.limit["l"].active_connections)
        third = proxied.connect()
        server = await in_thread(upstream.accept)
        third.sendall(b"y")
        assert await in_thread(receive, server, 1) == b"y"
        assert len(cluster.asked) == 2
        for sock in (second, third, server):
            sock.close()
        proxied.close()
        upstream.close()

    run(main)


def test_sni_cluster_is_found_in_a_chain() -> None:
    assert by_sni([NetworkFilter("s", SniCluster()), NetworkFilter("d", DirectResponse(b""))])
    assert not by_sni([NetworkFilter("d", DirectResponse(b""))])


def test_direct_response_arrives_whole_though_the_client_sends_too() -> None:
    async def main() -> None:
        same = worker()
        body = b"sorry" * 20000
        terminal = DirectResponseTerminal(body, same)

        def build(chain: FilterChain, last: NetworkFilter, context: object) -> DirectResponseTerminal:
            return terminal

        served = Served(config(), same, build_terminal=build).start()
        client = served.connect()
        assert await in_thread(exchange, client, bytes(100_000), len(body) + 1) == body
        client.close()
        await until(lambda: served.stats.downstream_cx_active == 0)
        lingering = served.connect()
        assert await in_thread(exchange, lingering, b"", len(body) + 1) == body
        await until(lambda: served.stats.downstream_cx_active == 0)
        lingering.close()
        served.listener.close()

    run(main)
