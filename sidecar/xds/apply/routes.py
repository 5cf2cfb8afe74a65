"""RDS: one route configuration, for all connection managers that name it. Source: Envoy's "Route discovery service (RDS)"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from sidecar.config.route import RouteConfiguration, parse_route_configuration
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.apply.judging import LARGE, Judge, Refused, applying
from sidecar.xds.apply.records import Failure, Record, same

ROUTES: Final = "envoy.config.route.v3.RouteConfiguration"


class Table(Protocol):
    """A compiled route configuration."""

    @property
    def routes(self) -> tuple[Any, ...]: ...


class User(Protocol):
    """The routes of one connection manager."""

    def compile(self, config: RouteConfiguration) -> Any:
        """The table, without touching anything. Raises ValueError."""
        ...

    def steps(self, routes: tuple[Any, ...]) -> Iterable[tuple[Any, ...]]:
        """Routes in lots that are quickly gone through."""
        ...

    def fit(self, routes: Iterable[Any]) -> None:
        """Prepare routes for the clusters and filters that there are."""
        ...

    def check(self, routes: Iterable[Any]) -> None:
        """Make what routes say to filters. Raises ValueError."""
        ...

    def take(self, config: RouteConfiguration, table: Any) -> None:
        """Decide by this table from now on."""
        ...


class Counters(Protocol):
    """Below `http.<stat_prefix>.rds.<route_config_name>.`"""

    config_reload: int
    config_reload_time_ms: int
    update_empty: int


class RouteWatcher:
    """The ``ResourceWatcher`` of the route configuration called ``name``. All its users take a new version at the same time, or
    none of them does.
    """

    def __init__(self, name: str, judge: Judge, pace: Pace, stats: Counters, clock: Callable[[], float]) -> None:
        self.name = name
        self.judge = judge
        self.pace = pace
        self.stats = stats
        self.clock = clock
        self.config: RouteConfiguration | None = None
        self.record: Record | None = None
        self.answered = False
        self.size = 0
        self.users: dict[User, list[Callable[[], None]]] = {}

    # who uses it

    def join(self, user: User) -> None:
        """One more connection manager; it has no routes before ``begin``."""
        self.users[user] = []

    async def begin(self, user: User, there: Callable[[], None]) -> None:
        """Give a user what there is, and call ``there``; without anything yet, when there is, or nobody has answered."""
        config = self.config
        if config is not None:
            try:
                table = await self._table(user, config)
            except Refused:
                pass  # other users have filters of other kinds: this one goes without routes
            else:
                if user in self.users and self.config is config:
                    user.take(config, table)
        if self.answered:
            there()
        elif user in self.users:
            self.users[user].append(there)

    def leave(self, user: User) -> bool:
        """A connection manager is gone; whether it was the last."""
        self.users.pop(user, None)
        return not self.users

    # what comes

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        """A route configuration that is gone leaves what there is, as in Envoy."""
        resource = next((one for one in resources if one.name == self.name), None)
        if resource is None:
            self.stats.update_empty += 1
            self._answer()
            return ()
        if self.record is not None and same(self.record.payload, resource.payload):
            self.record.failure = None
            self._answer()
            return ()
        try:
            await self._apply(resource)
        except Refused as refused:
            if self.record is not None:
                self.record.failure = Failure(resource.payload, resource.version, str(refused), self.clock())
            return (Rejection(self.name, str(refused)),)
        finally:
            self._answer()
        return ()

    def on_unavailable(self) -> None:
        """Whoever waits goes on without routes."""
        self._answer()

    async def _apply(self, resource: DiscoveredResource) -> None:
        parse = partial(parse_route_configuration, validate_clusters=False)
        config = await self.judge.judge(resource, ROUTES, "route configuration", parse, self.pace)
        self.size = len(resource.payload.value)
        tables: dict[User, Table] = {}
        while missing := [user for user in self.users if user not in tables]:  # others may join meanwhile
            for user in missing:
                tables[user] = await self._table(user, config)
        for user in self.users:
            user.take(config, tables[user])
        self.config = config
        self.record = Record(self.name, resource.version, resource.payload, self.clock())
        self.stats.config_reload += 1
        self.stats.config_reload_time_ms = int(self.record.updated * 1000)

    async def _table(self, user: User, config: RouteConfiguration) -> Table:
        """The table of a user, ready to be taken as long as it is one. Raises Refused."""
        with applying("route configuration", self.name):
            if self.size > LARGE:
                table = await self.pace.aside(lambda: user.compile(config))
            else:
                table = user.compile(config)
            for lot in user.steps(table.routes):
                await self.pace.breathe()
                if user not in self.users:  # its connection manager ended meanwhile
                    break
                user.fit(lot)
                user.check(lot)
        found: Table = table
        return found

    def _answer(self) -> None:
        self.answered = True
        for user, waiting in self.users.items():
            self.users[user] = []
            for there in waiting:
                there()

    def __repr__(self) -> str:
        return f"<RouteWatcher {self.name!r} for {len(self.users)} connection managers>"
