"""The state of the world: each response has all that was asked for, or all that there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, Resource
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError

from sidecar.config.extensions import UnknownType
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.xds.mux import Multiplexer, TypeState, error_detail, without_doubles
from sidecar.xds.resource_types import resource_name

_WRAPPER = "type.googleapis.com/envoy.service.discovery.v3.Resource"


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
        if state.is_wildcard:
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
        state.named = state.named or not state.is_wildcard

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
        resources = without_doubles(decode(response, rejections, lives, state.accepted.keys()), rejections)
        beats = [name for name in lives if name not in {resource.name for resource in resources}]
        whole = not rejections
        if not (beats and not resources and whole):
            rejections = await self.hand_over(
                state,
                resources if not beats else resources + self.unchanged(state, beats),
                (),
                version,
                rejections,
                whole=whole,
            )
        bad = {rejection.name for rejection in rejections}
        if "" not in bad or resources:
            here = {*beats, *(resource.name for resource in resources)}
            gone = [name for name in state.accepted if name not in here] if whole and state.is_wildcard else []
            self.keep(state, [] if "" in bad else resources, gone, bad)
        for name, seconds in lives.items():
            self.expire_in(state, name, seconds)
        if not rejections:
            state.version = version
        if current():
            state.nonce = response.nonce
            state.error = error_detail(rejections) if rejections else None
            self.want(state.type_url)

    def unchanged(self, state: SotwState, names: list[str]) -> list[DiscoveredResource]:
        """Resources that a response names without repeating them."""
        from sidecar.xds.mux import made

        return [made(name, state.accepted[name]) for name in names]


def decode(response: Any, rejections: list[Rejection], lives: dict[str, float], known: Any) -> list[DiscoveredResource]:
    """The resources of a response, each with its name; what cannot be read is rejected.

    A resource in a wrapper may have a time to live, which is added to ``lives``; one without content only prolongs the
    life of one that is ``known``.
    """
    resources = []
    for packed in response.resources:
        name, version = "", response.version_info
        if packed.type_url == _WRAPPER:
            try:
                wrapper = Resource.FromString(packed.value)
            except DecodeError:
                rejections.append(Rejection("", f"does not hold a {_WRAPPER}"))
                continue
            name = wrapper.name
            if wrapper.HasField("ttl"):
                lives[name] = wrapper.ttl.seconds + wrapper.ttl.nanos / 1e9
            if not wrapper.HasField("resource"):
                if name not in known:
                    lives.pop(name, None)
                    rejections.append(Rejection(name, "has no content, and none was received before"))
                continue
            version = wrapper.version or version
            packed = Packed(type_url=wrapper.resource.type_url, value=wrapper.resource.value)
        try:
            if packed.type_url != response.type_url:
                raise ValueError(f"is a {packed.type_url}, in a response of type {response.type_url}")
            name = name or resource_name(packed.type_url, packed.value)
        except (UnknownType, ValueError) as error:
            lives.pop(name, None)
            rejections.append(Rejection(name, str(error)))
            continue
        resources.append(DiscoveredResource(name, version, packed))
    return resources
