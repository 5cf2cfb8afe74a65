"""The composition root's part for the routes of one connection manager, and all that hangs on them: they may change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sidecar.config.route import RouteConfiguration
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.forwarding import InternalHeaders
from sidecar.router.immediate_failure import attentive
from sidecar.router.observed_request import observed
from sidecar.router.route import Route
from sidecar.router.route_table import RouteTable, compile_route_configuration
from sidecar.telemetry.formatter import compile_header_value

if TYPE_CHECKING:
    from sidecar.express.request import ExpressLane
    from sidecar.http_stack import HttpStack

NO_ROUTES = RouteConfiguration("", ())
"""Of a connection manager whose routes have not come: every request gets 404."""

_FITTED_AT_ONCE = 50


def says_what_is_offered(filters: Iterable[object]) -> bool:
    """Whether any of these configurations of filters sets what connections to the upstream offer by ALPN."""
    return any(type(one).__name__ == "SetFilterState" and one.on_request_headers for one in filters)  # type: ignore[attr-defined]


def _nothing() -> None:
    """Nobody has to hear of it."""


def _no_lane() -> None:
    """There is no connection manager for it."""


class ManagerRoutes:
    """The routes of a connection manager. ``table`` stays the same object for ever; what it answers changes.

    ``sessions`` says that filters ask for hosts, ``offering`` that they say for all routes what is offered by ALPN;
    ``make_lane`` makes the manager's express lane anew.
    """

    __slots__ = ("close", "config", "heading", "internal", "make_lane", "manager", "offering", "sessions", "stack",
                 "stat_prefix", "suppress_headers", "table")  # fmt: skip

    def __init__(
        self,
        stack: HttpStack,
        heading: str,
        config: RouteConfiguration,
        suppress_headers: bool,
        sessions: bool,
        offering: bool,
    ) -> None:
        self.stack = stack
        self.heading = heading
        self.config = config
        self.suppress_headers = suppress_headers
        self.sessions = sessions
        self.offering = offering
        self.stat_prefix = ""
        self.internal = InternalHeaders(config.internal_only_headers)
        self.manager: ConnectionManager | None = None
        self.make_lane: Callable[[], ExpressLane | None] = _no_lane
        self.close: Callable[[], None] = _nothing
        self.table = self.compile(config)
        self.fit(self.table.routes)

    def compile(self, config: RouteConfiguration) -> RouteTable:
        """The table of a route configuration, which nobody uses yet. Raises ValueError. Touches nothing else, so that it may
        be done beside the loop.
        """
        return compile_route_configuration(
            config, compile_header_value, self.stack.worker.random, self.suppress_headers
        )

    def fit(self, routes: Iterable[Route]) -> None:
        """Let routes look at as much of responses as clusters and filters want."""
        stack = self.stack
        checks_health = stack.checks_health
        reporting = stack.reporting_clusters
        for route in routes:
            if route.kind != "forward":
                continue
            if checks_health and not route.upstream_request.attentive:
                route.upstream_request = attentive(route.upstream_request)
            if self.sessions or (reporting and (not route.cluster_name or route.cluster_name in reporting)):
                route.upstream_request = observed(route.upstream_request)
            if self.offering or (
                route.per_filter and says_what_is_offered(one.config for one in route.per_filter.values())
            ):
                from sidecar.router.offering_request import offering  # only for those who use it

                route.upstream_request = offering(route.upstream_request)

    def check(self, routes: Iterable[Route]) -> None:
        """Make the filter chains of routes that say something to filters. Raises ValueError for what is wrong in it."""
        manager = self.manager
        assert manager is not None
        for route in routes:
            if route.per_filter:
                manager.chain_for(route)

    def take(self, config: RouteConfiguration, table: RouteTable) -> None:
        """Decide by another table from the next request on; those under way keep their routes, and connections stay."""
        self.config = config
        self.table.become(table)
        if self.internal.take(config.internal_only_headers):
            self.renew_lane()
        elif self.manager is not None and self.manager.lane is not None:
            self.manager.lane.forget_routes()

    def end(self) -> None:
        """The connection manager is gone."""
        self.close()
        self.manager = None
        self.close = _nothing
        self.make_lane = _no_lane

    def refit(self) -> None:
        """Clusters have come that want to see more of responses, or filters have changed: look at everything anew."""
        self.fit(self.table.routes)
        self.renew_lane()

    def renew_lane(self) -> None:
        """What the express lane has learnt does not hold any more."""
        if self.manager is not None:
            self.manager.replace_lane(self.make_lane())

    def steps(self, routes: tuple[Route, ...]) -> Iterable[tuple[Route, ...]]:
        """Routes in lots that are quickly gone through."""
        return (routes[at : at + _FITTED_AT_ONCE] for at in range(0, len(routes), _FITTED_AT_ONCE))

    def __repr__(self) -> str:
        return f"<ManagerRoutes of {self.heading}: {self.table!r}>"
