"""The cache of names that requests ask for: when names are looked up again, when they leave, and who is told.

What is waited for, and what is counted, is what Envoy 1.40 did with the same answers.
"""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.dns_cache import DnsCache, Entry, parse_authority
from sidecar.config.address import SocketAddress
from sidecar.config.dns import DnsSettings
from sidecar.config.dns_cache import DnsCacheConfig
from sidecar.core.address import Address
from tests.sidecar.cluster.surroundings import Clock, Counts, ScriptedResolver, seeded


class Asker:
    """Counts how often it was told."""

    told = 0

    def on_name(self) -> None:
        self.told += 1


class Scene:
    """A cache, what it asks, and what it counts."""

    def __init__(self, clock: Clock, dns: DnsSettings | None = None, **settings: Any) -> None:
        self.clock = clock
        self.resolver = ScriptedResolver()
        self.stats: Any = Counts()
        self.pending: Any = Counts()
        self.closed: list[DnsCache] = []
        config = DnsCacheConfig("c", dns or DnsSettings(dns_refresh_rate=60.0), **settings)
        self.cache = DnsCache(
            config, self.stats, self.pending, self.resolver, clock.wheel, seeded(), self.closed.append
        ).open()

    def waits(self, least: float, most: float) -> None:
        """The next question comes after so many seconds."""
        assert not self.resolver.questions
        self.clock.advance(least - 0.1)
        assert not self.resolver.questions
        self.clock.advance(most - least + 0.5)
        assert len(self.resolver.questions) == 1


@pytest.mark.parametrize(
    ("authority", "port", "parsed"),
    [
        (b"a.test", 80, ("a.test:80", "a.test", 80)),
        (b"a.test", 443, ("a.test:443", "a.test", 443)),
        (b"a.test:8080", 80, ("a.test:8080", "a.test", 8080)),
        (b"A.test:8080", 80, ("A.test:8080", "A.test", 8080)),
        (b"127.0.0.1:1", 80, ("127.0.0.1:1", "127.0.0.1", 1)),
        (b"[::1]", 80, ("[::1]:80", "::1", 80)),
        (b"[::1]:8080", 80, ("[::1]:8080", "::1", 8080)),
        (b"[a.test]:8080", 80, ("[a.test]:8080", "[a.test]", 8080)),
        (b"a.test:", 80, ("a.test::80", "a.test:", 80)),
        (b"a.test:65536", 80, ("a.test:65536:80", "a.test:65536", 80)),
        (b"a.test:" + b"9" * 5000, 80, ("a.test:" + "9" * 5000 + ":80", "a.test:" + "9" * 5000, 80)),
        (b"a.test:+1", 80, ("a.test:+1:80", "a.test:+1", 80)),
        (b"a.test:1_0", 80, ("a.test:1_0:80", "a.test:1_0", 80)),
        (b"a.test:\xb2", 80, ("a.test:\xb2:80", "a.test:\xb2", 80)),
        (b"", 80, (":80", "", 80)),
    ],
)
def test_what_a_host_is(authority: bytes, port: int, parsed: tuple[str, str, int]) -> None:
    assert parse_authority(authority, port) == parsed


def test_one_name_is_asked_for_once_and_everybody_is_told(clock: Clock) -> None:
    scene = Scene(clock)
    askers = [Asker(), Asker(), Asker()]
    entries = [scene.cache.look_up(b"a.test:1", 80) for _ in askers]
    for entry, asker in zip(entries, askers, strict=True):
        assert entry is entries[0] is not None and not entry.answered
        scene.cache.wait(entry, asker)
    assert scene.pending.rq_pending_remaining == 1021
    scene.cache.forget(entries[0], askers[2])  # type: ignore[arg-type]
    assert [question[0] for question in scene.resolver.questions] == ["a.test"]
    scene.resolver.answer("10.0.0.1", "10.0.0.2", ttl=9)
    assert [asker.told for asker in askers] == [1, 1, 0]
    assert scene.pending.rq_pending_remaining == 1024
    known = scene.cache.look_up(b"a.test:1", 80)
    assert known is entries[0] and known.address == Address("10.0.0.1", 1)
    assert scene.cache.look_up(b"a.test:1", 443) is known
    assert scene.cache.look_up(b"a.test", 80) is not known


@pytest.mark.parametrize(
    ("dns", "answers", "least", "most"),
    [
        ({}, [("10.0.0.1", 0, False)], 5, 5),
        ({}, [("10.0.0.1", 9, False)], 9, 9),
        ({}, [("", 0, False)], 60, 60),
        ({}, [("", 0, True)], 60, 60),
        ({"dns_refresh_rate": 1.0}, [("", 0, False)], 1, 1),
        ({"dns_refresh_rate": 1.0}, [("", 0, True)], 5, 5),
        ({}, [("10.0.0.1", 7, False), ("", 0, True)], 7, 7),
        ({"failure_base_interval": 8.0, "failure_max_interval": 9.0}, [("", 0, True)], 5, 8),
        ({"failure_base_interval": 1.0, "failure_max_interval": 1.0}, [("", 0, True)], 5, 5),
    ],
    ids=str,
)
def test_when_a_name_is_looked_up_again(
    clock: Clock, dns: dict[str, float], answers: list[tuple[str, int, bool]], least: float, most: float
) -> None:
    settings: Any = {"dns_refresh_rate": 60.0, **dns}
    scene = Scene(clock, DnsSettings(**settings), query_timeout=0.0)
    scene.cache.look_up(b"a.test", 80)
    for number, (address, ttl, failed) in enumerate(answers):
        if number:
            clock.advance(61)
        scene.resolver.answer(*filter(None, [address]), ttl=ttl, failed=failed)
    scene.waits(least, most)


def test_a_lookup_that_takes_too_long_has_failed_and_a_late_answer_is_not_taken(clock: Clock) -> None:
    scene = Scene(clock, query_timeout=2.0)
    entry, asker = scene.cache.look_up(b"a.test", 80), Asker()
    assert entry is not None
    scene.cache.wait(entry, asker)
    clock.advance(2.1)
    assert (asker.told, entry.answered, entry.details) == (1, True, "resolve_timeout")
    assert scene.stats.seen() == {
        "dns_query_attempt": 1, "dns_query_failure": 1, "dns_query_timeout": 1, "host_added": 1, "num_hosts": 1,
    }  # fmt: skip
    scene.resolver.answer("10.0.0.1")
    assert (asker.told, entry.address) == (1, None)


def test_a_failure_leaves_what_is_known_as_it_is(clock: Clock) -> None:
    scene = Scene(clock)
    entry = scene.cache.look_up(b"a.test", 80)
    assert entry is not None
    scene.resolver.answer("10.0.0.1")
    clock.advance(5.1)
    scene.resolver.answer(failed=True)
    assert entry.address == Address("10.0.0.1", 80)
    clock.advance(5.1)
    scene.resolver.answer()
    assert entry.address == Address("10.0.0.1", 80)


def test_a_failed_name_is_forgotten_at_once_where_it_is_not_to_be_looked_up_again(clock: Clock) -> None:
    scene = Scene(clock, refreshes_failures=False)
    entry = scene.cache.look_up(b"a.test", 80)
    scene.resolver.answer(failed=True)
    assert scene.cache.look_up(b"a.test", 80) is not entry
    assert (scene.stats.host_removed, scene.stats.num_hosts) == (1, 1)


def test_a_name_that_nobody_picks_leaves_and_makes_room(clock: Clock) -> None:
    scene = Scene(clock, host_ttl=12.0, max_hosts=1)
    entry = scene.cache.look_up(b"a.test", 80)
    scene.resolver.answer("10.0.0.1")
    assert entry is not None and scene.cache.look_up(b"b.test", 80) is None
    for _ in range(4):
        clock.advance(5.1)
        entry.used = clock.now
        scene.resolver.answer("10.0.0.1")
    assert scene.cache.known(b"a.test", 80) is entry
    clock.advance(5.1)
    scene.resolver.answer("10.0.0.1")
    clock.advance(11)
    for _ in scene.resolver.questions:
        scene.resolver.answer("10.0.0.1")
    clock.advance(6)
    assert scene.cache.known(b"a.test", 80) is None
    assert scene.cache.look_up(b"b.test", 80) is not None
    assert (scene.stats.host_overflow, scene.stats.host_removed, scene.stats.num_hosts) == (1, 1, 1)


def test_however_many_ways_there_are_to_write_a_name_few_are_kept(clock: Clock) -> None:
    scene = Scene(clock)
    entry = scene.cache.look_up(b"a.test:80", 80)
    for port in range(1, 100):
        assert scene.cache.known(b"a.test:80", port) is entry
    assert entry is not None and len(entry.spellings) < 10


PRERESOLVED = (
    SocketAddress("a.test", 80),
    SocketAddress("a.test", 80),
    SocketAddress("a.test", 81),
    SocketAddress("a.test:80", 82),
    SocketAddress("::1", 80),
    SocketAddress("[::1]", 80),
    SocketAddress("127.0.0.1", 80),
)


def test_hosts_to_look_up_at_the_start_are_those_that_requests_mean(clock: Clock) -> None:
    scene = Scene(clock, preresolve_hostnames=PRERESOLVED)
    scene.cache.start()
    assert [question[0] for question in scene.resolver.questions] == ["a.test", "a.test", "::1", "127.0.0.1"]
    assert (scene.stats.host_added, scene.stats.num_hosts) == (4, 4)
    for authority in (b"a.test", b"a.test:81", b"[::1]", b"[::1]:80", b"127.0.0.1"):
        assert scene.cache.known(authority, 80) is not None, authority


def test_a_host_that_is_asked_for_before_the_start_is_the_one_that_was_to_be_looked_up(clock: Clock) -> None:
    scene = Scene(clock, preresolve_hostnames=PRERESOLVED[:1])
    entry = scene.cache.look_up(b"a.test", 80)
    scene.cache.start()
    assert scene.cache.known(b"a.test:80", 80) is entry
    assert len(scene.resolver.questions) == scene.stats.num_hosts == 1


class Watching:
    """Keeps what it was told of."""

    def __init__(self) -> None:
        self.there: list[str] = []

    def on_address(self, entry: Entry) -> None:
        self.there.append(entry.key)

    def on_gone(self, entry: Entry) -> None:
        self.there.remove(entry.key)


def test_a_host_that_was_to_be_looked_up_twice_leaves_as_any_other(clock: Clock) -> None:
    scene, cluster = Scene(clock, preresolve_hostnames=PRERESOLVED[:2], host_ttl=3.0), Watching()
    scene.cache.watch(cluster)
    scene.cache.start()
    while scene.resolver.questions:
        scene.resolver.answer("10.0.0.1")
    assert cluster.there == ["a.test:80"]
    clock.advance(6)
    assert scene.cache.known(b"a.test", 80) is None and not cluster.there
    assert (scene.stats.host_removed, scene.stats.num_hosts) == (1, 0)


def test_those_who_wait_are_told_when_the_last_user_closes_the_cache(clock: Clock) -> None:
    scene = Scene(clock)
    asker, entry = Asker(), scene.cache.look_up(b"a.test", 80)
    assert entry is not None
    scene.cache.wait(entry, asker)
    scene.cache.open()
    scene.cache.release()
    assert not asker.told and not scene.closed
    scene.cache.release()
    assert asker.told and entry.address is None and scene.closed == [scene.cache]
    scene.resolver.answer("10.0.0.1")
    clock.advance(100)
    assert not scene.resolver.questions and entry.address is None
