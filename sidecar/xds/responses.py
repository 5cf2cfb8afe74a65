"""What a response holds, resource by resource, and what is answered about it."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, Final

from envoy.service.discovery.v3.discovery_pb2 import Resource
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from sidecar.config.extensions import UnknownType
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.resource_types import resource_name

_WRAPPER: Final = "type.googleapis.com/envoy.service.discovery.v3.Resource"
_INTERNAL: Final = 13
_MAX_MESSAGE: Final = 4096


async def decode(
    response: Any, rejections: list[Rejection], lives: dict[str, float], known: Container[str], pace: Pace
) -> list[DiscoveredResource]:
    """The resources of a response, each with its name; what cannot be read is rejected.

    A resource in a wrapper may have a time to live, which is added to ``lives``; one without content only prolongs the
    life of one that is ``known``.
    """
    resources = []
    for packed in response.resources:
        await pace.breathe()
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


def without_doubles(resources: list[DiscoveredResource], rejections: list[Rejection]) -> list[DiscoveredResource]:
    """``resources`` without those whose name occurs twice, which are rejected: nobody knows which one is meant."""
    counts: dict[str, int] = {}
    for resource in resources:
        counts[resource.name] = counts.get(resource.name, 0) + 1
    if len(counts) == len(resources):
        return resources
    rejections += [Rejection(name, "occurs twice in one response") for name, count in counts.items() if count > 1]
    return [resource for resource in resources if counts[resource.name] == 1]


def error_detail(rejections: Iterable[Rejection]) -> Any:
    """What a server is told of resources that were not applied."""
    text = "; ".join(f"{one.name}: {one.reason}" if one.name else one.reason for one in rejections)
    shown = text.encode()
    if len(shown) > _MAX_MESSAGE:
        text = shown[:_MAX_MESSAGE].decode(errors="ignore") + "...(truncated)"
    return Status(code=_INTERNAL, message=text)
