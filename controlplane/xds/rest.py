"""Discovery by polling: `POST /v3/discovery:listeners`, `:clusters`, for proxies whose bootstrap says `api_type: REST`.

Source: Envoy's "xDS REST and gRPC protocol", *REST-JSON polling subscriptions*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import MessageToJson, Parse, ParseError

from controlplane.model.credentials import Identity
from controlplane.model.encoded import Encoded
from controlplane.model.proxy import Proxy
from controlplane.xds import type_urls
from controlplane.xds.hub import Hub
from controlplane.xds.inlined import inlined
from controlplane.xds.node import InvalidNode, parse_node
from controlplane.xds.responses import version_of

RESOURCES: Final = {"listeners": type_urls.LISTENER, "clusters": type_urls.CLUSTER}


class RestDiscovery:
    """Answers one poll at a time; the version that a proxy has is in its request, so nothing is remembered of it.

    ``believe`` makes of a node the proxy that it is as far as the caller is believed, the same as on streams; it raises
    PermissionError with the reason.
    """

    def __init__(self, hub: Hub, believe: Callable[[Proxy, Identity], Proxy]) -> None:
        self.hub = hub
        self.believe = believe

    def answer(self, what: str, body: bytes, identity: Identity) -> tuple[int, bytes]:
        """HTTP status and body for a poll of `listeners` or `clusters`; 304 if the proxy has the newest version."""
        type_url = RESOURCES.get(what)
        if type_url is None:
            return 404, f"there is no discovery:{what}; there are {', '.join(RESOURCES)}\n".encode()
        try:
            request = Parse(body, DiscoveryRequest(), ignore_unknown_fields=True)
            proxy = self.believe(parse_node(request.node), identity)
        except (ParseError, InvalidNode, UnicodeDecodeError) as error:
            return 400, f"{error}\n".encode()
        except PermissionError as error:
            return 403, f"{error}\n".encode()
        found = inlined(type_url, lambda type_url, names: self._resources(proxy, type_url, names))
        version = version_of(found)
        if request.version_info == version:
            return 304, b""
        response = DiscoveryResponse(version_info=version, type_url=type_url)
        response.resources.extend(AnyMessage(type_url=type_url, value=one.value) for one in found)
        return 200, MessageToJson(response, preserving_proto_field_name=True, indent=None).encode()

    def _resources(self, proxy: Proxy, type_url: str, names: Collection[str] | None) -> Mapping[str, Encoded]:
        return self.hub.resources(proxy, type_url, names)
