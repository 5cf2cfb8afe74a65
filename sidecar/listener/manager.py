"""Listeners that come, change and go while the sidecar runs: warmed, swapped with their sockets, changed in place, drained.

Source: Envoy's "Listener discovery service (LDS)", "Draining" and "Filter chain only update".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sidecar.config.listener import FilterChain
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.core.waiting import Waiting
from sidecar.listener.listener import Listener
from sidecar.listener.sockets import Inherited, addresses_of, key_of
from sidecar.listener.terminal import Chain


class ListenerManagerStats(Protocol):
    """Statistics below `listener_manager.`, under Envoy's names."""

    listener_added: int
    listener_modified: int
    listener_removed: int
    listener_in_place_updated: int
    listener_create_failure: int
    listener_create_success: int


class Surroundings(Protocol):
    """What the manager needs of the stages around; the stack hands it in."""

    @property
    def listener_manager_stats(self) -> ListenerManagerStats: ...

    def make(self, config: ListenerConfig, waiting: Waiting) -> Listener:
        """A listener with all its filter chains; what these still need is added to ``waiting``. Raises ValueError, OSError."""
        ...

    def make_chains(
        self, listener: Listener, config: ListenerConfig, find: Callable[[FilterChain], Chain | None], waiting: Waiting
    ) -> tuple[Any, list[Chain]]:
        """`Listener.make_chains`, likewise."""
        ...

    def dispose(self, listener: Listener, chains: Sequence[Chain], *, whole: bool) -> None:
        """These filter chains serve nobody any more, nor (``whole``) does the listener."""
        ...

    def replaced(self, old: Listener | None, new: Listener | None) -> None:
        """``new`` is in use in the place of ``old``; either may be missing, and both where filter chains have changed."""
        ...

    def drain(self, draining: Draining) -> None:
        """Ask connections to end, give them time, then call ``draining.finish``."""
        ...


class Version:
    """What tells two versions of a listener apart: ``common`` is the message without its filter chains, ``chains`` are those
    (the default one last), all serialised. ``record`` is for whoever shows it.
    """

    __slots__ = ("chains", "common", "record")

    def __init__(self, common: bytes, chains: tuple[bytes, ...], record: Any) -> None:
        self.common = common
        self.chains = chains
        self.record = record

    def __repr__(self) -> str:
        return f"<Version of a listener with {len(self.chains)} filter chains>"


class Managed:
    """A listener with its version."""

    __slots__ = ("listener", "version")

    def __init__(self, listener: Listener, version: Version) -> None:
        self.listener = listener
        self.version = version

    def __repr__(self) -> str:
        return f"<Managed {self.listener!r}>"


class Warming:
    """A version on its way: a listener of its own, or (``chains``) new filter chains for the one that there is."""

    __slots__ = ("chains", "config", "find_chain", "made", "managed", "waiting")

    def __init__(self, config: ListenerConfig, managed: Managed, waiting: Waiting) -> None:
        self.config = config
        self.managed = managed
        self.waiting = waiting
        self.find_chain: Any = None
        self.chains: list[Chain] | None = None
        self.made: list[Chain] = []  # those of the chains that are new

    def __repr__(self) -> str:
        return f"<Warming {self.managed!r}>"


class Draining:
    """A listener, or some of its filter chains, whose last connections are waited for."""

    __slots__ = ("_done", "chains", "listener", "version", "whole")

    def __init__(
        self, managed: Managed, chains: Sequence[Chain], whole: bool, done: Callable[[Draining], None]
    ) -> None:
        self.listener = managed.listener
        self.version = managed.version
        self.chains = chains
        self.whole = whole
        self._done = done

    def connections(self) -> list[Any]:
        """Those that are left."""
        if self.whole:
            return [*self.listener.pending, *self.listener.connections]
        return [one for one in self.listener.connections if one.chain in self.chains]

    def finish(self) -> None:
        """End what is left."""
        for connection in self.connections():
            connection.abort()
        self._done(self)

    def __repr__(self) -> str:
        return f"<Draining {len(self.chains)} filter chains of {self.listener!r}>"


class ListenerManager:
    """The listeners that are discovered, by name. ``active`` accept once it has ``started``, ``warming`` are to take their
    places.

    ``inherited`` are sockets of another process that nobody has wanted yet.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.active: dict[str, Managed] = {}
        self.warming: dict[str, Warming] = {}
        self.draining: list[Draining] = []
        self.started = False
        self.stopped = False
        self.inherited: Inherited = {}
        self._when_warm: Callable[[], None] | None = None

    # the beginning and the end

    def when_warm(self, callback: Callable[[], None]) -> None:
        """Call back once nothing is warming: at once, if so."""
        self._when_warm = callback
        self._check_warm()

    def stop(self) -> None:
        """Listeners that come accept nothing any more, and those that are warming never do."""
        self.started, self.stopped = False, True
        for name in list(self.warming):
            self._forget_warming(name)

    def close(self) -> None:
        """End all of it; the listeners in use are closed by whoever knows them."""
        for warming in self.warming.values():
            warming.waiting.cancel()
            if warming.chains is None:
                warming.managed.listener.close()
        self.warming.clear()
        for draining in list(self.draining):
            draining.finish()

    # changes

    def change(self, config: ListenerConfig, version: Version, others: Mapping[str, ListenerConfig]) -> None:
        """Take in a version of a listener; the one in use goes on until it is warm.

        ``others`` are the listeners of the bootstrap. Raises ValueError and OSError; then nothing changes.
        """
        if self.stopped:
            return
        name = config.name
        stats = self.surroundings.listener_manager_stats
        active = self.active.get(name)
        known = active is not None or name in self.warming
        try:
            if active is not None and self.started and _differs_in_chains(active.version, version):
                warming = self._new_chains(active, config, version)
            else:
                self.check_addresses(config, others)
                warming = self._new_listener(active, config, version)
        except OSError:
            stats.listener_create_failure += 1
            raise
        if known:
            stats.listener_modified += 1
        else:
            stats.listener_added += 1
        self._forget_warming(name)
        self.warming[name] = warming
        warming.waiting.begin(lambda: self._warm(name, warming))

    def remove(self, name: str) -> bool:
        """Accept no more connections, and let those that there are end; False if there is no such listener."""
        active = self.active.pop(name, None)
        was_warming = self._forget_warming(name)
        if active is not None:
            active.listener.shared = frozenset()  # what waits in the queues is served still
            active.listener.stop_accepting()
            self.surroundings.replaced(active.listener, None)
            self._drain(active, active.listener.chains, whole=True)
        if active is not None or was_warming:
            self.surroundings.listener_manager_stats.listener_removed += 1
        self._check_warm()
        return active is not None or was_warming

    def version_of(self, name: str) -> Version | None:
        """The newest version that there is."""
        warming = self.warming.get(name)
        if warming is not None:
            return warming.managed.version
        active = self.active.get(name)
        return None if active is None else active.version

    # how they change

    def _new_listener(self, active: Managed | None, config: ListenerConfig, version: Version) -> Warming:
        waiting = Waiting()
        listener = self.surroundings.make(config, waiting)
        lent: Inherited = {}
        if active is not None and _socket_options(config) == _socket_options(active.listener.config):
            lent = active.listener.lend_sockets()
        try:
            listener.bind(lent or self.inherited)
        except OSError:
            self.surroundings.dispose(listener, listener.chains, whole=True)
            raise
        finally:
            for sock in (sock for socks in lent.values() for sock in socks):
                sock.close()
        if lent or active is not None:
            listener.shared = frozenset()
        return Warming(config, Managed(listener, version), waiting)

    def _new_chains(self, active: Managed, config: ListenerConfig, version: Version) -> Warming:
        listener, waiting = active.listener, Waiting()
        there = dict(zip(active.version.chains, listener.chains, strict=True))
        wanted = iter(version.chains)
        warming = Warming(config, Managed(listener, version), waiting)
        kept: list[Chain] = []

        def find(chain: FilterChain) -> Chain | None:
            found = there.get(next(wanted))
            if found is not None:
                kept.append(found)
            return found

        warming.find_chain, warming.chains = self.surroundings.make_chains(listener, config, find, waiting)
        warming.made = [chain for chain in warming.chains if chain not in kept]
        return warming

    def _warm(self, name: str, warming: Warming) -> None:
        if self.warming.get(name) is not warming:
            return
        del self.warming[name]
        self.surroundings.listener_manager_stats.listener_create_success += 1
        active, managed = self.active.get(name), warming.managed
        self.active[name] = managed
        if warming.chains is not None:
            assert active is not None
            gone = managed.listener.take_chains(warming.config, warming.find_chain, warming.chains)
            self.surroundings.listener_manager_stats.listener_in_place_updated += 1
            self.surroundings.replaced(None, None)
            if gone:
                self._drain(active, gone, whole=False)
        else:
            if active is not None:
                # what waits in the queues of the sockets is for the new one
                active.listener.shared = frozenset(managed.listener.keys)
                active.listener.stop_accepting()
            self.surroundings.replaced(None if active is None else active.listener, managed.listener)
            if self.started:
                managed.listener.start()
            if active is not None:
                self._drain(active, active.listener.chains, whole=True)
        self._check_warm()

    def _forget_warming(self, name: str) -> bool:
        warming = self.warming.pop(name, None)
        if warming is None:
            return False
        warming.waiting.cancel()
        listener = warming.managed.listener
        if warming.chains is None:
            listener.shared = frozenset(self.active[name].listener.keys if name in self.active else ())
            listener.close()
            self.surroundings.dispose(listener, listener.chains, whole=True)
        else:
            self.surroundings.dispose(listener, warming.made, whole=False)
        return True

    def _drain(self, managed: Managed, chains: Sequence[Chain], *, whole: bool) -> None:
        draining = Draining(managed, list(chains), whole, self._drained)
        self.draining.append(draining)
        self.surroundings.drain(draining)

    def _drained(self, draining: Draining) -> None:
        if draining in self.draining:
            self.draining.remove(draining)
            self.surroundings.dispose(draining.listener, draining.chains, whole=draining.whole)

    def lends(self, config: ListenerConfig) -> bool:
        """Whether the version of a listener that is in use has all the sockets that this one needs."""
        active = self.active.get(config.name)
        if active is None:
            return False
        before = active.listener.config
        addresses = {key_of(config, address) for address, _ in addresses_of(config)}
        return addresses <= set(active.listener.keys) and _socket_options(config) == _socket_options(before)

    def check_addresses(self, config: ListenerConfig, others: Mapping[str, ListenerConfig]) -> None:
        """Raise ValueError for an address that another listener has: they would share its connections by chance."""
        if not config.bind_to_port:
            return
        mine = {str(address) for address, _ in addresses_of(config) if getattr(address, "port_value", 1)}
        configs = {name: managed.listener.config for name, managed in self.active.items()}
        configs |= {name: warming.config for name, warming in self.warming.items()}
        for name, other in {**others, **configs}.items():
            if name == config.name or not other.bind_to_port:
                continue
            both = mine.intersection(str(address) for address, _ in addresses_of(other))
            if both:
                where = ", ".join(sorted(both))
                raise ValueError(f"listener {name!r} listens on {where} already; give each listener its own address")

    def _check_warm(self) -> None:
        if self._when_warm is not None and not self.warming:
            callback, self._when_warm = self._when_warm, None
            callback()

    def __repr__(self) -> str:
        counts = f"{len(self.active)} listeners, {len(self.warming)} warming, {len(self.draining)} draining"
        return f"<ListenerManager {counts}>"


def _differs_in_chains(before: Version, after: Version) -> bool:
    return before.common == after.common and bool(after.chains)


def _socket_options(config: ListenerConfig) -> tuple[Any, ...]:
    """What a listening socket was made with."""
    return (
        config.socket_options,
        config.transparent,
        config.freebind,
        config.tcp_fast_open_queue_length,
        config.tcp_backlog_size,
        config.enable_reuse_port,
    )
