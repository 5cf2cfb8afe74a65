"""The state of the world: each response has all that was asked for, or all that there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from sidecar.core.discovery import Rejection
from sidecar.xds.mux import Multiplexer, TypeState
from sidecar.xds.responses import decode, error_detail, without_doubles


class SotwState(TypeState):
    """``version`` is the last that was accepted, ``nonce`` that of the last response on this stream."""

    __slots__ = ("error", "named", "nonce", "unsaid", "version")

    def __init__(self, type_url: str) -> None:
        TypeState.__init__(self, type_url)
        self.version = ""
        self.nonce = ""
        self.error: Any = None
        self.unsaid = True
        self.named = False  # names were asked for on this stream, so that to ask for none means none


class SotwMultiplexer(Multiplexer[SotwState]):
    """Speaks `DiscoveryRequest` and `DiscoveryResponse`."""

    def make_state(self, type_url: str) -> SotwState:
        return SotwState(type_url)

    def want(self, type_url: str) -> None:
        self.types[type_url].unsaid = True
        Multiplexer.want(self, type_url)

    def make_request(self, state: SotwState) -> Any:
        if not state.unsaid:
            return None
        names = list(state.names)
        if state.wildcards:
            if names:
                names.insert(0, "*")
        elif not names and not state.named:
            return None  # it would mean all
        return DiscoveryRequest(
            type_url=state.type_url,
            resource_names=names,
            version_info=state.version,
            response_nonce=state.nonce,
            error_detail=state.error,
        )

    def on_sent(self, state: SotwState) -> None:
        state.unsaid = False
        state.error = None
        state.named = state.named or not state.wildcards

    def on_new_stream(self, state: SotwState) -> None:
        state.nonce = ""
        state.error = None
        state.named = False
        state.unsaid = True

    async def apply(self, state: SotwState, response: Any, current: Callable[[], bool]) -> None:
        version = response.version_info
        if not state.interests:
            # as Envoy: resources that nobody wants any more are not accepted, nor is it said
            if not response.resources:
                state.version = version
            if current():
                state.nonce = response.nonce
            return
        rejections: list[Rejection] = []
        lives: dict[str, float] = {}
        resources = without_doubles(
            await decode(response, rejections, lives, state.accepted.keys(), self.pace), rejections
        )
        whole = not rejections
        here = {resource.name for resource in resources}
        beats = [name for name in lives if name not in here]
        if rejections or resources or not beats:
            here.update(beats)
            again = [state.accepted[name].resource(name) for name in beats]
            rejections, bad = await self.hand_over(state, [*resources, *again], (), version, rejections, whole=whole)
            gone = [name for name in state.accepted if name not in here] if whole and state.wildcards else []
            await self.keep(state, resources, gone, bad)
        for name, seconds in lives.items():
            self.expire_in(state, name, seconds)
        if not rejections:
            state.version = version
        if current():
            state.nonce = response.nonce
            state.error = error_detail(rejections) if rejections else None
            self.want(state.type_url)
