"""A mesh for tests of the server alone: resources by type and name, the same for every proxy; and a thread that serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from controlplane.model.changes import Changes
from controlplane.model.encoded import Encoded, encode
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey
from controlplane.xds.admission import Admitted
from controlplane.xds.hub import Hub, Ignored
from controlplane.xds.server import DiscoveryServer, DiscoveryService
from controlplane.xds.type_urls import CLUSTER, ENDPOINTS, LISTENER, ROUTES

_Result = TypeVar("_Result")
_TYPES = {"cluster": CLUSTER, "endpoints": ENDPOINTS, "listener": LISTENER, "routes": ROUTES}


class PlainMesh:
    """Implements `Translator`: a change's keys are of the kinds `cluster`, `endpoints`, `listener` and `routes`, and their
    resources' ``spec`` is the message.
    """

    def __init__(self) -> None:
        self.by_type: dict[str, dict[str, Encoded]] = {type_url: {} for type_url in _TYPES.values()}

    def apply(self, changed: Mapping[ResourceKey, Resource | None]) -> Changes:
        for key, resource in changed.items():
            kept = self.by_type[_TYPES[key.kind]]
            kept.pop(key.name, None)
            if resource is not None:
                kept[key.name] = encode(key.name, resource.spec)
        return Changes(frozenset(changed))

    def scope(self, proxy: Proxy) -> Hashable:
        return ""

    def resources(self, proxy: Proxy, type_url: str, names: Collection[str] | None = None) -> Mapping[str, Encoded]:
        kept = self.by_type.get(type_url, {})
        return dict(kept) if names is None else {name: kept[name] for name in kept if name in names}

    def affected(self, changes: Changes, proxy: Proxy) -> Collection[str]:
        return {_TYPES[key.kind] for key in changes.resources}

    def affected_names(self, changes: Changes, type_url: str, names: Collection[str]) -> Collection[str]:
        return [key.name for key in changes.resources if _TYPES[key.kind] == type_url and key.name in names]

    def causes(self, proxy: Proxy, type_url: str, name: str) -> Collection[ResourceKey]:
        return ()

    def left_out(self, proxy: Proxy) -> Collection[tuple[str, Collection[ResourceKey]]]:
        return ()


class Served:
    """A hub and its server in a thread of their own, over any `Translator`; everybody counts as authenticated if ``trusting``."""

    def __init__(self, mesh: Any = None, *, trusting: bool = False) -> None:
        self._trusting = trusting
        self.loop = asyncio.new_event_loop()
        self.mesh = mesh or PlainMesh()
        self.refused: list[tuple[str, str]] = []
        self.connected: list[str] = []
        self.disconnected: list[str] = []
        self.health: list[tuple[str, bool, str]] = []
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.call(self._start())

    async def _start(self) -> None:
        self.hub = Hub(self.mesh, verdicts=_Refused(self.refused))

        async def on_connected(proxy: Proxy) -> bool:
            self.connected.append(proxy.id)
            return True

        async def on_disconnected(proxy: Proxy) -> None:
            self.disconnected.append(proxy.id)

        async def on_health(proxy: Proxy, healthy: bool, message: str) -> None:
            self.health.append((proxy.id, healthy, message))

        async def admit(proxy: Proxy, metadata: Mapping[str, Any], certificate: Any, source: str) -> Admitted:
            return Admitted(proxy)

        service = DiscoveryService(
            self.hub,
            admit=admit if self._trusting else None,
            on_connected=on_connected,
            on_disconnected=on_disconnected,
            on_health=on_health,
        )
        self.server = DiscoveryServer([service], "127.0.0.1", self.port)
        await self.server.start()
        self.port = self.server.address[1]

    def change(self, **kinds: Mapping[str, Any]) -> None:
        """`cluster={"name": message, "gone": None}`, ...: all of it one change."""
        changed: dict[ResourceKey, Resource | None] = {}
        for kind, by_name in kinds.items():
            for name, message in by_name.items():
                key = ResourceKey(kind, "", name)
                changed[key] = None if message is None else Resource(key, None, message, {})  # type: ignore[arg-type]
        self.loop.call_soon_threadsafe(self.hub.changed, changed)

    def call(self, coroutine: Any) -> Any:
        """Run this in the server's loop, and wait for its result."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(20)

    def ask(self, question: Callable[[], _Result]) -> _Result:
        """Call this in the server's loop."""

        async def answer() -> _Result:
            return question()

        result: _Result = self.call(answer())
        return result

    def settled(self) -> bool:
        """Whether every proxy has acknowledged everything, and nothing waits."""
        return self.ask(
            lambda: (
                not self.hub._waiting
                and all(
                    watch.settled and not watch.due and not watch.held
                    for session in self.hub.sessions
                    for watch in session.conversation.watches.values()
                )
            )
        )

    def restart(self) -> None:
        """As if the control plane had died and come back: all streams end, and it knows what it knew."""
        self.call(self.server.stop())
        self.call(self._start())

    def close(self) -> None:
        self.call(self.server.stop())
        self.hub.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class _Refused(Ignored):
    def __init__(self, into: list[tuple[str, str]]) -> None:
        self.into = into

    def judged(self, stream: object, proxy: Proxy, type_url: str, errors: Mapping[str, str]) -> None:
        self.into.extend((type_url, error) for error in errors.values())


@contextmanager
def serving() -> Iterator[Served]:
    served = Served()
    try:
        yield served
    finally:
        served.close()
