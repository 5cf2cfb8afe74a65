"""LDS: listeners come, change and go while the sidecar runs. Source: Envoy's "Listener discovery service (LDS)"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from sidecar.config.fields import Node
from sidecar.config.listener import Listener, parse_listener
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.apply.judging import Judge, Refused, applying
from sidecar.xds.apply.records import Record, Records

_log = logging.getLogger(__name__)

LISTENER: Final = "envoy.config.listener.v3.Listener"


class Listeners(Protocol):
    """The listeners of a worker, as LDS changes them."""

    def is_static_listener(self, name: str) -> bool:
        """Whether it stands in the bootstrap."""
        ...

    async def change_listener(self, config: Listener, message: Any, record: Record) -> None:
        """Take in a listener, which warms before it takes the place of an older one. Raises ValueError, OSError."""
        ...

    def drop_listener(self, name: str) -> None:
        """Let a listener go; its connections end in their time."""
        ...


class ListenerWatcher:
    """The ``ResourceWatcher`` of LDS. ``answered`` is called once, when the first update was applied or nobody has answered;
    ``around`` with True before and with False after each update: routes are asked for when all listeners are there.
    """

    def __init__(
        self,
        judge: Judge,
        pace: Pace,
        listeners: Listeners,
        records: Records,
        answered: Callable[[], None],
        around: Callable[[bool], None],
    ) -> None:
        self.judge = judge
        self.pace = pace
        self.listeners = listeners
        self.records = records
        self._answered: Callable[[], None] | None = answered
        self._around = around
        self._warned: set[str] = set()

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        """Those that are gone first, as in Envoy: their addresses are free for those that come."""
        rejections: list[Rejection] = []
        self._around(True)
        try:
            names = {resource.name for resource in resources}
            for name in [name for name in self.records.names() if name not in names] if whole else removed:
                await self.pace.breathe()
                self.records.drop(name)
                if not self.listeners.is_static_listener(name):
                    self.listeners.drop_listener(name)
            seen: set[str] = set()
            for resource in resources:
                try:
                    if resource.name in seen:
                        raise Refused("another listener of this update has the same name")
                    seen.add(resource.name)
                    await self._apply(resource)
                except Refused as refused:
                    rejections.append(Rejection(resource.name, str(refused)))
                    self.records.refuse(resource, str(refused))
        finally:
            self._around(False)
        if not rejections:
            self.records.version = version
        self._first_is_over()
        return rejections

    def on_unavailable(self) -> None:
        """Nobody has answered in time."""
        self._first_is_over()

    async def _apply(self, resource: DiscoveredResource) -> None:
        if self.records.is_known(resource):
            self.records.forgive(resource.name)
            return
        if self.listeners.is_static_listener(resource.name):
            if resource.name not in self._warned:
                self._warned.add(resource.name)
                _log.warning("listener %r is not taken: one of the bootstrap has this name, and stays", resource.name)
            return
        messages: list[Any] = []

        def parse(node: Node) -> Listener:
            messages.append(node.message)
            return parse_listener(node)

        config = await self.judge.judge(resource, LISTENER, "listener", parse, self.pace)
        with applying("listener", resource.name):
            await self.listeners.change_listener(config, messages[0], self.records.record(resource))
        self.records.keep(resource)

    def _first_is_over(self) -> None:
        if self._answered is not None:
            answered, self._answered = self._answered, None
            answered()

    def __repr__(self) -> str:
        return f"<ListenerWatcher {self.records!r}>"
