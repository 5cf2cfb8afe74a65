"""Route tables from literals, as they would stand in a file, and requests for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from sidecar.config.route import RouteConfiguration, parse_route_configuration
from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.router.route_table import RouteTable, compile_route_configuration
from tests.sidecar.config.building import build_with_warnings

ROUTES = "envoy.config.route.v3.RouteConfiguration"


def compile_format(text: str) -> Callable[[Any], bytes]:
    """A small substitution formatter: ``%REQ(name)%`` and ``%%``. Raises ValueError for anything else."""
    parts = re.split(r"%(REQ\([^)]*\))?%", text)
    for literal in parts[::2]:
        if "%" in (literal or ""):
            raise ValueError(f"wrong format {text!r}")

    def render(stream: Any) -> bytes:
        out = b""
        for at, part in enumerate(parts):
            if at % 2 == 0:
                out += (part or "").encode()
            elif part is None:
                out += b"%"
            else:
                out += stream.request.lookup(part[4:-1].lower().encode()) or b"-"
        return out

    return render


def configured(document: Mapping[str, Any]) -> RouteConfiguration:
    """The frozen configuration in a literal; its clusters may be ``a`` and ``b``."""
    return build_with_warnings(ROUTES, document, parse_route_configuration)[0]


def table(document: Mapping[str, Any], *, suppress_envoy_headers: bool = False, seed: int = 1) -> RouteTable:
    """The compiled form of a literal route configuration."""
    return compile_route_configuration(configured(document), compile_format, Random(seed), suppress_envoy_headers)


def one_host(*routes: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A route configuration with one virtual host for everything."""
    return {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": list(routes), **fields}]}


def named(name: str, match: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """A route that answers with its own name."""
    answer = {"status": 200, "body": {"inline_string": name}}
    return {"name": name, "match": match, "direct_response": answer, **fields}


def request(
    path: str = "/", host: str = "example.com", headers: Sequence[tuple[str, str]] = (), method: str = "GET"
) -> RequestHead:
    """A request as the HTTP stage hands it on."""
    fields: list[Field] = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return RequestHead(method.encode(), path.encode("latin-1"), host.encode(), fields)


class Stream(StreamInfo):
    """What routing sees of a stream."""

    __slots__ = ("data", "random")

    def __init__(self, head: RequestHead, remote: Address | None = None) -> None:
        connection = ConnectionInfo(1, Address("127.0.0.1", 80), remote or Address("127.0.0.2", 4000), 0.0)
        super().__init__(connection, head, 0.0, 0.0)
        self.data: dict[object, Any] = {}
        self.random = Random(1)


def stream(head: RequestHead | None = None, response: ResponseHead | None = None) -> Stream:
    """A stream for a request."""
    made = Stream(head or request())
    made.response = response
    return made
