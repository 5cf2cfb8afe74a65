"""Deltas: each response has what has changed since the one before, by name and version."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.xds.mux import Multiplexer, TypeState
from sidecar.xds.responses import error_detail, without_doubles

_ALL = "*"


class DeltaState(TypeState):
    """``asked`` is what the server of this stream knows of our interests; ``acks`` are nonces to answer, with errors."""

    __slots__ = ("acks", "asked", "fresh")

    def __init__(self, type_url: str) -> None:
        TypeState.__init__(self, type_url)
        self.asked: set[str] = set()
        self.acks: deque[tuple[str, Any]] = deque()
        self.fresh = True

    @property
    def all_names(self) -> dict[str, Any]:
        """All names that are asked for, ``*`` for everything among them."""
        return {_ALL: None, **self.wanted} if self.wildcards else self.wanted


class DeltaMultiplexer(Multiplexer[DeltaState]):
    """Speaks `DeltaDiscoveryRequest` and `DeltaDiscoveryResponse`."""

    def make_state(self, type_url: str) -> DeltaState:
        return DeltaState(type_url)

    def make_request(self, state: DeltaState) -> Any:
        wanted, asked = state.all_names, state.asked
        request = DeltaDiscoveryRequest(type_url=state.type_url)
        if state.fresh:
            if not wanted:
                return None
            if list(wanted) != [_ALL]:  # else to name nothing means all
                request.resource_names_subscribe.extend(sorted(wanted))
            for name, kept in state.accepted.items():
                if not state.wants(name):
                    continue
                request.initial_resource_versions[name] = kept.version
        else:
            request.resource_names_subscribe.extend(sorted(name for name in wanted if name not in asked))
            request.resource_names_unsubscribe.extend(sorted(asked.difference(wanted)))
        if state.acks:
            request.response_nonce, error = state.acks[0]
            if error is not None:
                request.error_detail.CopyFrom(error)
        elif not (state.fresh or request.resource_names_subscribe or request.resource_names_unsubscribe):
            return None
        return request

    def on_sent(self, state: DeltaState) -> None:
        state.fresh = False
        state.asked = set(state.all_names)
        if state.acks:
            state.acks.popleft()

    def on_new_stream(self, state: DeltaState) -> None:
        state.fresh = True
        state.asked.clear()
        state.acks.clear()

    def on_restored(self, state: DeltaState) -> None:
        # Only the first request of a stream can name what we have: without it we would never hear what is gone.
        if self.stream.is_open and not state.fresh:
            self.stream.restart()

    async def apply(self, state: DeltaState, response: Any, current: Callable[[], bool]) -> None:
        rejections: list[Rejection] = []
        resources: list[DiscoveredResource] = []
        lives: dict[str, float] = {}
        for one in response.resources:
            await self.pace.breathe()
            if one.HasField("ttl"):
                lives[one.name] = one.ttl.seconds + one.ttl.nanos / 1e9
            if not one.HasField("resource"):
                if one.name not in state.accepted:
                    lives.pop(one.name, None)
                    rejections.append(Rejection(one.name, "has no content, and none was received before"))
                continue
            packed = one.resource
            if packed.type_url != response.type_url:
                lives.pop(one.name, None)
                text = f"is a {packed.type_url}, in a response of type {response.type_url}"
                rejections.append(Rejection(one.name, text))
                continue
            resources.append(DiscoveredResource(one.name, one.version, packed))
        resources = without_doubles(resources, rejections)
        removed = list(response.removed_resources)
        version = response.system_version_info
        rejections, bad = await self.hand_over(state, resources, removed, version, rejections, whole=False)
        await self.keep(state, resources, removed, bad)
        for name, seconds in lives.items():
            self.expire_in(state, name, seconds)
        if current():
            state.acks.append((response.nonce, error_detail(rejections) if rejections else None))
            self.want(state.type_url)
