"""The headers that a route configuration, a virtual host, a route or a weighted cluster adds and removes."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.core_types import HeaderValueOption, parse_header_value_option
from sidecar.config.fields import Node
from sidecar.config.matcher import header_names


@dataclass(frozen=True, slots=True)
class HeaderMutations:
    """What one level does to the request's and the response's headers: first it removes, then it adds."""

    request_headers_to_add: tuple[HeaderValueOption, ...] = ()
    request_headers_to_remove: tuple[bytes, ...] = ()
    response_headers_to_add: tuple[HeaderValueOption, ...] = ()
    response_headers_to_remove: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(
            self.request_headers_to_add
            or self.request_headers_to_remove
            or self.response_headers_to_add
            or self.response_headers_to_remove
        )


NO_HEADER_MUTATIONS = HeaderMutations()


def parse_header_mutations(node: Node) -> HeaderMutations:
    """The four fields of this name that `node` has. Pseudo-headers and host may not be named, as in Envoy."""
    mutations = HeaderMutations(
        tuple(map(parse_header_value_option, node.children("request_headers_to_add"))),
        _parse_removals(node, "request_headers_to_remove"),
        tuple(map(parse_header_value_option, node.children("response_headers_to_add"))),
        _parse_removals(node, "response_headers_to_remove"),
    )
    return mutations or NO_HEADER_MUTATIONS


def _parse_removals(node: Node, field: str) -> tuple[bytes, ...]:
    names = header_names(node.get(field))
    for name in names:
        if name.startswith(b":") or name == b"host":
            node.refuse(f"{name.decode()} may not be removed: it is a pseudo-header or host", field, "take it out")
    return names
