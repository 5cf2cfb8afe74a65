"""Objects of a stream's filter state, made from the request: `extensions.filters.http.set_filter_state.v3.Config`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.core_types import parse_data_source
from sidecar.config.fields import Node
from sidecar.core.tls_options import APPLICATION_PROTOCOLS, ApplicationProtocols

TYPE = "envoy.extensions.filters.http.set_filter_state.v3.Config"


@dataclass(frozen=True, slots=True)
class FilterStateValue:
    """The object under `object_key`: names of protocols, as a connection to the upstream offers them by ALPN."""

    object_key: str
    protocols: ApplicationProtocols


@dataclass(frozen=True, slots=True)
class SetFilterState:
    """What is set when a request's head has come, in order: of two objects under one key the later one stays."""

    on_request_headers: tuple[FilterStateValue, ...] = ()


def parse_set_filter_state(node: Node) -> SetFilterState:
    """`Config`, of the filter and of routes."""
    return SetFilterState(tuple(map(_parse_value, node.children("on_request_headers"))))


def _parse_value(node: Node) -> FilterStateValue:
    """`filters.common.set_filter_state.v3.FilterStateValue`."""
    key = node.get("object_key") if node.which("key") == "object_key" else ""
    if key and key != APPLICATION_PROTOCOLS:
        node.refuse(f"{key!r} is not implemented by Mizzen", "object_key", f"known here: {APPLICATION_PROTOCOLS}")
    text = ""
    if node.which("value") == "format_string":
        form = node.child("format_string")
        source = form.child("text_format_source") if form and form.which("format") == "text_format_source" else None
        if source is not None:
            text = parse_data_source(source).decode("utf-8", "replace")
    if "%" in text:
        node.refuse("has operators, which Mizzen has not got here", "format_string", "write the protocols themselves")
    names = text.split(",")
    if not all(0 < len(name.encode()) < 256 for name in names):
        node.refuse(
            "has a name that ALPN cannot carry", "format_string", "write names of 1 to 255 bytes, with commas between"
        )
    return FilterStateValue(key, ApplicationProtocols(names))
