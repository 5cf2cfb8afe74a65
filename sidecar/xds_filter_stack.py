"""The composition root's part for HTTP filters whose configuration is discovered, loaded when a connection manager has one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sidecar.config.config_source import ConfigSource
from sidecar.core.discovery import Subscription
from sidecar.core.http_filter import HttpFilter
from sidecar.filters.registry import make_filter
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http_stack import ChainParts, asks_for_hosts
from sidecar.route_stack import ManagerRoutes, says_what_is_offered
from sidecar.telemetry.groups.server import ExtensionSubscriptionStats
from sidecar.xds.apply.extensions import EXTENSION, ExtensionWatcher

if TYPE_CHECKING:
    from sidecar.xds_stack import XdsStack


class DiscoveredFilter:
    """The filter in the place ``at`` of a connection manager's chain."""

    def __init__(self, manager: ConnectionManager, routes: ManagerRoutes, parts: ChainParts, at: int) -> None:
        self.manager = manager
        self.routes = routes
        self.parts = parts
        self.at = at
        self.default = parts.filters[at]

    @property
    def type_urls(self) -> Sequence[str]:
        discovery = self.default[0].discovery
        return () if discovery is None else discovery.type_urls

    def make(self, config: Any) -> HttpFilter:
        return make_filter(config, self.default[0].name, self.parts.context)

    def take(self, config: Any, made: HttpFilter) -> None:
        """New requests meet this filter, also on routes that have something to say to it."""
        before = self.parts.filters[self.at][1]
        self.parts.filters[self.at] = (replace(self.default[0], config=config), made)
        self._use()
        if before is not made and before is not self.default[1]:
            before.close()

    def take_default(self) -> None:
        before = self.parts.filters[self.at][1]
        self.parts.filters[self.at] = self.default
        self._use()
        if before is not self.default[1]:
            before.close()

    def close(self) -> None:
        """The connection manager is gone, and what stands in the chain is closed: so is what would take its place."""
        if self.parts.filters[self.at][1] is not self.default[1]:
            self.default[1].close()

    def _use(self) -> None:
        routes = self.routes
        self.manager.default_chain = self.parts.chain()
        routes.sessions = asks_for_hosts(one for one, _ in self.parts.filters)
        routes.offering = routes.offering or says_what_is_offered(one.config for one, _ in self.parts.filters)
        routes.check(routes.table.routes)
        routes.refit()

    def __repr__(self) -> str:
        return f"<DiscoveredFilter {self.default[0].name!r}>"


class SharedExtension:
    """A filter configuration, with its subscription."""

    def __init__(self, xds: XdsStack, name: str, source: ConfigSource) -> None:
        self.xds = xds
        self.name = name
        self.source = source
        with xds.stack.store.recording():  # they are not of the listener that is the first to ask
            self.stats = xds.stack.store.shared(
                ExtensionSubscriptionStats, f"extension_config_discovery.http_filter.{name}."
            )
        self.watcher = ExtensionWatcher(name, xds.judge, xds.pace, self.stats, xds.now)
        self._subscription: Subscription | None = None

    def subscribe(self) -> None:
        """Ask for it, if it is not asked for yet."""
        if self._subscription is None:
            self._subscription = self.xds.discovery.subscribe(
                self.source, f"type.googleapis.com/{EXTENSION}", (self.name,), self.watcher, self.stats
            )

    def close(self) -> None:
        """Nobody uses it any more."""
        self.xds.stack.store.release([self.stats])
        if self._subscription is not None:
            self._subscription.close()

    def __repr__(self) -> str:
        return f"<SharedExtension {self.watcher!r}>"


class XdsFilters:
    """The filter configurations that are asked for, each once for all connection managers that have it."""

    def __init__(self, xds: XdsStack) -> None:
        self.xds = xds
        self._shared: dict[tuple[str, ConfigSource], SharedExtension] = {}

    def discover(self, manager: ConnectionManager, routes: ManagerRoutes, parts: ChainParts) -> None:
        """Give the filters of a connection manager their configurations as they are discovered. Raises ValueError."""
        for at, (one, _) in enumerate(parts.filters):
            discovery = one.discovery
            if discovery is None:
                continue
            key = (one.name, discovery.config_source)
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = SharedExtension(self.xds, *key)
            place = DiscoveredFilter(manager, routes, parts, at)
            routes.close = partial(self._leave, key, place, routes.close)
            shared.watcher.join(place)
            self.xds.stack.waiting.add(
                f"FilterConfigSubscription init {one.name}",
                partial(self._start, shared, place, discovery.without_warming),
            )

    def _start(self, shared: SharedExtension, place: DiscoveredFilter, at_once: bool, there: Any) -> None:
        shared.subscribe()
        if at_once:
            there()
        else:
            shared.watcher.wait(place, there)

    def _leave(self, key: tuple[str, ConfigSource], place: DiscoveredFilter, close: Any) -> None:
        close()
        place.close()
        shared = self._shared.get(key)
        if shared is not None and place in shared.watcher.users and shared.watcher.leave(place):
            del self._shared[key]
            shared.close()

    def watchers(self) -> Iterator[ExtensionWatcher]:
        """One for each configuration that is asked for."""
        return (shared.watcher for shared in self._shared.values())

    def __repr__(self) -> str:
        return f"<XdsFilters {len(self._shared)} asked for>"
