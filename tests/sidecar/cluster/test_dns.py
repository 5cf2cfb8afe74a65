"""The resolver against a DNS server, and DNS clusters against a scripted resolver and a clock that the test holds.

What is counted, and what an empty answer does, is what Envoy 1.40 did with the same answers.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.dns import Answer, DnsResolver, ResolverStats
from sidecar.cluster.manager import make_cluster
from sidecar.cluster.slices import Slices
from sidecar.config.address import SocketAddress
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.dns import DnsSettings
from sidecar.config.endpoint import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from sidecar.telemetry.groups.server import DnsStats
from tests.sidecar.cluster.dns_server import AAAA, SERVFAIL, A, DnsServer
from tests.sidecar.cluster.surroundings import PLAIN, Clock, ScriptedResolver, Stages, picks, seeded


def ask(
    server: DnsServer, *questions: tuple[str, str], stats: ResolverStats | None = None, **settings: Any
) -> list[Answer]:
    """Start the server, ask, and give the answers."""

    async def run() -> list[Answer]:
        loop = asyncio.get_running_loop()
        await server.start()
        resolver = DnsResolver(
            loop,
            DnsSettings(resolvers=(SocketAddress("127.0.0.1", server.port),), **settings),
            stats or DnsStats(),
            timeout=0.3,
            tries=1,
        )
        answers = []
        try:
            for name, family in questions:
                answered: asyncio.Future[Answer] = loop.create_future()
                resolver.resolve(name, family, answered.set_result)
                answers.append(await asyncio.wait_for(answered, 10))
        finally:
            await resolver.close()
            server.close()
        return answers

    return asyncio.run(run())


def both() -> DnsServer:
    server = DnsServer()
    server.records[("both.test", A)] = (77, ["10.0.0.1", "10.0.0.2"])
    server.records[("both.test", AAAA)] = (33, ["fd00::1"])
    server.records[("only4.test", A)] = (5, ["10.0.0.4"])
    server.records[("only6.test", AAAA)] = (6, ["fd00::6"])
    return server


@pytest.mark.parametrize(
    ("family", "name", "addresses", "ttl"),
    [
        ("V4_ONLY", "both.test", {"10.0.0.1", "10.0.0.2"}, 77),
        ("V6_ONLY", "both.test", {"fd00::1"}, 33),
        ("AUTO", "both.test", {"fd00::1"}, 33),
        ("V4_PREFERRED", "both.test", {"10.0.0.1", "10.0.0.2"}, 77),
        ("ALL", "both.test", {"10.0.0.1", "10.0.0.2", "fd00::1"}, 33),
        ("AUTO", "only4.test", {"10.0.0.4"}, 5),
        ("V4_PREFERRED", "only6.test", {"fd00::6"}, 6),
        ("V6_ONLY", "only4.test", set(), 0),
        ("V4_ONLY", "unknown.test", set(), 0),
    ],
)
def test_lookup_families(family: str, name: str, addresses: set[str], ttl: int) -> None:
    (answer,) = ask(both(), (name, family))
    assert (set(answer.addresses), answer.ttl, answer.failed) == (addresses, ttl, False)


def test_a_server_that_fails_or_is_silent_is_a_failure() -> None:
    server = DnsServer()
    server.failing["bad.test"] = SERVFAIL
    stats = DnsStats()
    (answer,) = ask(server, ("bad.test", "V4_ONLY"), stats=stats)
    assert answer.failed and not answer.addresses
    server = DnsServer()
    server.silent = True
    (answer,) = ask(server, ("slow.test", "V4_ONLY"), stats=stats)
    assert answer.failed
    assert (stats.resolve_total, stats.get_addr_failure, stats.timeouts, stats.not_found) == (2, 1, 1, 0)


def test_lookups_are_counted() -> None:
    stats = DnsStats()
    ask(both(), ("only4.test", "AUTO"), ("both.test", "AUTO"), ("unknown.test", "V4_ONLY"), stats=stats)
    assert (stats.resolve_total, stats.not_found, stats.pending_resolutions) == (4, 2, 0)


def test_names_of_etc_hosts_need_no_server() -> None:
    server = DnsServer()
    (answer,) = ask(server, ("localhost", "V4_ONLY"))
    assert answer.addresses == ("127.0.0.1",)
    assert server.asked == []


def test_closing_forgets_what_is_under_way() -> None:
    async def run() -> list[Answer]:
        server = await DnsServer().start()
        server.silent = True
        loop = asyncio.get_running_loop()
        stats = DnsStats()
        resolver = DnsResolver(loop, DnsSettings(resolvers=(SocketAddress("127.0.0.1", server.port),)), stats)
        answers: list[Answer] = []
        resolver.resolve("slow.test", "V4_ONLY", answers.append)
        while not server.asked:
            await asyncio.sleep(0.001)
        assert stats.pending_resolutions == 1
        await resolver.close()
        server.close()
        assert stats.pending_resolutions == 0
        return answers

    assert asyncio.run(run()) == []


class Dns:
    """A DNS cluster, its resolver's questions, and its statistics."""

    def __init__(self, clock: Clock, kind: str, *names: str, **settings: Any) -> None:
        stages = Stages()
        endpoints = tuple(LbEndpoint(SocketAddress(name, 80)) for name in names)
        self.clock = clock
        self.cluster: Cluster = make_cluster(
            ClusterConfig(
                "dns",
                "dns",
                kind,
                ClusterLoadAssignment("dns", (LocalityLbEndpoints(endpoints),)),
                dns=DnsSettings(**settings),
            ),
            stages,
            clock.wheel,
            Slices(clock.wheel),
            seeded(),
        )
        self.resolver: ScriptedResolver = stages.scripted
        self.stats = stages.stats["dns"]
        self.cluster.start()

    def hosts(self) -> list[str]:
        return sorted(host.address.text for host in self.cluster.hosts)

    def asked_after(self) -> float:
        """Seconds until the next question."""
        start = self.clock.now
        while not self.resolver.questions:
            self.clock.advance(0.1)
            assert self.clock.now - start < 10_000
        return self.clock.now - start


def test_strict_dns_makes_every_address_a_host(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test", dns_lookup_family="V4_ONLY")
    assert [question[:2] for question in dns.resolver.questions] == [("a.test", "V4_ONLY")]
    assert not dns.cluster.initialised and dns.cluster.pick(PLAIN) is None
    dns.resolver.answer("10.0.0.1", "10.0.0.2")
    assert dns.cluster.initialised
    assert dns.hosts() == ["10.0.0.1:80", "10.0.0.2:80"]
    assert {host.hostname for host in dns.cluster.hosts} == {"a.test"}
    assert len(picks(dns.cluster.pick, 10)) == 2
    stayed = next(host for host in dns.cluster.hosts if host.address.ip == "10.0.0.2")
    gone: list[Any] = []
    dns.cluster.on_membership = (lambda added, removed: gone.extend(removed),)
    assert dns.asked_after() == pytest.approx(5.0, abs=0.2)
    dns.resolver.answer("10.0.0.2", "10.0.0.3")
    assert dns.hosts() == ["10.0.0.2:80", "10.0.0.3:80"]
    assert stayed in dns.cluster.hosts
    assert [host.address.text for host in gone] == ["10.0.0.1:80"]
    seen = {name: value for name, value in dns.stats.seen().items() if name.startswith(("update", "membership_ch"))}
    assert seen == {"update_attempt": 2, "update_success": 2, "membership_change": 2}


def test_strict_dns_keeps_the_last_answer_through_failures(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test")
    dns.resolver.answer("10.0.0.1")
    dns.asked_after()
    dns.resolver.answer(failed=True)
    assert dns.hosts() == ["10.0.0.1:80"]
    assert (dns.stats.update_failure, dns.stats.update_success) == (1, 1)
    dns.asked_after()
    dns.resolver.answer("10.0.0.1")
    assert dns.stats.update_no_rebuild == 1
    dns.asked_after()
    dns.resolver.answer()
    assert dns.hosts() == []
    assert dns.cluster.pick(PLAIN) is None
    assert (dns.stats.update_failure, dns.stats.update_success, dns.stats.max_host_weight) == (1, 3, 1)


def test_a_first_failure_initialises_without_hosts(clock: Clock) -> None:
    for kind in ("STRICT_DNS", "LOGICAL_DNS"):
        dns = Dns(clock, kind, "a.test")
        dns.resolver.answer(failed=True)
        assert dns.cluster.initialised and dns.hosts() == []


def test_strict_dns_with_several_names_and_an_address(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test", "10.0.0.9", "b.test")
    assert dns.cluster.initialised and dns.hosts() == ["10.0.0.9:80"]
    dns.resolver.answer("10.0.0.1")
    dns.resolver.answer("10.0.0.2")
    assert dns.hosts() == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:80"]
    dns.asked_after()
    dns.resolver.answer()
    assert dns.hosts() == ["10.0.0.2:80", "10.0.0.9:80"]


def test_logical_dns_is_one_host_that_moves(clock: Clock) -> None:
    dns = Dns(clock, "LOGICAL_DNS", "a.test")
    dns.resolver.answer("10.0.0.1", "10.0.0.2")
    (host,) = dns.cluster.hosts
    assert (host.address.text, host.hostname) == ("10.0.0.1:80", "a.test")
    dns.asked_after()
    dns.resolver.answer("10.0.0.2", "10.0.0.1")
    assert dns.cluster.hosts == [host] and host.address.text == "10.0.0.2:80"
    dns.asked_after()
    dns.resolver.answer()
    assert host.address.text == "10.0.0.2:80"
    assert (dns.stats.update_failure, dns.stats.update_success, dns.stats.membership_change) == (1, 2, 2)


def test_an_address_is_looked_up_once_and_needs_no_timer(clock: Clock) -> None:
    dns = Dns(clock, "LOGICAL_DNS", "10.0.0.7")
    assert dns.hosts() == ["10.0.0.7:80"]
    assert dns.resolver.questions == [] and len(clock.wheel) == 0


@pytest.mark.parametrize(
    ("settings", "ttl", "seconds"),
    [
        ({}, 60, 5.0),
        ({"dns_refresh_rate": 20.0}, 60, 20.0),
        ({"respect_dns_ttl": True}, 60, 60.0),
        ({"respect_dns_ttl": True, "dns_refresh_rate": 20.0}, 0, 20.0),
        ({"respect_dns_ttl": True}, 1, 1.0),
    ],
)
def test_when_a_name_is_looked_up_again(settings: dict[str, Any], ttl: int, seconds: float, clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test", **settings)
    dns.resolver.answer("10.0.0.1", ttl=ttl)
    assert dns.asked_after() == pytest.approx(seconds, abs=0.25)


def test_jitter_spreads_the_lookups(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test", dns_jitter=10.0)
    waits = []
    for _ in range(10):
        dns.resolver.answer("10.0.0.1")
        waits.append(dns.asked_after())
    assert all(4.9 <= wait <= 15.3 for wait in waits)
    assert max(waits) - min(waits) > 2.0


def test_failures_back_off_up_to_the_maximum_and_a_success_resets(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test", failure_base_interval=1.0, failure_max_interval=8.0)
    waits = []
    for _ in range(40):
        dns.resolver.answer(failed=True)
        waits.append(dns.asked_after())
    assert waits[0] <= 1.3 and waits[1] <= 2.3 and waits[2] <= 4.3
    assert all(wait <= 8.3 for wait in waits)
    assert max(waits[3:]) > 4.0
    dns.resolver.answer("10.0.0.1")
    dns.asked_after()
    dns.resolver.answer(failed=True)
    assert dns.asked_after() <= 1.3


def test_without_a_failure_rate_the_refresh_rate_holds(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test", dns_refresh_rate=7.0)
    dns.resolver.answer(failed=True)
    assert dns.asked_after() == pytest.approx(7.0, abs=0.25)


def test_after_closing_answers_come_too_late(clock: Clock) -> None:
    dns = Dns(clock, "STRICT_DNS", "a.test")
    dns.cluster.close()
    dns.resolver.answer("10.0.0.1")
    assert dns.hosts() == [] and len(clock.wheel) == 0
