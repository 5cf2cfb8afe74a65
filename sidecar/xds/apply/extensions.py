"""ECDS: the configuration of one HTTP filter. Source: Envoy's "Extension config discovery service (ECDS)"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from sidecar.config.extensions import type_name_of
from sidecar.config.http_filters import parse_extension_config
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.apply.judging import Judge, Refused, applying
from sidecar.xds.apply.records import Record, same

EXTENSION: Final = "envoy.config.core.v3.TypedExtensionConfig"


class User(Protocol):
    """One filter of that name in a connection manager."""

    @property
    def type_urls(self) -> Sequence[str]:
        """The configurations that are allowed."""
        ...

    def make(self, config: Any) -> Any:
        """The filter, which nobody uses yet. Raises ValueError."""
        ...

    def take(self, config: Any, made: Any) -> None:
        """Use this filter from the next request on."""
        ...

    def take_default(self) -> None:
        """There is no configuration any more."""
        ...


class Counters(Protocol):
    """Below `extension_config_discovery.http_filter.<name>.`"""

    config_conflict: int
    config_fail: int
    config_reload: int


class ExtensionWatcher:
    """The ``ResourceWatcher`` of the filter configuration called ``name``. All its users take a new version, or none does."""

    def __init__(self, name: str, judge: Judge, pace: Pace, stats: Counters, clock: Callable[[], float]) -> None:
        self.name = name
        self.judge = judge
        self.pace = pace
        self.stats = stats
        self.clock = clock
        self.config: Any = None
        self.record: Record | None = None
        self.answered = False
        self.users: dict[User, list[Callable[[], None]]] = {}

    def join(self, user: User) -> None:
        """One more filter, which gets what there is."""
        self.users[user] = []
        if self.config is not None:
            user.take(self.config, user.make(self.config))

    def wait(self, user: User, there: Callable[[], None]) -> None:
        """``there`` is called when there is a configuration, or nobody has sent one in time."""
        if self.answered:
            there()
        elif user in self.users:
            self.users[user].append(there)

    def leave(self, user: User) -> bool:
        """A filter is gone; whether it was the last."""
        self.users.pop(user, None)
        return not self.users

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        """A configuration that a server takes away gives way to the default, as in Envoy."""
        resource = next((one for one in resources if one.name == self.name), None)
        try:
            if resource is not None:
                await self._apply(resource)
            elif self.name in removed:
                self.config = self.record = None
                for user in self.users:
                    user.take_default()
        except Refused as refused:
            self.stats.config_fail += 1
            return (Rejection(self.name, str(refused)),)
        finally:
            self._answer()
        return ()

    def on_unavailable(self) -> None:
        """Whoever waits goes on with the default."""
        self._answer()

    async def _apply(self, resource: DiscoveredResource) -> None:
        if self.record is not None and same(self.record.payload, resource.payload):
            return
        message = self.judge.unpack(resource.payload, EXTENSION)
        found = type_name_of(message.typed_config.type_url)
        for user in self.users:
            allowed = [type_name_of(type_url) for type_url in user.type_urls]
            if found not in allowed:
                raise Refused(f"is a {found}; type_urls allow {', '.join(allowed)}")
        config = await self.judge.judge(resource, EXTENSION, "filter", parse_extension_config, self.pace)
        with applying("filter", self.name):
            made = self._make(config)
            for user, one in made.items():
                user.take(config, one)
        self.config = config
        self.record = Record(self.name, resource.version, resource.payload, self.clock())
        self.stats.config_reload += 1

    def _make(self, config: Any) -> dict[User, Any]:
        made: dict[User, Any] = {}
        try:
            for user in self.users:
                made[user] = user.make(config)
        except BaseException:
            for one in made.values():
                one.close()
            raise
        return made

    def _answer(self) -> None:
        self.answered = True
        for user, waiting in self.users.items():
            self.users[user] = []
            for there in waiting:
                there()

    def __repr__(self) -> str:
        return f"<ExtensionWatcher {self.name!r} for {len(self.users)} filters>"
