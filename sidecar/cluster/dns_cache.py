"""A cache of the names that requests ask for: each is looked up when it is first asked for, kept up to date, and forgotten.

Source: Envoy's `extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from random import Random
from typing import Protocol

from sidecar.cluster.dns import Answer, Resolver
from sidecar.config.address import is_ip
from sidecar.config.dns_cache import DnsCacheConfig
from sidecar.core.address import Address
from sidecar.core.dns_cache import Asker
from sidecar.core.timer_wheel import Timed, TimerWheel

_MOST_SPELLINGS = 4
TIMED_OUT = Answer(failed=True, details="resolve_timeout")


class DnsCacheStats(Protocol):
    """Statistics below `dns_cache.<name>.`, under Envoy's names."""

    dns_query_attempt: int
    dns_query_failure: int
    dns_query_success: int
    dns_query_timeout: int
    dns_rq_pending_overflow: int
    host_added: int
    host_address_changed: int
    host_overflow: int
    host_removed: int
    num_hosts: int


class Pending(Protocol):
    """Below `dns_cache.<name>.circuit_breakers.`: how many more requests may wait."""

    rq_pending_open: int
    rq_pending_remaining: int


class Watcher(Protocol):
    """A cluster whose hosts are the names."""

    def on_address(self, entry: Entry) -> None:
        """The name leads somewhere, or somewhere else."""
        ...

    def on_gone(self, entry: Entry) -> None:
        """The name was forgotten."""
        ...


class Entry(Timed):
    """A name with its port, and what is known of it. ``used`` is when it was last picked, in seconds of the worker's clock."""

    __slots__ = ("address", "addresses", "answered", "askers", "cache", "delay", "details", "failures", "host", "key",
                 "lookup", "port", "spellings", "used")  # fmt: skip

    def __init__(self, cache: DnsCache, key: str, host: str, port: int, now: float) -> None:
        self.due = inf
        self.cache = cache
        self.key = key
        self.host = host
        self.port = port
        self.address: Address | None = None
        self.addresses: frozenset[str] = frozenset()
        self.answered = False
        self.details = ""
        self.askers: list[Asker] = []
        self.spellings: list[tuple[bytes, int]] = []  # how requests have written it
        self.lookup = 0  # the one that is under way, 0 for none
        self.delay: float | None = None  # for how long the last answer with addresses was good
        self.failures = 0
        self.used = now

    def on_timer(self, now: float) -> None:
        self.cache.wake(self, now)

    def __repr__(self) -> str:
        return f"<Entry {self.key} {self.address.text if self.address is not None else self.details or 'asked for'}>"


class DnsCache:
    """One cache; the filters and clusters that give it the same name and settings share it, and the last one closes it."""

    __slots__ = ("_aliases", "_entries", "_last_lookup", "_on_closed", "_random", "_resolver", "_started", "_users",
                 "_watchers", "_wheel", "config", "pending", "stats")  # fmt: skip

    def __init__(
        self,
        config: DnsCacheConfig,
        stats: DnsCacheStats,
        pending: Pending,
        resolver: Resolver,
        wheel: TimerWheel,
        random: Random,
        on_closed: Callable[[DnsCache], None],
    ) -> None:
        self.config = config
        self.stats = stats
        self.pending = pending
        pending.rq_pending_remaining = config.max_pending_requests
        self._resolver = resolver
        self._wheel = wheel
        self._random = random
        self._on_closed = on_closed
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[tuple[bytes, int], Entry] = {}
        self._watchers: list[Watcher] = []
        self._users = 0
        self._last_lookup = 0
        self._started = False

    def open(self) -> DnsCache:
        """One more user."""
        self._users += 1
        return self

    def release(self) -> None:
        """One less; the last one closes the cache."""
        self._users -= 1
        if not self._users:
            entries = list(self._entries.values())
            self._entries.clear()
            self._aliases.clear()
            self._on_closed(self)
            for entry in entries:
                entry.lookup = 0
                self._wheel.cancel(entry)
                self._tell(entry)

    def start(self) -> None:
        """Look up the names that the configuration gives, when the first cluster begins. As in Envoy they are read as those of
        requests are, and may be given twice; addresses of IPv6 may lack their brackets.
        """
        if not self._started:
            self._started = True
            for one in self.config.preresolve_hostnames:
                written = f"[{one.address}]" if ":" in one.address and is_ip(one.address) else one.address
                key, host, port = parse_authority(written.encode(), one.port_value)
                if key not in self._entries:
                    self._add(key, host, port)

    def watch(self, watcher: Watcher) -> Iterable[Entry]:
        """Tell ``watcher`` of names from now on; those that lead somewhere now are given back."""
        self._watchers.append(watcher)
        return [entry for entry in self._entries.values() if entry.address is not None]

    def unwatch(self, watcher: Watcher) -> None:
        """Tell it no more."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def admit(self) -> bool:
        """Whether one more request may ask: as in Envoy, the limit holds for those, too, whose names are known."""
        if self.pending.rq_pending_remaining > 0:
            return True
        self.stats.dns_rq_pending_overflow += 1
        return False

    def known(self, authority: bytes, default_port: int) -> Entry | None:
        """The entry for what a request says, however it is written."""
        spelling = (authority, default_port)
        entry = self._aliases.get(spelling)
        if entry is None:
            entry = self._entries.get(parse_authority(authority, default_port)[0])
            if entry is not None and len(entry.spellings) < _MOST_SPELLINGS:
                entry.spellings.append(spelling)
                self._aliases[spelling] = entry
        return entry

    def look_up(self, authority: bytes, default_port: int) -> Entry | None:
        """The entry, a new one if need be; None if there is no room for it."""
        entry = self.known(authority, default_port)
        if entry is None:
            if len(self._entries) >= self.config.max_hosts:
                self.stats.host_overflow += 1
                return None
            entry = self._add(*parse_authority(authority, default_port))
        return entry

    def wait(self, name: Entry, asker: Asker) -> None:
        """Tell ``asker`` when the name is answered."""
        name.askers.append(asker)
        self._waiting(1)

    def forget(self, name: Entry, asker: Asker) -> None:
        """It waits no more."""
        if asker in name.askers:
            name.askers.remove(asker)
            self._waiting(-1)

    def _waiting(self, more: int) -> None:
        pending = self.pending
        pending.rq_pending_remaining -= more
        pending.rq_pending_open = int(pending.rq_pending_remaining <= 0)

    def wake(self, entry: Entry, now: float) -> None:
        """A lookup takes too long, or it is time for another one, or for the entry to go."""
        if entry.lookup:
            self.stats.dns_query_timeout += 1
            self._take(entry, entry.lookup, TIMED_OUT)
        elif now - entry.used >= self.config.host_ttl:
            self._remove(entry)
        else:
            self._resolve(entry)

    def _add(self, key: str, host: str, port: int) -> Entry:
        entry = self._entries[key] = Entry(self, key, host, port, self._wheel.clock())
        self.stats.host_added += 1
        self.stats.num_hosts += 1
        self._resolve(entry)
        return entry

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.key]
        for spelling in entry.spellings:
            self._aliases.pop(spelling, None)
        self.stats.host_removed += 1
        self.stats.num_hosts -= 1
        for watcher in self._watchers:
            watcher.on_gone(entry)

    def _resolve(self, entry: Entry) -> None:
        self.stats.dns_query_attempt += 1
        self._last_lookup += 1
        lookup = entry.lookup = self._last_lookup
        if self.config.query_timeout:
            self._wheel.arm(entry, self._wheel.clock() + self.config.query_timeout)
        family = self.config.dns.dns_lookup_family
        self._resolver.resolve(entry.host, family, lambda answer: self._take(entry, lookup, answer))

    def _take(self, entry: Entry, lookup: int, answer: Answer) -> None:
        """What became of a lookup, unless nobody waits for that one any more."""
        if entry.lookup != lookup:
            return
        entry.lookup = 0
        self._wheel.cancel(entry)
        if answer.failed:
            self.stats.dns_query_failure += 1
        else:
            self.stats.dns_query_success += 1
        entry.details = answer.details
        if answer.addresses and entry.addresses != frozenset(answer.addresses):
            self.stats.host_address_changed += 1
            entry.addresses = frozenset(answer.addresses)
            entry.address = Address(answer.addresses[0], entry.port)
            for watcher in self._watchers:
                watcher.on_address(entry)
        if answer.failed and entry.address is None and not self.config.refreshes_failures:
            self._remove(entry)
        else:
            self._wheel.arm(entry, self._wheel.clock() + self._delay(entry, answer))
        self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        entry.answered = True
        askers, entry.askers = entry.askers, []
        self._waiting(-len(askers))
        for asker in askers:
            asker.on_name()

    def _delay(self, entry: Entry, answer: Answer) -> float:
        """Until the next lookup. As in Envoy, failures after an answer wait as long as that was good, not as configured."""
        dns, least = self.config.dns, self.config.min_refresh_rate
        if answer.addresses:
            entry.delay = max(float(answer.ttl), least)
            entry.failures = 0
            return entry.delay
        if not answer.failed:
            return dns.dns_refresh_rate
        if dns.failure_base_interval is None or dns.failure_max_interval is None:
            return max(least, dns.dns_refresh_rate if entry.delay is None else entry.delay)
        base = dns.failure_base_interval if entry.delay is None else entry.delay
        interval = min(max(dns.failure_max_interval, base), base * 2.0 ** min(entry.failures, 32))
        entry.failures += 1
        return max(least, self._random.random() * interval)

    def __repr__(self) -> str:
        return f"<DnsCache {self.config.name}: {len(self._entries)} of {self.config.max_hosts} hosts>"


def parse_authority(authority: bytes, default_port: int) -> tuple[str, str, int]:
    """The key of a host, its name (an address without brackets) and its port. Behind which no port stands is a name as a
    whole, which nobody will know.
    """
    text = authority.decode("latin-1")
    host, port = text, default_port
    name, colon, digits = text.rpartition(":")
    if colon and _is_port(digits):
        host, port = name, int(digits)
    key = text if host is not text else f"{text}:{default_port}"
    bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else ""
    return key, bare if is_ip(bare) else host, port


def _is_port(digits: str) -> bool:
    return len(digits) <= 5 and digits.isascii() and digits.isdigit() and int(digits) < 65536
